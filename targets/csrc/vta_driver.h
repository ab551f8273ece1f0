/* vta_driver.h - the ten functions that every driver library of a VTA exports, whoever wrote it. Not public.
 *
 * The declarations are our own. An address is as wide as the processor's: upstream's libraries of 64-bit machines, whose addresses are
 * 32 bits wide, leave the upper half of the register zero. */
#ifndef ID_VTA_DRIVER_H
#define ID_VTA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

typedef void *VTADeviceHandle;
#if UINTPTR_MAX > UINT32_MAX
typedef uint64_t vta_phy_addr_t;
#else
typedef uint32_t vta_phy_addr_t;
#endif

/* One allocation is at most so large. */
#define VTA_LARGEST ((uint64_t)32 << 20)

/* name of the member, name in the library, result, parameters. VTADeviceRun polls `wait` times, a microsecond or more apart, and returns
 * 0 where the stream is done by then. */
#define ID_VTA_FUNCTIONS(X)                                                                                  \
  X(device_alloc, VTADeviceAlloc, VTADeviceHandle, (void))                                                   \
  X(device_free, VTADeviceFree, void, (VTADeviceHandle device))                                              \
  X(device_run, VTADeviceRun, int, (VTADeviceHandle device, vta_phy_addr_t stream, uint32_t count, uint32_t wait)) \
  X(allocate, VTAMemAlloc, void *, (size_t bytes, int cached))                                               \
  X(release, VTAMemFree, void, (void *memory))                                                               \
  X(physical, VTAMemGetPhyAddr, vta_phy_addr_t, (void *memory))                                              \
  X(copy_in, VTAMemCopyFromHost, void, (void *to, const void *from, size_t bytes))                           \
  X(copy_out, VTAMemCopyToHost, void, (void *to, const void *from, size_t bytes))                            \
  X(flush, VTAFlushCache, void, (void *memory, vta_phy_addr_t address, int bytes))                           \
  X(invalidate, VTAInvalidateCache, void, (void *memory, vta_phy_addr_t address, int bytes))

typedef struct vta_driver {
#define ID_VTA_MEMBER(member, name, result, parameters) result(*member) parameters;
  ID_VTA_FUNCTIONS(ID_VTA_MEMBER)
#undef ID_VTA_MEMBER
} vta_driver;

/* Load a driver library, as dlopen takes it, and look up every function. Returns an ID_ code; where that is an error, id_detail says
 * which file and why. The library is never unloaded: it may have mapped registers. */
int id_vta_load(const char *library, vta_driver *driver);

#endif /* ID_VTA_DRIVER_H */
