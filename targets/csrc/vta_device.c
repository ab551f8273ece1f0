/* vta_device.c - the device `vta`: a span is a stream of instructions, which a driver library gives to the accelerator.
 *
 * Everything lies in memory that the driver allocates, in pieces, at physical addresses that only it knows: the addresses in the
 * instructions are written when a model is opened. The accelerator is one for all handles of a process, so one stream runs at a time. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "vta_tables.h"

/* What the driver gave. */
typedef struct block {
  void *given;         /* NULL for none */
  unsigned char *data; /* in it, at an aligned physical address */
  uint64_t physical;   /* of `data` */
  uint64_t bytes;
} block;

typedef struct vta {
  const id_site *site;
  const id_vta_tables *tables;
  vta_driver driver;
  const id_vta_linked *linked; /* the driver that is in use, where it is a linked one */
  VTADeviceHandle device;
  block *pieces;  /* per row of id_vta_tables.pieces */
  block *streams; /* relocated */
} vta;

static int is_simulated(const vta *self) { return self->linked && self->linked->fault; }

static atomic_flag running = ATOMIC_FLAG_INIT;

/* -- memory ------------------------------------------------------------------------------------------------------- */

static void flush(const vta *self, const block *it, uint64_t offset, uint64_t bytes) {
  if (self->tables->flushed && bytes) self->driver.flush(it->data + offset, (vta_phy_addr_t)(it->physical + offset), (int)bytes);
}

static void invalidate(const vta *self, const block *it, uint64_t offset, uint64_t bytes) {
  if (self->tables->flushed && bytes) self->driver.invalidate(it->data + offset, (vta_phy_addr_t)(it->physical + offset), (int)bytes);
}

static int allocate(const vta *self, block *it, uint64_t bytes) {
  const uint64_t alignment = self->tables->alignment;
  if (bytes + alignment > VTA_LARGEST) {
    id_say("the VTA's driver cannot allocate %llu bytes at once", (unsigned long long)bytes);
    return ID_ERROR_MEMORY;
  }
  it->given = self->driver.allocate((size_t)(bytes + alignment), 1 /* cached */);
  if (!it->given) {
    id_say("the VTA's driver has no %llu bytes of contiguous memory", (unsigned long long)(bytes + alignment));
    return ID_ERROR_MEMORY;
  }
  const uint64_t physical = self->driver.physical(it->given), before = (0 - physical) & (alignment - 1);
  it->data = (unsigned char *)it->given + before;
  it->physical = physical + before;
  it->bytes = bytes;
  if ((uintptr_t)it->data % ID_ALIGNMENT == 0) return ID_OK;
  id_say("the VTA's driver gives memory whose address and physical address are not aligned alike");
  return ID_ERROR_DEVICE;
}

/* The piece that holds a byte of a memory; NULL for none. */
static const block *piece_of(const vta *self, uint32_t memory, uint64_t offset, uint64_t *within) {
  const id_vta_range *pieces = self->tables->pieces;
  uint32_t low = 0, high = self->tables->piece_count; /* the last piece that does not begin behind it is at `high` - 1 */
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (pieces[middle].memory < memory || (pieces[middle].memory == memory && pieces[middle].offset <= offset)) low = middle + 1;
    else high = middle;
  }
  if (high == 0 || pieces[high - 1].memory != memory || offset - pieces[high - 1].offset >= pieces[high - 1].bytes) return NULL;
  *within = offset - pieces[high - 1].offset;
  return &self->pieces[high - 1];
}

static void *vta_address(void *state, uint32_t memory) {
  uint64_t within;
  const block *it = piece_of(state, memory, 0, &within);
  return it && it->bytes == ((vta *)state)->site->tables->memories[memory].bytes ? it->data : NULL;
}

static int make_pieces(vta *self) {
  const id_vta_tables *tables = self->tables;
  self->pieces = calloc((size_t)tables->piece_count + 1, sizeof *self->pieces);
  if (!self->pieces) return ID_ERROR_MEMORY;
  for (uint32_t i = 0; i < tables->piece_count; ++i) {
    const id_vta_range *range = &tables->pieces[i];
    const id_memory *memory = &self->site->tables->memories[range->memory];
    block *it = &self->pieces[i];
    const int code = allocate(self, it, range->bytes);
    if (code != ID_OK) return code;
    if (memory->kind == ID_MEMORY_WEIGHTS)
      self->driver.copy_in(it->data, self->site->weights + memory->first + range->offset, (size_t)range->bytes);
    else
      memset(it->data, 0, (size_t)range->bytes); /* channels that nobody computes are read, and are zero */
    flush(self, it, 0, range->bytes);
  }
  return ID_OK;
}

/* -- streams ------------------------------------------------------------------------------------------------------ */

static uint64_t number_of(const unsigned char *bytes, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

/* Let an instruction address physical memory. */
static int relocate(const vta *self, unsigned char *instruction, uint32_t memory, uint32_t element) {
  const uint32_t shift = self->tables->dram_shift;
  uint64_t word = number_of(instruction, 8), within = 0;
  const block *piece = piece_of(self, memory, (word >> shift & UINT32_MAX) * element, &within);
  const uint64_t place = piece ? (piece->physical + within) >> __builtin_ctz(element) : 0;
  if (!piece || place > UINT32_MAX) {
    id_say("the VTA does not reach the physical address 0x%llx", piece ? (unsigned long long)(piece->physical + within) : 0ull);
    return ID_ERROR_DEVICE;
  }
  word = (word & ~((uint64_t)UINT32_MAX << shift)) | place << shift;
  for (int i = 0; i < 8; ++i) instruction[i] = (unsigned char)(word >> 8 * i);
  return ID_OK;
}

static int make_stream(const vta *self, const id_vta_stream *stream, block *it) {
  const uint64_t bytes = (uint64_t)stream->count * ID_VTA_INSTRUCTION;
  int code = allocate(self, it, bytes);
  if (code != ID_OK) return code;
  unsigned char *edited = malloc((size_t)bytes);
  if (!edited) return ID_ERROR_MEMORY;
  memcpy(edited, self->site->weights + stream->first, (size_t)bytes);
  const unsigned char *relocation = self->site->weights + stream->relocations;
  for (uint32_t i = 0; i < stream->relocation_count && code == ID_OK; ++i, relocation += ID_VTA_RELOCATION) {
    unsigned char *instruction = edited + ID_VTA_INSTRUCTION * (size_t)number_of(relocation, 4);
    code = relocate(self, instruction, (uint32_t)number_of(relocation + 4, 2), (uint32_t)number_of(relocation + 6, 2));
  }
  self->driver.copy_in(it->data, edited, (size_t)bytes);
  free(edited);
  flush(self, it, 0, bytes);
  return code;
}

static int make_streams(vta *self) {
  self->streams = calloc((size_t)self->tables->stream_count + 1, sizeof *self->streams);
  int code = self->streams ? ID_OK : ID_ERROR_MEMORY;
  for (uint32_t i = 0; i < self->tables->stream_count && code == ID_OK; ++i)
    code = make_stream(self, &self->tables->streams[i], &self->streams[i]);
  return code;
}

/* -- one inference ------------------------------------------------------------------------------------------------ */

static const id_vta_code *code_of(const vta *self, uint32_t step) { return self->site->tables->calls[step].code; }

/* Flush, or invalidate, parts of the memories. */
static void make_seen(const vta *self, uint32_t first, uint32_t count, void (*how)(const vta *, const block *, uint64_t, uint64_t)) {
  for (uint32_t i = first; i < first + count; ++i) {
    const id_vta_range *range = &self->tables->ranges[i];
    uint64_t within;
    const block *it = piece_of(self, range->memory, range->offset, &within);
    if (it) how(self, it, within, range->bytes);
  }
}

/* What went wrong, and in which step of the span; the last one where nobody knows. */
static int failure(const vta *self, const id_span *span, int result, uint32_t *failed) {
  uint32_t instruction = 0;
  const char *fault = is_simulated(self) ? self->linked->fault(&instruction) : NULL;
  if (!fault) {
    id_say("the VTA is not done after %u polls, or its driver failed (VTADeviceRun returned %d)", (unsigned)self->tables->wait, result);
    return ID_ERROR_DEVICE;
  }
  *failed = span->first;
  while (*failed + 1 < span->last && code_of(self, *failed + 1)->first_instruction <= instruction) ++*failed;
  id_say("instruction %u of the VTA's stream %u %s", (unsigned)instruction, (unsigned)code_of(self, span->first)->stream, fault);
  return ID_ERROR_KERNEL;
}

static void share_out(const vta *self, const id_span *span, double time, double *seconds) {
  double all = 0;
  for (uint32_t step = span->first; step < span->last; ++step) all += (double)code_of(self, step)->cost;
  for (uint32_t step = span->first; step < span->last; ++step) seconds[step] = time * (double)code_of(self, step)->cost / all;
}

static int vta_run(void *state, uint32_t index, double *seconds, uint32_t *failed) {
  vta *self = state;
  const id_span *span = &self->site->tables->spans[index];
  const uint32_t number = code_of(self, span->first)->stream;
  const id_vta_stream *stream = &self->tables->streams[number];
  make_seen(self, stream->first_flush, stream->flush_count, flush);
  id_lock(&running);
  const double start = id_seconds();
  const int result =
      self->driver.device_run(self->device, (vta_phy_addr_t)self->streams[number].physical, stream->count, self->tables->wait);
  const double time = id_seconds() - start;
  const int code = result == 0 ? ID_OK : failure(self, span, result, failed);
  id_unlock(&running);
  make_seen(self, stream->first_invalidate, stream->invalidate_count, invalidate);
  if (seconds && code == ID_OK) share_out(self, span, time, seconds);
  return code;
}

static int vta_begin(void *state, const void *const *inputs, void *const *outputs) {
  vta *self = state;
  const id_tables *model = self->site->tables;
  (void)outputs;
  for (uint32_t i = 0; i < self->tables->piece_count; ++i) {
    const id_memory *memory = &model->memories[self->tables->pieces[i].memory];
    if (memory->kind != ID_MEMORY_INPUT) continue;
    self->driver.copy_in(self->pieces[i].data, inputs[memory->port], (size_t)memory->bytes);
    flush(self, &self->pieces[i], 0, memory->bytes);
  }
  return ID_OK;
}

static int vta_end(void *state, void *const *outputs, int code) {
  vta *self = state;
  const id_tables *model = self->site->tables;
  for (uint32_t i = 0; code == ID_OK && i < self->tables->piece_count; ++i) {
    const id_memory *memory = &model->memories[self->tables->pieces[i].memory];
    if (memory->kind != ID_MEMORY_OUTPUT) continue;
    invalidate(self, &self->pieces[i], 0, memory->bytes);
    self->driver.copy_out(outputs[memory->port], self->pieces[i].data, (size_t)memory->bytes);
  }
  return ID_OK;
}

/* -- open and close ----------------------------------------------------------------------------------------------- */

/* The board's own library is the one beside the weights. */
static int load_beside(const char *weights_path, vta_driver *driver) {
  static const char name[] = "libvta.so";
  const char *slash = strrchr(weights_path, '/');
  const size_t folder = slash ? (size_t)(slash - weights_path) + 1 : 0;
  char *path = malloc(folder + 2 + sizeof name);
  if (!path) return ID_ERROR_MEMORY;
  memcpy(path, folder ? weights_path : "./", folder ? folder : 2); /* without a slash dlopen looks elsewhere */
  memcpy(path + (folder ? folder : 2), name, sizeof name);
  const int code = id_vta_load(path, driver);
  free(path);
  return code;
}

static int find_driver(vta *self) {
  const id_site *site = self->site;
  if (site->driver) return id_vta_load(site->driver, &self->driver);
  if (!self->tables->linked) return load_beside(site->weights_path, &self->driver);
  self->linked = self->tables->linked;
  self->driver = self->linked->driver;
  return ID_OK;
}

static int vta_open(const id_site *site, void **state) {
  vta *self = calloc(1, sizeof *self);
  if (!self) return ID_ERROR_MEMORY;
  *state = self;
  self->site = site;
  self->tables = site->tables->devices[site->device].tables;
  int code = find_driver(self);
  if (code != ID_OK) return code;
  self->device = self->driver.device_alloc();
  if (!self->device) {
    id_say("the VTA's driver finds no VTA");
    return ID_ERROR_DEVICE;
  }
  code = make_pieces(self);
  return code == ID_OK ? make_streams(self) : code;
}

static void release(const vta *self, block *blocks, uint32_t count) {
  for (uint32_t i = 0; blocks && i < count; ++i)
    if (blocks[i].given) self->driver.release(blocks[i].given);
  free(blocks);
}

static void vta_close(void *state, int child) {
  vta *self = state;
  if (!child || is_simulated(self)) {
    release(self, self->streams, self->tables->stream_count);
    release(self, self->pieces, self->tables->piece_count);
    if (self->device) self->driver.device_free(self->device);
  } else { /* the hardware and its memory are the parent's */
    free(self->streams);
    free(self->pieces);
  }
  free(self);
}

static int vta_survives_fork(const void *state) { return is_simulated(state); }

const id_device id_vta_device = {
    .open = vta_open,
    .close = vta_close,
    .address = vta_address,
    .begin = vta_begin,
    .run = vta_run,
    .end = vta_end,
    .survives_fork = vta_survives_fork,
    .takes_driver = 1,
};
