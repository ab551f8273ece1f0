/* stream_device.c - the device of stream_device.h. */
#define _GNU_SOURCE
#include "stream_device.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct stream {
  const id_site *site;
  void **memories;
  uint32_t queued[64]; /* steps */
  uint32_t count;
} stream;

static _Atomic int failed_before;

static int fails(const stream *self, int function) {
  const stream_tables *tables = self->site->tables->devices[self->site->device].tables;
  return tables->fails == function && !atomic_exchange(&failed_before, 1);
}

static int is_mine(const stream *self, const id_memory *memory) { return memory->device == self->site->device; }

static int stream_open(const id_site *site, void **state) {
  stream *self = calloc(1, sizeof *self);
  if (!self) return ID_ERROR_MEMORY;
  *state = self;
  self->site = site;
  self->memories = calloc(site->tables->memory_count, sizeof *self->memories);
  if (!self->memories) return ID_ERROR_MEMORY;
  for (uint32_t i = 0; i < site->tables->memory_count; ++i) {
    const id_memory *memory = &site->tables->memories[i];
    if (!is_mine(self, memory)) continue;
    if (posix_memalign(&self->memories[i], ID_ALIGNMENT, memory->bytes) != 0) {
      self->memories[i] = NULL;
      return ID_ERROR_MEMORY;
    }
    memset(self->memories[i], 0xff, memory->bytes);
    if (memory->kind == ID_MEMORY_WEIGHTS) memcpy(self->memories[i], site->weights + memory->first, memory->bytes);
  }
  return fails(self, STREAM_OPEN) ? ID_ERROR_DEVICE : ID_OK;
}

static void stream_close(void *state, int child) {
  stream *self = state;
  (void)child;
  for (uint32_t i = 0; self->memories && i < self->site->tables->memory_count; ++i) free(self->memories[i]);
  free(self->memories);
  free(self);
}

static void *stream_address(void *state, uint32_t memory) {
  stream *self = state;
  return fails(self, STREAM_ADDRESS) ? NULL : self->memories[memory];
}

static int stream_begin(void *state, const void *const *inputs, void *const *outputs) {
  stream *self = state;
  (void)outputs;
  self->count = 0;
  for (uint32_t i = 0; i < self->site->tables->memory_count; ++i) {
    const id_memory *memory = &self->site->tables->memories[i];
    if (memory->kind == ID_MEMORY_INPUT && is_mine(self, memory)) memcpy(self->memories[i], inputs[memory->port], memory->bytes);
  }
  return fails(self, STREAM_BEGIN) ? ID_ERROR_DEVICE : ID_OK;
}

static void *operand(const stream *self, uint32_t step, uint32_t number) {
  const id_arg *arg = &self->site->tables->args[self->site->tables->calls[step].first_arg + number];
  return (unsigned char *)self->memories[arg->memory] + arg->offset;
}

static void execute(const stream *self, uint32_t step) {
  const stream_code *code = self->site->tables->calls[step].code;
  for (const stream_command *it = code->commands; it->opcode == STREAM_GATHER; ++it) {
    const float *in = operand(self, step, it->in), *weight = operand(self, step, it->weight);
    float *out = operand(self, step, it->out);
    for (int i = 0; i < STREAM_COUNT; ++i) out[i] = in[(5 * i + 3) % STREAM_COUNT] + weight[i];
  }
}

static int stream_wait(void *state) {
  stream *self = state;
  for (uint32_t i = 0; i < self->count; ++i) execute(self, self->queued[i]);
  self->count = 0;
  return fails(self, STREAM_WAIT) ? ID_ERROR_DEVICE : ID_OK;
}

static int stream_run(void *state, uint32_t index, double *seconds, uint32_t *failed) {
  stream *self = state;
  const id_span *span = &self->site->tables->spans[index];
  for (uint32_t step = span->first; step < span->last; ++step) {
    const stream_code *code = self->site->tables->calls[step].code;
    if (code->commands->opcode == STREAM_TRAP || (step + 1 == span->last && fails(self, STREAM_RUN))) {
      *failed = step;
      return ID_ERROR_KERNEL;
    }
    self->queued[self->count++] = step;
    if (!seconds) continue;
    if (stream_wait(self) != ID_OK) return ID_ERROR_DEVICE;
    seconds[step] = 1e-3;
  }
  return ID_OK;
}

static int stream_end(void *state, void *const *outputs, int code) {
  stream *self = state;
  const int waited = stream_wait(self);
  for (uint32_t i = 0; code == ID_OK && i < self->site->tables->memory_count; ++i) {
    const id_memory *memory = &self->site->tables->memories[i];
    if (memory->kind == ID_MEMORY_OUTPUT && is_mine(self, memory)) memcpy(outputs[memory->port], self->memories[i], memory->bytes);
  }
  return fails(self, STREAM_FINISH) ? ID_ERROR_DEVICE : waited;
}

static int stream_survives_fork(const void *state) { return (void)state, 0; }

const id_device stream_device = {
    .open = stream_open,
    .close = stream_close,
    .address = stream_address,
    .begin = stream_begin,
    .run = stream_run,
    .wait = stream_wait,
    .end = stream_end,
    .survives_fork = stream_survives_fork,
};
