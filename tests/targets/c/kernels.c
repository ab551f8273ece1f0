/* kernels.c - kernels for the tests of the runtime. A unit is 16 floats; `count` below is their number in all, a multiple of 16. */
#include <stdint.h>

typedef int32_t kernel(void *const *args, int32_t lo, int32_t hi);
kernel t_gather, t_copy, t_count, t_fail, t_wait, t_sum20, t_tvm;

enum { COUNT = 4096 };

/* As TVM's compiler leaves them in every object: variables that a runtime may fill in. */
typedef struct group {
  void *sync;
  int32_t tasks;
} group;
typedef int (*lambda)(int task, group *group, void *data);
__attribute__((weak)) int (*__TVMBackendParallelLaunch)(lambda, void *, int) = 0;
__attribute__((weak)) void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = 0;
__attribute__((weak)) int (*__TVMBackendFreeWorkspace)(int, int, void *) = 0;

typedef struct job {
  const float *in;
  float *space;
} job;

static int double_part(int task, group *group, void *data) {
  const job *job = data;
  for (int i = task; i < 16; i += group->tasks) job->space[i] = 2 * job->in[i];
  return 0;
}

/* What a kernel of TVM's own does with its runtime: workspace, and a parallel loop. */
int32_t t_tvm(void *const *args, int32_t lo, int32_t hi) {
  const float *in = args[0];
  float *out = args[1];
  for (int32_t unit = lo; unit < hi; ++unit) {
    job job = {in + 16 * unit, __TVMBackendAllocWorkspace(1, 0, 16 * sizeof(float), 2, 32)};
    if (!job.space || (uintptr_t)job.space % 64 != 0) return -1;
    if (__TVMBackendParallelLaunch(double_part, &job, 0) != 0) return -1;
    for (int i = 0; i < 16; ++i) out[16 * unit + i] = job.space[i];
    if (__TVMBackendFreeWorkspace(1, 0, job.space) != 0) return -1;
  }
  return 0;
}

/* Every unit reads what many others wrote one wave before: a missing barrier shows. */
int32_t t_gather(void *const *args, int32_t lo, int32_t hi) {
  const float *in = args[0], *weight = args[1];
  float *out = args[2];
  for (int32_t i = 16 * lo; i < 16 * hi; ++i) out[i] = in[(5 * i + 3) % COUNT] + weight[i];
  return 0;
}

int32_t t_copy(void *const *args, int32_t lo, int32_t hi) {
  const float *in = args[0];
  float *out = args[1];
  for (int32_t i = 16 * lo; i < 16 * hi; ++i) out[i] = in[i];
  return 0;
}

/* A unit that is done twice, or never, shows. */
int32_t t_count(void *const *args, int32_t lo, int32_t hi) {
  float *out = args[0];
  for (int32_t i = 16 * lo; i < 16 * hi; ++i) out[i] += 1;
  return 0;
}

int32_t t_fail(void *const *args, int32_t lo, int32_t hi) {
  const float *in = args[0];
  float *out = args[1];
  for (int32_t i = 16 * lo; i < 16 * hi; ++i) {
    if (in[i] == 13) return -1;
    out[i] = in[i];
  }
  return 0;
}

/* Says that it runs, and does not return before somebody writes into the input. */
int32_t t_wait(void *const *args, int32_t lo, int32_t hi) {
  const volatile float *in = args[0];
  volatile float *out = args[1];
  out[16 * lo] = -1;
  while (in[0] == 0) {
  }
  for (int32_t i = 16 * lo; i < 16 * hi; ++i) out[i] = in[i];
  return 0;
}

/* Of 20 arrays; more arguments than any processor passes in registers. */
int32_t t_sum20(void *const *args, int32_t lo, int32_t hi) {
  float *out = args[20];
  for (int32_t i = 16 * lo; i < 16 * hi; ++i) {
    out[i] = 0;
    for (int a = 0; a < 20; ++a) out[i] += (float)(a + 1) * ((const float *)args[a])[i];
  }
  return 0;
}
