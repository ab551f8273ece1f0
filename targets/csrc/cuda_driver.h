/* cuda_driver.h - the part of CUDA's driver interface that a model needs, found at run time. Not public.
 *
 * The declarations are our own, so that neither the build machine nor the compiler needs NVIDIA's headers. The interface is stable:
 * where a function has changed, its name in the library carries a version, and that name is the one looked up. */
#ifndef ID_CUDA_DRIVER_H
#define ID_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

typedef uint64_t cu_pointer; /* into device memory */
typedef struct cu_context *cu_context;
typedef struct cu_module *cu_module;
typedef struct cu_function *cu_function;
typedef struct cu_stream *cu_stream;
typedef struct cu_event *cu_event;
typedef struct cu_graph *cu_graph;
typedef struct cu_node *cu_node;
typedef struct cu_executable *cu_executable;

/* CUDA_KERNEL_NODE_PARAMS_v2. */
typedef struct cu_kernel_node {
  cu_function function;
  unsigned int grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  void **arguments, **extra;
  void *kernel;       /* in place of `function`; NULL */
  cu_context context; /* NULL for the current one */
} cu_kernel_node;

/* CUgraphEdgeData: what of one node another waits for. All zeros: its end, and that what it wrote is there. */
typedef struct cu_edge {
  unsigned char from_port, to_port, type, reserved[5];
} cu_edge;

typedef int cu_attribute; /* an enumeration */

enum { CU_SUCCESS = 0, CU_INVALID_VALUE = 1, CU_OUT_OF_MEMORY = 2, CU_NOT_SUPPORTED = 801 };
enum { CU_COMPUTE_CAPABILITY_MAJOR = 75, CU_COMPUTE_CAPABILITY_MINOR = 76 };
enum { CU_STREAM_NON_BLOCKING = 1 };
enum { CU_EDGE_PROGRAMMATIC = 1, CU_PORT_PROGRAMMATIC = 1 };

/* name of the member, name in the library, parameters; all return a CUresult */
#define ID_CUDA_FUNCTIONS(X)                                                                                                   \
  X(init, "cuInit", (unsigned int flags))                                                                                      \
  X(device_count, "cuDeviceGetCount", (int *count))                                                                            \
  X(device_get, "cuDeviceGet", (int *device, int ordinal))                                                                     \
  X(device_attribute, "cuDeviceGetAttribute", (int *value, cu_attribute attribute, int device))                                \
  X(context_retain, "cuDevicePrimaryCtxRetain", (cu_context * context, int device))                                            \
  X(context_release, "cuDevicePrimaryCtxRelease_v2", (int device))                                                             \
  X(context_push, "cuCtxPushCurrent_v2", (cu_context context))                                                                 \
  X(context_pop, "cuCtxPopCurrent_v2", (cu_context * context))                                                                 \
  X(module_load, "cuModuleLoadData", (cu_module * module, const void *image))                                                  \
  X(module_unload, "cuModuleUnload", (cu_module module))                                                                       \
  X(module_function, "cuModuleGetFunction", (cu_function * function, cu_module module, const char *name))                      \
  X(memory_allocate, "cuMemAlloc_v2", (cu_pointer * pointer, size_t bytes))                                                    \
  X(memory_free, "cuMemFree_v2", (cu_pointer pointer))                                                                         \
  X(host_allocate, "cuMemHostAlloc", (void **memory, size_t bytes, unsigned int flags))                                        \
  X(host_free, "cuMemFreeHost", (void *memory))                                                                                \
  X(memory_set, "cuMemsetD8Async", (cu_pointer pointer, unsigned char value, size_t bytes, cu_stream stream))                  \
  X(words_set, "cuMemsetD32Async", (cu_pointer pointer, unsigned int value, size_t words, cu_stream stream))                   \
  X(copy_in, "cuMemcpyHtoDAsync_v2", (cu_pointer to, const void *from, size_t bytes, cu_stream stream))                        \
  X(copy_out, "cuMemcpyDtoHAsync_v2", (void *to, cu_pointer from, size_t bytes, cu_stream stream))                             \
  X(stream_create, "cuStreamCreate", (cu_stream * stream, unsigned int flags))                                                 \
  X(stream_wait, "cuStreamSynchronize", (cu_stream stream))                                                                    \
  X(stream_destroy, "cuStreamDestroy_v2", (cu_stream stream))                                                                  \
  X(launch, "cuLaunchKernel",                                                                                                  \
    (cu_function function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x,                \
     unsigned int block_y, unsigned int block_z, unsigned int shared_bytes, cu_stream stream, void **arguments, void **extra)) \
  X(graph_create, "cuGraphCreate", (cu_graph * graph, unsigned int flags))                                                     \
  X(graph_add_kernel, "cuGraphAddKernelNode_v2",                                                                               \
    (cu_node * node, cu_graph graph, const cu_node *after, size_t count, const cu_kernel_node *what))                          \
  X(graph_instantiate, "cuGraphInstantiateWithFlags", (cu_executable * made, cu_graph graph, unsigned long long flags))        \
  X(node_set, "cuGraphExecKernelNodeSetParams_v2", (cu_executable made, cu_node node, const cu_kernel_node *what))              \
  X(graph_launch, "cuGraphLaunch", (cu_executable graph, cu_stream stream))                                                    \
  X(graph_destroy, "cuGraphDestroy", (cu_graph graph))                                                                         \
  X(executable_destroy, "cuGraphExecDestroy", (cu_executable made))                                                            \
  X(event_create, "cuEventCreate", (cu_event * event, unsigned int flags))                                                     \
  X(event_record, "cuEventRecord", (cu_event event, cu_stream stream))                                                         \
  X(event_elapsed, "cuEventElapsedTime", (float *milliseconds, cu_event start, cu_event end))                                  \
  X(event_destroy, "cuEventDestroy_v2", (cu_event event))                                                                      \
  X(error_name, "cuGetErrorName", (int code, const char **name))

/* The same of what only newer drivers have: NULL with an older one. From CUDA 12.3 on. */
#define ID_CUDA_LATER_FUNCTIONS(X)                                                                                             \
  X(graph_add_edges, "cuGraphAddDependencies_v2",                                                                              \
    (cu_graph graph, const cu_node *from, const cu_node *to, const cu_edge *edges, size_t count))

typedef struct cu_driver {
#define ID_CUDA_MEMBER(member, name, parameters) int(*member) parameters;
  ID_CUDA_FUNCTIONS(ID_CUDA_MEMBER)
  ID_CUDA_LATER_FUNCTIONS(ID_CUDA_MEMBER)
#undef ID_CUDA_MEMBER
} cu_driver;

/* Call a function of the driver. Where it fails, id_detail names it and the driver's error. */
#define ID_CUDA(driver, member, ...) id_cuda_told((driver), id_cuda_names.member, (driver)->member(__VA_ARGS__))

typedef struct cu_names {
#define ID_CUDA_NAME(member, name, parameters) const char *member;
  ID_CUDA_FUNCTIONS(ID_CUDA_NAME)
  ID_CUDA_LATER_FUNCTIONS(ID_CUDA_NAME)
#undef ID_CUDA_NAME
} cu_names;

extern const cu_names id_cuda_names;

/* Returns `code`. Of several failures since id_forget the first is told: what comes after it is its consequence. */
int id_cuda_told(const cu_driver *driver, const char *function, int code);

/* Load libcuda.so.1, look up every function and initialise it. Returns an ID_ code; where that is an error,
 * id_detail says why. The library is never unloaded: it keeps threads of
 * its own, and other users of the GPU in the process share it. */
int id_cuda_load(cu_driver *driver);

#endif /* ID_CUDA_DRIVER_H */
