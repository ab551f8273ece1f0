/* cuda_weights.h - the weights on a GPU: once for all handles of a process, whatever plan they run. Not public. */
#ifndef ID_CUDA_WEIGHTS_H
#define ID_CUDA_WEIGHTS_H

#include "cuda_driver.h"
#include "device.h"

/* The device memory that holds the weights of `memory`: another handle's, or, where there is none, a new one with `data` in it, copied
 * before this returns. With the context of device `ordinal` current. Returns an ID_ code. */
int id_cuda_weights_take(const cu_driver *driver, int ordinal, const id_memory *memory, const unsigned char *data, cu_stream stream,
                         cu_pointer *pointer);

/* What was taken is not used any more. With that context current. */
void id_cuda_weights_give(const cu_driver *driver, cu_pointer pointer);

/* Device memory of at least one byte. Returns an ID_ code. */
int id_cuda_allocate(const cu_driver *driver, cu_pointer *pointer, uint64_t bytes);

#endif /* ID_CUDA_WEIGHTS_H */
