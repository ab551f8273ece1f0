/* main.c - classify a photo with a bundle from C, with neither Python nor TVM.
 *
 *     inception-deploy export --model irv2 --target cpu --uint8-input -o irv2
 *     cc -O2 -I irv2 examples/c/main.c irv2/model.so -Wl,-rpath,"$PWD/irv2" -o classify
 *     djpeg photo.jpg | pnmscale -xsize 299 -ysize 299 > photo.ppm
 *     ./classify irv2/weights.bin photo.ppm 0 irv2/labels.txt
 *
 * photo.ppm: a picture (P6, 8 bits, RGB) of the network's size, which --uint8-input makes the network take as it is. Any other
 * file is the input's bytes: of a bundle without that option floats, NCHW, already preprocessed:
 *
 *     python -c "import numpy; numpy.load('input.npy').astype('<f4').tofile('input.raw')"
 *
 * Prints the largest five values of the first output, with names where there is a file of them, and the median time of a few
 * runs. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "inception_deploy.h"

enum { RUNS = 9, TOP = 5, LABEL = 128 };

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

/* Fill a buffer from a photo of the size that an input has; 0 where that works. */
static int read_photo(const char *path, const id_port *input, void *buffer) {
  int width, height, most;
  FILE *file = fopen(path, "rb");
  if (!file) return fail(path, "cannot be opened");
  int status = EXIT_FAILURE;
  if (fscanf(file, "P6 %d %d %d", &width, &height, &most) != 3 || most != 255 || fgetc(file) == EOF) {
    fail(path, "is no PPM (P6) with 8 bits and without comments");
  } else if (strcmp(input->dtype, "uint8") != 0 || input->axes != 4 || input->shape[0] != 1 || input->shape[3] != 3) {
    fail(path, "is a photo in color, and the network takes none as bytes: export it with --uint8-input");
  } else if (input->shape[1] != height || input->shape[2] != width) {
    fprintf(stderr, "%s: has %d x %d pixels, and the network takes %" PRId64 " x %" PRId64 "\n", path, width, height, input->shape[2],
            input->shape[1]);
  } else if (fread(buffer, 1, (size_t)input->bytes, file) != input->bytes) {
    fail(path, "ends within its pixels");
  } else {
    status = EXIT_SUCCESS;
  }
  fclose(file);
  return status;
}

/* Line `number` of a file of names, or nothing. */
static void read_label(const char *path, size_t number, char label[LABEL]) {
  FILE *file = path ? fopen(path, "r") : NULL;
  label[0] = '\0';
  for (size_t line = 0; file && line <= number; ++line)
    if (!fgets(label, LABEL, file)) label[0] = '\0';
  label[strcspn(label, "\r\n")] = '\0';
  if (file) fclose(file);
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

static void print_top(const float *values, size_t count, const char *labels) {
  size_t shown[TOP];
  char label[LABEL];
  for (size_t rank = 0; rank < TOP && rank < count; ++rank) {
    size_t best = count;
    for (size_t i = 0; i < count; ++i) {
      int seen = 0;
      for (size_t j = 0; j < rank; ++j) seen |= shown[j] == i;
      if (!seen && (best == count || values[i] > values[best])) best = i;
    }
    shown[rank] = best;
    read_label(labels, best, label);
    printf("%zu %.6g%s%s\n", best, (double)values[best], *label ? " " : "", label);
  }
}

int main(int argc, char **argv) {
  if (argc < 3 || argc > 5) return fail("usage", "classify weights.bin photo.ppm|input.raw [threads [labels.txt]]");
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
  if (!input || !outputs) goto done;
  const char *ending = strrchr(argv[2], '.');
  const int photo = ending && strcmp(ending, ".ppm") == 0;
  if (photo ? read_photo(argv[2], &info->inputs[0], input) : read_exactly(argv[2], input, (size_t)info->inputs[0].bytes)) goto done;

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
  print_top(outputs[0], (size_t)info->outputs[0].bytes / sizeof(float), argc > 4 ? argv[4] : NULL);
  fprintf(stderr, "%" PRIu32 " steps, %d threads, %.2f ms\n", info->step_count, id_threads(model), times[RUNS / 2]);
  status = EXIT_SUCCESS;

done:
  for (uint32_t i = 0; outputs && i < info->output_count; ++i) free(outputs[i]);
  free(outputs);
  free(input);
  id_close(model);
  return status;
}
