/* cuda_staging.h - page-locked memory between the caller's buffers and the GPU. Not public.
 *
 * The driver copies from and to the caller's own memory by way of pages of its own, a part at a time, while the caller's thread waits.
 * Out of page-locked memory the GPU fetches by itself. So a handle has some, for all ports: an input is copied there in pieces, and
 * while one travels the next is copied. To lock the caller's pages instead would cost a call into the kernel for each inference, and
 * they are the caller's to free. */
#ifndef ID_CUDA_STAGING_H
#define ID_CUDA_STAGING_H

#include "cuda_driver.h"
#include "device.h"

typedef struct id_cuda_staging {
  unsigned char *memory; /* NULL until made, and where there are no ports */
  uint64_t *places;      /* per row of the model's memories: where a port's is; the caller frees it */
} id_cuda_staging;

/* For the ports of the device `site->device`. All return an ID_ code, `what` is a row of the model's memories. */
int id_cuda_staging_make(const cu_driver *driver, id_cuda_staging *self, const id_site *site);
void id_cuda_staging_free(const cu_driver *driver, id_cuda_staging *self);

/* Take an input: `from` is the caller's again on return. What was in the place before has to be on the GPU: the stream was waited for. */
int id_cuda_staging_in(const cu_driver *driver, const id_cuda_staging *self, uint32_t what, cu_pointer to, const void *from, uint64_t bytes,
                       cu_stream stream);
/* Fetch an output; it is there when the stream has been waited for, and id_cuda_staging_give hands it on. */
int id_cuda_staging_out(const cu_driver *driver, const id_cuda_staging *self, uint32_t what, cu_pointer from, uint64_t bytes,
                        cu_stream stream);
void id_cuda_staging_give(const id_cuda_staging *self, uint32_t what, void *to, uint64_t bytes);

#endif /* ID_CUDA_STAGING_H */
