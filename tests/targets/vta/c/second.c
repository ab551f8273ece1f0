/* second.c - another driver of another VTA: the ten functions over an executor that shares nothing with the product's simulator.
 *
 * The engines are threads of control over one array of bytes, whose index is the physical address; an engine goes on as far as its tokens
 * let it, the last engine first. Upstream's default configuration, as upstream's HLS source executes it. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

enum { POOL = 96 << 20, FIRST = 0x3000, LARGEST = 32 << 20 };
enum { RUN_TIMES_OUT = 1, NO_DEVICE, NO_MEMORY, CROOKED };

static uint8_t *pool;
static uint64_t used;
static int fails, runs;

/* -- the ten ------------------------------------------------------------------------------------------------------ */

API void second_fails(int how) { fails = how; }

API int second_runs(void) { return runs; }

API void *VTAMemAlloc(size_t bytes, int cached) {
  (void)cached;
  void *memory = NULL;
  if (!pool && posix_memalign(&memory, 4096, POOL) == 0) pool = memory;
  if (!pool || fails == NO_MEMORY || bytes > LARGEST) return NULL;
  const uint64_t place = FIRST + (used + 4095) / 4096 * 4096 + (fails == CROOKED ? 8 : 0);
  if (place + bytes > POOL) return NULL;
  used = place + bytes - FIRST;
  memset(pool + place, 0xee, bytes);
  return pool + place;
}

API void VTAMemFree(void *memory) { (void)memory; }

API uintptr_t VTAMemGetPhyAddr(void *memory) { return (uintptr_t)((uint8_t *)memory - pool) + (fails == CROOKED ? 256 - 8 : 0); }

API void VTAMemCopyFromHost(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

API void VTAMemCopyToHost(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

API void VTAFlushCache(void *memory, uintptr_t address, int bytes) { (void)memory, (void)address, (void)bytes; }

API void VTAInvalidateCache(void *memory, uintptr_t address, int bytes) { (void)memory, (void)address, (void)bytes; }

API void *VTADeviceAlloc(void) { return fails == NO_DEVICE ? NULL : &fails; }

API void VTADeviceFree(void *device) { (void)device; }

/* -- execution ---------------------------------------------------------------------------------------------------- */

static int8_t inp[2048][16], wgt[1024][16][16], out[2048][16];
static int32_t acc[2048][16];
static uint32_t uops[8192];
static int tokens[4]; /* load to compute, compute to load, compute to store, store to compute */

typedef struct words {
  uint64_t low, high;
} words;

static uint64_t bits(uint64_t word, int first, int count) { return word >> first & ((UINT64_C(1) << count) - 1); }

static void transfer(words w) {
  const uint64_t type = bits(w.low, 7, 3), dram = bits(w.low, 26, 32), rows = bits(w.high, 0, 16), wide = bits(w.high, 16, 16),
                 stride = bits(w.high, 32, 16), top = bits(w.high, 48, 4), under = bits(w.high, 52, 4), left = bits(w.high, 56, 4),
                 right = bits(w.high, 60, 4);
  uint64_t at = bits(w.low, 10, 16);
  static const uint64_t sizes[] = {4, 256, 16, 64, 16};
  const uint64_t size = sizes[type];
  if (type == 4) {
    for (uint64_t y = 0; y < rows; ++y)
      for (uint64_t x = 0; x < wide; ++x) memcpy(pool + (dram + y * stride + x) * 16, out[at++], 16);
    return;
  }
  uint8_t *sram = type == 0 ? (uint8_t *)uops : type == 1 ? (uint8_t *)wgt : type == 2 ? (uint8_t *)inp : (uint8_t *)acc;
  if (type < 2) {
    for (uint64_t y = 0; y < (type ? rows : 1); ++y, at += wide) memcpy(sram + at * size, pool + (dram + y * stride) * size, wide * size);
    return;
  }
  for (uint64_t y = 0; y < top + rows + under; ++y)
    for (uint64_t x = 0; x < left + wide + right; ++x, ++at) {
      const int inside = y >= top && y < top + rows && x >= left && x < left + wide;
      if (inside) memcpy(sram + at * size, pool + (dram + (y - top) * stride + x - left) * size, size);
      else memset(sram + at * size, 0, size);
    }
}

static int32_t alu(uint64_t op, int32_t a, int32_t b) {
  if (op == 0) return a < b ? a : b;
  if (op == 1) return a > b ? a : b;
  if (op == 2) return (int32_t)((uint32_t)a + (uint32_t)b);
  const int amount = (int32_t)((uint32_t)b << 27) >> 27;
  return amount >= 0 ? a >> amount : (int32_t)((uint32_t)a << -amount);
}

static void compute(words w, int gemm) {
  const uint64_t reset = bits(w.low, 7, 1), begin = bits(w.low, 8, 13), end = bits(w.low, 21, 14), outer = bits(w.low, 35, 14),
                 inner = bits(w.low, 49, 14);
  const uint64_t op = bits(w.high, 44, 3), immediate = bits(w.high, 47, 1);
  const int32_t number = (int16_t)bits(w.high, 48, 16);
  for (uint64_t i = 0; i < outer; ++i)
    for (uint64_t j = 0; j < inner; ++j)
      for (uint64_t u = begin; u < end; ++u) {
        const uint64_t d = bits(uops[u], 0, 11) + i * bits(w.high, 0, 11) + j * bits(w.high, 11, 11);
        const uint64_t s = bits(uops[u], 11, 11) + i * bits(w.high, 22, 11) + j * bits(w.high, 33, 11);
        const uint64_t t = bits(uops[u], 22, 10) + i * bits(w.high, 44, 10) + j * bits(w.high, 54, 10);
        int32_t *goal = acc[d % 2048];
        for (int lane = 0; lane < 16; ++lane) {
          if (gemm) {
            int32_t sum = goal[lane];
            for (int k = 0; k < 16; ++k) sum += inp[s % 2048][k] * wgt[t % 1024][lane][k];
            out[d % 2048][lane] = (int8_t)sum;
            goal[lane] = reset ? 0 : sum;
          } else {
            goal[lane] = alu(op, goal[lane], immediate ? number : acc[s % 2048][lane]);
            out[d % 2048][lane] = (int8_t)goal[lane];
          }
        }
      }
}

static int engine_of(words w) {
  const uint64_t opcode = w.low & 7, type = bits(w.low, 7, 3);
  return opcode == 1 ? 2 : opcode == 0 && (type == 1 || type == 2) ? 0 : 1;
}

/* 1 where it was executed. */
static int step(words w) {
  static const int pops[3][2] = {{-1, 1}, {0, 3}, {2, -1}}, pushes[3][2] = {{-1, 0}, {1, 2}, {3, -1}};
  const int engine = engine_of(w);
  for (int next = 0; next < 2; ++next)
    if (bits(w.low, 3 + next, 1) && tokens[pops[engine][next]] == 0) return 0;
  for (int next = 0; next < 2; ++next)
    if (bits(w.low, 3 + next, 1)) --tokens[pops[engine][next]];
  const uint64_t opcode = w.low & 7;
  if (opcode <= 1) transfer(w);
  if (opcode == 2 || opcode == 4) compute(w, opcode == 2);
  for (int next = 0; next < 2; ++next)
    if (bits(w.low, 5 + next, 1)) ++tokens[pushes[engine][next]];
  return 1;
}

API int VTADeviceRun(void *device, uintptr_t stream, uint32_t count, uint32_t wait) {
  (void)device, (void)wait;
  ++runs;
  if (fails == RUN_TIMES_OUT) return 1;
  memset(tokens, 0, sizeof tokens);
  memset(acc, 0x77, sizeof acc); /* nothing that a stream may count on */
  memset(out, 0x77, sizeof out);
  uint32_t next[3] = {0, 0, 0};
  for (int moved = 1; moved;) {
    moved = 0;
    for (int engine = 2; engine >= 0; --engine)
      for (; next[engine] < count; ++next[engine]) {
        words w;
        memcpy(&w, pool + stream + 16 * (uint64_t)next[engine], 16);
        if (engine_of(w) != engine) continue;
        if (!step(w)) break;
        moved = 1;
      }
  }
  return next[0] < count || next[1] < count || next[2] < count;
}
