/* api.c - the public interface over the devices of a model: every check of a handle, of its arguments and of its weights stands here. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "common.h"
#include "device.h"

struct id_model {
  const id_tables *tables;
  const unsigned char *weights; /* NULL where no device uses them */
  uint64_t offset;              /* of them in the mapped file */
  int mapped;                   /* they are in one, and not the library's own */
  id_site *sites;               /* per device */
  void **states;                /* per device; NULL where it is not open */
  uint32_t threads;
  pid_t process;
  int survives_fork;
  _Atomic int busy;
  _Atomic int failed; /* a step, or -1 */
};

static const id_device *device(const id_model *model, uint32_t index) { return model->tables->devices[index].type; }

/* -- what needs no handle ----------------------------------------------------------------------------------------- */

const id_info *id_describe(void) { return &id_model_tables.info; }

uint32_t id_plans(void) { return id_model_plan_count; }

const id_info *id_describe_plan(uint32_t plan) { return plan < id_model_plan_count ? &id_model_plans[plan]->info : NULL; }

const char *id_error(int code) {
  switch (code) {
    case ID_OK: return "no error";
    case ID_ERROR_ARGUMENT: return "an argument is null or out of range";
    case ID_ERROR_CPU: return "this processor lacks a feature that the library was built for";
    case ID_ERROR_WEIGHTS_OPEN: return "the weights file cannot be opened or read";
    case ID_ERROR_WEIGHTS_SIZE: return "the weights file has the wrong size: it is truncated, or belongs to another model";
    case ID_ERROR_WEIGHTS_TAG: return "the weights file is damaged, or belongs to another model";
    case ID_ERROR_MEMORY: return "out of memory";
    case ID_ERROR_THREADS: return "the threads could not be started";
    case ID_ERROR_KERNEL: return "a step of the model failed";
    case ID_ERROR_BUSY: return "the handle is running in another thread";
    case ID_ERROR_FORKED: return "the handle was opened before fork(); open the model in the process that runs it";
    case ID_ERROR_DEVICE: return "no device or driver that the library was built for, or it failed";
    default: return "unknown error code";
  }
}

/* -- open and close ----------------------------------------------------------------------------------------------- */

void *id_host_address(const id_model *model, uint32_t memory) {
  const uint32_t owner = model->tables->memories[memory].device;
  const id_device *it = device(model, owner);
  return it->address && model->states[owner] ? it->address(model->states[owner], memory) : NULL;
}

static void give_weights_back(id_model *model) {
  if (model->mapped) id_unmap_weights(model->weights, model->offset, model->tables->info.weights_bytes);
  model->weights = NULL;
}

static int open_devices(id_model *model, const char *weights_path, const char *driver) {
  const id_tables *tables = model->tables;
  model->survives_fork = 1;
  int code = ID_OK, used = 0;
  for (uint32_t i = 0; i < tables->device_count && code == ID_OK; ++i) {
    const id_device *it = device(model, i);
    model->sites[i] = (id_site){model, tables, model->weights, i, model->threads, weights_path, driver};
    code = it->open(&model->sites[i], &model->states[i]);
    if (code == ID_OK) model->survives_fork &= it->survives_fork(model->states[i]);
    used |= it->maps_weights;
  }
  if (code == ID_OK && !used) give_weights_back(model);
  return code;
}

static int take_weights(id_model *model, const char *path, int whole) {
  const id_info *info = &model->tables->info;
  model->mapped = path != NULL;
  if (path) return id_map_weights(path, model->offset, whole, info->weights_bytes, info->weights_tag, &model->weights);
  model->weights = id_model_weights;
  return id_content_tag(id_model_weights, info->weights_bytes) == info->weights_tag ? ID_OK : ID_ERROR_WEIGHTS_TAG;
}

static int prepare(id_model *model, const char *weights_path, int whole, const char *driver) {
  const int code = take_weights(model, weights_path, whole); /* first: a wrong file is found out soonest */
  if (code != ID_OK) return code;
  model->sites = calloc((size_t)model->tables->device_count + 1, sizeof *model->sites);
  model->states = calloc((size_t)model->tables->device_count + 1, sizeof *model->states);
  return model->sites && model->states ? open_devices(model, weights_path, driver) : ID_ERROR_MEMORY;
}

static int takes_driver(void) {
  int taken = 0;
  for (uint32_t i = 0; i < id_model_tables.device_count; ++i) taken |= id_model_tables.devices[i].type->takes_driver;
  return taken;
}

static uint32_t wanted_threads(int threads) {
  int used = 0;
  for (uint32_t i = 0; i < id_model_tables.device_count; ++i) used |= id_model_tables.devices[i].type->uses_threads;
  const uint32_t count = !used ? 1 : threads ? (uint32_t)threads : id_processors();
  return count > ID_MAX_THREADS ? ID_MAX_THREADS : count;
}

static int open_model(uint32_t plan, const char *path, uint64_t offset, int whole, int threads, const char *driver, id_model **model) {
  id_forget();
  if (!model) return ID_ERROR_ARGUMENT;
  *model = NULL;
  if (!path && !id_model_weights) {
    id_say("the library holds no weights of its own, so that a file has to be named");
    return ID_ERROR_ARGUMENT;
  }
  if (plan >= id_model_plan_count || (!path && offset) || threads < 0 || threads > ID_MAX_THREADS || offset % ID_ALIGNMENT) return ID_ERROR_ARGUMENT;
  if (driver && !takes_driver()) {
    id_say("the model has no device whose driver can be chosen");
    return ID_ERROR_ARGUMENT;
  }
  if (id_missing_feature()) return ID_ERROR_CPU;
  id_model *made = calloc(1, sizeof *made);
  if (!made) return ID_ERROR_MEMORY;
  made->tables = id_model_plans[plan];
  made->offset = offset;
  made->threads = wanted_threads(threads);
  made->process = getpid();
  atomic_init(&made->failed, -1);
  const int code = prepare(made, path, whole, driver);
  if (code != ID_OK) {
    id_close(made);
    return code;
  }
  *model = made;
  return ID_OK;
}

int id_open(const char *weights_path, int threads, id_model **model) {
  return open_model(0, weights_path, 0, 1, threads, NULL, model);
}

int id_open_at(const char *path, uint64_t offset, int threads, id_model **model) {
  return open_model(0, path, offset, 0, threads, NULL, model);
}

int id_open_plan(uint32_t plan, const char *path, uint64_t offset, int threads, id_model **model) {
  return open_model(plan, path, offset, 0, threads, NULL, model);
}

int id_open_with_driver(const char *weights_path, int threads, const char *driver, id_model **model) {
  return open_model(0, weights_path, 0, 1, threads, driver, model);
}

void id_close(id_model *model) {
  if (!model) return;
  const int child = getpid() != model->process;
  for (uint32_t i = model->tables->device_count; model->states && i-- > 0;)
    if (model->states[i]) device(model, i)->close(model->states[i], child);
  free(model->states);
  free(model->sites);
  give_weights_back(model);
  free(model);
}

/* -- one inference ------------------------------------------------------------------------------------------------ */

static int run_spans(id_model *model, double *seconds) {
  const id_tables *tables = model->tables;
  int code = ID_OK;
  for (uint32_t i = 0; i < tables->span_count && code == ID_OK; ++i) {
    const id_span *span = &tables->spans[i];
    if (i > 0) {
      const uint32_t before = tables->spans[i - 1].device;
      if (device(model, before)->wait) code = device(model, before)->wait(model->states[before]);
    }
    uint32_t failed = 0;
    if (code == ID_OK) code = device(model, span->device)->run(model->states[span->device], i, seconds, &failed);
    if (code == ID_ERROR_KERNEL) atomic_store_explicit(&model->failed, (int)failed, memory_order_relaxed);
  }
  return code;
}

/* Where the threads of an inference put down what they did. */
typedef struct id_account {
  double *seconds;
  uint32_t *first_steps;
} id_account;

static uint32_t phases_of(const id_model *model, uint32_t at) {
  return device(model, at)->phases ? device(model, at)->phases(model->states[at]) : 0;
}

/* Give every device its part of the account, one behind the other; or take it back, where there is none. */
static void watch(id_model *model, const id_account *account) {
  uint32_t before = 0;
  for (uint32_t i = 0; i < model->tables->device_count; ++i) {
    const uint32_t phases = phases_of(model, i);
    double *seconds = account ? account->seconds + (size_t)before * (model->threads + 1) : NULL;
    if (phases) device(model, i)->watch(model->states[i], seconds, account ? account->first_steps + before : NULL);
    before += phases;
  }
}

static int infer(id_model *model, const void *const *inputs, void *const *outputs, double *seconds, const id_account *account) {
  const uint32_t devices = model->tables->device_count;
  int code = ID_OK;
  uint32_t begun = 0;
  if (account) watch(model, account);
  for (; begun < devices && code == ID_OK; ++begun) code = device(model, begun)->begin(model->states[begun], inputs, outputs);
  if (code == ID_OK) code = run_spans(model, seconds);
  for (uint32_t i = 0; i < begun; ++i) {
    const int ended = device(model, i)->end(model->states[i], outputs, code);
    if (code == ID_OK) code = ended;
  }
  if (account) watch(model, NULL);
  return code;
}

static int all_there(const id_model *model, const void *const *inputs, void *const *outputs) {
  if (!model || !inputs || !outputs) return 0;
  for (uint32_t i = 0; i < model->tables->info.input_count; ++i)
    if (!inputs[i]) return 0;
  for (uint32_t i = 0; i < model->tables->info.output_count; ++i)
    if (!outputs[i]) return 0;
  return 1;
}

/* Take the model for an inference; who may not says why. */
static int take(id_model *model) {
  if (!model->survives_fork && getpid() != model->process) return ID_ERROR_FORKED;
  return atomic_exchange_explicit(&model->busy, 1, memory_order_acquire) ? ID_ERROR_BUSY : ID_OK;
}

static void give(id_model *model) { atomic_store_explicit(&model->busy, 0, memory_order_release); }

static int run(id_model *model, const void *const *inputs, void *const *outputs, double *seconds, const id_account *account) {
  if (!all_there(model, inputs, outputs)) return ID_ERROR_ARGUMENT;
  int code = take(model);
  if (code != ID_OK) return code;
  atomic_store_explicit(&model->failed, -1, memory_order_relaxed);
  id_forget();
  code = infer(model, inputs, outputs, seconds, account);
  give(model);
  return code;
}

int id_run_async(id_model *model, const void *const *inputs, void *const *outputs, void *stream) {
  if (!all_there(model, inputs, outputs)) return ID_ERROR_ARGUMENT;
  id_forget();
  if (model->tables->span_count != 1 || !device(model, model->tables->spans[0].device)->run_async) {
    id_say("the model is not for a GPU alone, and has no streams");
    return ID_ERROR_ARGUMENT;
  }
  int code = take(model);
  if (code != ID_OK) return code;
  const uint32_t at = model->tables->spans[0].device;
  code = device(model, at)->run_async(model->states[at], inputs, outputs, stream);
  give(model);
  return code;
}

int id_run(id_model *model, const void *const *inputs, void *const *outputs) { return run(model, inputs, outputs, NULL, NULL); }

int id_profile(id_model *model, const void *const *inputs, void *const *outputs, double *seconds_per_step) {
  return seconds_per_step ? run(model, inputs, outputs, seconds_per_step, NULL) : ID_ERROR_ARGUMENT;
}

uint32_t id_phases(const id_model *model) {
  uint32_t phases = 0;
  for (uint32_t i = 0; model && i < model->tables->device_count; ++i) phases += phases_of(model, i);
  return phases;
}

int id_watch(id_model *model, const void *const *inputs, void *const *outputs, double *seconds, uint32_t *first_steps) {
  const id_account account = {seconds, first_steps};
  return seconds && first_steps ? run(model, inputs, outputs, NULL, &account) : ID_ERROR_ARGUMENT;
}

int id_failed_step(const id_model *model) {
  return model ? atomic_load_explicit(&((id_model *)(uintptr_t)model)->failed, memory_order_relaxed) : -1;
}

int id_threads(const id_model *model) { return model ? (int)model->threads : 0; }
