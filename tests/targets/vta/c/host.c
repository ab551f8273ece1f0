/* host.c - kernels of the host around a VTA: floats to bytes, bytes turned upside down, bytes to floats. */
#include <stdint.h>

enum { COUNT = 128 };

int32_t v_take(void *const *args, int32_t lo, int32_t hi) {
  const float *in = args[0];
  int8_t *out = args[1];
  for (int32_t i = COUNT * lo; i < COUNT * hi; ++i) out[i] = (int8_t)in[i];
  return 0;
}

int32_t v_turn(void *const *args, int32_t lo, int32_t hi) {
  const int8_t *in = args[0];
  int8_t *out = args[1];
  for (int32_t i = COUNT * lo; i < COUNT * hi; ++i) out[i] = (int8_t)~in[COUNT - 1 - i];
  return 0;
}

int32_t v_give(void *const *args, int32_t lo, int32_t hi) {
  const int8_t *in = args[0];
  float *out = args[1];
  for (int32_t i = COUNT * lo; i < COUNT * hi; ++i) out[i] = in[i];
  return 0;
}
