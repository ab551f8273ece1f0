/* faults.c - a model is opened, run, profiled and closed while the n-th request for memory or a thread fails, for every n: the answer is
 * an error, nothing crashes or leaks (the sanitizer looks), and the same handle works afterwards. Linked with --wrap for the functions
 * below and with the model.c of a chain of gathers. Usage: faults weights.bin threads. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "inception_deploy.h"

enum { COUNT = 4096 };

static int left = -1; /* requests until the one that fails */

static int refuse(void) { return left >= 0 && left-- == 0; }

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size) { return refuse() ? NULL : __real_calloc(count, size); }

void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size) { return refuse() ? NULL : __real_realloc(memory, size); }

int __real_posix_memalign(void **memory, size_t alignment, size_t size);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size);
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size) {
  return refuse() ? 12 : __real_posix_memalign(memory, alignment, size);
}

void *__real_mmap(void *address, size_t size, int protection, int flags, int file, long offset);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int file, long offset);
void *__wrap_mmap(void *address, size_t size, int protection, int flags, int file, long offset) {
  return refuse() ? MAP_FAILED : __real_mmap(address, size, protection, flags, file, offset);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
  return refuse() ? 11 : __real_pthread_create(thread, attributes, start, argument);
}

static int expected(int code) {
  return code == ID_OK || code == ID_ERROR_MEMORY || code == ID_ERROR_THREADS || code == ID_ERROR_WEIGHTS_OPEN;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  static float buffer[2 * COUNT + 1], right[COUNT];
  static double seconds[64];
  const void *inputs[] = {buffer + 1}; /* not aligned: copies are needed */
  void *outputs[] = {buffer + 1 + COUNT};
  for (int i = 0; i < COUNT; ++i) buffer[1 + i] = (float)(i % 7);
  id_model *model;
  if (id_open(argv[1], 1, &model) != ID_OK || id_run(model, inputs, outputs) != ID_OK) return 2;
  memcpy(right, outputs[0], sizeof right);
  id_close(model);
  int failures = 0;
  for (int n = 0;; ++n) {
    model = NULL;
    memset(outputs[0], 0, sizeof right);
    left = n;
    const int opened = id_open(argv[1], atoi(argv[2]), &model);
    if (opened != ID_OK) {
      ++failures;
      if (!expected(opened) || model) return printf("open %d: code %d\n", n, opened), 1;
      continue;
    }
    const int ran = id_run(model, inputs, outputs);
    const int profiled = ran == ID_OK ? id_profile(model, inputs, outputs, seconds) : ID_OK;
    const int was_last = left >= 0;
    left = -1;
    failures += ran != ID_OK || profiled != ID_OK;
    if (!expected(ran) || !expected(profiled)) return printf("run %d: codes %d, %d\n", n, ran, profiled), 1;
    if (id_run(model, inputs, outputs) != ID_OK || id_profile(model, inputs, outputs, seconds) != ID_OK)
      return printf("run %d: not afterwards\n", n), 1;
    if (memcmp(right, outputs[0], sizeof right) != 0) return printf("run %d: other values\n", n), 1;
    id_close(model);
    if (was_last) return printf("%d failures\n", failures), 0;
  }
}
