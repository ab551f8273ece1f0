/* cuda_weights.c - the weights on a GPU, counted by those who use them. */
#define _GNU_SOURCE
#include "cuda_weights.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "common.h"

typedef struct held {
  struct held *next;
  cu_pointer pointer;
  uint64_t first, bytes; /* of the weights file, which is the library's one */
  int ordinal;
  pid_t process; /* the child of a fork() finds what is its parent's, and has no share in it */
  uint32_t users;
} held;

static held *all;
static atomic_flag lock = ATOMIC_FLAG_INIT;

int id_cuda_allocate(const cu_driver *driver, cu_pointer *pointer, uint64_t bytes) {
  if (bytes > SIZE_MAX) return ID_ERROR_MEMORY;
  const int code = ID_CUDA(driver, memory_allocate, pointer, bytes ? (size_t)bytes : 1);
  if (code != CU_SUCCESS) *pointer = 0;
  return code == CU_SUCCESS ? ID_OK : code == CU_OUT_OF_MEMORY ? ID_ERROR_MEMORY : ID_ERROR_DEVICE;
}

static held *find(int ordinal, const id_memory *memory) {
  for (held *it = all; it; it = it->next)
    if (it->ordinal == ordinal && it->first == memory->first && it->bytes == memory->bytes && it->process == getpid()) return it;
  return NULL;
}

static int make(const cu_driver *driver, held *it, const unsigned char *data, cu_stream stream) {
  const int code = id_cuda_allocate(driver, &it->pointer, it->bytes);
  if (code != ID_OK || !it->bytes) return code;
  const int copied = ID_CUDA(driver, copy_in, it->pointer, data + it->first, (size_t)it->bytes, stream);
  /* Waited for here: the next handle that takes them has a stream of its own. */
  return ID_CUDA(driver, stream_wait, stream) == CU_SUCCESS && copied == CU_SUCCESS ? ID_OK : ID_ERROR_DEVICE;
}

static int take(const cu_driver *driver, int ordinal, const id_memory *memory, const unsigned char *data, cu_stream stream,
                cu_pointer *pointer) {
  held *it = find(ordinal, memory);
  if (!it) {
    it = calloc(1, sizeof *it);
    if (!it) return ID_ERROR_MEMORY;
    it->first = memory->first, it->bytes = memory->bytes, it->ordinal = ordinal, it->process = getpid();
    const int code = make(driver, it, data, stream);
    if (code != ID_OK) {
      if (it->pointer) driver->memory_free(it->pointer);
      free(it);
      return code;
    }
    it->next = all;
    all = it;
  }
  ++it->users;
  *pointer = it->pointer;
  return ID_OK;
}

int id_cuda_weights_take(const cu_driver *driver, int ordinal, const id_memory *memory, const unsigned char *data, cu_stream stream,
                         cu_pointer *pointer) {
  id_lock(&lock);
  const int code = take(driver, ordinal, memory, data, stream, pointer);
  id_unlock(&lock);
  return code;
}

void id_cuda_weights_give(const cu_driver *driver, cu_pointer pointer) {
  id_lock(&lock);
  for (held **at = &all; *at; at = &(*at)->next) {
    held *it = *at;
    if (it->pointer != pointer || it->process != getpid()) continue;
    if (--it->users == 0) {
      driver->memory_free(pointer);
      *at = it->next;
      free(it);
    }
    break;
  }
  id_unlock(&lock);
}
