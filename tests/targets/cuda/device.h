/* device.h - what CUDA C needs to be compiled for a CPU (C++, no standard library): the tests put it before the generated kernels.
 *
 * A block's threads are fibers of one CPU thread, so shared memory is static memory and a barrier a switch to the next fiber. */
#include <stdint.h>

#define alignas(bytes) __attribute__((aligned(bytes)))
#define __global__
#define __shared__ static
#define __launch_bounds__(threads)
#define __syncthreads sim_barrier
#define threadIdx sim_thread
#define blockIdx sim_block

struct sim_index {
  unsigned int x, y, z;
};

extern "C" {
extern sim_index sim_thread, sim_block;
void sim_barrier(void);
float fmaf(float, float, float), expf(float), expm1f(float), erff(float), fabsf(float), logf(float), log1pf(float), sqrtf(float),
    tanhf(float), powf(float, float), floorf(float), ceilf(float), sinf(float), cosf(float), roundf(float), rintf(float),
    nearbyintf(float), truncf(float), log2f(float), log10f(float), exp2f(float), fmodf(float, float), tanf(float), sinhf(float),
    coshf(float), asinf(float), acosf(float), atanf(float), asinhf(float), acoshf(float), atanhf(float), atan2f(float, float);
}

struct float4 {
  float x, y, z, w;
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
};
