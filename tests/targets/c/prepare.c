/* prepare.c - pictures prepared by csrc/picture.c: prepare manifest.json OUT picture... appends each to OUT, or says what is wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "picture.h"

static char *text_of(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END) != 0) return NULL;
  const long size = ftell(file);
  rewind(file);
  char *text = malloc((size_t)size + 1);
  *length = fread(text, 1, (size_t)size, file);
  text[*length] = 0;
  fclose(file);
  return text;
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  size_t length = 0;
  char *manifest = text_of(argv[1], &length);
  if (!manifest) return 2;
  id_preparation how;
  const char *wrong = id_json_check(manifest, length) ? id_preparation_read(&how, manifest) : "no JSON";
  if (wrong) {
    puts(wrong);
    free(manifest);
    return 1;
  }
  FILE *out = fopen(argv[2], "wb");
  const size_t bytes = (size_t)id_prepared_bytes(&how);
  void *input = malloc(bytes);
  for (int i = 3; out && input && i < argc; ++i) {
    id_picture picture;
    FILE *file = fopen(argv[i], "rb");
    wrong = !file ? "is not there" : id_is_picture(file) ? id_picture_read(&picture, file) : "is no picture";
    if (!wrong) {
      wrong = id_prepare(&how, &picture, input);
      free(picture.pixels);
    }
    if (!wrong) fwrite(input, 1, bytes, out);
    puts(wrong ? wrong : "good");
    if (file) fclose(file);
  }
  free(input);
  free(manifest);
  return out && fclose(out) == 0 ? 0 : 2;
}
