/* main.c - run a bundle from C, with neither Python nor TVM.
 *
 *     inception-deploy export --model irv2 --target cpu -o irv2
 *     cc -O2 -I irv2 examples/c/main.c irv2/model.so -Wl,-rpath,"$PWD/irv2" -o classify
 *     ./classify irv2/weights.bin input.raw
 *
 * input.raw: the network's input as plain little-endian floats, NCHW, already preprocessed:
 *
 *     python -c "import numpy; numpy.load('input.npy').astype('<f4').tofile('input.raw')"
 *
 * Prints the largest five values of the first output and the median time of a few runs. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "inception_deploy.h"

enum { RUNS = 9, TOP = 5 };

static int fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return EXIT_FAILURE;
}

/* Fill a buffer of exactly `bytes` from a file; 0 where that works. */
static int read_exactly(const char *path, void *buffer, size_t bytes) {
  FILE *file = fopen(path, "rb");
  if (!file) return fail(path, "cannot be opened");
  const size_t got = fread(buffer, 1, bytes, file);
  const int longer = fgetc(file) != EOF;
  fclose(file);
  if (got == bytes && !longer) return 0;
  fprintf(stderr, "%s: the input has %zu bytes\n", path, bytes);
  return EXIT_FAILURE;
}

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print_top(const float *values, size_t count) {
  size_t shown[TOP];
  for (size_t rank = 0; rank < TOP && rank < count; ++rank) {
    size_t best = count;
    for (size_t i = 0; i < count; ++i) {
      int seen = 0;
      for (size_t j = 0; j < rank; ++j) seen |= shown[j] == i;
      if (!seen && (best == count || values[i] > values[best])) best = i;
    }
    shown[rank] = best;
    printf("%zu %.6g\n", best, (double)values[best]);
  }
}

int main(int argc, char **argv) {
  if (argc < 3 || argc > 4) return fail("usage", "classify weights.bin input.raw [threads]");
  const id_info *info = id_describe();
  if (info->abi_version != ID_ABI_VERSION) return fail("model.so", "was built for another inception_deploy.h");
  if (info->input_count != 1) return fail("model.so", "this example feeds networks with one input");

  id_model *model = NULL;
  const int threads = argc > 3 ? atoi(argv[3]) : 0; /* 0: one per processor */
  int code = id_open(argv[1], threads, &model);
  if (code == ID_ERROR_CPU) fprintf(stderr, "this processor has no %s\n", id_missing_feature());
  if (code != ID_OK) return fail(argv[1], id_error(code));

  int status = EXIT_FAILURE;
  void *input = malloc((size_t)info->inputs[0].bytes);
  void **outputs = calloc(info->output_count, sizeof *outputs);
  for (uint32_t i = 0; outputs && i < info->output_count; ++i)
    if (!(outputs[i] = malloc((size_t)info->outputs[i].bytes))) goto done;
  if (!input || !outputs || read_exactly(argv[2], input, (size_t)info->inputs[0].bytes) != 0) goto done;

  double times[RUNS];
  const void *inputs[] = {input};
  for (int i = 0; i < RUNS; ++i) {
    const double start = milliseconds();
    code = id_run(model, inputs, outputs);
    times[i] = milliseconds() - start;
    if (code != ID_OK) {
      fail("id_run", id_error(code));
      goto done;
    }
  }
  qsort(times, RUNS, sizeof *times, ascending);
  print_top(outputs[0], (size_t)info->outputs[0].bytes / sizeof(float));
  fprintf(stderr, "%" PRIu32 " steps, %d threads, %.2f ms\n", info->step_count, id_threads(model), times[RUNS / 2]);
  status = EXIT_SUCCESS;

done:
  for (uint32_t i = 0; outputs && i < info->output_count; ++i) free(outputs[i]);
  free(outputs);
  free(input);
  id_close(model);
  return status;
}
