/* measure.c - times two ways to compute one layer against each other. The tuner links it to the runtime and the layer's kernels; no bundle
 * has it. The model's steps tell by their op what they are: "prepare" makes memory look as it does inside of a network, and every run of
 * steps between two of them is one sample.
 *
 * A library with these functions is a module to TVM's loader, here and on a device that runs TVM's RPC server. With measure_main.c they are a
 * program. */
#include <stdint.h>
#include <string.h>

#include "measure.h"

/* Bytes of a work unit; inception_deploy.tuning.trial.UNIT. */
#define UNIT 4096
#define LINE 64
#define MAX_STEPS 4096

static id_model *model;
static double seconds[MAX_STEPS];
static int filled;

/* -- steps that prepare ------------------------------------------------------------------------------------------- */

/* Small numbers of both signs, once: zeros would draw less power, and memory that was never written is one page for all. Each is small
 * read as fp32 and as two bfloat16. */
int32_t id_measure_fill(void *const *args, int32_t lo, int32_t hi) {
  float *memory = args[0];
  if (filled) return 0;
  for (int64_t i = (int64_t)lo * UNIT / 4; i < (int64_t)hi * UNIT / 4; ++i) {
    const float number = (float)((uint32_t)i * UINT32_C(2654435761) >> 16) / 65536.0f - 0.5f;
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    bits = (bits & UINT32_C(0xffff0000)) | bits >> 16;
    memcpy(&memory[i], &bits, sizeof bits);
  }
  return 0;
}

/* Read other memory, as the layers in between do: what was in the nearer caches is in them no longer. */
int32_t id_measure_sweep(void *const *args, int32_t lo, int32_t hi) {
  const unsigned char *memory = args[0];
  uint32_t sum = 0;
  for (int64_t i = (int64_t)lo * UNIT; i < (int64_t)hi * UNIT; i += LINE) {
    uint32_t word;
    memcpy(&word, memory + i, sizeof word);
    sum += word;
  }
  volatile uint32_t sink = sum;
  return (void)sink, 0;
}

/* Write to every line of the inputs, as the layer before does: they are in the caches of the cores that wrote them. */
int32_t id_measure_produce(void *const *args, int32_t lo, int32_t hi) {
  unsigned char *memory = args[0];
  for (int64_t i = (int64_t)lo * UNIT; i < (int64_t)hi * UNIT; i += LINE) {
    volatile unsigned char *byte = memory + i;
    *byte = *byte;
  }
  return 0;
}

/* -- what TVM calls ----------------------------------------------------------------------------------------------- */

static int integer(any *result, int64_t value) {
  result->type = ANY_INT;
  result->zero = 0;
  result->value.integer = value;
  return 0;
}

int __tvm_ffi_measure(void *self, const any *arguments, int32_t count, any *result) {
  (void)self;
  void *none[1] = {NULL};
  if (count != 1 || arguments[0].type != ANY_INT || id_describe()->step_count > MAX_STEPS)
    return integer(result, ID_ERROR_ARGUMENT);
  int code = model ? ID_OK : id_open("/dev/null", (int)arguments[0].value.integer, &model);
  if (code == ID_OK) code = id_profile(model, (const void *const *)none, none, seconds);
  filled = code == ID_OK;
  return integer(result, code);
}

int __tvm_ffi_sample(void *self, const any *arguments, int32_t count, any *result) {
  (void)self;
  const id_info *info = id_describe();
  const int64_t wanted = count == 1 && arguments[0].type == ANY_INT ? arguments[0].value.integer : -1;
  int64_t found = -1;
  double total = -1;
  int inside = 0;
  for (uint32_t i = 0; i < info->step_count; ++i) {
    const int timed = strcmp(info->steps[i].op, "prepare") != 0;
    if (timed && !inside) ++found;
    if (timed && found == wanted) total = (inside ? total : 0) + seconds[i];
    inside = timed;
  }
  result->type = ANY_FLOAT;
  result->zero = 0;
  result->value.real = total;
  return 0;
}

int __tvm_ffi_finish(void *self, const any *arguments, int32_t count, any *result) {
  (void)self, (void)arguments, (void)count;
  id_close(model);
  model = NULL;
  filled = 0;
  return integer(result, 0);
}
