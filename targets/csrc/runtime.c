/* runtime.c - open, run, profile and close a model whose kernels run on this processor. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "model_tables.h"
#include "schedule.h"
#include "threads.h"

/* The next chunk of a worker's share in one phase, counted from the share's begin. */
typedef struct id_claim {
  _Alignas(ID_CACHE_LINE) _Atomic uint32_t next;
} id_claim;

struct id_model {
  const id_tables *tables;
  const unsigned char *weights;
  unsigned char *arena;
  void **pointers;      /* every argument of every call, resolved */
  void **copy; /* per port, inputs first: an aligned copy of a caller's buffer that is not; NULL until needed */
  uint32_t threads;
  double spin;
  pid_t process;
  id_team *team; /* NULL for one thread */
  id_schedule waves;
  id_schedule steps; /* for id_profile; made when first wanted */
  _Atomic int busy;

  /* The run in progress. */
  const id_schedule *schedule;
  id_claim *claims;      /* [phases][threads], of the larger schedule */
  id_signal *phase;      /* the phase that is being done */
  _Atomic uint32_t done; /* chunks of it */
  _Atomic int failed;    /* a step, or -1 */
  double *seconds;       /* per phase; NULL outside of id_profile */
  double phase_start;
};

/* -- one chunk ---------------------------------------------------------------------------------------------------- */

static void do_chunk(id_model *model, const id_chunk *chunk) {
  const id_call *it = &model->tables->calls[chunk->step];
  if (it->kernel(model->pointers + it->first_arg, chunk->lo, chunk->hi) != 0) {
    int none = -1;
    atomic_compare_exchange_strong(&model->failed, &none, (int)chunk->step); /* the first failure is the one told */
  }
}

static int has_failed(id_model *model) { return atomic_load_explicit(&model->failed, memory_order_relaxed) >= 0; }

/* -- one inference ------------------------------------------------------------------------------------------------ */

/* Take chunks from one share until none is left. Returns how many were taken; after a failure they are taken and not done. */
static uint32_t do_share(id_model *model, id_share share, _Atomic uint32_t *next) {
  const uint32_t chunks = share.end - share.begin;
  uint32_t taken = 0;
  /* Looked at first: taking from a share that is used up would only steal its counter's cache line. */
  while (atomic_load_explicit(next, memory_order_relaxed) < chunks) {
    const uint32_t mine = atomic_fetch_add_explicit(next, 1, memory_order_relaxed);
    if (mine >= chunks) break;
    if (!has_failed(model)) do_chunk(model, &model->schedule->chunks[share.begin + mine]);
    ++taken;
  }
  return taken;
}

/* Do the only share of a serial phase, unless another worker does. */
static uint32_t do_serial(id_model *model, id_share share, _Atomic uint32_t *next) {
  if (atomic_load_explicit(next, memory_order_relaxed) != 0) return 0;
  if (atomic_fetch_add_explicit(next, 1, memory_order_relaxed) != 0) return 0;
  for (uint32_t i = share.begin; i < share.end && !has_failed(model); ++i) do_chunk(model, &model->schedule->chunks[i]);
  return share.end - share.begin;
}

static uint32_t phase_chunks(const id_schedule *schedule, uint32_t phase) {
  const id_share *shares = schedule->shares + (size_t)phase * schedule->workers;
  return shares[schedule->serial[phase] ? 0 : schedule->workers - 1].end - shares[0].begin;
}

/* What every worker does until the last phase is done; the team's help. */
static void work(void *context, uint32_t worker) {
  id_model *model = context;
  const id_schedule *schedule = model->schedule;
  uint32_t phase;
  while ((phase = atomic_load_explicit(&model->phase->value, memory_order_acquire)) < schedule->phases) {
    const id_share *shares = schedule->shares + (size_t)phase * schedule->workers;
    id_claim *claims = model->claims + (size_t)phase * schedule->workers;
    uint32_t taken = 0;
    if (schedule->serial[phase]) {
      taken = do_serial(model, shares[0], &claims[0].next);
    } else {
      for (uint32_t i = 0; i < schedule->workers; ++i) {
        const uint32_t owner = (worker + i) % schedule->workers;
        taken += do_share(model, shares[owner], &claims[owner].next);
      }
    }
    /* Who reports the last chunk opens the next phase; who took none has nothing to report, and may be late. */
    if (taken && atomic_fetch_add_explicit(&model->done, taken, memory_order_acq_rel) + taken == phase_chunks(schedule, phase)) {
      if (model->seconds) {
        const double now = id_seconds();
        model->seconds[phase] = now - model->phase_start;
        model->phase_start = now;
      }
      atomic_store_explicit(&model->done, 0, memory_order_relaxed);
      atomic_store(&model->phase->value, phase + 1);
      id_signal_wake(model->phase);
    } else {
      id_signal_wait(model->phase, phase, model->spin);
    }
  }
}

static void work_together(id_model *model) {
  /* No helper is inside now, so plain stores would do. */
  const size_t claims = (size_t)model->schedule->phases * model->threads;
  for (size_t i = 0; i < claims; ++i) atomic_store_explicit(&model->claims[i].next, 0, memory_order_relaxed);
  atomic_store_explicit(&model->done, 0, memory_order_relaxed);
  atomic_store_explicit(&model->phase->value, 0, memory_order_relaxed);
  if (model->seconds) model->phase_start = id_seconds();
  id_team_begin(model->team);
  work(model, 0);
  id_team_end(model->team);
}

static void work_alone(id_model *model) {
  const id_schedule *schedule = model->schedule;
  for (uint32_t i = 0; i < schedule->chunk_count && !has_failed(model); ++i) {
    const double start = model->seconds ? id_seconds() : 0;
    do_chunk(model, &schedule->chunks[i]);
    if (model->seconds) model->seconds[i] = id_seconds() - start;
  }
}

/* A caller's buffer, or the model's aligned copy of it: kernels use aligned vector loads. NULL without memory.
   No huge pages: a picture would fill half of one. */
static void *aligned(id_model *model, uint32_t port, void *buffer, uint64_t bytes) {
  if ((uintptr_t)buffer % ID_ALIGNMENT == 0) return buffer;
  if (port < model->tables->info.input_count && model->tables->copies[port] != UINT64_MAX)
    return model->arena + model->tables->copies[port];
  if (!model->copy[port] && posix_memalign(&model->copy[port], ID_ALIGNMENT, bytes ? (size_t)bytes : 1) != 0)
    model->copy[port] = NULL;
  return model->copy[port];
}

static int infer(id_model *model, const void *const *inputs, void *const *outputs) {
  const id_tables *tables = model->tables;
  const id_info *info = &tables->info;
  for (uint32_t i = 0; i < info->input_count; ++i) {
    void *used = aligned(model, i, (void *)(uintptr_t)inputs[i], info->inputs[i].bytes);
    if (!used) return ID_ERROR_MEMORY;
    if (used != inputs[i]) memcpy(used, inputs[i], (size_t)info->inputs[i].bytes);
  }
  for (uint32_t i = 0; i < info->output_count; ++i)
    if (!aligned(model, info->input_count + i, outputs[i], info->outputs[i].bytes)) return ID_ERROR_MEMORY;

  for (uint32_t step = 0; step < info->step_count; ++step) {
    const id_call *it = &tables->calls[step];
    for (uint32_t a = it->first_arg; a < it->first_arg + it->arg_count; ++a) {
      const id_arg *arg = &tables->args[a];
      unsigned char *base;
      if (arg->space == ID_SPACE_INPUT)
        base = aligned(model, arg->port, (void *)(uintptr_t)inputs[arg->port], 0);
      else if (arg->space == ID_SPACE_OUTPUT)
        base = aligned(model, info->input_count + arg->port, outputs[arg->port], 0);
      else
        continue; /* resolved when the model was opened */
      model->pointers[a] = base + arg->offset;
    }
  }

  atomic_store_explicit(&model->failed, -1, memory_order_relaxed);
  if (model->team)
    work_together(model);
  else
    work_alone(model);
  if (has_failed(model)) return ID_ERROR_KERNEL;

  for (uint32_t i = 0; i < info->output_count; ++i) {
    const void *used = aligned(model, info->input_count + i, outputs[i], 0);
    if (used != outputs[i]) memcpy(outputs[i], used, (size_t)info->outputs[i].bytes);
  }
  return ID_OK;
}

static int run(id_model *model, const void *const *inputs, void *const *outputs, double *seconds, int per_step) {
  if (!model || !inputs || !outputs) return ID_ERROR_ARGUMENT;
  for (uint32_t i = 0; i < model->tables->info.input_count; ++i)
    if (!inputs[i]) return ID_ERROR_ARGUMENT;
  for (uint32_t i = 0; i < model->tables->info.output_count; ++i)
    if (!outputs[i]) return ID_ERROR_ARGUMENT;
  if (model->team && getpid() != model->process) return ID_ERROR_FORKED;
  if (atomic_exchange_explicit(&model->busy, 1, memory_order_acquire)) return ID_ERROR_BUSY;
  int code = ID_OK;
  if (per_step && !model->steps.phases) code = id_schedule_make(&model->steps, model->tables, model->threads, 1);
  if (code == ID_OK) {
    model->schedule = per_step ? &model->steps : &model->waves;
    model->seconds = seconds;
    code = infer(model, inputs, outputs);
  }
  atomic_store_explicit(&model->busy, 0, memory_order_release);
  return code;
}

int id_run(id_model *model, const void *const *inputs, void *const *outputs) {
  return run(model, inputs, outputs, NULL, 0);
}

int id_profile(id_model *model, const void *const *inputs, void *const *outputs, double *seconds_per_step) {
  return seconds_per_step ? run(model, inputs, outputs, seconds_per_step, 1) : ID_ERROR_ARGUMENT;
}

int id_failed_step(const id_model *model) {
  return model ? atomic_load_explicit(&((id_model *)(uintptr_t)model)->failed, memory_order_relaxed) : -1;
}

int id_threads(const id_model *model) { return model ? (int)model->threads : 0; }

/* -- open and close ----------------------------------------------------------------------------------------------- */

static uint32_t argument_count(const id_tables *tables) {
  const uint32_t steps = tables->info.step_count;
  return steps ? tables->calls[steps - 1].first_arg + tables->calls[steps - 1].arg_count : 0;
}

static int prepare(id_model *model, const char *weights_path) {
  const id_info *info = &model->tables->info;
  int code = id_map_weights(weights_path, info->weights_bytes, info->weights_tag, &model->weights);
  if (code != ID_OK) return code;
  const uint32_t arguments = argument_count(model->tables);
  model->arena = id_allocate(info->arena_bytes);
  model->pointers = calloc((size_t)arguments + 1, sizeof *model->pointers);
  model->copy = calloc((size_t)info->input_count + info->output_count + 1, sizeof *model->copy);
  if (!model->arena || !model->pointers || !model->copy) return ID_ERROR_MEMORY;
  for (uint32_t i = 0; i < arguments; ++i) {
    const id_arg *arg = &model->tables->args[i];
    if (arg->space == ID_SPACE_ARENA) model->pointers[i] = model->arena + arg->offset;
    if (arg->space == ID_SPACE_WEIGHTS) model->pointers[i] = (void *)((uintptr_t)model->weights + (uintptr_t)arg->offset);
  }
  code = id_schedule_make(&model->waves, model->tables, model->threads, 0);
  if (code != ID_OK) return code;
  if (model->threads == 1) return ID_OK;
  /* The profile's schedule has a phase per step, and the other one never more. */
  void *claims, *phase;
  if (posix_memalign(&claims, ID_CACHE_LINE, ((size_t)info->step_count + 1) * model->threads * sizeof(id_claim)) != 0)
    return ID_ERROR_MEMORY;
  model->claims = claims;
  if (posix_memalign(&phase, ID_CACHE_LINE, sizeof(id_signal)) != 0) return ID_ERROR_MEMORY;
  memset(phase, 0, sizeof(id_signal));
  model->phase = phase;
  model->spin = id_spin_seconds(model->threads);
  model->team = id_team_start(model->threads - 1, work, model);
  return model->team ? ID_OK : ID_ERROR_THREADS;
}

int id_open(const char *weights_path, int threads, id_model **model) {
  if (!model) return ID_ERROR_ARGUMENT;
  *model = NULL;
  if (!weights_path || threads < 0 || threads > ID_MAX_THREADS) return ID_ERROR_ARGUMENT;
  if (id_missing_feature()) return ID_ERROR_CPU;
  id_model *made = calloc(1, sizeof *made);
  if (!made) return ID_ERROR_MEMORY;
  made->tables = &id_model_tables;
  made->threads = threads ? (uint32_t)threads : id_processors();
  if (made->threads > ID_MAX_THREADS) made->threads = ID_MAX_THREADS;
  made->process = getpid();
  atomic_init(&made->failed, -1);
  const int code = prepare(made, weights_path);
  if (code != ID_OK) {
    id_close(made);
    return code;
  }
  *model = made;
  return ID_OK;
}

void id_close(id_model *model) {
  if (!model) return;
  const id_info *info = &model->tables->info;
  /* A fork's child has the memory and none of the threads; the team itself is left to the end of the process. */
  if (getpid() == model->process) id_team_stop(model->team);
  id_schedule_free(&model->waves);
  id_schedule_free(&model->steps);
  for (uint32_t i = 0; model->copy && i < info->input_count + info->output_count; ++i) free(model->copy[i]);
  free(model->copy);
  free(model->pointers);
  free(model->claims);
  free(model->phase);
  id_release(model->arena, info->arena_bytes);
  id_unmap_weights(model->weights, info->weights_bytes);
  free(model);
}
