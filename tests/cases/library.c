/* library.c - one inference of a bundle's library: library WEIGHTS INPUT OUTPUT, both plain numbers. */
#include <stdio.h>
#include <stdlib.h>

#include "inception_deploy.h"

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  const id_info *info = id_describe();
  id_model *model = NULL;
  const int code = id_open(argv[1], 2, &model);
  if (code != ID_OK) {
    fprintf(stderr, "%s %s\n", id_error(code), code == ID_ERROR_CPU ? id_missing_feature() : "");
    return 3;
  }
  const size_t in = (size_t)info->inputs[0].bytes, out = (size_t)info->outputs[0].bytes;
  void *input = malloc(in), *output = malloc(out);
  FILE *file = fopen(argv[2], "rb");
  if (!input || !output || !file || fread(input, 1, in, file) != in || fclose(file)) return 4;
  const void *inputs[] = {input};
  void *outputs[] = {output};
  if (id_run(model, inputs, outputs) != ID_OK) return 5;
  file = fopen(argv[3], "wb");
  if (!file || fwrite(output, 1, out, file) != out || fclose(file)) return 6;
  id_close(model);
  free(input);
  free(output);
  return 0;
}
