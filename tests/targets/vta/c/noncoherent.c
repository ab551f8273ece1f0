/* noncoherent.c - a driver whose host has a cache that nobody keeps coherent, around another driver that has the VTA.
 *
 * The host writes into lines of its own. Only flushing brings them to the VTA's memory and only invalidating fetches them from there; while
 * the VTA works, what is dirty gets evicted, over whatever it stores. Addresses and physical addresses are both 64 bytes off a page. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

enum { LINE = 32, OFF = 64, MOST = 256 };

typedef struct buffer {
  uint8_t *host, *clean, *inner;
  size_t bytes;
} buffer;

static buffer buffers[MOST];
static void *inner;
static uint64_t wrong, largest;

typedef void (*any)(void);

static any function(const char *name) {
  void *symbol = dlsym(inner, name);
  any found;
  memcpy(&found, &symbol, sizeof found);
  return found;
}

/* Which driver has the VTA; 0 where it is none. */
API int mock_around(const char *library) {
  inner = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  return inner && function("VTADeviceRun");
}

/* How many calls named memory that is none, or an address that is not its own. */
API uint64_t mock_wrong(void) { return wrong; }

API uint64_t mock_largest(void) { return largest; }

static buffer *find(const void *memory, size_t bytes) {
  for (int i = 0; i < MOST; ++i) {
    buffer *it = &buffers[i];
    if (it->host && (const uint8_t *)memory >= it->host && (const uint8_t *)memory + bytes <= it->host + it->bytes) return it;
  }
  ++wrong;
  return NULL;
}

API void *VTAMemAlloc(size_t bytes, int cached) {
  if (!cached) ++wrong;
  if (bytes > largest) largest = bytes;
  for (int i = 0; i < MOST; ++i) {
    buffer *it = &buffers[i];
    if (it->host) continue;
    void *host = NULL;
    if (posix_memalign(&host, 4096, bytes + OFF) != 0) return NULL;
    it->bytes = bytes;
    it->host = (uint8_t *)host + OFF;
    it->clean = malloc(bytes);
    it->inner = (uint8_t *)((void *(*)(size_t, int))function("VTAMemAlloc"))(bytes + OFF, 1);
    if (!it->inner) return NULL;
    it->inner += OFF;
    memset(it->host, 0x5a, bytes);
    memset(it->clean, 0x5a, bytes);
    return it->host;
  }
  return NULL;
}

API void VTAMemFree(void *memory) {
  buffer *it = find(memory, 0);
  if (!it) return;
  ((void (*)(void *))function("VTAMemFree"))(it->inner - OFF);
  free(it->host - OFF);
  free(it->clean);
  it->host = NULL;
}

API uintptr_t VTAMemGetPhyAddr(void *memory) {
  buffer *it = find(memory, 0);
  return it ? ((uintptr_t(*)(void *))function("VTAMemGetPhyAddr"))(it->inner) + (uintptr_t)((uint8_t *)memory - it->host) : 0;
}

API void VTAMemCopyFromHost(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

API void VTAMemCopyToHost(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

/* The lines that hold some bytes; what lies outside of the buffer is cut off. */
static buffer *lines(void *memory, uintptr_t address, int bytes, size_t *first, size_t *last) {
  buffer *it = find(memory, (size_t)bytes);
  if (!it) return NULL;
  const size_t offset = (size_t)((uint8_t *)memory - it->host);
  if (address != ((uintptr_t(*)(void *))function("VTAMemGetPhyAddr"))(it->inner) + offset) ++wrong;
  *first = offset / LINE * LINE;
  *last = (offset + (size_t)bytes + LINE - 1) / LINE * LINE;
  if (*last > it->bytes) *last = it->bytes;
  return it;
}

static void write_back(buffer *it, size_t first, size_t last) {
  memcpy(it->inner + first, it->host + first, last - first);
  memcpy(it->clean + first, it->host + first, last - first);
  ((void (*)(void *, uintptr_t, int))function("VTAFlushCache"))(it->inner + first, 0, (int)(last - first));
}

API void VTAFlushCache(void *memory, uintptr_t address, int bytes) {
  size_t first, last;
  buffer *it = lines(memory, address, bytes, &first, &last);
  if (it) write_back(it, first, last);
}

API void VTAInvalidateCache(void *memory, uintptr_t address, int bytes) {
  size_t first, last;
  buffer *it = lines(memory, address, bytes, &first, &last);
  if (!it) return;
  memcpy(it->host + first, it->inner + first, last - first);
  memcpy(it->clean + first, it->inner + first, last - first);
}

API void *VTADeviceAlloc(void) { return ((void *(*)(void))function("VTADeviceAlloc"))(); }

API void VTADeviceFree(void *device) { ((void (*)(void *))function("VTADeviceFree"))(device); }

API int VTADeviceRun(void *device, uintptr_t stream, uint32_t count, uint32_t wait) {
  const int result = ((int (*)(void *, uintptr_t, uint32_t, uint32_t))function("VTADeviceRun"))(device, stream, count, wait);
  for (int i = 0; i < MOST; ++i)
    for (size_t at = 0; buffers[i].host && at < buffers[i].bytes; at += LINE) {
      const size_t end = at + LINE < buffers[i].bytes ? at + LINE : buffers[i].bytes;
      if (memcmp(buffers[i].host + at, buffers[i].clean + at, end - at) != 0) write_back(&buffers[i], at, end);
    }
  return result;
}
