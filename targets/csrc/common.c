/* common.c - the weights file, aligned memory, what went wrong, a clock, the processors. */
#define _GNU_SOURCE
#include "common.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "inception_deploy.h"

#define HUGE_PAGE ((size_t)2 << 20)
#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

static uint64_t mix(uint64_t x) { /* the finaliser of splitmix64: a bijection, so that a change of any one word shows */
  x ^= x >> 30;
  x *= UINT64_C(0xbf58476d1ce4e5b9);
  x ^= x >> 27;
  x *= UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

static uint64_t little_endian(const unsigned char *bytes) {
  uint64_t word = 0;
  for (int i = 7; i >= 0; --i) word = word << 8 | bytes[i];
  return word;
}

uint64_t id_content_tag(const unsigned char *data, uint64_t bytes) {
  const uint64_t words = bytes / 8;
  uint64_t tag = 0;
  for (uint64_t i = 0; i < words; ++i) tag += mix(little_endian(data + 8 * i) ^ i * GOLDEN);
  if (bytes % 8) {
    unsigned char last[8] = {0};
    memcpy(last, data + 8 * words, (size_t)(bytes % 8));
    tag += mix(little_endian(last) ^ words * GOLDEN);
  }
  return tag;
}

/* A mapping begins at a whole page, of up to 64 KiB on ARM. */
static uint64_t before_page(uint64_t offset) { return offset % ((uint64_t)1 << 16); }

static int map(int file, uint64_t offset, uint64_t bytes, uint64_t tag, const unsigned char **data) {
  const uint64_t before = before_page(offset);
  if (bytes > SIZE_MAX - before) return ID_ERROR_MEMORY;
  const size_t size = (size_t)(bytes + before);
  unsigned char *memory = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, (off_t)(offset - before));
  if (memory == MAP_FAILED) return ID_ERROR_WEIGHTS_OPEN;
  if (id_content_tag(memory + before, bytes) != tag) {
    munmap(memory, size);
    return ID_ERROR_WEIGHTS_TAG;
  }
  *data = memory + before;
  return ID_OK;
}

int id_map_weights(const char *path, uint64_t offset, int to_end, uint64_t bytes, uint64_t tag, const unsigned char **data) {
  *data = NULL;
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return ID_ERROR_WEIGHTS_OPEN;
  const off_t size = lseek(file, 0, SEEK_END); /* fstat is not an exported function before glibc 2.33 */
  int code = ID_OK;
  if (size < 0)
    code = ID_ERROR_WEIGHTS_OPEN;
  else if ((uint64_t)size < offset || (uint64_t)size - offset < bytes || (to_end && (uint64_t)size - offset != bytes))
    code = ID_ERROR_WEIGHTS_SIZE;
  else if (bytes > 0)
    code = map(file, offset, bytes, tag, data);
  close(file);
  return code;
}

void id_unmap_weights(const unsigned char *data, uint64_t offset, uint64_t bytes) {
  const uint64_t before = before_page(offset);
  if (data) munmap((void *)((uintptr_t)data - (uintptr_t)before), (size_t)(bytes + before));
}

static size_t whole_pages(uint64_t bytes) { return ((size_t)bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE; }

void *id_allocate(uint64_t bytes) {
  if (bytes == 0) bytes = 1;
  if (bytes > SIZE_MAX - 2 * HUGE_PAGE) return NULL;
  const size_t size = whole_pages(bytes);
  unsigned char *memory = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return NULL;
  const size_t before = (HUGE_PAGE - (uintptr_t)memory % HUGE_PAGE) % HUGE_PAGE;
  if (before) munmap(memory, before);
  munmap(memory + before + size, HUGE_PAGE - before); /* never empty: before < HUGE_PAGE */
  memory += before;
  madvise(memory, size, MADV_HUGEPAGE); /* a wish: kernels without huge pages refuse it and nothing is lost */
  return memory;
}

void id_release(void *memory, uint64_t bytes) {
  if (memory) munmap(memory, whole_pages(bytes == 0 ? 1 : bytes));
}

void id_lock(atomic_flag *flag) {
  while (atomic_flag_test_and_set_explicit(flag, memory_order_acquire)) {
    const long pause[2] = {0, 50000}; /* as the system call has it, whatever the C library's timespec is */
    syscall(SYS_nanosleep, pause, NULL);
  }
}

void id_unlock(atomic_flag *flag) { atomic_flag_clear_explicit(flag, memory_order_release); }

static char said[512];
static atomic_flag saying = ATOMIC_FLAG_INIT;

void id_say(const char *format, ...) {
  char text[sizeof said];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  id_lock(&saying);
  memcpy(said, text, strlen(text) + 1);
  id_unlock(&saying);
}

void id_forget(void) {
  id_lock(&saying);
  said[0] = 0;
  id_unlock(&saying);
}

uint32_t id_detail(char *text, uint32_t bytes) {
  id_lock(&saying);
  const uint32_t length = (uint32_t)strlen(said);
  if (text && bytes) {
    const uint32_t kept = length < bytes ? length : bytes - 1;
    memcpy(text, said, kept);
    text[kept] = 0;
  }
  id_unlock(&saying);
  return length;
}

double id_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

uint32_t id_processors(void) {
  unsigned char mask[1024] = {0}; /* 8192 processors, as many as Linux supports */
  const long bytes = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
  uint32_t count = 0;
  for (long i = 0; i < bytes; ++i)
    for (unsigned char byte = mask[i]; byte; byte &= (unsigned char)(byte - 1)) ++count;
  return count > 0 ? count : 1;
}
