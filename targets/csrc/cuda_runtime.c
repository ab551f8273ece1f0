/* cuda_runtime.c - open, run, profile and close a model whose kernels run on a GPU.
 *
 * Everything of a handle goes through one stream, so launches run in order and share one scratch memory. The device's primary context
 * is made current for the time of a call and no longer, which leaves the caller's own use of the GPU alone. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "cuda_driver.h"
#include "cuda_tables.h"

struct id_model {
  const id_info *info;
  const id_cuda_tables *tables;
  cu_driver driver;
  int device;
  cu_context context; /* NULL until retained */
  cu_stream stream;
  cu_module *modules;
  cu_function *functions;
  cu_pointer arena, weights, scratch;
  cu_pointer *ports;   /* inputs first */
  cu_pointer *values;  /* of every argument of every launch */
  void **arguments;    /* their addresses, as the driver takes them */
  cu_event *events;    /* for id_profile: one before every step, and one at the end; NULL until wanted */
  pid_t process;
  _Atomic int busy;
  _Atomic int failed; /* a step, or -1 */
};

static uint32_t port_count(const id_model *model) { return model->info->input_count + model->info->output_count; }

static uint64_t port_bytes(const id_model *model, uint32_t port) {
  const id_info *info = model->info;
  return port < info->input_count ? info->inputs[port].bytes : info->outputs[port - info->input_count].bytes;
}

/* -- one inference -------------------------------------------------------------------------------------------------- */

static int launch_step(id_model *model, uint32_t step) {
  const id_cuda_tables *tables = model->tables;
  for (uint32_t i = tables->first_launch[step]; i < tables->first_launch[step + 1]; ++i) {
    const id_launch *it = &tables->launches[i];
    if (model->driver.launch(model->functions[it->function], it->grid[0], it->grid[1], it->grid[2], it->threads, 1, 1, 0,
                             model->stream, model->arguments + it->first_arg, NULL) != CU_SUCCESS)
      return ID_ERROR_KERNEL;
  }
  return ID_OK;
}

/* Puts an inference into the stream. */
static int enqueue(id_model *model, const void *const *inputs, void *const *outputs, int timed) {
  const id_info *info = model->info;
  const cu_driver *driver = &model->driver;
  for (uint32_t i = 0; i < info->input_count; ++i)
    if (driver->copy_in(model->ports[i], inputs[i], (size_t)info->inputs[i].bytes, model->stream) != CU_SUCCESS)
      return ID_ERROR_DEVICE;
  for (uint32_t step = 0; step < info->step_count; ++step) {
    if (timed && driver->event_record(model->events[step], model->stream) != CU_SUCCESS) return ID_ERROR_DEVICE;
    const int code = launch_step(model, step);
    if (code != ID_OK) {
      atomic_store_explicit(&model->failed, (int)step, memory_order_relaxed);
      return code;
    }
  }
  if (timed && driver->event_record(model->events[info->step_count], model->stream) != CU_SUCCESS) return ID_ERROR_DEVICE;
  for (uint32_t i = 0; i < info->output_count; ++i)
    if (driver->copy_out(outputs[i], model->ports[info->input_count + i], (size_t)info->outputs[i].bytes, model->stream) !=
        CU_SUCCESS)
      return ID_ERROR_DEVICE;
  return ID_OK;
}

static int make_events(id_model *model) {
  if (model->events) return ID_OK;
  cu_event *events = calloc((size_t)model->info->step_count + 1, sizeof *events);
  if (!events) return ID_ERROR_MEMORY;
  model->events = events;
  for (uint32_t i = 0; i <= model->info->step_count; ++i)
    if (model->driver.event_create(&events[i], 0) != CU_SUCCESS) return ID_ERROR_DEVICE;
  return ID_OK;
}

static void destroy_events(id_model *model) {
  for (uint32_t i = 0; model->events && i <= model->info->step_count; ++i)
    if (model->events[i]) model->driver.event_destroy(model->events[i]);
  free(model->events);
  model->events = NULL;
}

static int infer(id_model *model, const void *const *inputs, void *const *outputs, double *seconds) {
  const cu_driver *driver = &model->driver;
  atomic_store_explicit(&model->failed, -1, memory_order_relaxed);
  int code = ID_OK;
  if (seconds && (code = make_events(model)) != ID_OK) {
    destroy_events(model);
    return code;
  }
  code = enqueue(model, inputs, outputs, seconds != NULL);
  /* Even after a failure: what is in the stream still uses the caller's memory. */
  if (driver->stream_wait(model->stream) != CU_SUCCESS && code == ID_OK) code = ID_ERROR_DEVICE;
  for (uint32_t step = 0; seconds && code == ID_OK && step < model->info->step_count; ++step) {
    float milliseconds = 0;
    if (driver->event_elapsed(&milliseconds, model->events[step], model->events[step + 1]) != CU_SUCCESS) code = ID_ERROR_DEVICE;
    seconds[step] = 1e-3 * (double)milliseconds;
  }
  return code;
}

static int run(id_model *model, const void *const *inputs, void *const *outputs, double *seconds) {
  if (!model || !inputs || !outputs) return ID_ERROR_ARGUMENT;
  for (uint32_t i = 0; i < model->info->input_count; ++i)
    if (!inputs[i]) return ID_ERROR_ARGUMENT;
  for (uint32_t i = 0; i < model->info->output_count; ++i)
    if (!outputs[i]) return ID_ERROR_ARGUMENT;
  if (getpid() != model->process) return ID_ERROR_FORKED;
  if (atomic_exchange_explicit(&model->busy, 1, memory_order_acquire)) return ID_ERROR_BUSY;
  int code = ID_ERROR_DEVICE;
  if (model->driver.context_push(model->context) == CU_SUCCESS) {
    code = infer(model, inputs, outputs, seconds);
    cu_context popped;
    model->driver.context_pop(&popped);
  }
  atomic_store_explicit(&model->busy, 0, memory_order_release);
  return code;
}

int id_run(id_model *model, const void *const *inputs, void *const *outputs) { return run(model, inputs, outputs, NULL); }

int id_profile(id_model *model, const void *const *inputs, void *const *outputs, double *seconds_per_step) {
  return seconds_per_step ? run(model, inputs, outputs, seconds_per_step) : ID_ERROR_ARGUMENT;
}

int id_failed_step(const id_model *model) {
  return model ? atomic_load_explicit(&((id_model *)(uintptr_t)model)->failed, memory_order_relaxed) : -1;
}

int id_threads(const id_model *model) { return model ? 1 : 0; } /* the caller's own: a GPU has no use for more */

/* -- open ------------------------------------------------------------------------------------------------------------ */

/* The newest architecture whose code this device runs; NULL where there is none. */
static const id_architecture *architecture(const id_model *model) {
  int major, minor;
  if (model->driver.device_attribute(&major, CU_COMPUTE_CAPABILITY_MAJOR, model->device) != CU_SUCCESS ||
      model->driver.device_attribute(&minor, CU_COMPUTE_CAPABILITY_MINOR, model->device) != CU_SUCCESS)
    return NULL;
  const id_architecture *best = NULL;
  for (uint32_t i = 0; i < model->tables->architecture_count; ++i) {
    const id_architecture *it = &model->tables->architectures[i];
    if (it->major == major && it->minor <= minor && (!best || it->minor > best->minor)) best = it;
  }
  return best;
}

static int load_kernels(id_model *model) {
  const id_cuda_tables *tables = model->tables;
  const id_architecture *chosen = architecture(model);
  if (!chosen) return ID_ERROR_DEVICE;
  model->modules = calloc((size_t)tables->module_count + 1, sizeof *model->modules);
  model->functions = calloc((size_t)tables->function_count + 1, sizeof *model->functions);
  if (!model->modules || !model->functions) return ID_ERROR_MEMORY;
  for (uint32_t i = 0; i < tables->module_count; ++i)
    if (model->driver.module_load(&model->modules[i], chosen->images[i]) != CU_SUCCESS) return ID_ERROR_DEVICE;
  for (uint32_t i = 0; i < tables->function_count; ++i) {
    const id_device_function *it = &tables->functions[i];
    if (model->driver.module_function(&model->functions[i], model->modules[it->module], it->name) != CU_SUCCESS)
      return ID_ERROR_DEVICE;
  }
  return ID_OK;
}

static int allocate(id_model *model, cu_pointer *pointer, uint64_t bytes) {
  if (bytes > SIZE_MAX) return ID_ERROR_MEMORY;
  const int code = model->driver.memory_allocate(pointer, bytes ? (size_t)bytes : 1);
  return code == CU_SUCCESS ? ID_OK : code == CU_OUT_OF_MEMORY ? ID_ERROR_MEMORY : ID_ERROR_DEVICE;
}

static int load_weights(id_model *model, const char *path) {
  const id_info *info = model->info;
  const unsigned char *data;
  int code = id_map_weights(path, info->weights_bytes, info->weights_tag, &data);
  if (code != ID_OK) return code;
  code = allocate(model, &model->weights, info->weights_bytes);
  if (code == ID_OK && data) {
    if (model->driver.copy_in(model->weights, data, (size_t)info->weights_bytes, model->stream) != CU_SUCCESS ||
        model->driver.stream_wait(model->stream) != CU_SUCCESS)
      code = ID_ERROR_DEVICE;
  }
  id_unmap_weights(data, info->weights_bytes);
  return code;
}

static int allocate_buffers(id_model *model) {
  const id_info *info = model->info;
  int code = allocate(model, &model->arena, info->arena_bytes);
  if (code == ID_OK) code = allocate(model, &model->scratch, model->tables->scratch_bytes);
  model->ports = calloc((size_t)port_count(model) + 1, sizeof *model->ports);
  if (!model->ports) return ID_ERROR_MEMORY;
  for (uint32_t i = 0; code == ID_OK && i < port_count(model); ++i) code = allocate(model, &model->ports[i], port_bytes(model, i));
  /* As on a CPU: no NaN of an earlier owner can come into the padding of a layer. */
  if (code == ID_OK && info->arena_bytes &&
      model->driver.memory_set(model->arena, 0, (size_t)info->arena_bytes, model->stream) != CU_SUCCESS)
    code = ID_ERROR_DEVICE;
  return code;
}

static cu_pointer address(const id_model *model, const id_arg *arg) {
  switch (arg->space) {
    case ID_SPACE_ARENA: return model->arena + arg->offset;
    case ID_SPACE_WEIGHTS: return model->weights + arg->offset;
    case ID_SPACE_SCRATCH: return model->scratch + arg->offset;
    case ID_SPACE_INPUT: return model->ports[arg->port] + arg->offset;
    default: return model->ports[model->info->input_count + arg->port] + arg->offset;
  }
}

static int resolve_arguments(id_model *model) {
  const uint32_t count = model->tables->arg_count;
  model->values = calloc((size_t)count + 1, sizeof *model->values);
  model->arguments = calloc((size_t)count + 1, sizeof *model->arguments);
  if (!model->values || !model->arguments) return ID_ERROR_MEMORY;
  for (uint32_t i = 0; i < count; ++i) {
    model->values[i] = address(model, &model->tables->args[i]);
    model->arguments[i] = &model->values[i];
  }
  return ID_OK;
}

/* With the context current. */
static int prepare(id_model *model, const char *weights_path) {
  if (model->driver.stream_create(&model->stream, CU_STREAM_NON_BLOCKING) != CU_SUCCESS) {
    model->stream = NULL;
    return ID_ERROR_DEVICE;
  }
  int code = load_weights(model, weights_path); /* first: a wrong file is found out soonest */
  if (code == ID_OK) code = load_kernels(model);
  if (code == ID_OK) code = allocate_buffers(model);
  if (code == ID_OK) code = resolve_arguments(model);
  if (model->driver.stream_wait(model->stream) != CU_SUCCESS && code == ID_OK) code = ID_ERROR_DEVICE;
  return code;
}

static int open_device(id_model *model, const char *weights_path) {
  int count = 0;
  int code = id_cuda_load(&model->driver);
  if (code != ID_OK) return code;
  cu_driver *driver = &model->driver;
  if (driver->device_count(&count) != CU_SUCCESS || count < 1) return ID_ERROR_DEVICE;
  /* The first one that is visible: CUDA_VISIBLE_DEVICES chooses. */
  if (driver->device_get(&model->device, 0) != CU_SUCCESS || !architecture(model)) return ID_ERROR_DEVICE;
  if (driver->context_retain(&model->context, model->device) != CU_SUCCESS) {
    model->context = NULL;
    return ID_ERROR_DEVICE;
  }
  if (driver->context_push(model->context) != CU_SUCCESS) return ID_ERROR_DEVICE;
  code = prepare(model, weights_path);
  cu_context popped;
  driver->context_pop(&popped);
  return code;
}

int id_open(const char *weights_path, int threads, id_model **model) {
  if (!model) return ID_ERROR_ARGUMENT;
  *model = NULL;
  if (!weights_path || threads < 0 || threads > ID_MAX_THREADS) return ID_ERROR_ARGUMENT;
  if (id_missing_feature()) return ID_ERROR_CPU;
  id_model *made = calloc(1, sizeof *made);
  if (!made) return ID_ERROR_MEMORY;
  made->info = &id_model_tables.info;
  made->tables = &id_model_cuda;
  made->process = getpid();
  atomic_init(&made->failed, -1);
  const int code = open_device(made, weights_path);
  if (code != ID_OK) {
    id_close(made);
    return code;
  }
  *model = made;
  return ID_OK;
}

/* -- close ----------------------------------------------------------------------------------------------------------- */

static void give_back(id_model *model) {
  const cu_driver *driver = &model->driver;
  destroy_events(model);
  for (uint32_t i = 0; model->ports && i < port_count(model); ++i)
    if (model->ports[i]) driver->memory_free(model->ports[i]);
  if (model->scratch) driver->memory_free(model->scratch);
  if (model->arena) driver->memory_free(model->arena);
  if (model->weights) driver->memory_free(model->weights);
  for (uint32_t i = 0; model->modules && i < model->tables->module_count; ++i)
    if (model->modules[i]) driver->module_unload(model->modules[i]);
  if (model->stream) driver->stream_destroy(model->stream);
}

void id_close(id_model *model) {
  if (!model) return;
  /* A fork's child has a copy of the handle and no share in the device: nothing there is the child's to give back. */
  if (model->context && getpid() == model->process) {
    if (model->driver.context_push(model->context) == CU_SUCCESS) {
      cu_context popped;
      give_back(model);
      model->driver.context_pop(&popped);
    }
    model->driver.context_release(model->device);
  }
  free(model->events);
  free(model->ports);
  free(model->modules);
  free(model->functions);
  free(model->values);
  free(model->arguments);
  free(model);
}
