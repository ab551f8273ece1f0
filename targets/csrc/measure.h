/* measure.h - the functions of measure.c, as TVM's loader calls them. */
#ifndef ID_MEASURE_H
#define ID_MEASURE_H

#include "inception_deploy.h"

/* TVMFFIAny of tvm-ffi 0.1: a value with its type. */
typedef struct any {
  int32_t type;
  uint32_t zero;
  union {
    int64_t integer;
    double real;
  } value;
} any;
enum { ANY_INT = 1, ANY_FLOAT = 3 };

/* measure(threads) -> 0, or a code of inception_deploy.h: all steps once. */
ID_API int __tvm_ffi_measure(void *self, const any *arguments, int32_t count, any *result);

/* sample(i) -> seconds of the i-th run of steps between two preparations; negative after the last. */
ID_API int __tvm_ffi_sample(void *self, const any *arguments, int32_t count, any *result);

/* finish() -> 0: gives back threads and memory. */
ID_API int __tvm_ffi_finish(void *self, const any *arguments, int32_t count, any *result);

#endif
