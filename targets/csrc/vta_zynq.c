/* vta_zynq.c - the ten functions of a driver for boards whose VTA lies on the processor's bus: upstream's bitstreams for Xilinx Zynq
 * (PYNQ-Z1, Ultra96, ZCU104) and Intel's Cyclone V (DE10-Nano). A library of its own, libvta.so, and linked into programs.
 *
 * It has been tested against registers and memories that are files, and has met no board. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64 /* registers lie behind 2 GiB */
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "inception_deploy.h" /* ID_API */
#include "vta_tables.h"
#include "vta_zynq.h"

enum { PAGE = 4096, MOST_BLOCKS = 4096 };
#ifndef ID_SETTLE
#define ID_SETTLE 20000 /* nanoseconds; tests have slower hardware */
#endif
enum { START = 0x01, AUTO_RESTART = 0x81, DONE = 1, ONE_BLOCK_DONE = 2 };
enum { FETCH, LOADS, COMPUTES, STORES };

typedef struct owned {
  vta_block block;
  const vta_allocator *from; /* NULL for a free row */
} owned;

typedef struct device {
  volatile uint32_t *blocks[4];
} device;

static owned owned_blocks[MOST_BLOCKS];
static atomic_flag busy = ATOMIC_FLAG_INIT;

void vta_tell(const char *format, ...) {
  char text[400];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (write(2, text, strlen(text)) < 0) return;
}

static void barrier(void) {
#if defined(__arm__) || defined(__aarch64__)
  __asm__ volatile("dsb sy" ::: "memory");
#else
  atomic_thread_fence(memory_order_seq_cst);
#endif
}

static void pause_for(long nanoseconds) {
  const long pause[2] = {0, nanoseconds}; /* as the system call has it, whatever the C library's timespec is */
  syscall(SYS_nanosleep, pause, NULL);
}

static void enter(void) {
  while (atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) pause_for(50000);
}

static void leave(void) { atomic_flag_clear_explicit(&busy, memory_order_release); }

/* -- memory ------------------------------------------------------------------------------------------------------- */

static int is_out_of_reach(const vta_block *block) { return block->physical + vta_wired.bus_offset + block->bytes > UINT64_C(1) << 32; }

static int allocate(owned *it, size_t bytes, int cached) {
  for (const vta_allocator *const *from = vta_allocators; *from; ++from) {
    it->block = (vta_block){.bytes = (bytes + PAGE - 1) / PAGE * PAGE, .cached = cached, .file = -1};
    if (!(*from)->allocate(&it->block)) continue;
    it->from = *from;
    if (!is_out_of_reach(&it->block)) return 1;
    vta_tell("libvta: %s gives memory at 0x%llx, which the VTA does not reach\n", (*from)->name, (unsigned long long)it->block.physical);
    (*from)->release(&it->block);
    it->from = NULL;
  }
  return 0;
}

ID_API void *VTAMemAlloc(size_t bytes, int cached) {
  void *memory = NULL;
  if (bytes == 0 || bytes > VTA_LARGEST) return NULL;
  enter();
  owned *it = owned_blocks;
  while (it < owned_blocks + MOST_BLOCKS && it->from) ++it;
  if (it < owned_blocks + MOST_BLOCKS && allocate(it, bytes, cached != 0)) memory = it->block.data;
  leave();
  if (memory) return memory;
  vta_tell("libvta: no %llu bytes of contiguous memory; tried:", (unsigned long long)bytes);
  for (const vta_allocator *const *from = vta_allocators; *from; ++from) vta_tell(" %s%s", (*from)->name, from[1] ? "," : "\n");
  return NULL;
}

/* The row of an address of the process; NULL where there is none. */
static owned *row_of(const void *memory) {
  for (owned *it = owned_blocks; it < owned_blocks + MOST_BLOCKS; ++it)
    if (it->from && (uintptr_t)memory - (uintptr_t)it->block.data < it->block.bytes) return it;
  return NULL;
}

ID_API void VTAMemFree(void *memory) {
  enter();
  owned *it = row_of(memory);
  if (it && it->block.data == memory) {
    it->from->release(&it->block);
    it->from = NULL;
  }
  leave();
}

ID_API vta_phy_addr_t VTAMemGetPhyAddr(void *memory) {
  enter();
  const owned *it = row_of(memory);
  const uint64_t address = it ? it->block.physical + ((uintptr_t)memory - (uintptr_t)it->block.data) + vta_wired.bus_offset : 0;
  leave();
  return (vta_phy_addr_t)address;
}

ID_API void VTAMemCopyFromHost(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

ID_API void VTAMemCopyToHost(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

static void keep_coherent(void *memory, int bytes, int invalidates) {
  enter();
  const owned *it = row_of(memory);
  if (it && it->block.cached && bytes > 0) {
    const size_t first = (size_t)((uintptr_t)memory - (uintptr_t)it->block.data), left = it->block.bytes - first;
    (invalidates ? it->from->invalidate : it->from->flush)(&it->block, first, (size_t)bytes < left ? (size_t)bytes : left);
  }
  leave();
  barrier();
}

ID_API void VTAFlushCache(void *memory, vta_phy_addr_t address, int bytes) {
  (void)address;
  keep_coherent(memory, bytes, 0);
}

ID_API void VTAInvalidateCache(void *memory, vta_phy_addr_t address, int bytes) {
  (void)address;
  keep_coherent(memory, bytes, 1);
}

/* -- the device --------------------------------------------------------------------------------------------------- */

/* Reading a register of an FPGA that is not programmed stops the processor for good. */
static int is_programmed(void) {
  char state[32] = {0};
  const int file = open(ID_ROOT "/sys/class/fpga_manager/fpga0/state", O_RDONLY | O_CLOEXEC);
  if (file < 0) return 1; /* the kernel has no such file; nobody knows */
  const long length = read(file, state, sizeof state - 1);
  close(file);
  if (length >= 9 && memcmp(state, "operating", 9) == 0) return 1;
  vta_tell("libvta: the FPGA is not programmed; load a VTA bitstream first\n");
  return 0;
}

ID_API void VTADeviceFree(VTADeviceHandle handle) {
  device *it = handle;
  for (uint32_t i = 0; it && i < vta_wired.blocks; ++i)
    if (it->blocks[i]) munmap((void *)(uintptr_t)it->blocks[i], PAGE);
  free(it);
}

ID_API VTADeviceHandle VTADeviceAlloc(void) {
  if (!is_programmed()) return NULL;
  device *it = calloc(1, sizeof *it);
  const int file = open(ID_ROOT "/dev/mem", O_RDWR | O_SYNC | O_CLOEXEC);
  if (file < 0) vta_tell("libvta: /dev/mem cannot be opened; the registers need root\n");
  int mapped = it && file >= 0;
  for (uint32_t i = 0; mapped && i < vta_wired.blocks; ++i) {
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)(vta_wired.registers + PAGE * (uint64_t)i));
    mapped = page != MAP_FAILED;
    if (mapped) it->blocks[i] = page;
    else vta_tell("libvta: the registers at 0x%llx cannot be mapped\n", (unsigned long long)vta_wired.registers + PAGE * i);
  }
  if (file >= 0) close(file);
  if (mapped) return it;
  VTADeviceFree(it);
  return NULL;
}

static void set(const device *it, int block, uint32_t offset, uint32_t value) { it->blocks[block][offset / 4] = value; }

static void start_four(const device *it, uint32_t stream, uint32_t count) {
  set(it, FETCH, 0x10, count);
  set(it, FETCH, 0x18, stream);
  /* Addresses in instructions are physical: every engine counts from 0. */
  set(it, LOADS, 0x10, 0);
  set(it, LOADS, 0x18, 0);
  set(it, COMPUTES, 0x20, 0);
  set(it, COMPUTES, 0x28, 0);
  set(it, STORES, 0x10, 0);
  set(it, FETCH, 0, START);
  set(it, LOADS, 0, AUTO_RESTART);
  set(it, COMPUTES, 0, AUTO_RESTART);
  set(it, STORES, 0, AUTO_RESTART);
}

static void start_one(const device *it, uint32_t stream, uint32_t count) {
  set(it, FETCH, 0x04, 0);
  set(it, FETCH, 0x08, count);
  set(it, FETCH, 0x0c, stream);
  set(it, FETCH, 0, START);
}

static int is_done(const device *it) {
  if (vta_wired.blocks == 1) return it->blocks[FETCH][0] & ONE_BLOCK_DONE;
  return it->blocks[COMPUTES][0x18 / 4] == DONE;
}

static uint64_t microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000 + (uint32_t)now.tv_nsec / 1000;
}

ID_API int VTADeviceRun(VTADeviceHandle handle, vta_phy_addr_t stream, uint32_t count, uint32_t wait) {
  const device *it = handle;
  barrier();
  if (vta_wired.blocks == 1) start_one(it, (uint32_t)stream, count);
  else start_four(it, (uint32_t)stream, count);
  pause_for(ID_SETTLE); /* until the first compute instruction has taken away what the stream before left in `done` */
  const uint64_t start = microseconds();
  uint64_t passed = 0;
  while (!is_done(it) && passed < wait) {
    passed = microseconds() - start;
    if (passed > 1000) pause_for(20000);
  }
  barrier();
  if (passed < wait || is_done(it)) return 0;
  vta_tell("libvta: the VTA is not done after %u us; load its bitstream again before the next run\n", (unsigned)wait);
  return 1;
}

const id_vta_linked id_vta_zynq = {
    .driver =
        {
#define ID_VTA_OWN(member, name, result, parameters) .member = name,
            ID_VTA_FUNCTIONS(ID_VTA_OWN)
#undef ID_VTA_OWN
        },
};
