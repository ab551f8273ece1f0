/* cuda_tables.h - what the generated model.c tells the device `cuda`, beside id_model_tables. Not part of the public interface. */
#ifndef ID_CUDA_TABLES_H
#define ID_CUDA_TABLES_H

#include "device.h"

/* A function of a GPU. */
typedef struct id_cuda_function {
  const char *name;
  uint32_t module; /* in id_cuda_architecture.images */
} id_cuda_function;

typedef struct id_cuda_launch {
  uint32_t function;
  uint32_t grid[3];
  uint32_t threads;   /* of a block, along x */
  uint32_t first_arg; /* in id_cuda_tables.args */
  /* The launches that have to be done before this one; the rest may run at the same time. */
  uint32_t first_after; /* in id_cuda_tables.after */
  uint32_t after_count;
} id_cuda_launch;

/* What a step does: launches, one after the other. */
typedef struct id_cuda_code {
  uint32_t first_launch; /* in id_cuda_tables.launches */
  uint32_t launch_count;
} id_cuda_code;

/* One cubin for every module, for GPUs of this major version whose minor one is at least this. */
typedef struct id_cuda_architecture {
  int major, minor;
  const unsigned char *const *images;
} id_cuda_architecture;

typedef struct id_cuda_tables {
  const id_cuda_launch *launches;
  const id_arg *args;    /* of the launches */
  const uint32_t *after; /* launches */
  const id_cuda_function *functions;
  const id_cuda_architecture *architectures;
  uint32_t arg_count;
  uint32_t launch_count;
  uint32_t function_count;
  uint32_t module_count;
  uint32_t architecture_count;
} id_cuda_tables;

extern const id_device id_cuda_device;

#endif /* ID_CUDA_TABLES_H */
