/* device.h - what CUDA C needs to be compiled for a CPU (C++, no standard library): the tests put it before the generated kernels.
 *
 * A block's threads are fibers of one CPU thread (grid.c), so shared memory is static memory, which grid.c keeps where a block is put
 * aside, and a barrier a switch to the next fiber. */
#include <stdint.h>

#define alignas(bytes) __attribute__((aligned(bytes)))
#define __global__
#define __shared__ static __attribute__((section("sim_shared")))
#define __launch_bounds__(threads)
#define __syncthreads sim_barrier
#define threadIdx sim_thread
#define blockIdx sim_block

struct sim_index {
  unsigned int x, y, z;
};

extern "C" {
extern sim_index sim_thread, sim_block;
void sim_barrier(void), sim_earlier_done(void);
int sim_is_early(void);
extern struct id_state *sim_state; /* the block's */
float fmaf(float, float, float), expf(float), expm1f(float), erff(float), fabsf(float), logf(float), log1pf(float), sqrtf(float),
    tanhf(float), powf(float, float), floorf(float), ceilf(float), sinf(float), cosf(float), roundf(float), rintf(float),
    nearbyintf(float), truncf(float), log2f(float), log10f(float), exp2f(float), fmodf(float, float), tanf(float), sinhf(float),
    coshf(float), asinf(float), acosf(float), atanf(float), asinhf(float), acoshf(float), atanhf(float), atan2f(float, float);
}

struct float4 {
  float x, y, z, w;
} __attribute__((aligned(16)));

struct float2 {
  float x, y;
} __attribute__((aligned(8)));
struct ushort2 {
  unsigned short x, y;
} __attribute__((aligned(4)));
struct ushort4 {
  unsigned short x, y, z, w;
} __attribute__((aligned(8)));

struct uchar2 {
  unsigned char x, y;
} __attribute__((aligned(2)));
struct int4 {
  int x, y, z, w;
} __attribute__((aligned(16)));
struct uint2 {
  unsigned x, y;
} __attribute__((aligned(8)));
struct uint4 {
  unsigned x, y, z, w;
} __attribute__((aligned(16)));

static inline float4 make_float4(float x, float y, float z, float w) { return float4{x, y, z, w}; }
static inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
static inline float min(float a, float b) { return __builtin_fminf(a, b); }
template <class T> static inline T max(T a, T b) { return a > b ? a : b; }
template <class T> static inline T min(T a, T b) { return a < b ? a : b; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float exp10f(float x) { return powf(10.0f, x); }
static inline float __int_as_float(int bits) { return __builtin_bit_cast(float, bits); }

struct sim_kernel {
  const char *name;
  void (*call)(void **arguments);
  int barriers;
  char *shared, *shared_end;
};

/* -- what targets/cuda_source.py has beside a kernel ------------------------------------------------------------------------------
 *
 * A warp's instruction: each lane leaves its operands, all threads come to a barrier, and each takes its own part of the result. What
 * ldmatrix reads is read before that barrier, so that a copy that has not been waited for, or a barrier that is missing before it, shows. A
 * copy fills its place with NaNs when it starts, and lands at the wait. */
#define ID_SIMULATED
#define ID_THREADS 1024

struct id_pending {
  void *to;
  const void *from;
  int size, bytes, group, is_early;
  unsigned char found[16];
};
enum { ID_COPIES = 256 };

/* What a block has beside its shared memory. */
struct id_state {
  int before; /* parts counted when thread 0 counted its own */
  unsigned int left[2][ID_THREADS][6], turn[ID_THREADS];
  id_pending copies[ID_THREADS][ID_COPIES];
  int copy_count[ID_THREADS], group[ID_THREADS];
};
static_assert(sizeof(id_state) <= 16 << 20, "STATE of grid.c");

static inline void id_earlier_done() { sim_earlier_done(); }

static inline float id_float(unsigned int bits) {
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}
static inline unsigned int id_bits(float value) {
  unsigned int bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
}
static inline float id_from_half(unsigned short half) {
  const unsigned int sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 31) return id_float(sign | 0x7f800000u | fraction << 13);
  if (exponent) return id_float(sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = (float)fraction * 0x1p-24f;
  return sign ? -tiny : tiny;
}
static inline unsigned short id_to_half(float value) {
  const unsigned int bits = id_bits(value), sign = bits >> 16 & 0x8000u;
  const float size = fabsf(value);
  if (size != size) return (unsigned short)(sign | 0x7e00);
  if (size >= 65520.0f) return (unsigned short)(sign | 0x7c00);
  if (size < 0x1p-14f) return (unsigned short)(sign | (unsigned int)rintf(size * 0x1p24f)); /* ties to even */
  const unsigned int magnitude = bits & 0x7fffffffu;
  return (unsigned short)(sign | (magnitude - 0x38000000u + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

/* Blocks run one after the other, and what one has written is there for the next. */
static inline int id_last(int *counter, int parts) {
  __syncthreads();
  if (threadIdx.x == 0) {
    const int before = sim_state->before = *counter;
    if (before >= parts) __builtin_trap(); /* it was not 0 in the beginning */
    *counter = before == parts - 1 ? 0 : before + 1;
  }
  __syncthreads();
  return sim_state->before == parts - 1;
}

/* What this thread leaves for the others of its warp; they are all there on return. */
static inline unsigned int (*id_exchange(const unsigned int *mine, int count))[6] {
  id_state *block = sim_state;
  const unsigned int me = threadIdx.x, turn = block->turn[me]++ & 1;
  for (int i = 0; i < count; ++i) block->left[turn][me][i] = mine[i];
  __syncthreads();
  return block->left[turn] + me / 32 * 32;
}

static inline float id_from_brain(unsigned short bits) { return id_float((unsigned int)bits << 16); }
static inline unsigned short id_to_brain(float value) {
  const unsigned int bits = id_bits(value);
  if (value != value) return 0x7fff;
  return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* One number of a register: of 16 bits each, or of bytes without and with a sign. */
struct id_half { static double of(unsigned int word, unsigned int which) { return id_from_half((unsigned short)(word >> 16 * which)); } };
struct id_brain { static double of(unsigned int word, unsigned int which) { return id_from_brain((unsigned short)(word >> 16 * which)); } };
/* What id_to_tf32 has not been asked for would be cut off on a GPU: an error here. */
struct id_eleven {
  static double of(unsigned int word, unsigned int) {
    if (word & 0x1fffu) __builtin_trap();
    return id_float(word);
  }
};
static inline void id_to_tf32(unsigned int &bits) { /* a NaN, as what has not been copied yet is, stays one */
  const float value = id_float(bits);
  bits = value != value ? 0x7fffe000u : (bits + 0x1000u) & 0xffffe000u;
}
static inline void id_split(unsigned int &high, unsigned int &low, unsigned int first, unsigned int second) {
  const unsigned short a = id_to_brain(id_float(first)), b = id_to_brain(id_float(second));
  high = a | (unsigned int)b << 16;
  low = id_to_brain(id_float(first) - id_from_brain(a)) | (unsigned int)id_to_brain(id_float(second) - id_from_brain(b)) << 16;
}
struct id_unsigned { static int of(unsigned int word, unsigned int which) { return (unsigned char)(word >> 8 * which); } };
struct id_signed { static int of(unsigned int word, unsigned int which) { return (signed char)(word >> 8 * which); } };

/* `each` numbers a register; floats are summed in double, as a GPU's order is its own. */
template <class A, class B, class Sum, class Part, unsigned int each>
static inline void id_mma(Part &d0, Part &d1, Part &d2, Part &d3, const unsigned int *mine) {
  unsigned int(*warp)[6] = id_exchange(mine, 6);
  const unsigned int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  Part *d[4] = {&d0, &d1, &d2, &d3};
  for (int i = 0; i < 4; ++i) {
    const unsigned int row = g + 8 * (i >> 1), column = 2 * t + (i & 1);
    Sum sum = *d[i];
    for (unsigned int half = 0; half < 2; ++half)
      for (unsigned int k = 0; k < 4; ++k) {
        const unsigned int a = warp[row % 8 * 4 + k][(row >> 3) + 2 * half], b = warp[column * 4 + k][4 + half];
        for (unsigned int which = 0; which < each; ++which) sum += A::of(a, which) * B::of(b, which);
      }
    *d[i] = (Part)sum;
  }
}
#define ID_MMA(name, part, ...)                                                                                        \
  static inline void name(part &d0, part &d1, part &d2, part &d3, unsigned int a0, unsigned int a1, unsigned int a2, \
                          unsigned int a3, unsigned int b0, unsigned int b1) {                                        \
    const unsigned int mine[6] = {a0, a1, a2, a3, b0, b1};                                                            \
    id_mma<__VA_ARGS__>(d0, d1, d2, d3, mine);                                                                        \
  }
ID_MMA(id_mma_half, float, id_half, id_half, double, float, 2)
ID_MMA(id_mma_brain, float, id_brain, id_brain, double, float, 2)
ID_MMA(id_mma_tf32, float, id_eleven, id_eleven, double, float, 1)
ID_MMA(id_mma_bytes, int, id_unsigned, id_signed, int, int, 4)

static inline void id_ldmatrix(unsigned int &r0, unsigned int &r1, unsigned int &r2, unsigned int &r3, const void *row) {
  unsigned int mine[4];
  __builtin_memcpy(mine, row, 16);
  unsigned int(*warp)[6] = id_exchange(mine, 4);
  const unsigned int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  r0 = warp[g][t], r1 = warp[8 + g][t], r2 = warp[16 + g][t], r3 = warp[24 + g][t];
}

/* What a launch that has begun early reads, it reads now: the copy may be as quick as that. All else arrives as late as it may. */
static inline void id_copy(void *to, const void *from, int size, int bytes) {
  id_state *block = sim_state;
  const unsigned int me = threadIdx.x;
  if ((uint64_t)to % size || (uint64_t)from % size || block->copy_count[me] == ID_COPIES) __builtin_trap();
  __builtin_memset(to, 0xff, size);
  id_pending &it = block->copies[me][block->copy_count[me]++] = id_pending{to, from, size, bytes, block->group[me], sim_is_early(), {}};
  if (it.is_early) __builtin_memcpy(it.found, from, bytes);
}
static inline void id_copy_async(void *to, const void *from, int bytes) { id_copy(to, from, 16, bytes); }
static inline void id_copy_word(void *to, const void *from, int bytes) { id_copy(to, from, 4, bytes); }
static inline void id_copy_commit() { ++sim_state->group[threadIdx.x]; }
template <int N> static inline void id_copy_wait() {
  id_state *block = sim_state;
  const unsigned int me = threadIdx.x;
  int left = 0;
  for (int i = 0; i < block->copy_count[me]; ++i) {
    const id_pending &it = block->copies[me][i];
    if (it.group >= block->group[me] - N) {
      block->copies[me][left++] = it;
      continue;
    }
    __builtin_memset(it.to, 0, it.size);
    __builtin_memcpy(it.to, it.is_early ? it.found : it.from, it.bytes);
  }
  block->copy_count[me] = left;
}
