/* model_tables.h - what the generated model.c tells the runtime. Not part of the public interface.
 *
 * A model is a list of steps in order. Each runs on one device and works on memories, which are rows of a table: whose it is, what
 * for, how large. Steps that follow each other on one device are a span. */
#ifndef ID_MODEL_TABLES_H
#define ID_MODEL_TABLES_H

#include "inception_deploy.h"

/* Weights and arrays are used as they lie in their files. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the runtime is for little-endian machines");

#define ID_ALIGNMENT 64u

/* inception_deploy.lower.plan.MemoryKind in the same order. */
enum {
  ID_MEMORY_ARENA = 0,   /* activations */
  ID_MEMORY_WEIGHTS = 1, /* a part of the weights file, read only */
  ID_MEMORY_INPUT = 2,   /* the caller's buffer of one input, which its device takes */
  ID_MEMORY_OUTPUT = 3,  /* the caller's buffer of one output, which its device gives */
  ID_MEMORY_SCRATCH = 4, /* used within a step */
  ID_MEMORY_COUNTERS = 5 /* int32, 0 between steps */
};

typedef struct id_memory {
  const char *name;
  uint64_t bytes;
  uint64_t first;  /* of weights: where in the file they begin */
  uint64_t copy;   /* of an input: where in the arena of its device an aligned copy may lie; UINT64_MAX for nowhere */
  uint32_t device; /* whose it is, in id_tables.devices */
  uint32_t kind;   /* ID_MEMORY_... */
  uint32_t port;   /* of inputs and outputs: which one */
} id_memory;

/* An address: `offset` bytes into a memory. */
typedef struct id_arg {
  uint64_t offset;
  uint32_t memory; /* in id_tables.memories */
} id_arg;

/* What a step does. */
typedef struct id_call {
  const void *code;   /* of the type that its device knows: id_cpu_code, id_cuda_code, ... */
  uint32_t first_arg; /* in id_tables.args */
  uint32_t arg_count;
} id_call;

/* Steps `first` <= step < `last`, all on one device. */
typedef struct id_span {
  uint32_t device; /* in id_tables.devices */
  uint32_t first, last;
} id_span;

struct id_device; /* device.h */

typedef struct id_device_row {
  const struct id_device *type;
  const void *tables; /* of the type that the device knows; NULL where it needs none */
} id_device_row;

typedef struct id_tables {
  id_info info;
  const id_device_row *devices; /* the CPU, which looks into the others' memories, is the last */
  const id_memory *memories;
  const id_span *spans; /* in order; together they have every step once */
  const id_call *calls; /* info.step_count of them, ordered by wave */
  const id_arg *args;
  uint32_t device_count;
  uint32_t memory_count;
  uint32_t span_count;
  uint32_t arg_count;
} id_tables;

extern const id_tables id_model_tables; /* plan 0 */

/* The same network for other numbers of images, in the order of id_open_plan. All have the same devices and weights. */
extern const id_tables *const id_model_plans[];
extern const uint32_t id_model_plan_count;

/* The weights, where the library holds them itself (`export --embed`); NULL where it does not. From a multiple of ID_ALIGNMENT on. */
extern const unsigned char *const id_model_weights;

#endif /* ID_MODEL_TABLES_H */
