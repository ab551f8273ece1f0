/* cpu_tables.h - what the generated model.c tells the device `cpu`, beside id_model_tables. Not part of the public interface. */
#ifndef ID_CPU_TABLES_H
#define ID_CPU_TABLES_H

#include "device.h"

/* Does the work units lo <= unit < hi on the memory that `args` point to. Not 0 where it fails. */
typedef int32_t (*id_kernel)(void *const *args, int32_t lo, int32_t hi);

typedef struct id_cpu_code {
  id_kernel kernel;
  uint64_t cost; /* of all units together, in multiply-adds or what takes as long as one */
  int32_t units; /* any range of them may be done by any thread */
} id_cpu_code;

static inline const id_cpu_code *id_cpu_code_of(const id_tables *tables, uint32_t step) {
  return (const id_cpu_code *)tables->calls[step].code;
}

extern const id_device id_cpu_device;

#endif /* ID_CPU_TABLES_H */
