/* cpu_device.c - the device `cpu`: steps are kernels, whose units a team of threads does chunk by chunk. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "chunks.h"
#include "common.h"
#include "cpu_tables.h"
#include "threads.h"

/* The next chunk of a worker's share in one phase, counted from the share's begin. */
typedef struct id_claim {
  _Alignas(ID_CACHE_LINE) _Atomic uint32_t next;
} id_claim;

typedef struct cpu {
  const id_site *site;
  const id_tables *tables;
  void **memories;    /* per row of the table: where it is; NULL for buffers of the caller's, and where it is out of reach */
  void **copies;      /* per row: an aligned copy of a caller's buffer that is not aligned; NULL until needed */
  void **pointers;    /* every argument of every step, resolved */
  id_team *team;      /* NULL for one thread */
  id_chunking *waves; /* per span */
  id_chunking *steps; /* per span, for id_profile; made when first wanted */
  double spin;

  /* The span in progress. */
  const id_chunking *chunking;
  id_claim *claims;      /* [phases][threads], of the largest span with a phase for every step */
  id_signal *phase;      /* the phase that is being done */
  _Atomic uint32_t done; /* chunks of it */
  _Atomic int failed;    /* a step, or -1 */
  double *seconds;       /* per phase; NULL outside of id_profile */
  double phase_start;
  double *watched;       /* [phases of all spans][1 + threads], of the inference in progress; NULL outside of id_watch */
  uint32_t *watched_steps;
  double *account;       /* the rows of `watched` for the span in progress; NULL for no clock */
} cpu;

/* -- one chunk ---------------------------------------------------------------------------------------------------- */

static void do_chunk(cpu *self, const id_chunk *chunk) {
  const id_call *call = &self->tables->calls[chunk->step];
  const id_cpu_code *code = call->code;
  if (code->kernel(self->pointers + call->first_arg, chunk->lo, chunk->hi) != 0) {
    int none = -1;
    atomic_compare_exchange_strong(&self->failed, &none, (int)chunk->step); /* the first failure is the one told */
  }
}

static int has_failed(cpu *self) { return atomic_load_explicit(&self->failed, memory_order_relaxed) >= 0; }

/* -- one span ------------------------------------------------------------------------------------------------------ */

/* Take chunks from one share until none is left. Returns how many were taken; after a failure they are taken and not done. */
static uint32_t do_share(cpu *self, id_share share, _Atomic uint32_t *next) {
  const uint32_t chunks = share.end - share.begin;
  uint32_t taken = 0;
  /* Looked at first: taking from a share that is used up would only steal its counter's cache line. */
  while (atomic_load_explicit(next, memory_order_relaxed) < chunks) {
    const uint32_t mine = atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
    if (mine >= chunks) break;
    if (!has_failed(self)) do_chunk(self, &self->chunking->chunks[share.begin + mine]);
    ++taken;
  }
  return taken;
}

/* Do the only share of a serial phase, unless another worker does. */
static uint32_t do_serial(cpu *self, id_share share, _Atomic uint32_t *next) {
  if (atomic_load_explicit(next, memory_order_relaxed) != 0) return 0;
  if (atomic_fetch_add_explicit(next, 1, memory_order_relaxed) != 0) return 0;
  for (uint32_t i = share.begin; i < share.end && !has_failed(self); ++i) do_chunk(self, &self->chunking->chunks[i]);
  return share.end - share.begin;
}

static uint32_t phase_chunks(const id_chunking *chunking, uint32_t phase) {
  const id_share *shares = chunking->shares + (size_t)phase * chunking->workers;
  return shares[chunking->serial[phase] ? 0 : chunking->workers - 1].end - shares[0].begin;
}

/* What every worker does until the last phase is done; the team's help. */
static void work(void *context, uint32_t worker) {
  cpu *self = context;
  const id_chunking *chunking = self->chunking;
  uint32_t phase;
  while ((phase = atomic_load_explicit(&self->phase->value, memory_order_acquire)) < chunking->phases) {
    const id_share *shares = chunking->shares + (size_t)phase * chunking->workers;
    id_claim *claims = self->claims + (size_t)phase * chunking->workers;
    uint32_t taken = 0;
    const double begun = self->account ? id_seconds() : 0;
    if (chunking->serial[phase]) {
      taken = do_serial(self, shares[0], &claims[0].next);
    } else {
      for (uint32_t i = 0; i < chunking->workers; ++i) {
        const uint32_t owner = (worker + i) % chunking->workers;
        taken += do_share(self, shares[owner], &claims[owner].next);
      }
    }
    if (self->account && taken) self->account[(size_t)phase * (chunking->workers + 1) + 1 + worker] = id_seconds() - begun;
    /* Who reports the last chunk opens the next phase; who took none has nothing to report, and may be late. */
    if (taken && atomic_fetch_add_explicit(&self->done, taken, memory_order_acq_rel) + taken == phase_chunks(chunking, phase)) {
      if (self->seconds || self->account) {
        const double now = id_seconds();
        if (self->seconds) self->seconds[phase] = now - self->phase_start;
        if (self->account) self->account[(size_t)phase * (chunking->workers + 1)] = now - self->phase_start;
        self->phase_start = now;
      }
      atomic_store_explicit(&self->done, 0, memory_order_relaxed);
      atomic_store(&self->phase->value, phase + 1);
      id_signal_wake(self->phase);
    } else {
      id_signal_wait(self->phase, phase, self->spin);
    }
  }
}

static void work_together(cpu *self) {
  /* No helper is inside now, so plain stores would do. */
  const size_t claims = (size_t)self->chunking->phases * self->site->threads;
  for (size_t i = 0; i < claims; ++i) atomic_store_explicit(&self->claims[i].next, 0, memory_order_relaxed);
  atomic_store_explicit(&self->done, 0, memory_order_relaxed);
  atomic_store_explicit(&self->phase->value, 0, memory_order_relaxed);
  if (self->seconds || self->account) self->phase_start = id_seconds();
  id_team_begin(self->team);
  work(self, 0);
  id_team_end(self->team);
}

static void work_alone(cpu *self) {
  const id_chunking *chunking = self->chunking;
  for (uint32_t i = 0; i < chunking->chunk_count && !has_failed(self); ++i) {
    const double start = self->seconds ? id_seconds() : 0;
    do_chunk(self, &chunking->chunks[i]);
    if (self->seconds) self->seconds[i] = id_seconds() - start;
  }
}

/* -- one inference ------------------------------------------------------------------------------------------------ */

static int is_port(const id_memory *memory) { return memory->kind == ID_MEMORY_INPUT || memory->kind == ID_MEMORY_OUTPUT; }

static int is_mine(const cpu *self, const id_memory *memory) { return memory->device == self->site->device; }

/* The caller's buffer, or an aligned copy of it: kernels use aligned vector loads. NULL without memory. */
static void *aligned(cpu *self, uint32_t row, void *buffer) {
  const id_memory *memory = &self->tables->memories[row];
  if ((uintptr_t)buffer % ID_ALIGNMENT == 0) return buffer;
  if (memory->copy != UINT64_MAX)
    for (uint32_t i = 0; i < self->tables->memory_count; ++i)
      if (self->tables->memories[i].kind == ID_MEMORY_ARENA && is_mine(self, &self->tables->memories[i]))
        return (unsigned char *)self->memories[i] + memory->copy;
  /* No huge pages: a picture would fill half of one. */
  if (!self->copies[row] && posix_memalign(&self->copies[row], ID_ALIGNMENT, memory->bytes ? (size_t)memory->bytes : 1) != 0)
    self->copies[row] = NULL;
  return self->copies[row];
}

static int cpu_begin(void *state, const void *const *inputs, void *const *outputs) {
  cpu *self = state;
  const id_tables *tables = self->tables;
  for (uint32_t i = 0; i < tables->memory_count; ++i) {
    const id_memory *memory = &tables->memories[i];
    if (!is_port(memory) || !is_mine(self, memory)) continue;
    const int given = memory->kind == ID_MEMORY_INPUT;
    void *buffer = given ? (void *)(uintptr_t)inputs[memory->port] : outputs[memory->port];
    self->memories[i] = aligned(self, i, buffer);
    if (!self->memories[i]) return ID_ERROR_MEMORY;
    if (given && self->memories[i] != buffer) memcpy(self->memories[i], buffer, (size_t)memory->bytes);
  }
  for (uint32_t i = 0; i < tables->arg_count; ++i) {
    const id_arg *arg = &tables->args[i];
    const id_memory *memory = &tables->memories[arg->memory];
    if (is_port(memory) && is_mine(self, memory)) self->pointers[i] = (unsigned char *)self->memories[arg->memory] + arg->offset;
  }
  return ID_OK;
}

static int chunk_all(cpu *self, id_chunking **chunkings, int per_step) {
  const id_tables *tables = self->tables;
  if (!*chunkings) *chunkings = calloc((size_t)tables->span_count + 1, sizeof **chunkings);
  if (!*chunkings) return ID_ERROR_MEMORY;
  for (uint32_t i = 0; i < tables->span_count; ++i) {
    if (tables->spans[i].device != self->site->device || (*chunkings)[i].shares) continue;
    const int code = id_chunks_make(&(*chunkings)[i], tables, &tables->spans[i], self->site->threads, per_step);
    if (code != ID_OK) return code;
  }
  return ID_OK;
}

/* The phases of the spans before one; with the number of spans, of all. */
static uint32_t phases_before(const cpu *self, uint32_t span) {
  uint32_t phases = 0;
  for (uint32_t i = 0; i < span; ++i)
    if (self->tables->spans[i].device == self->site->device) phases += self->waves[i].phases;
  return phases;
}

static uint32_t cpu_phases(const void *state) {
  const cpu *self = state;
  return self->team ? phases_before(self, self->tables->span_count) : 0;
}

static void cpu_watch(void *state, double *seconds, uint32_t *first_steps) {
  cpu *self = state;
  self->watched = seconds;
  self->watched_steps = first_steps;
}

/* Where the account of a span goes, with nothing in it yet. */
static void open_account(cpu *self, uint32_t span) {
  const id_chunking *chunking = self->chunking;
  const uint32_t before = phases_before(self, span);
  self->account = self->watched + (size_t)before * (chunking->workers + 1);
  memset(self->account, 0, (size_t)chunking->phases * (chunking->workers + 1) * sizeof *self->account);
  for (uint32_t i = 0; i < chunking->phases; ++i)
    self->watched_steps[before + i] = chunking->chunks[chunking->shares[(size_t)i * chunking->workers].begin].step;
}

static int cpu_run(void *state, uint32_t span, double *seconds, uint32_t *failed) {
  cpu *self = state;
  if (seconds) {
    const int code = chunk_all(self, &self->steps, 1);
    if (code != ID_OK) return code;
  }
  self->chunking = seconds ? &self->steps[span] : &self->waves[span];
  self->seconds = seconds ? seconds + self->tables->spans[span].first : NULL;
  self->account = NULL;
  if (self->watched && !seconds) open_account(self, span);
  atomic_store_explicit(&self->failed, -1, memory_order_relaxed);
  if (self->team)
    work_together(self);
  else
    work_alone(self);
  if (!has_failed(self)) return ID_OK;
  *failed = (uint32_t)atomic_load_explicit(&self->failed, memory_order_relaxed);
  return ID_ERROR_KERNEL;
}

static int cpu_end(void *state, void *const *outputs, int code) {
  const cpu *self = state;
  for (uint32_t i = 0; i < self->tables->memory_count && code == ID_OK; ++i) {
    const id_memory *memory = &self->tables->memories[i];
    if (memory->kind == ID_MEMORY_OUTPUT && is_mine(self, memory) && self->memories[i] != outputs[memory->port])
      memcpy(outputs[memory->port], self->memories[i], (size_t)memory->bytes);
  }
  return ID_OK;
}

/* -- open and close ----------------------------------------------------------------------------------------------- */

static void *cpu_address(void *state, uint32_t memory) { return ((cpu *)state)->memories[memory]; }

static int find_memories(cpu *self) {
  const id_tables *tables = self->tables;
  self->memories = calloc((size_t)tables->memory_count + 1, sizeof *self->memories);
  self->copies = calloc((size_t)tables->memory_count + 1, sizeof *self->copies);
  self->pointers = calloc((size_t)tables->arg_count + 1, sizeof *self->pointers);
  if (!self->memories || !self->copies || !self->pointers) return ID_ERROR_MEMORY;
  for (uint32_t i = 0; i < tables->memory_count; ++i) {
    const id_memory *memory = &tables->memories[i];
    if (is_port(memory)) continue;
    if (!is_mine(self, memory)) {
      self->memories[i] = id_host_address(self->site->model, i);
    } else if (memory->kind == ID_MEMORY_WEIGHTS) {
      self->memories[i] = (void *)((uintptr_t)self->site->weights + (uintptr_t)memory->first);
    } else {
      self->memories[i] = id_allocate(memory->bytes);
      if (!self->memories[i]) return ID_ERROR_MEMORY;
    }
  }
  return ID_OK;
}

/* The arguments of a span's steps, but for the caller's buffers. */
static int resolve(cpu *self, const id_span *span) {
  const id_call *first = &self->tables->calls[span->first], *last = &self->tables->calls[span->last - 1];
  for (uint32_t i = first->first_arg; i < last->first_arg + last->arg_count; ++i) {
    const id_arg *arg = &self->tables->args[i];
    const id_memory *memory = &self->tables->memories[arg->memory];
    if (self->memories[arg->memory])
      self->pointers[i] = (unsigned char *)self->memories[arg->memory] + arg->offset;
    else if (!is_port(memory) && memory->bytes)
      return ID_ERROR_DEVICE; /* a memory that the processor cannot look into */
  }
  return ID_OK;
}

static int cpu_open(const id_site *site, void **state) {
  cpu *self = calloc(1, sizeof *self);
  if (!self) return ID_ERROR_MEMORY;
  *state = self;
  self->site = site;
  self->tables = site->tables;
  int code = find_memories(self);
  for (uint32_t i = 0; i < self->tables->span_count && code == ID_OK; ++i)
    if (self->tables->spans[i].device == site->device) code = resolve(self, &self->tables->spans[i]);
  if (code == ID_OK) code = chunk_all(self, &self->waves, 0);
  if (code != ID_OK || site->threads == 1) return code;
  /* The profile's chunking has a phase per step, and the other one never more. */
  void *claims, *phase;
  if (posix_memalign(&claims, ID_CACHE_LINE, ((size_t)site->tables->info.step_count + 1) * site->threads * sizeof(id_claim)) != 0)
    return ID_ERROR_MEMORY;
  self->claims = claims;
  if (posix_memalign(&phase, ID_CACHE_LINE, sizeof(id_signal)) != 0) return ID_ERROR_MEMORY;
  memset(phase, 0, sizeof(id_signal));
  self->phase = phase;
  self->spin = id_spin_seconds(site->threads);
  self->team = id_team_start(site->threads - 1, work, self);
  return self->team ? ID_OK : ID_ERROR_THREADS;
}

static void free_chunkings(const cpu *self, id_chunking *chunkings) {
  for (uint32_t i = 0; chunkings && i < self->tables->span_count; ++i) id_chunks_free(&chunkings[i]);
  free(chunkings);
}

static void cpu_close(void *state, int child) {
  cpu *self = state;
  /* A fork's child has none of the threads; the team itself is left to the end of the process. */
  if (!child) id_team_stop(self->team);
  free_chunkings(self, self->waves);
  free_chunkings(self, self->steps);
  for (uint32_t i = 0; i < self->tables->memory_count; ++i) {
    const id_memory *memory = &self->tables->memories[i];
    if (self->copies) free(self->copies[i]);
    if (self->memories && is_mine(self, memory) && !is_port(memory) && memory->kind != ID_MEMORY_WEIGHTS)
      id_release(self->memories[i], memory->bytes);
  }
  free(self->memories);
  free(self->copies);
  free(self->pointers);
  free(self->claims);
  free(self->phase);
  free(self);
}

static int cpu_survives_fork(const void *state) { return ((const cpu *)state)->team == NULL; }

const id_device id_cpu_device = {
    .open = cpu_open,
    .close = cpu_close,
    .address = cpu_address,
    .begin = cpu_begin,
    .run = cpu_run,
    .end = cpu_end,
    .phases = cpu_phases,
    .watch = cpu_watch,
    .survives_fork = cpu_survives_fork,
    .maps_weights = 1,
    .uses_threads = 1,
};
