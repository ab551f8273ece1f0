/* kernel.c - calls of one kernel: kernel CALLS UNITS FILE...; of each file a call gets its own part, the last file is
 * written. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 8 };

int32_t k(void *const *args, int32_t lo, int32_t hi);

int main(int argc, char **argv) {
  const int calls = argc > 4 ? atoi(argv[1]) : 0, units = argc > 4 ? atoi(argv[2]) : 0, files = argc - 3;
  if (calls < 1 || units < 1 || files > MOST) return 2;
  char *data[MOST];
  long bytes[MOST];
  for (int i = 0; i < files; ++i) {
    FILE *file = fopen(argv[3 + i], "rb");
    if (!file || fseek(file, 0, SEEK_END)) return 3;
    bytes[i] = ftell(file);
    rewind(file);
    data[i] = aligned_alloc(64, ((size_t)bytes[i] + 63) / 64 * 64);
    if (!data[i] || fread(data[i], 1, (size_t)bytes[i], file) != (size_t)bytes[i] || fclose(file)) return 4;
  }
  for (int call = 0; call < calls; ++call) {
    void *args[MOST];
    for (int i = 0; i < files; ++i) args[i] = data[i] + call * (bytes[i] / calls);
    if (k(args, 0, units)) return 5;
  }
  FILE *file = fopen(argv[argc - 1], "wb");
  const size_t size = (size_t)bytes[files - 1];
  return !file || fwrite(data[files - 1], 1, size, file) != size || fclose(file) ? 6 : 0;
}
