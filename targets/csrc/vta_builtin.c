/* vta_builtin.c - the ten functions of a driver over the simulator: as a library of its own, and linked into models.
 *
 * Physical addresses are no addresses of the process, and lie above 2 GiB. If not coherent, cached memory holds nothing until it is
 * flushed, so that a flush that is missing is found; what a stream finds in SRAM is nothing. Where a stream goes wrong VTADeviceRun returns
 * 1, and a library of its own writes why to stderr. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "inception_deploy.h" /* ID_API */
#include "vta_simulator.h"
#include "vta_tables.h"

enum { PAGE = 4096 };
static const uint64_t LOWEST = UINT64_C(0x90000000), HIGHEST = UINT64_C(0xfffff000);

typedef struct memories {
  vta_region *rows; /* by their addresses */
  uint32_t count, room;
} memories;

static memories all;
static atomic_flag busy = ATOMIC_FLAG_INIT;
static char message[VTA_MESSAGE];
static uint32_t at_fault;

static uint32_t granule(void) { return (uint32_t)id_vta_machine.inp_bytes; }

static size_t granules(const vta_region *it) { return ((size_t)it->bytes + granule() - 1) / granule(); }

/* -- memory ------------------------------------------------------------------------------------------------------- */

/* Where `bytes` fit, and before which row that is; 0 for nowhere. A page is left between two. */
static uint64_t gap(uint64_t bytes, uint32_t *row) {
  uint64_t place = LOWEST;
  for (*row = 0; *row < all.count && all.rows[*row].address < place + bytes + PAGE; ++*row)
    place = (all.rows[*row].address + all.rows[*row].bytes + 2 * PAGE - 1) / PAGE * PAGE;
  return place + bytes <= HIGHEST ? place : 0;
}

static void drop(vta_region *it) {
  free(it->data);
  free(it->stored);
  free(it->read);
}

static int add(size_t bytes, int cached, vta_region *made) {
  *made = (vta_region){.bytes = bytes};
  uint32_t row;
  if (all.count == all.room) {
    const uint32_t room = 2 * all.room + 16;
    vta_region *rows = realloc(all.rows, room * sizeof *rows);
    if (!rows) return 0;
    all.rows = rows;
    all.room = room;
  }
  void *data = NULL;
  made->address = gap(bytes, &row);
  if (!made->address || posix_memalign(&data, PAGE, bytes) != 0) return 0;
  made->data = data;
  memset(data, 0xa5, bytes);
  made->stored = malloc(granules(made) * sizeof *made->stored);
  made->read = calloc(granules(made), 2 * sizeof *made->read);
  if (!made->stored || !made->read) return 0;
  memset(made->stored, cached && !id_vta_coherent ? 0xff : 0, granules(made) * sizeof *made->stored); /* VTA_NEVER, or there from the start */
  memmove(all.rows + row + 1, all.rows + row, (all.count - row) * sizeof *all.rows);
  all.rows[row] = *made;
  ++all.count;
  return 1;
}

ID_API void *VTAMemAlloc(size_t bytes, int cached) {
  vta_region made;
  if (bytes == 0 || bytes > VTA_LARGEST) return NULL;
  id_lock(&busy);
  const int added = add(bytes, cached, &made);
  id_unlock(&busy);
  if (!added) drop(&made);
  return added ? made.data : NULL;
}

/* The row of an address of the process; NULL where there is none. */
static vta_region *row_of(const void *memory) {
  for (uint32_t i = 0; i < all.count; ++i)
    if ((uintptr_t)memory - (uintptr_t)all.rows[i].data < all.rows[i].bytes) return &all.rows[i];
  return NULL;
}

ID_API void VTAMemFree(void *memory) {
  id_lock(&busy);
  vta_region *it = row_of(memory);
  if (it && it->data == memory) {
    drop(it);
    memmove(it, it + 1, (size_t)(all.rows + all.count - it - 1) * sizeof *it);
    --all.count;
  }
  id_unlock(&busy);
}

ID_API vta_phy_addr_t VTAMemGetPhyAddr(void *memory) {
  id_lock(&busy);
  const vta_region *it = row_of(memory);
  const uint64_t address = it ? it->address + ((uintptr_t)memory - (uintptr_t)it->data) : 0;
  id_unlock(&busy);
  return (vta_phy_addr_t)address;
}

/* The VTA sees what is there. */
static void show(const void *memory, size_t bytes) {
  id_lock(&busy);
  vta_region *it = row_of(memory);
  if (it && bytes) {
    const size_t start = (size_t)((uintptr_t)memory - (uintptr_t)it->data), left = (size_t)it->bytes - start;
    const size_t end = start + (bytes < left ? bytes : left);
    for (size_t i = start / granule(); i <= (end - 1) / granule(); ++i) it->stored[i] = 0;
  }
  id_unlock(&busy);
}

ID_API void VTAMemCopyFromHost(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

ID_API void VTAMemCopyToHost(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

ID_API void VTAFlushCache(void *memory, vta_phy_addr_t address, int bytes) {
  (void)address;
  if (bytes > 0) show(memory, (size_t)bytes);
}

ID_API void VTAInvalidateCache(void *memory, vta_phy_addr_t address, int bytes) { (void)memory, (void)address, (void)bytes; }

/* -- the device --------------------------------------------------------------------------------------------------- */

ID_API VTADeviceHandle VTADeviceAlloc(void) { return malloc(1); }

ID_API void VTADeviceFree(VTADeviceHandle device) { free(device); }

/* What one stream did is there from the start for the next one. */
static void settle(void) {
  for (uint32_t i = 0; i < all.count; ++i) {
    vta_region *it = &all.rows[i];
    const size_t count = granules(it);
    for (size_t k = 0; k < count; ++k)
      if (it->stored[k] != VTA_NEVER) it->stored[k] = 0;
    memset(it->read, 0, 2 * count * sizeof *it->read);
  }
}

static const vta_region *holding(uint64_t address, uint64_t bytes) {
  for (uint32_t i = 0; i < all.count; ++i)
    if (address >= all.rows[i].address && address - all.rows[i].address + bytes <= all.rows[i].bytes) return &all.rows[i];
  return NULL;
}

static int simulate(uint64_t address, uint32_t count) {
  vta_counts counts = {0};
  at_fault = 0;
  const vta_region *code = holding(address, UINT64_C(16) * count);
  if (!code) {
    static const char outside[] = "and those behind it lie outside of every buffer";
    memcpy(message, outside, sizeof outside);
    return -1;
  }
  const size_t first = (size_t)(address - code->address);
  for (size_t i = first / granule(); i < (first + 16 * (size_t)count + granule() - 1) / granule(); ++i)
    if (code->stored[i] == VTA_NEVER) {
      static const char unseen[] = "or one behind it was not flushed, so that the VTA does not see it";
      memcpy(message, unseen, sizeof unseen);
      return -1;
    }
  const int result = vta_simulate(&id_vta_machine, id_vta_fields, code->data + first, count, all.rows, all.count, granule(), &counts,
                                  &at_fault, message);
  settle();
  return result;
}

static int run(VTADeviceHandle device, vta_phy_addr_t stream, uint32_t count, uint32_t wait) {
  (void)device, (void)wait;
  id_lock(&busy);
  message[0] = 0;
  const int failed = simulate(stream, count) != 0;
  id_unlock(&busy);
  return failed;
}

/* To stderr. */
__attribute__((format(printf, 1, 2))) static void tell(const char *format, ...) {
  char text[VTA_MESSAGE + 80];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (write(2, text, strlen(text)) < 0) return; /* nobody listens */
}

ID_API int VTADeviceRun(VTADeviceHandle device, vta_phy_addr_t stream, uint32_t count, uint32_t wait) {
  const int failed = run(device, stream, count, wait);
  if (failed) tell("the simulated VTA stops: instruction %u %s\n", (unsigned)at_fault, message);
  return failed;
}

static const char *fault_of(uint32_t *instruction) {
  *instruction = at_fault;
  return message[0] ? message : NULL;
}

const id_vta_linked id_vta_simulator = {
    .driver =
        {
            .device_alloc = VTADeviceAlloc,
            .device_free = VTADeviceFree,
            .device_run = run,
            .allocate = VTAMemAlloc,
            .release = VTAMemFree,
            .physical = VTAMemGetPhyAddr,
            .copy_in = VTAMemCopyFromHost,
            .copy_out = VTAMemCopyToHost,
            .flush = VTAFlushCache,
            .invalidate = VTAInvalidateCache,
        },
    .fault = fault_of,
};
