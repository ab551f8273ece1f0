/* vta_memory.c - where physically contiguous memory comes from on Linux: one row an allocator.
 *
 *   u-dma-buf   a kernel module by ikwzm; its buffers are /dev/udmabuf0 and on, cut into blocks here
 *   CMA heap    /dev/dma_heap of Linux 5.6 and newer; the physical address is read from /proc/self/pagemap, and the cache is flushed by
 *               address, which 64-bit ARM lets a process do
 *   xlnk        libcma.so of PYNQ images before 2.7 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/dma-heap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vta_zynq.h"

enum { PAGE = 4096, LINE = 64 };

static int map(vta_block *block) {
  void *data = mmap(NULL, block->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, block->file, (off_t)block->offset);
  if (data == MAP_FAILED) return 0;
  block->data = data;
  return 1;
}

static void unmap(const vta_block *block) {
  munmap(block->data, block->bytes);
  close(block->file);
}

/* -- u-dma-buf ---------------------------------------------------------------------------------------------------- */

enum { POOLS = 8, ROWS = 1024 };
enum { TO_DEVICE = 1, FROM_DEVICE = 2 };

typedef struct pool {
  int known; /* looked at; nothing there where `bytes` is 0 */
  uint64_t physical, bytes;
  const char *class; /* of sysfs */
  uint64_t taken[ROWS][2]; /* first byte and the one behind the last, by address */
  uint32_t count;
} pool;

static pool pools[POOLS];

static int udmabuf_file(const pool *it, const char *name, int flags) {
  char path[160];
  snprintf(path, sizeof path, ID_ROOT "/sys/class/%s/udmabuf%d/%s", it->class, (int)(it - pools), name);
  return open(path, flags | O_CLOEXEC);
}

/* A number in a file of sysfs; 0 where there is none. */
static uint64_t udmabuf_number(const pool *it, const char *name) {
  char text[32] = {0};
  const int file = udmabuf_file(it, name, O_RDONLY);
  if (file < 0) return 0;
  const long length = read(file, text, sizeof text - 1);
  close(file);
  return length > 0 ? strtoull(text, NULL, 0) : 0;
}

static void udmabuf_look(pool *it) {
  static const char *const classes[] = {"u-dma-buf", "udmabuf"};
  it->known = 1;
  for (int i = 0; i < 2 && !it->bytes; ++i) {
    it->class = classes[i];
    it->physical = udmabuf_number(it, "phys_addr");
    it->bytes = it->physical ? udmabuf_number(it, "size") : 0;
  }
}

/* The row before which `bytes` fit; their place is in `offset`. -1 for nowhere. */
static int udmabuf_gap(const pool *it, uint64_t bytes, uint64_t *offset) {
  *offset = 0;
  if (it->count == ROWS) return -1;
  for (uint32_t row = 0; row < it->count; ++row) {
    if (*offset + bytes <= it->taken[row][0]) return (int)row;
    *offset = it->taken[row][1];
  }
  return *offset + bytes <= it->bytes ? (int)it->count : -1;
}

static int udmabuf_take(pool *it, vta_block *block) {
  const int row = udmabuf_gap(it, block->bytes, &block->offset);
  if (row < 0) return 0;
  char path[64];
  snprintf(path, sizeof path, ID_ROOT "/dev/udmabuf%d", (int)(it - pools));
  block->file = open(path, O_RDWR | O_CLOEXEC | (block->cached ? 0 : O_SYNC)); /* O_SYNC maps it without a cache */
  if (block->file < 0) return 0;
  if (!map(block)) {
    close(block->file);
    return 0;
  }
  block->physical = it->physical + block->offset;
  memmove(it->taken + row + 1, it->taken + row, (it->count - (uint32_t)row) * sizeof *it->taken);
  it->taken[row][0] = block->offset;
  it->taken[row][1] = block->offset + block->bytes;
  ++it->count;
  return 1;
}

static int udmabuf_allocate(vta_block *block) {
  for (pool *it = pools; it < pools + POOLS; ++it) {
    if (!it->known) udmabuf_look(it);
    if (it->bytes && udmabuf_take(it, block)) return 1;
  }
  return 0;
}

static pool *udmabuf_of(const vta_block *block) {
  for (pool *it = pools; it < pools + POOLS; ++it)
    if (block->physical - it->physical < it->bytes) return it;
  return NULL;
}

static void udmabuf_release(vta_block *block) {
  pool *it = udmabuf_of(block);
  unmap(block);
  for (uint32_t row = 0; it && row < it->count; ++row)
    if (it->taken[row][0] == block->offset) {
      memmove(it->taken + row, it->taken + row + 1, (it->count - row - 1) * sizeof *it->taken);
      --it->count;
      break;
    }
}

/* One number says what: the offset in its upper half; in its lower one the size, the direction and a 1. */
static void udmabuf_sync(const vta_block *block, size_t first, size_t bytes, const char *name, unsigned direction) {
  const pool *it = udmabuf_of(block);
  const int file = it ? udmabuf_file(it, name, O_WRONLY) : -1;
  if (file < 0) return;
  const uint64_t begin = (block->offset + first) / LINE * LINE, end = (block->offset + first + bytes + LINE - 1) / LINE * LINE;
  char text[32];
  snprintf(text, sizeof text, "0x%08X%08X", (unsigned)begin, (unsigned)(end - begin) | direction << 2 | 1u);
  if (write(file, text, strlen(text)) < 0) vta_tell("libvta: u-dma-buf does not take %s for %s; it must be 1.4.2 or newer\n", text, name);
  close(file);
}

static void udmabuf_flush(const vta_block *block, size_t first, size_t bytes) {
  udmabuf_sync(block, first, bytes, "sync_for_device", TO_DEVICE);
}

static void udmabuf_invalidate(const vta_block *block, size_t first, size_t bytes) {
  udmabuf_sync(block, first, bytes, "sync_for_cpu", FROM_DEVICE);
}

static const vta_allocator udmabuf = {"u-dma-buf (/dev/udmabuf0)", udmabuf_allocate, udmabuf_release, udmabuf_flush, udmabuf_invalidate};

/* -- CMA heap ----------------------------------------------------------------------------------------------------- */

#if defined(__aarch64__) || defined(ID_TEST_HEAP)

/* By lines: clean and invalidate. What is invalidated has nothing in the cache that is worth keeping, so one does for both. */
static void clean(const vta_block *block, size_t first, size_t bytes) {
#ifdef __aarch64__
  uintptr_t at = ((uintptr_t)block->data + first) / LINE * LINE;
  for (const uintptr_t end = (uintptr_t)block->data + first + bytes; at < end; at += LINE) __asm__ volatile("dc civac, %0" ::"r"(at) : "memory");
  __asm__ volatile("dsb sy" ::: "memory");
#else
  (void)block, (void)first, (void)bytes;
#endif
}

/* The physical address of pages that lie one behind the other; 0 where they do not, or where Linux does not say. */
static uint64_t contiguous(const vta_block *block) {
  const int file = open(ID_ROOT "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  uint64_t first = 0;
  for (size_t page = 0; page < block->bytes / PAGE; ++page) {
    uint64_t entry = 0;
    const off_t where = (off_t)(((uintptr_t)block->data / PAGE + page) * sizeof entry);
    if (lseek(file, where, SEEK_SET) != where || read(file, &entry, sizeof entry) != sizeof entry) entry = 0;
    const uint64_t frame = entry >> 63 ? entry & ((UINT64_C(1) << 55) - 1) : 0;
    if (page == 0) first = frame;
    if (!frame || frame != first + page) first = 0;
    if (!first) break;
  }
  close(file);
  return first * PAGE;
}

static int heap_allocate(vta_block *block) {
  static const char *const names[] = {"default_cma_region", "linux,cma", "reserved"};
  if (!block->cached) return 0; /* a heap maps with a cache */
  int heap = -1;
  for (int i = 0; i < 3 && heap < 0; ++i) {
    char path[64];
    snprintf(path, sizeof path, ID_ROOT "/dev/dma_heap/%s", names[i]);
    heap = open(path, O_RDWR | O_CLOEXEC);
  }
  if (heap < 0) return 0;
  struct dma_heap_allocation_data wanted = {.len = block->bytes, .fd_flags = O_RDWR | O_CLOEXEC};
  const int made = ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &wanted) == 0;
  close(heap);
  if (!made) return 0;
  block->file = (int)wanted.fd;
  if (!map(block)) {
    close(block->file);
    return 0;
  }
  for (size_t at = 0; at < block->bytes; at += PAGE) block->data[at] = 0; /* so that there are pages to be asked for */
  clean(block, 0, block->bytes);
  block->physical = contiguous(block);
  if (block->physical) return 1;
  unmap(block);
  return 0;
}

static void heap_release(vta_block *block) { unmap(block); }

static const vta_allocator heap = {"CMA heap (/dev/dma_heap)", heap_allocate, heap_release, clean, clean};
#endif

/* -- xlnk --------------------------------------------------------------------------------------------------------- */

static struct {
  int known;
  void *(*allocate)(uint32_t bytes, uint32_t cached);
  unsigned long (*physical)(void *memory);
  void (*release)(void *memory);
  void (*flush)(void *memory, unsigned physical, int bytes);
  void (*invalidate)(void *memory, unsigned physical, int bytes);
} xlnk_library;

static int look_up(void *library, const char *name, void *function) {
  void *symbol = dlsym(library, name);
  memcpy(function, &symbol, sizeof symbol); /* POSIX lets an object pointer be a function, ISO C wants the detour */
  return symbol != NULL;
}

static void xlnk_look(void) {
  xlnk_library.known = 1;
  void *library = dlopen(ID_ROOT "/usr/lib/libcma.so", RTLD_NOW | RTLD_LOCAL);
  if (!library) return;
  const int whole = look_up(library, "cma_get_phy_addr", &xlnk_library.physical) & look_up(library, "cma_free", &xlnk_library.release) &
                    look_up(library, "cma_flush_cache", &xlnk_library.flush) &
                    look_up(library, "cma_invalidate_cache", &xlnk_library.invalidate);
  if (whole) look_up(library, "cma_alloc", &xlnk_library.allocate);
}

static int xlnk_allocate(vta_block *block) {
  if (!xlnk_library.known) xlnk_look();
  block->data = xlnk_library.allocate ? xlnk_library.allocate((uint32_t)block->bytes, (uint32_t)block->cached) : NULL;
  if (!block->data) return 0;
  block->physical = xlnk_library.physical(block->data);
  return 1;
}

static void xlnk_release(vta_block *block) { xlnk_library.release(block->data); }

static void xlnk_flush(const vta_block *block, size_t first, size_t bytes) {
  xlnk_library.flush(block->data + first, (unsigned)(block->physical + first), (int)bytes);
}

static void xlnk_invalidate(const vta_block *block, size_t first, size_t bytes) {
  xlnk_library.invalidate(block->data + first, (unsigned)(block->physical + first), (int)bytes);
}

static const vta_allocator xlnk = {"xlnk (/usr/lib/libcma.so)", xlnk_allocate, xlnk_release, xlnk_flush, xlnk_invalidate};

const vta_allocator *const vta_allocators[] = {
    &udmabuf,
#if defined(__aarch64__) || defined(ID_TEST_HEAP)
    &heap,
#endif
    &xlnk,
    NULL,
};
