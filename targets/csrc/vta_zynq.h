/* vta_zynq.h - what a driver of a board is told of it (toolkit/kernels/vta/boards.py), and where its contiguous memory comes from. */
#ifndef ID_VTA_ZYNQ_H
#define ID_VTA_ZYNQ_H

#include <stddef.h>
#include <stdint.h>

#ifndef ID_ROOT
#define ID_ROOT "" /* before every path, for tests */
#endif

typedef struct vta_wiring {
  uint64_t registers;  /* the physical address of the first block */
  uint32_t blocks;     /* 4: fetch, load, compute, store, each of a page; 1: one block for all */
  uint64_t bus_offset; /* from a physical address to the VTA's */
} vta_wiring;

extern const vta_wiring vta_wired;

/* Physically contiguous memory. */
typedef struct vta_block {
  unsigned char *data;
  size_t bytes; /* whole pages */
  uint64_t physical;
  int cached;
  int file;        /* of the allocator */
  uint64_t offset; /* in what the file is of */
} vta_block;

typedef struct vta_allocator {
  const char *name;
  /* 0 where there is none left, or no such thing here. `block` has `bytes` and `cached`. */
  int (*allocate)(vta_block *block);
  void (*release)(vta_block *block);
  /* Of cached memory: bring `bytes` from `first` on to memory, or forget them. */
  void (*flush)(const vta_block *block, size_t first, size_t bytes);
  void (*invalidate)(const vta_block *block, size_t first, size_t bytes);
} vta_allocator;

/* The first that gives memory is taken; a NULL behind the last. */
extern const vta_allocator *const vta_allocators[];

/* To stderr: the ten functions have no other way to say why. */
__attribute__((format(printf, 1, 2))) void vta_tell(const char *format, ...);

#endif /* ID_VTA_ZYNQ_H */
