/* cuda_tables.h - what the generated model_cuda.c tells the CUDA runtime, beside id_model_tables. Not part of the public interface. */
#ifndef ID_CUDA_TABLES_H
#define ID_CUDA_TABLES_H

#include "model_tables.h"

/* In id_arg.space: memory that the launches of one step share. */
#define ID_SPACE_SCRATCH 4

/* A function of a GPU. */
typedef struct id_device_function {
  const char *name;
  uint32_t module; /* in id_architecture.images */
} id_device_function;

typedef struct id_launch {
  uint32_t function;
  uint32_t grid[3];
  uint32_t threads;   /* of a block, along x */
  uint32_t first_arg; /* into id_cuda_tables.args */
  uint32_t arg_count;
} id_launch;

/* One cubin for every module, for GPUs of this major version whose minor one is at least this. */
typedef struct id_architecture {
  int major, minor;
  const unsigned char *const *images;
} id_architecture;

typedef struct id_cuda_tables {
  const uint32_t *first_launch; /* of every step, and one more: the end of the last one's */
  const id_launch *launches;
  const id_arg *args;
  const id_device_function *functions;
  const id_architecture *architectures;
  uint32_t arg_count;
  uint32_t function_count;
  uint32_t module_count;
  uint32_t architecture_count;
  uint64_t scratch_bytes;
} id_cuda_tables;

extern const id_cuda_tables id_model_cuda;

#endif /* ID_CUDA_TABLES_H */
