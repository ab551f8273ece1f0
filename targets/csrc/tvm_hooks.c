/* tvm_hooks.c - what TVM's own (not our templates') kernels call, without TVM.
 *
 * Such an object has weak, null variables of these names; the strong ones here take their place when the library is linked. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>

#define ALIGNMENT 64

typedef struct parallel_group {
  void *sync_handle;
  int32_t task_count;
} parallel_group;

typedef int (*parallel_lambda)(int task, parallel_group *group, void *data);

/* The runtime already runs steps and their units on all threads: a kernel's own parallel loop is one task. */
static int parallel_launch(parallel_lambda lambda, void *data, int task_count) {
  parallel_group group = {NULL, 1};
  (void)task_count;
  return lambda(0, &group, data);
}

static void *allocate(int device_type, int device, uint64_t bytes, int type_code, int type_bits) {
  (void)device_type, (void)device, (void)type_code, (void)type_bits;
  void *memory = NULL;
  if (bytes > SIZE_MAX - ALIGNMENT) return NULL;
  return posix_memalign(&memory, ALIGNMENT, bytes ? (size_t)bytes : 1) == 0 ? memory : NULL;
}

static int release(int device_type, int device, void *memory) {
  (void)device_type, (void)device;
  free(memory);
  return 0;
}

int (*__TVMBackendParallelLaunch)(parallel_lambda, void *, int) = parallel_launch;
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;
