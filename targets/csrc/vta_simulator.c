/* vta_simulator.c - executes VTA's encoded instructions as a chosen hardware does, and stops where that hardware would go wrong.
 *
 * Compiled by inception_deploy.targets.vta.simulator behind the header that inception_deploy.targets.vta.isa generates (opcodes and the
 * numbers of fields). inception_deploy.targets.vta.reference is the same in Python, and what this is tested against.
 *
 * Three engines execute their own instructions in order; tokens order them against each other. Whether two accesses of one element are
 * ordered is known from vector clocks, so that a missing token is found whatever order things happen to run in. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "inception_deploy.h" /* ID_API */
#include "vta_simulator.h"

enum { LOAD_ENGINE, COMPUTE_ENGINE, STORE_ENGINE, ENGINES };
enum { LOAD_TO_COMPUTE, COMPUTE_TO_LOAD, COMPUTE_TO_STORE, STORE_TO_COMPUTE, TOKEN_QUEUES };

typedef struct clock3 {
  uint32_t of[ENGINES];
} clock3;

typedef struct token_queue {
  clock3 *tokens;
  uint32_t head, count, capacity;
} token_queue;

typedef struct uop3 {
  uint16_t dst, src, wgt, valid;
} uop3;

typedef struct machine {
  const vta_machine *is;
  const vta_place *fields;
  const uint8_t *code;
  uint32_t count;
  vta_region *regions;
  uint32_t region_count;
  uint32_t granule;
  vta_counts *counts;
  uop3 *uops;
  int8_t *inp, *wgt, *out;
  int32_t *acc;
  uint32_t *inp_written, *inp_read, *wgt_written, *wgt_read; /* epochs */
  uint32_t *out_written, *out_read;
  uint8_t *acc_valid;
  uint32_t *acc_step; /* the last step that updated it, from 1 on; 0 for none */
  uint32_t step;
  uint32_t stale; /* dst + 1 of the ALU step before, in the same instruction */
  clock3 clocks[ENGINES];
  token_queue queues[TOKEN_QUEUES];
  uint32_t current; /* the instruction that is executed */
  int avx2;         /* for tiles of 1 x 16 */
  int finished;     /* FINISH was the last thing that compute did */
  uint32_t fault;   /* the instruction at fault, when `message` says something */
  char *message;
} machine;

static const char *const ENGINE_NAMES[ENGINES] = {"load", "compute", "store"};

/* -- faults ------------------------------------------------------------------------------------------------------- */

static int fault(machine *m, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(m->message, VTA_MESSAGE, format, arguments);
  va_end(arguments);
  m->fault = m->current;
  return -1;
}

/* -- fields ------------------------------------------------------------------------------------------------------- */

static int64_t get(const machine *m, uint32_t instruction, int field) {
  const vta_place *place = &m->fields[field];
  const uint8_t *bytes = m->code + 16 * (size_t)instruction + 8 * (size_t)place->word;
  uint64_t word = 0;
  for (int i = 7; i >= 0; --i) word = word << 8 | bytes[i];
  uint64_t value = word >> place->shift & ((UINT64_C(1) << place->width) - 1);
  if (place->is_signed && value >> (place->width - 1)) return (int64_t)value - (INT64_C(1) << place->width);
  return (int64_t)value;
}

/* The first fields are of one place in every format. */
static int opcode_of(const machine *m, uint32_t i) { return (int)get(m, i, VTA_MEMORY_OPCODE); }

static int engine_of(const machine *m, uint32_t i) {
  const int opcode = opcode_of(m, i);
  if (opcode == VTA_STORE) return STORE_ENGINE;
  if (opcode != VTA_LOAD) return COMPUTE_ENGINE;
  const int64_t memory = get(m, i, VTA_MEMORY_MEMORY_TYPE);
  return memory == VTA_MEM_INP || memory == VTA_MEM_WGT ? LOAD_ENGINE : COMPUTE_ENGINE;
}

/* -- who knows of whom -------------------------------------------------------------------------------------------- */

/* What `engine` did in its instruction number `epoch` lies before what the engine at work does now. */
static int before(const machine *m, int at_work, int engine, uint32_t epoch) {
  return engine == at_work || m->clocks[at_work].of[engine] >= epoch;
}

static int unordered(machine *m, const char *memory, uint64_t index, int other, const char *did) {
  return fault(m, "%s[%llu] is not ordered after the %s engine %s it: a token is missing", memory, (unsigned long long)index,
               ENGINE_NAMES[other], did);
}

/* -- DRAM --------------------------------------------------------------------------------------------------------- */

static vta_region *find(machine *m, uint64_t address, uint64_t bytes) {
  uint32_t low = 0, high = m->region_count;
  while (low < high) {
    const uint32_t middle = (low + high) / 2;
    vta_region *region = &m->regions[middle];
    if (address < region->address) high = middle;
    else if (address - region->address >= region->bytes) low = middle + 1;
    else return bytes <= region->bytes - (address - region->address) ? region : NULL;
  }
  return NULL;
}

static const uint8_t *dram_read(machine *m, int engine, uint64_t address, uint64_t bytes) {
  vta_region *region = find(m, address, bytes);
  if (!region) {
    fault(m, "reads %llu bytes of DRAM at 0x%llx, outside of every buffer", (unsigned long long)bytes, (unsigned long long)address);
    return NULL;
  }
  const size_t start = (size_t)(address - region->address);
  for (size_t i = start / m->granule; i <= (start + (size_t)bytes - 1) / m->granule; ++i) {
    const uint32_t stored = region->stored[i];
    const unsigned long long at = (unsigned long long)(region->address + i * m->granule);
    if (stored == VTA_NEVER) {
      fault(m, "reads DRAM at 0x%llx, which nothing has written", at);
      return NULL;
    }
    if (m->is->ordered && stored && !before(m, engine, STORE_ENGINE, stored)) {
      unordered(m, "DRAM", at, STORE_ENGINE, "wrote");
      return NULL;
    }
    region->read[2 * i + (engine == COMPUTE_ENGINE)] = m->clocks[engine].of[engine];
  }
  return region->data + start;
}

static uint8_t *dram_write(machine *m, uint64_t address, uint64_t bytes) {
  vta_region *region = find(m, address, bytes);
  if (!region) {
    fault(m, "writes %llu bytes of DRAM at 0x%llx, outside of every buffer", (unsigned long long)bytes,
          (unsigned long long)address);
    return NULL;
  }
  const size_t start = (size_t)(address - region->address);
  for (size_t i = start / m->granule; i <= (start + (size_t)bytes - 1) / m->granule; ++i) {
    for (int other = LOAD_ENGINE; m->is->ordered && other <= COMPUTE_ENGINE; ++other)
      if (!before(m, STORE_ENGINE, other, region->read[2 * i + (other == COMPUTE_ENGINE)])) {
        unordered(m, "DRAM", region->address + i * m->granule, other, "read");
        return NULL;
      }
    region->stored[i] = m->clocks[STORE_ENGINE].of[STORE_ENGINE];
  }
  return region->data + start;
}

/* -- memory instructions ------------------------------------------------------------------------------------------ */

typedef struct transfer {
  int64_t memory, sram, dram, y_size, x_size, x_stride, top, bottom, left, right;
} transfer;

static transfer transfer_of(const machine *m, uint32_t i) {
  return (transfer){get(m, i, VTA_MEMORY_MEMORY_TYPE), get(m, i, VTA_MEMORY_SRAM_BASE), get(m, i, VTA_MEMORY_DRAM_BASE),
                    get(m, i, VTA_MEMORY_Y_SIZE),      get(m, i, VTA_MEMORY_X_SIZE),    get(m, i, VTA_MEMORY_X_STRIDE),
                    get(m, i, VTA_MEMORY_Y_PAD_0),     get(m, i, VTA_MEMORY_Y_PAD_1),   get(m, i, VTA_MEMORY_X_PAD_0),
                    get(m, i, VTA_MEMORY_X_PAD_1)};
}

static int32_t wrap(uint32_t value) {
  int32_t result;
  memcpy(&result, &value, sizeof result);
  return result;
}

/* Put one element into SRAM; `bytes` is NULL for zeros. */
static int put(machine *m, int engine, int64_t memory, uint64_t index, const uint8_t *bytes) {
  const vta_machine *is = m->is;
  const uint32_t epoch = m->clocks[engine].of[engine];
  if (memory == VTA_MEM_UOP) {
    uint32_t word = 0;
    for (int i = 3; bytes && i >= 0; --i) word = word << 8 | bytes[i];
    uint16_t values[3];
    for (int i = 0; i < 3; ++i) {
      const vta_place *place = &m->fields[VTA_UOP_DST + i];
      values[i] = (uint16_t)(word >> place->shift & ((UINT32_C(1) << place->width) - 1));
    }
    m->uops[index] = (uop3){values[0], values[1], values[2], 1};
    return 0;
  }
  if (memory == VTA_MEM_INP || memory == VTA_MEM_WGT) {
    const int is_inp = memory == VTA_MEM_INP;
    const size_t size = (size_t)(is_inp ? is->inp_bytes : is->wgt_bytes);
    uint32_t *read = is_inp ? m->inp_read : m->wgt_read;
    if (is->ordered && !before(m, engine, COMPUTE_ENGINE, read[index]))
      return unordered(m, is_inp ? "INP" : "WGT", index, COMPUTE_ENGINE, "read");
    int8_t *place = (is_inp ? m->inp : m->wgt) + index * size;
    if (bytes) memcpy(place, bytes, size);
    else memset(place, 0, size);
    (is_inp ? m->inp_written : m->wgt_written)[index] = epoch;
    return 0;
  }
  const int32_t lanes = is->batch * is->block;
  int32_t *place = m->acc + index * (size_t)lanes;
  for (int32_t i = 0; i < lanes; ++i) {
    if (!bytes) place[i] = 0;
    else if (memory == VTA_MEM_ACC_8BIT) place[i] = (int8_t)bytes[i];
    else {
      uint32_t word = 0;
      for (int k = 3; k >= 0; --k) word = word << 8 | bytes[4 * i + k];
      place[i] = wrap(word);
    }
  }
  if (!is->own_output && is->ordered && !before(m, engine, STORE_ENGINE, m->out_read[index]))
    return unordered(m, "ACC", index, STORE_ENGINE, "read");
  m->acc_valid[index] = 1;
  m->acc_step[index] = 0;
  return 0;
}

static int load(machine *m, int engine) {
  const vta_machine *is = m->is;
  transfer t = transfer_of(m, m->current);
  int64_t depth, size;
  switch (t.memory) {
    case VTA_MEM_UOP: depth = is->uop_depth, size = is->uop_bytes; break;
    case VTA_MEM_WGT: depth = is->wgt_depth, size = is->wgt_bytes; break;
    case VTA_MEM_INP: depth = is->inp_depth, size = is->inp_bytes; break;
    case VTA_MEM_ACC: depth = is->acc_depth, size = is->acc_bytes; break;
    case VTA_MEM_ACC_8BIT: depth = is->acc_depth, size = is->inp_bytes; break;
    default: return fault(m, "loads memory type %d, which cannot be loaded", (int)t.memory);
  }
  if (t.memory == VTA_MEM_ACC_8BIT && !is->acc_8bit) return fault(m, "loads ACC_8BIT, which this hardware lacks");
  if (is->flat_uops && t.memory == VTA_MEM_UOP) t.y_size = t.x_size > 0, t.top = t.bottom = t.left = t.right = 0;
  if (is->flat_uops && t.memory == VTA_MEM_WGT) t.top = t.bottom = t.left = t.right = 0;
  if (is->strict_memory) {
    if (t.x_size == 0) return 0;
    if (t.y_size == 0) return fault(m, "loads 0 rows, and hangs");
  } else if (!is->own_output && t.x_size == 0) {
    return 0;
  }
  const int64_t wide = t.left + t.x_size + t.right, high = t.top + t.y_size + t.bottom;
  if (wide * high == 0) return 0;
  if (t.sram + wide * high > depth)
    return fault(m, "fills elements %lld to %lld of a buffer of %lld", (long long)t.sram, (long long)(t.sram + wide * high - 1),
                 (long long)depth);
  for (int64_t y = 0; y < high; ++y) {
    const int64_t row = y - t.top;
    const uint8_t *source = NULL;
    if (row >= 0 && row < t.y_size && t.x_size > 0) {
      source = dram_read(m, engine, (uint64_t)(t.dram + row * t.x_stride) * (uint64_t)size, (uint64_t)(t.x_size * size));
      if (!source) return -1;
      m->counts->bytes[t.memory] += (uint64_t)(t.x_size * size);
    }
    for (int64_t x = 0; x < wide; ++x) {
      const int64_t column = x - t.left;
      const int inside = source && column >= 0 && column < t.x_size;
      if (put(m, engine, t.memory, (uint64_t)(t.sram + y * wide + x), inside ? source + column * size : NULL) != 0) return -1;
    }
  }
  return 0;
}

static int store(machine *m) {
  const vta_machine *is = m->is;
  const transfer t = transfer_of(m, m->current);
  if (t.memory != VTA_MEM_OUT) return fault(m, "stores memory type %d; only OUT can be stored", (int)t.memory);
  if (!is->store_pads && (t.top || t.bottom || t.left || t.right)) return fault(m, "stores with pads");
  if (t.x_size == 0) return 0;
  if (t.y_size == 0) return is->strict_memory ? fault(m, "stores 0 rows, which writes 65536") : 0;
  if (t.sram + t.x_size * t.y_size > is->acc_depth)
    return fault(m, "stores elements %lld to %lld of a buffer of %d", (long long)t.sram,
                 (long long)(t.sram + t.x_size * t.y_size - 1), (int)is->acc_depth);
  const int32_t lanes = is->batch * is->block;
  const uint32_t epoch = m->clocks[STORE_ENGINE].of[STORE_ENGINE];
  for (int64_t y = 0; y < t.y_size; ++y) {
    uint8_t *goal = dram_write(m, (uint64_t)(t.dram + y * t.x_stride) * (uint64_t)is->inp_bytes,
                               (uint64_t)(t.x_size * is->inp_bytes));
    if (!goal) return -1;
    m->counts->bytes[VTA_MEM_OUT] += (uint64_t)(t.x_size * is->inp_bytes);
    for (int64_t x = 0; x < t.x_size; ++x) {
      const uint64_t index = (uint64_t)(t.sram + y * t.x_size + x);
      if (is->own_output ? m->out_written[index] == VTA_NEVER : !m->acc_valid[index])
        return fault(m, "stores OUT[%llu], which nothing has written", (unsigned long long)index);
      if (is->ordered && is->own_output && !before(m, STORE_ENGINE, COMPUTE_ENGINE, m->out_written[index]))
        return unordered(m, "OUT", index, COMPUTE_ENGINE, "wrote");
      m->out_read[index] = epoch;
      for (int32_t i = 0; i < lanes; ++i)
        goal[x * lanes + i] =
            is->own_output ? (uint8_t)m->out[index * (size_t)lanes + (size_t)i] : (uint8_t)m->acc[index * (size_t)lanes + (size_t)i];
    }
  }
  return 0;
}

/* -- GEMM and ALU ------------------------------------------------------------------------------------------------- */

typedef struct loops {
  int64_t begin, end, outer, inner;
  int64_t dst[2], src[2], wgt[2]; /* factors: outer, inner */
} loops;

/* Whether there is anything to do; negative for a fault. */
static int has_steps(machine *m, const loops *l) {
  const vta_machine *is = m->is;
  if (l->outer <= 0 || l->inner <= 0 || l->begin >= l->end) {
    if (is->empty_loops) return 0;
    return fault(m, "runs an empty loop, which this hardware counts down from its largest number");
  }
  if (l->end > is->uop_depth) return fault(m, "runs micro-operation %lld of %d", (long long)(l->end - 1), (int)is->uop_depth);
  return 1;
}

static int updates(machine *m, uint64_t dst) {
  const vta_machine *is = m->is;
  const uint32_t last = m->acc_step[dst];
  if (is->distance && last && m->step - last < (uint32_t)is->distance)
    return fault(m, "updates ACC[%llu] again after %u steps; this hardware needs %d", (unsigned long long)dst, m->step - last,
                 (int)is->distance);
  if (is->ordered && !before(m, COMPUTE_ENGINE, STORE_ENGINE, m->out_read[dst]))
    return unordered(m, is->own_output ? "OUT" : "ACC", dst, STORE_ENGINE, "read");
  m->acc_step[dst] = m->step;
  return 0;
}

static int bound(machine *m, const char *memory, uint64_t index, int32_t depth) {
  if (index < (uint64_t)depth) return 0;
  return fault(m, "addresses %s[%llu], behind its %d elements", memory, (unsigned long long)index, (int)depth);
}

static int reads(machine *m, const char *memory, uint64_t index, uint32_t written) {
  if (written == VTA_NEVER) return fault(m, "reads %s[%llu], which nothing has written", memory, (unsigned long long)index);
  if (m->is->ordered && !before(m, COMPUTE_ENGINE, LOAD_ENGINE, written)) return unordered(m, memory, index, LOAD_ENGINE, "wrote");
  return 0;
}

#ifdef __x86_64__
/* The processor and its system have AVX2. */
static int has_avx2(void) {
  unsigned a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & 6) == 6 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_AVX2;
}

/* multiply() for one row of 16: products of pairs, then sums of neighbours. */
__attribute__((target("avx2"))) static void multiply_avx2(int32_t *sums, const int8_t *inp, const int8_t *wgt) {
  const __m256i in = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)inp));
  for (int o = 0; o < 16; o += 8) {
    __m256i p[8];
    for (int k = 0; k < 8; ++k)
      p[k] = _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(wgt + 16 * (o + k)))), in);
    const __m256i first = _mm256_hadd_epi32(_mm256_hadd_epi32(p[0], p[1]), _mm256_hadd_epi32(p[2], p[3]));
    const __m256i second = _mm256_hadd_epi32(_mm256_hadd_epi32(p[4], p[5]), _mm256_hadd_epi32(p[6], p[7]));
    const __m256i low = _mm256_permute2x128_si256(first, second, 0x20), high = _mm256_permute2x128_si256(first, second, 0x31);
    __m256i *goal = (__m256i *)(sums + o);
    _mm256_storeu_si256(goal, _mm256_add_epi32(_mm256_loadu_si256(goal), _mm256_add_epi32(low, high)));
  }
}
#endif

/* sums[b][o] += inp[b][i] * wgt[o][i]. Two sizes that a compiler sees through; the others go the general way. */
static void multiply(const machine *m, int32_t *sums, const int8_t *inp, const int8_t *wgt) {
  const int32_t batch = m->is->batch, block = m->is->block;
#ifdef __x86_64__
  if (m->avx2) {
    multiply_avx2(sums, inp, wgt);
    return;
  }
#endif
  if (batch == 1 && block == 16) {
    for (int o = 0; o < 16; ++o) {
      int32_t sum = 0;
      for (int i = 0; i < 16; ++i) sum += (int32_t)inp[i] * wgt[16 * o + i];
      sums[o] = wrap((uint32_t)sums[o] + (uint32_t)sum);
    }
    return;
  }
  for (int32_t b = 0; b < batch; ++b)
    for (int32_t o = 0; o < block; ++o) {
      int32_t sum = 0;
      for (int32_t i = 0; i < block; ++i) sum += (int32_t)inp[b * block + i] * wgt[o * block + i];
      sums[b * block + o] = wrap((uint32_t)sums[b * block + o] + (uint32_t)sum);
    }
}

static void narrow(machine *m, uint64_t dst, const int32_t *sums) {
  const int32_t lanes = m->is->batch * m->is->block;
  int8_t *out = m->out + dst * (size_t)lanes;
  for (int32_t i = 0; i < lanes; ++i) out[i] = (int8_t)(uint8_t)(uint32_t)sums[i];
  m->out_written[dst] = m->clocks[COMPUTE_ENGINE].of[COMPUTE_ENGINE];
}

static int gemm_step(machine *m, uint64_t dst, uint64_t src, uint64_t wgt, int reset) {
  const vta_machine *is = m->is;
  const size_t lanes = (size_t)is->batch * (size_t)is->block;
  const uint32_t epoch = m->clocks[COMPUTE_ENGINE].of[COMPUTE_ENGINE];
  ++m->step;
  if (bound(m, "ACC", dst, is->acc_depth) != 0 || updates(m, dst) != 0) return -1;
  int32_t *acc = m->acc + dst * lanes;
  if (reset) {
    ++m->counts->reset_steps;
    if (is->own_output && is->reset_writes) {
      const int known = src < (uint64_t)is->inp_depth && wgt < (uint64_t)is->wgt_depth && m->inp_written[src] != VTA_NEVER &&
                        m->wgt_written[wgt] != VTA_NEVER && m->acc_valid[dst];
      if (known) {
        multiply(m, acc, m->inp + src * (size_t)is->inp_bytes, m->wgt + wgt * (size_t)is->wgt_bytes);
        narrow(m, dst, acc);
        m->inp_read[src] = m->wgt_read[wgt] = epoch;
      } else {
        m->out_written[dst] = VTA_NEVER;
      }
    }
    memset(acc, 0, lanes * sizeof *acc);
    m->acc_valid[dst] = 1;
    return 0;
  }
  ++m->counts->gemm_steps;
  if (bound(m, "INP", src, is->inp_depth) != 0 || bound(m, "WGT", wgt, is->wgt_depth) != 0) return -1;
  if (reads(m, "INP", src, m->inp_written[src]) != 0 || reads(m, "WGT", wgt, m->wgt_written[wgt]) != 0) return -1;
  if (!m->acc_valid[dst]) return fault(m, "adds to ACC[%llu], which nothing has written", (unsigned long long)dst);
  multiply(m, acc, m->inp + src * (size_t)is->inp_bytes, m->wgt + wgt * (size_t)is->wgt_bytes);
  m->inp_read[src] = m->wgt_read[wgt] = epoch;
  narrow(m, dst, acc);
  return 0;
}

/* By how much to shift right; negative is left. A fault leaves it out of -31..31. */
static int64_t shift_of(const vta_machine *is, int64_t amount, int immediate, int64_t unused) {
  const int64_t low = amount & 31;
  if (is->shift == SHR_WRAPS) return low < 16 ? low : low - 32;
  if (is->shift == SHR_IMMEDIATE_WIDE && !immediate) return unused < 0 ? -((-amount) & 31) : low;
  return amount;
}

static int32_t shifted(int32_t value, int64_t right) {
  if (right < 0) return wrap((uint32_t)value << -right);
  return value < 0 ? (int32_t)~(~(uint32_t)value >> right) : (int32_t)((uint32_t)value >> right);
}

static int alu_step(machine *m, uint64_t dst, uint64_t src, int op, int immediate, int64_t imm) {
  const vta_machine *is = m->is;
  const size_t lanes = (size_t)is->batch * (size_t)is->block;
  const uint64_t from = immediate && is->immediate_src ? src : dst;
  const int two = !immediate;
  ++m->step;
  ++m->counts->alu_steps;
  if (bound(m, "ACC", dst, is->acc_depth) != 0) return -1;
  if ((two || is->immediate_src) && bound(m, "ACC", src, is->acc_depth) != 0) return -1;
  if (!m->acc_valid[from]) return fault(m, "reads ACC[%llu], which nothing has written", (unsigned long long)from);
  if (two && !m->acc_valid[src]) return fault(m, "reads ACC[%llu], which nothing has written", (unsigned long long)src);
  if (is->stale_alu && m->stale && (m->stale == (immediate ? from : src) + 1))
    return fault(m, "reads ACC[%llu], which the step before it has written: it sees what was there before",
                 (unsigned long long)(immediate ? from : src));
  if (is->distance && two && src != dst && m->acc_step[src] && m->step - m->acc_step[src] < (uint32_t)is->distance)
    return fault(m, "reads ACC[%llu] %u steps after its update; this hardware needs %d", (unsigned long long)src,
                 m->step - m->acc_step[src], (int)is->distance);
  if (updates(m, dst) != 0) return -1;
  m->stale = (uint32_t)dst + 1;
  int32_t *goal = m->acc + dst * lanes;
  const int32_t *first = m->acc + from * lanes, *second = m->acc + src * lanes;
  for (size_t i = 0; i < lanes; ++i) {
    const int32_t a = first[i];
    const int32_t b = immediate ? (int32_t)imm : second[i];
    switch (op) {
      case VTA_ALU_MIN: goal[i] = a < b ? a : b; break;
      case VTA_ALU_MAX: goal[i] = a > b ? a : b; break;
      case VTA_ALU_ADD: goal[i] = wrap((uint32_t)a + (uint32_t)b); break;
      case VTA_ALU_MUL: goal[i] = wrap((uint32_t)a * (uint32_t)b); break;
      default: {
        const int64_t right = shift_of(is, b, immediate, imm);
        if (right < -31 || right > 31) return fault(m, "shifts by %lld, which this hardware does not define", (long long)right);
        goal[i] = shifted(a, right);
      }
    }
  }
  m->acc_valid[dst] = 1;
  narrow(m, dst, goal);
  return 0;
}

static int compute(machine *m, int opcode) {
  const uint32_t i = m->current;
  const int is_gemm = opcode == VTA_GEMM;
  const int base = is_gemm ? VTA_GEMM_OPCODE : VTA_ALU_OPCODE;
  const int reset = (int)get(m, i, base + VTA_GEMM_RESET - VTA_GEMM_OPCODE);
  loops l = {get(m, i, base + VTA_GEMM_UOP_BGN - VTA_GEMM_OPCODE), get(m, i, base + VTA_GEMM_UOP_END - VTA_GEMM_OPCODE),
             get(m, i, base + VTA_GEMM_ITER_OUT - VTA_GEMM_OPCODE), get(m, i, base + VTA_GEMM_ITER_IN - VTA_GEMM_OPCODE),
             {get(m, i, base + VTA_GEMM_DST_OUT - VTA_GEMM_OPCODE), get(m, i, base + VTA_GEMM_DST_IN - VTA_GEMM_OPCODE)},
             {get(m, i, base + VTA_GEMM_SRC_OUT - VTA_GEMM_OPCODE), get(m, i, base + VTA_GEMM_SRC_IN - VTA_GEMM_OPCODE)},
             {0, 0}};
  if (is_gemm) l.wgt[0] = get(m, i, VTA_GEMM_WGT_OUT), l.wgt[1] = get(m, i, VTA_GEMM_WGT_IN);
  const int op = is_gemm ? 0 : (int)get(m, i, VTA_ALU_ALU_OPCODE);
  const int immediate = is_gemm ? 0 : (int)get(m, i, VTA_ALU_USE_IMM);
  const int64_t imm = is_gemm ? 0 : get(m, i, VTA_ALU_IMM);
  if (!is_gemm && (op > VTA_ALU_MUL || (op == VTA_ALU_MUL && !m->is->mul)))
    return fault(m, "does ALU operation %d, which this hardware lacks", op);
  const int some = has_steps(m, &l);
  m->stale = 0;
  for (int64_t y = 0; some > 0 && y < l.outer; ++y)
    for (int64_t x = 0; x < l.inner; ++x)
      for (int64_t u = l.begin; u < l.end; ++u) {
        const uop3 *uop = &m->uops[u];
        if (!uop->valid) return fault(m, "runs micro-operation %lld, which nothing has loaded", (long long)u);
        const uint64_t dst = uop->dst + (uint64_t)(y * l.dst[0] + x * l.dst[1]);
        const uint64_t src = uop->src + (uint64_t)(y * l.src[0] + x * l.src[1]);
        const uint64_t wgt = uop->wgt + (uint64_t)(y * l.wgt[0] + x * l.wgt[1]);
        const int code = is_gemm ? gemm_step(m, dst, src, wgt, reset) : alu_step(m, dst, src, op, immediate, imm);
        if (code != 0) return code;
      }
  return some < 0 ? some : 0;
}

/* -- tokens ------------------------------------------------------------------------------------------------------- */

/* The queue between `engine` and the one before (0) or after it (1): which it pops (0), which it pushes (1); -1 for none. */
static int queue_of(int engine, int next, int push) {
  static const int table[ENGINES][2][2] = {
      {{-1, -1}, {COMPUTE_TO_LOAD, LOAD_TO_COMPUTE}},
      {{LOAD_TO_COMPUTE, COMPUTE_TO_LOAD}, {STORE_TO_COMPUTE, COMPUTE_TO_STORE}},
      {{COMPUTE_TO_STORE, STORE_TO_COMPUTE}, {-1, -1}},
  };
  return table[engine][next][push];
}

/* 1: all tokens are there, and are taken; 0: not yet; negative: a fault. */
static int pop_tokens(machine *m, int engine) {
  token_queue *wanted[2] = {NULL, NULL};
  for (int next = 0; next < 2; ++next) {
    if (!get(m, m->current, next ? VTA_MEMORY_POP_NEXT : VTA_MEMORY_POP_PREV)) continue;
    const int number = queue_of(engine, next, 0);
    if (number < 0) return fault(m, "pops a token of a neighbour that the %s engine does not have", ENGINE_NAMES[engine]);
    wanted[next] = &m->queues[number];
    if (wanted[next]->count == 0) return 0;
  }
  clock3 *clock = &m->clocks[engine];
  for (int next = 0; next < 2; ++next) {
    if (!wanted[next]) continue;
    const clock3 *token = &wanted[next]->tokens[wanted[next]->head];
    for (int e = 0; e < ENGINES; ++e)
      if (token->of[e] > clock->of[e]) clock->of[e] = token->of[e];
    wanted[next]->head = (wanted[next]->head + 1) % wanted[next]->capacity;
    --wanted[next]->count;
  }
  ++clock->of[engine];
  return 1;
}

static int push_tokens(machine *m, int engine) {
  for (int next = 0; next < 2; ++next) {
    if (!get(m, m->current, next ? VTA_MEMORY_PUSH_NEXT : VTA_MEMORY_PUSH_PREV)) continue;
    const int number = queue_of(engine, next, 1);
    if (number < 0) return fault(m, "pushes a token to a neighbour that the %s engine does not have", ENGINE_NAMES[engine]);
    token_queue *queue = &m->queues[number];
    if (m->is->tokens && queue->count == (uint32_t)m->is->tokens)
      return fault(m, "pushes token %d into a queue of %d", (int)m->is->tokens + 1, (int)m->is->tokens);
    queue->tokens[(queue->head + queue->count) % queue->capacity] = m->clocks[engine];
    ++queue->count;
  }
  return 0;
}

/* -- the three engines -------------------------------------------------------------------------------------------- */

static int execute(machine *m, int engine) {
  const int opcode = opcode_of(m, m->current);
  ++m->counts->instructions;
  int code = 0;
  if (engine == COMPUTE_ENGINE) m->finished = opcode == VTA_FINISH;
  if (opcode == VTA_LOAD) code = load(m, engine);
  else if (opcode == VTA_STORE) code = store(m);
  else if (opcode == VTA_GEMM || opcode == VTA_ALU) code = compute(m, opcode);
  else if (opcode != VTA_FINISH) code = fault(m, "has opcode %d, which is none", opcode);
  return code != 0 ? code : push_tokens(m, engine);
}

static int ended(machine *m, uint32_t last_compute, uint32_t stores) {
  m->current = last_compute;
  if (!m->finished) return fault(m, "is the last one of the compute engine and no FINISH: nobody learns that the stream is done");
  if (!m->is->ordered) return 0;
  for (int i = 0; i < TOKEN_QUEUES; ++i)
    if (m->queues[i].count) return fault(m, "ends with %u tokens left in a queue", m->queues[i].count);
  if (m->clocks[COMPUTE_ENGINE].of[STORE_ENGINE] < stores) return fault(m, "does not wait for the last STORE");
  return 0;
}

static int run(machine *m) {
  uint32_t *lists[ENGINES], lengths[ENGINES] = {0, 0, 0}, done[ENGINES] = {0, 0, 0};
  uint32_t *all = malloc(((size_t)ENGINES * m->count + 1) * sizeof *all);
  if (!all) return fault(m, "has no memory to be simulated in");
  for (int e = 0; e < ENGINES; ++e) lists[e] = all + (size_t)e * m->count;
  uint32_t fetched = 0;
  int code = 0;
  for (int moved = 1; moved && code == 0;) {
    moved = 0;
    for (; fetched < m->count; ++fetched) {
      const int e = engine_of(m, fetched);
      if (m->is->commands && lengths[e] - done[e] >= (uint32_t)m->is->commands) break;
      lists[e][lengths[e]++] = fetched;
    }
    for (int e = 0; e < ENGINES && code == 0; ++e) {
      if (done[e] == lengths[e]) continue;
      m->current = lists[e][done[e]];
      code = pop_tokens(m, e);
      if (code <= 0) continue;
      code = execute(m, e);
      ++done[e];
      moved = 1;
    }
  }
  if (code == 0) {
    for (int e = 0; e < ENGINES && code == 0; ++e)
      if (done[e] < lengths[e]) {
        m->current = lists[e][done[e]];
        code = fault(m, "waits for a token that never comes: the stream hangs");
      }
    if (code == 0)
      code = ended(m, lengths[COMPUTE_ENGINE] ? lists[COMPUTE_ENGINE][lengths[COMPUTE_ENGINE] - 1] : m->count - 1, done[STORE_ENGINE]);
  }
  free(all);
  return code;
}

/* -- the way in --------------------------------------------------------------------------------------------------- */

static void *room(size_t count, size_t size, int fill) {
  void *memory = malloc(count * size + 1);
  if (memory) memset(memory, fill, count * size + 1);
  return memory;
}

/* Execute `count` instructions. Returns 0, or -1 with the instruction at fault and what it did. */
ID_API int vta_simulate(const vta_machine *is, const vta_place *fields, const uint8_t *code, uint32_t count, vta_region *regions,
                        uint32_t region_count, uint32_t granule, vta_counts *counts, uint32_t *at_fault, char *message) {
  machine m = {.is = is, .fields = fields, .code = code, .count = count, .regions = regions, .region_count = region_count,
               .granule = granule, .counts = counts, .message = message};
#ifdef __x86_64__
  m.avx2 = is->batch == 1 && is->block == 16 && has_avx2();
#endif
  const int fill = is->poisoned ? 0xff : 0; /* VTA_NEVER, or written before everything */
  const size_t acc = (size_t)is->acc_depth, inp = (size_t)is->inp_depth, wgt = (size_t)is->wgt_depth;
  m.uops = room((size_t)is->uop_depth, sizeof *m.uops, 0);
  for (int i = 0; m.uops && !is->poisoned && i < is->uop_depth; ++i) m.uops[i].valid = 1;
  m.inp = room(inp, (size_t)is->inp_bytes, 0);
  m.wgt = room(wgt, (size_t)is->wgt_bytes, 0);
  m.out = room(acc, (size_t)is->inp_bytes, 0);
  m.acc = room(acc, (size_t)is->acc_bytes, 0);
  m.inp_written = room(inp, sizeof(uint32_t), fill);
  m.inp_read = room(inp, sizeof(uint32_t), 0);
  m.wgt_written = room(wgt, sizeof(uint32_t), fill);
  m.wgt_read = room(wgt, sizeof(uint32_t), 0);
  m.out_written = room(acc, sizeof(uint32_t), fill);
  m.out_read = room(acc, sizeof(uint32_t), 0);
  m.acc_valid = room(acc, 1, !is->poisoned);
  m.acc_step = room(acc, sizeof(uint32_t), 0);
  int result = m.uops && m.inp && m.wgt && m.out && m.acc && m.inp_written && m.inp_read && m.wgt_written && m.wgt_read &&
                       m.out_written && m.out_read && m.acc_valid && m.acc_step
                   ? 0
                   : fault(&m, "has no memory to be simulated in");
  for (int i = 0; i < TOKEN_QUEUES; ++i) {
    m.queues[i].capacity = count + 1;
    m.queues[i].tokens = malloc(((size_t)count + 1) * sizeof(clock3));
    if (!m.queues[i].tokens) result = fault(&m, "has no memory to be simulated in");
  }
  if (result == 0) result = run(&m);
  *at_fault = m.fault;
  for (int i = 0; i < TOKEN_QUEUES; ++i) free(m.queues[i].tokens);
  free(m.uops), free(m.inp), free(m.wgt), free(m.out), free(m.acc);
  free(m.inp_written), free(m.inp_read), free(m.wgt_written), free(m.wgt_read), free(m.out_written), free(m.out_read);
  free(m.acc_valid), free(m.acc_step);
  return result;
}
