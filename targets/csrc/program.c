/* program.c - run_model's memory and the files beside it. */
#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALIGNMENT 64
#define PAGE 4096u /* inception_deploy.targets.program fills the program's file up to a multiple of it */
#define MAX_TEXT ((size_t)64 << 20)

_Noreturn void id_stop(int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("run_model: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(status);
}

void *id_obtain(uint64_t bytes) {
  void *found = NULL;
  if (bytes > SIZE_MAX - ALIGNMENT || posix_memalign(&found, ALIGNMENT, bytes ? (size_t)bytes : 1) != 0)
    id_stop(1, "out of memory");
  return found;
}

const char *id_own_path(void) {
  static char own[4096];
  if (!own[0]) {
    const ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    own[length > 0 ? length : 0] = 0;
  }
  return own;
}

char *id_beside(const char *name) {
  const char *own = id_own_path(), *slash = strrchr(own, '/');
  const size_t folder = slash ? (size_t)(slash - own) + 1 : 0, length = strlen(name);
  char *path = id_obtain(folder + length + 1);
  memcpy(path, own, folder);
  memcpy(path + folder, name, length + 1);
  return path;
}

char *id_text_of(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  char *text = NULL;
  size_t room = 0;
  *length = 0;
  do {
    room = room ? 2 * room : (size_t)1 << 16;
    if (room > 2 * MAX_TEXT) id_stop(1, "%s: is too large", path);
    if (!(text = realloc(text, room + 1))) id_stop(1, "out of memory");
    *length += fread(text + *length, 1, room - *length, file);
  } while (*length == room);
  if (ferror(file)) id_stop(1, "%s: %s", path, strerror(errno));
  fclose(file);
  text[*length] = 0;
  return text;
}

static uint64_t number_at(const unsigned char *bytes, int count) { /* little-endian, as the machine (model_tables.h) */
  uint64_t number = 0;
  while (count-- > 0) number = number << 8 | bytes[count];
  return number;
}

int id_weights_at_end(uint64_t bytes, uint64_t *offset) {
  unsigned char head[64];
  FILE *file = fopen(id_own_path(), "rb");
  if (!file) return 0;
  const int whole = fread(head, 1, sizeof head, file) == sizeof head && memcmp(head,
                                                                               "\x7f"
                                                                               "ELF",
                                                                               4) == 0;
  const off_t size = fseeko(file, 0, SEEK_END) == 0 ? ftello(file) : 0;
  fclose(file);
  if (!whole || bytes == 0 || size <= 0) return 0;
  /* The table of sections is the last thing that the linker writes. */
  const int wide = head[4] == 2;
  const uint64_t table = wide ? number_at(head + 0x28, 8) : number_at(head + 0x20, 4);
  const uint64_t entry = number_at(head + (wide ? 0x3a : 0x2e), 2), count = number_at(head + (wide ? 0x3c : 0x30), 2);
  *offset = (table + entry * count + PAGE - 1) / PAGE * PAGE;
  return table != 0 && (uint64_t)size == *offset + bytes;
}
