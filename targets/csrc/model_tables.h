/* model_tables.h - what the generated model.c tells the runtime. Not part of the public interface. */
#ifndef ID_MODEL_TABLES_H
#define ID_MODEL_TABLES_H

#include "inception_deploy.h"

/* The memory that a kernel's argument points into; inception_deploy.lower.plan.Space in the same order. */
enum { ID_SPACE_ARENA = 0, ID_SPACE_WEIGHTS = 1, ID_SPACE_INPUT = 2, ID_SPACE_OUTPUT = 3 };

#define ID_ALIGNMENT 64u

typedef struct id_arg {
  uint64_t offset; /* bytes into the space, or into the port */
  uint8_t space;
  uint16_t port; /* which input or output */
} id_arg;

/* Does the work units lo <= unit < hi on the memory that `args` point to. Not 0 where it fails. */
typedef int32_t (*id_kernel)(void *const *args, int32_t lo, int32_t hi);

typedef struct id_call {
  id_kernel kernel;
  uint32_t first_arg; /* into id_tables.args */
  uint32_t arg_count;
  int32_t units;      /* the kernel's work units; any range of them may be done by any thread */
  uint64_t cost;      /* of all units together, in multiply-adds or what takes as long as one */
} id_call;

typedef struct id_tables {
  id_info info;
  const id_call *calls; /* info.step_count of them, ordered by wave */
  const id_arg *args;
  const uint64_t *copies; /* per input: where in the arena an aligned copy may lie; UINT64_MAX for nowhere */
} id_tables;

extern const id_tables id_model_tables;

#endif /* ID_MODEL_TABLES_H */
