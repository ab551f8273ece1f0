/* main.c - run this bundle from C.
 *
 *     cc -O2 -I. main.c ./model.so -Wl,-rpath,"$PWD" -o ../network      (or CMakeLists.txt)
 *     ../network weights.bin ../input.raw ../output.raw
 *
 * A file for each input and each output, in the order of the network, as bare numbers in the machine's byte order. Without them it
 * says what they are. inception_deploy.h describes every function and error.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "inception_deploy.h"

static int failed(const char *what, const char *why) {
  char detail[400]; /* what the library has to say beside a code */
  fprintf(stderr, "%s: %s%s%s\n", what, why, id_detail(detail, sizeof detail) ? ": " : "", detail);
  return EXIT_FAILURE;
}

/* One line a port: its name, its shape, its bytes. */
static void describe(const char *what, const id_port *ports, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    fprintf(stderr, "  %s %s, %s:", what, ports[i].name, ports[i].dtype);
    for (uint32_t axis = 0; axis < ports[i].axes; ++axis) fprintf(stderr, " %" PRId64, ports[i].shape[axis]);
    fprintf(stderr, ", %" PRIu64 " bytes\n", ports[i].bytes);
  }
}

/* Memory for every port; its pointers are NULL where there is none left. */
static void **buffers(const id_port *ports, uint32_t count) {
  void **made = calloc(count, sizeof *made);
  for (uint32_t i = 0; made && i < count; ++i) made[i] = calloc(1, (size_t)ports[i].bytes);
  return made;
}

static int filled(const char *path, void *buffer, size_t bytes) {
  FILE *file = buffer ? fopen(path, "rb") : NULL;
  const int good = file && fread(buffer, 1, bytes, file) == bytes && fgetc(file) == EOF;
  if (file) fclose(file);
  return good;
}

static int written(const char *path, const void *buffer, size_t bytes) {
  FILE *file = fopen(path, "wb");
  const int good = file && fwrite(buffer, 1, bytes, file) == bytes;
  return file && fclose(file) == 0 && good;
}

int main(int argc, char **argv) {
  const id_info *info = id_describe();
  if (info->abi_version != ID_ABI_VERSION) return failed("model.so", "is of another inception_deploy.h");
  if ((uint32_t)argc != 2 + info->input_count + info->output_count) {
    fprintf(stderr, "usage: %s weights.bin, a file for each of\n", argv[0]);
    describe("input", info->inputs, info->input_count);
    describe("output", info->outputs, info->output_count);
    return 2;
  }
  char **inputs = argv + 2, **outputs = inputs + info->input_count;

  id_model *model; /* threads 0: one per processor */
  int code = id_open(argv[1], 0, &model);
  if (code == ID_ERROR_CPU) return failed(id_error(code), id_missing_feature());
  if (code != ID_OK) return failed(argv[1], id_error(code));

  /* Once; then id_run as often as there are inputs. The memory goes with the process. */
  void **in = buffers(info->inputs, info->input_count), **out = buffers(info->outputs, info->output_count);
  if (!in || !out) return failed("memory", "none left");
  for (uint32_t i = 0; i < info->output_count; ++i)
    if (!out[i]) return failed("memory", "none left");
  for (uint32_t i = 0; i < info->input_count; ++i)
    if (!filled(inputs[i], in[i], (size_t)info->inputs[i].bytes)) {
      describe("no", &info->inputs[i], 1);
      return failed(inputs[i], "cannot be read, or has another size");
    }

  code = id_run(model, (const void *const *)in, out);
  if (code != ID_OK) return failed("id_run", id_error(code));

  for (uint32_t i = 0; i < info->output_count; ++i)
    if (!written(outputs[i], out[i], (size_t)info->outputs[i].bytes)) return failed(outputs[i], "cannot be written");
  id_close(model);
  return EXIT_SUCCESS;
}
