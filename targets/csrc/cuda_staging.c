/* cuda_staging.c - page-locked memory between the caller's buffers and the GPU. */
#include "cuda_staging.h"

#include <stdlib.h>
#include <string.h>

#include "inception_deploy.h"

#define ID_CUDA_PIECE ((uint64_t)1 << 20) /* of an input that is copied at once; a picture of 299 x 299 floats is one and a bit */
#define ID_CUDA_LINE 64u                  /* no two ports share a line of the processor's cache */

static int is_port(const id_site *site, const id_memory *memory) {
  return memory->device == site->device && (memory->kind == ID_MEMORY_INPUT || memory->kind == ID_MEMORY_OUTPUT);
}

int id_cuda_staging_make(const cu_driver *driver, id_cuda_staging *self, const id_site *site) {
  const id_tables *model = site->tables;
  self->places = calloc((size_t)model->memory_count + 1, sizeof *self->places);
  if (!self->places) return ID_ERROR_MEMORY;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < model->memory_count; ++i) {
    if (!is_port(site, &model->memories[i])) continue;
    self->places[i] = bytes;
    bytes += (model->memories[i].bytes + ID_CUDA_LINE - 1) / ID_CUDA_LINE * ID_CUDA_LINE;
  }
  if (!bytes) return ID_OK;
  if (bytes > SIZE_MAX) return ID_ERROR_MEMORY;
  void *memory = NULL;
  const int code = ID_CUDA(driver, host_allocate, &memory, (size_t)bytes, 0);
  if (code == CU_SUCCESS) self->memory = memory;
  return code == CU_SUCCESS ? ID_OK : code == CU_OUT_OF_MEMORY ? ID_ERROR_MEMORY : ID_ERROR_DEVICE;
}

void id_cuda_staging_free(const cu_driver *driver, id_cuda_staging *self) {
  if (self->memory) driver->host_free(self->memory);
  self->memory = NULL;
}

int id_cuda_staging_in(const cu_driver *driver, const id_cuda_staging *self, uint32_t what, cu_pointer to, const void *from, uint64_t bytes,
                       cu_stream stream) {
  unsigned char *place = self->memory + self->places[what];
  for (uint64_t at = 0; at < bytes; at += ID_CUDA_PIECE) {
    const size_t piece = (size_t)(bytes - at < ID_CUDA_PIECE ? bytes - at : ID_CUDA_PIECE);
    memcpy(place + at, (const unsigned char *)from + at, piece);
    if (ID_CUDA(driver, copy_in, to + at, place + at, piece, stream) != CU_SUCCESS) return ID_ERROR_DEVICE;
  }
  return ID_OK;
}

int id_cuda_staging_out(const cu_driver *driver, const id_cuda_staging *self, uint32_t what, cu_pointer from, uint64_t bytes,
                        cu_stream stream) {
  void *place = self->memory + self->places[what];
  return ID_CUDA(driver, copy_out, place, from, (size_t)bytes, stream) == CU_SUCCESS ? ID_OK : ID_ERROR_DEVICE;
}

void id_cuda_staging_give(const id_cuda_staging *self, uint32_t what, void *to, uint64_t bytes) {
  memcpy(to, self->memory + self->places[what], (size_t)bytes);
}
