/* cuda_device.c - the device `cuda`: steps are launches on an NVIDIA GPU.
 *
 * The launches of a span are one graph, made when the model is opened: each waits for those whose results it needs, so that branches run
 * side by side and an inference costs one launch. Copies and graphs of a handle go through one stream. For id_profile the launches go there
 * one by one. The device's primary context is made current for the time of a call and no longer, which leaves the caller's own use of the
 * GPU alone.
 *
 * From sm_90 on a launch that waits for one other only may begin before that has ended: the edge between them is programmatic. Every
 * kernel has one place (id_earlier_done of targets/cuda_source.py) that all its threads come to, before which it reads nothing but
 * weights and writes nothing, and where they wait until the launch before has ended. So whoever has ended had all before it ended, those that
 * it never heard of among them, and the order of a graph of ends is that of one of programmatic edges: an edge that
 * another path makes needless stays needless, and memory that values take in turn stays theirs. Launches that wait for several, and the
 * first ones, begin as ever. */
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "cuda_driver.h"
#include "cuda_staging.h"
#include "cuda_tables.h"
#include "cuda_weights.h"

#define ID_CUDA_ALIGNMENT 16 /* of a buffer: kernels move so much at once */

/* Set to 0, no launch begins before what it waits for has ended. */
#define ID_CUDA_SWITCH "INCEPTION_DEPLOY_CUDA_PROGRAMMATIC"

typedef struct cuda {
  const id_site *site;
  const id_cuda_tables *tables;
  cu_driver driver;
  int ordinal;
  cu_context context; /* NULL until retained */
  int is_current;     /* during an inference */
  cu_stream stream;
  cu_module *modules;
  cu_function *functions;
  cu_pointer *memories; /* per row of the table; 0 for those that are not this device's */
  cu_pointer *values;   /* of every argument of every launch */
  void **arguments;     /* their addresses, as the driver takes them */
  cu_pointer *bound;    /* per row: where the steps find it; of a port, this device's copy or the caller's own buffer */
  cu_graph *drawn;      /* per span of the model; NULL for those of other devices */
  cu_executable *graphs; /* made of them */
  cu_node *nodes;       /* per launch */
  int programmatic;     /* edges may be */
  id_cuda_staging staging;
  cu_event *events;     /* for id_profile: one before every step, and one at the end; NULL until wanted */
} cuda;

static int is_mine(const cuda *self, const id_memory *memory) { return memory->device == self->site->device; }

static int enter(const cuda *self) { return ID_CUDA(&self->driver, context_push, self->context) == CU_SUCCESS; }

static void leave(const cuda *self) {
  cu_context popped;
  self->driver.context_pop(&popped);
}

/* -- one inference ------------------------------------------------------------------------------------------------ */

/* Put the copies of this device's inputs, or outputs, into the stream: from the caller's memory, and as far as the staging memory. */
static int copy_ports(const cuda *self, uint32_t kind, const void *const *inputs) {
  const id_tables *model = self->site->tables;
  for (uint32_t i = 0; i < model->memory_count; ++i) {
    const id_memory *it = &model->memories[i];
    if (it->kind != kind || !is_mine(self, it)) continue;
    const int code =
        kind == ID_MEMORY_INPUT
            ? id_cuda_staging_in(&self->driver, &self->staging, i, self->memories[i], inputs[it->port], it->bytes, self->stream)
            : id_cuda_staging_out(&self->driver, &self->staging, i, self->memories[i], it->bytes, self->stream);
    if (code != ID_OK) return code;
  }
  return ID_OK;
}

static int is_port(const id_memory *memory) { return memory->kind == ID_MEMORY_INPUT || memory->kind == ID_MEMORY_OUTPUT; }

static cu_kernel_node node_of(const cuda *self, uint32_t launch) {
  const id_cuda_launch *it = &self->tables->launches[launch];
  const cu_kernel_node what = {self->functions[it->function], it->grid[0], it->grid[1], it->grid[2], it->threads, 1, 1, 0,
                               self->arguments + it->first_arg, NULL, NULL, NULL};
  return what;
}

/* Give a launch the addresses in `bound`, from the next time on that its graph is launched. */
static int bind_launch(cuda *self, cu_executable graph, uint32_t launch) {
  const id_cuda_tables *tables = self->tables;
  const uint32_t first = tables->launches[launch].first_arg;
  const uint32_t end = launch + 1 < tables->launch_count ? tables->launches[launch + 1].first_arg : tables->arg_count;
  int changed = 0;
  for (uint32_t i = first; i < end; ++i) {
    const cu_pointer value = self->bound[tables->args[i].memory] + tables->args[i].offset;
    changed |= value != self->values[i];
    self->values[i] = value;
  }
  if (!changed) return ID_OK;
  const cu_kernel_node what = node_of(self, launch);
  if (ID_CUDA(&self->driver, node_set, graph, self->nodes[launch], &what) == CU_SUCCESS) return ID_OK;
  for (uint32_t i = first; i < end; ++i) self->values[i] = 0; /* so that the next time it is tried again */
  return ID_ERROR_DEVICE;
}

/* The same of all of this device's launches. */
static int bind(cuda *self) {
  const id_tables *model = self->site->tables;
  for (uint32_t i = 0; i < model->span_count; ++i) {
    if (model->spans[i].device != self->site->device) continue;
    for (uint32_t step = model->spans[i].first; step < model->spans[i].last; ++step) {
      const id_cuda_code *code = model->calls[step].code;
      for (uint32_t k = 0; k < code->launch_count; ++k) {
        const int bound = bind_launch(self, self->graphs[i], code->first_launch + k);
        if (bound != ID_OK) return bound;
      }
    }
  }
  return ID_OK;
}

static int cuda_begin(void *state, const void *const *inputs, void *const *outputs) {
  cuda *self = state;
  (void)outputs;
  self->is_current = enter(self);
  if (!self->is_current) return ID_ERROR_DEVICE;
  for (uint32_t i = 0; i < self->site->tables->memory_count; ++i) self->bound[i] = self->memories[i];
  const int code = bind(self);
  return code == ID_OK ? copy_ports(self, ID_MEMORY_INPUT, inputs) : code;
}

static int cuda_run_async(void *state, const void *const *inputs, void *const *outputs, void *stream) {
  cuda *self = state;
  const id_tables *model = self->site->tables;
  for (uint32_t i = 0; i < model->memory_count; ++i) {
    const id_memory *it = &model->memories[i];
    if (!is_port(it) || !is_mine(self, it)) continue;
    const cu_pointer given = (cu_pointer)(uintptr_t)(it->kind == ID_MEMORY_INPUT ? inputs[it->port] : outputs[it->port]);
    if (given % ID_CUDA_ALIGNMENT) {
      id_say("a buffer does not begin at a multiple of %d bytes", ID_CUDA_ALIGNMENT);
      return ID_ERROR_ARGUMENT;
    }
    self->bound[i] = given;
  }
  if (!enter(self)) return ID_ERROR_DEVICE;
  int code = bind(self);
  if (code == ID_OK && ID_CUDA(&self->driver, graph_launch, self->graphs[0], stream) != CU_SUCCESS) code = ID_ERROR_DEVICE;
  leave(self);
  return code;
}

static int cuda_wait(void *state) {
  const cuda *self = state;
  return ID_CUDA(&self->driver, stream_wait, self->stream) == CU_SUCCESS ? ID_OK : ID_ERROR_DEVICE;
}

static int launch_step(const cuda *self, uint32_t step) {
  const id_cuda_code *code = self->site->tables->calls[step].code;
  for (uint32_t i = code->first_launch; i < code->first_launch + code->launch_count; ++i) {
    const id_cuda_launch *it = &self->tables->launches[i];
    if (ID_CUDA(&self->driver, launch, self->functions[it->function], it->grid[0], it->grid[1], it->grid[2], it->threads, 1, 1, 0,
                            self->stream, self->arguments + it->first_arg, NULL) != CU_SUCCESS)
      return ID_ERROR_KERNEL;
  }
  return ID_OK;
}

static int record(const cuda *self, uint32_t event) {
  return ID_CUDA(&self->driver, event_record, self->events[event], self->stream) == CU_SUCCESS ? ID_OK : ID_ERROR_DEVICE;
}

static void destroy_events(cuda *self) {
  for (uint32_t i = 0; self->events && i <= self->site->tables->info.step_count; ++i)
    if (self->events[i]) self->driver.event_destroy(self->events[i]);
  free(self->events);
  self->events = NULL;
}

static int make_events(cuda *self) {
  if (self->events) return ID_OK;
  const uint32_t steps = self->site->tables->info.step_count;
  self->events = calloc((size_t)steps + 1, sizeof *self->events);
  if (!self->events) return ID_ERROR_MEMORY;
  for (uint32_t i = 0; i <= steps; ++i)
    if (ID_CUDA(&self->driver, event_create, &self->events[i], 0) != CU_SUCCESS) {
      destroy_events(self);
      return ID_ERROR_DEVICE;
    }
  return ID_OK;
}

static int read_events(cuda *self, const id_span *span, double *seconds) {
  int code = cuda_wait(self);
  for (uint32_t step = span->first; step < span->last && code == ID_OK; ++step) {
    float milliseconds = 0;
    if (ID_CUDA(&self->driver, event_elapsed, &milliseconds, self->events[step], self->events[step + 1]) != CU_SUCCESS) code = ID_ERROR_DEVICE;
    seconds[step] = 1e-3 * (double)milliseconds;
  }
  return code;
}

static int cuda_run(void *state, uint32_t index, double *seconds, uint32_t *failed) {
  cuda *self = state;
  if (!seconds) return ID_CUDA(&self->driver, graph_launch, self->graphs[index], self->stream) == CU_SUCCESS ? ID_OK : ID_ERROR_DEVICE;
  const id_span *span = &self->site->tables->spans[index];
  int code = make_events(self);
  for (uint32_t step = span->first; step < span->last && code == ID_OK; ++step) {
    code = record(self, step);
    if (code == ID_OK) code = launch_step(self, step);
    if (code == ID_ERROR_KERNEL) *failed = step;
  }
  if (code == ID_OK) code = record(self, span->last);
  return code == ID_OK ? read_events(self, span, seconds) : code;
}

static int cuda_end(void *state, void *const *outputs, int code) {
  cuda *self = state;
  if (!self->is_current) return ID_OK; /* said by cuda_begin */
  int ended = code == ID_OK ? copy_ports(self, ID_MEMORY_OUTPUT, NULL) : ID_OK;
  /* Even after a failure: what is in the stream still uses the staging memory. */
  const int waited = cuda_wait(self);
  if (ended == ID_OK) ended = waited;
  const id_tables *model = self->site->tables;
  for (uint32_t i = 0; i < model->memory_count && code == ID_OK && ended == ID_OK; ++i) {
    const id_memory *it = &model->memories[i];
    if (it->kind == ID_MEMORY_OUTPUT && is_mine(self, it)) id_cuda_staging_give(&self->staging, i, outputs[it->port], it->bytes);
  }
  leave(self);
  self->is_current = 0;
  return ended;
}

/* -- open --------------------------------------------------------------------------------------------------------- */

/* The newest architecture whose code this device runs; NULL where there is none. */
static const id_cuda_architecture *architecture(const cuda *self) {
  int major, minor;
  if (ID_CUDA(&self->driver, device_attribute, &major, CU_COMPUTE_CAPABILITY_MAJOR, self->ordinal) != CU_SUCCESS ||
      ID_CUDA(&self->driver, device_attribute, &minor, CU_COMPUTE_CAPABILITY_MINOR, self->ordinal) != CU_SUCCESS)
    return NULL;
  const id_cuda_architecture *best = NULL;
  for (uint32_t i = 0; i < self->tables->architecture_count; ++i) {
    const id_cuda_architecture *it = &self->tables->architectures[i];
    if (it->major == major && it->minor <= minor && (!best || it->minor > best->minor)) best = it;
  }
  if (!best) id_say("the GPU is sm_%d%d, and the model has code for none that it runs", major, minor);
  return best;
}

static int load_kernels(cuda *self) {
  const id_cuda_tables *tables = self->tables;
  const id_cuda_architecture *chosen = architecture(self);
  if (!chosen) return ID_ERROR_DEVICE;
  const char *wanted = getenv(ID_CUDA_SWITCH);
  self->programmatic = chosen->major >= 9 && self->driver.graph_add_edges && !(wanted && strcmp(wanted, "0") == 0);
  self->modules = calloc((size_t)tables->module_count + 1, sizeof *self->modules);
  self->functions = calloc((size_t)tables->function_count + 1, sizeof *self->functions);
  if (!self->modules || !self->functions) return ID_ERROR_MEMORY;
  for (uint32_t i = 0; i < tables->module_count; ++i)
    if (ID_CUDA(&self->driver, module_load, &self->modules[i], chosen->images[i]) != CU_SUCCESS) return ID_ERROR_DEVICE;
  for (uint32_t i = 0; i < tables->function_count; ++i) {
    const id_cuda_function *it = &tables->functions[i];
    if (ID_CUDA(&self->driver, module_function, &self->functions[i], self->modules[it->module], it->name) != CU_SUCCESS)
      return ID_ERROR_DEVICE;
  }
  return ID_OK;
}

/* What a memory holds before the first inference. Ports are copies of the caller's buffers. */
static int fill(const cuda *self, cu_pointer pointer, const id_memory *memory) {
  int code = CU_SUCCESS;
  /* As on a CPU: no NaN of an earlier owner can come into the padding of a layer. */
  if (memory->kind == ID_MEMORY_ARENA && memory->bytes)
    code = ID_CUDA(&self->driver, memory_set, pointer, 0, (size_t)memory->bytes, self->stream);
  if (memory->kind == ID_MEMORY_COUNTERS && memory->bytes)
    code = ID_CUDA(&self->driver, words_set, pointer, 0, (size_t)memory->bytes / 4, self->stream);
  return code == CU_SUCCESS ? ID_OK : ID_ERROR_DEVICE;
}

static int make_memories(cuda *self) {
  const id_tables *model = self->site->tables;
  self->memories = calloc((size_t)model->memory_count + 1, sizeof *self->memories);
  if (!self->memories) return ID_ERROR_MEMORY;
  int code = ID_OK;
  for (uint32_t i = 0; i < model->memory_count && code == ID_OK; ++i) {
    const id_memory *it = &model->memories[i];
    if (!is_mine(self, it)) continue;
    if (it->kind == ID_MEMORY_WEIGHTS) {
      code = id_cuda_weights_take(&self->driver, self->ordinal, it, self->site->weights, self->stream, &self->memories[i]);
    } else {
      code = id_cuda_allocate(&self->driver, &self->memories[i], it->bytes);
      if (code == ID_OK) code = fill(self, self->memories[i], it);
    }
  }
  return code;
}

static int resolve_arguments(cuda *self) {
  const uint32_t count = self->tables->arg_count;
  self->values = calloc((size_t)count + 1, sizeof *self->values);
  self->arguments = calloc((size_t)count + 1, sizeof *self->arguments);
  self->bound = calloc((size_t)self->site->tables->memory_count + 1, sizeof *self->bound);
  if (!self->values || !self->arguments || !self->bound) return ID_ERROR_MEMORY;
  for (uint32_t i = 0; i < self->site->tables->memory_count; ++i) self->bound[i] = self->memories[i];
  for (uint32_t i = 0; i < count; ++i) {
    self->values[i] = self->memories[self->tables->args[i].memory] + self->tables->args[i].offset;
    self->arguments[i] = &self->values[i];
  }
  return ID_OK;
}

/* A driver's answer to a graph with programmatic edges: whether it takes none of these. */
enum { NO_SUCH_EDGES = -1 };
static int refused(int code) { return code == CU_INVALID_VALUE || code == CU_NOT_SUPPORTED ? NO_SUCH_EDGES : ID_ERROR_DEVICE; }

/* A node for every launch of a step. */
static int add_step(const cuda *self, cu_graph graph, uint32_t step, cu_node *after) {
  const id_cuda_code *code = self->site->tables->calls[step].code;
  for (uint32_t i = code->first_launch; i < code->first_launch + code->launch_count; ++i) {
    const id_cuda_launch *it = &self->tables->launches[i];
    size_t count = 0;
    for (uint32_t k = 0; k < it->after_count; ++k) {
      const cu_node node = self->nodes[self->tables->after[it->first_after + k]];
      if (node) after[count++] = node; /* what is of an earlier span is done */
    }
    const cu_kernel_node what = node_of(self, i);
    const int programmatic = self->programmatic && count == 1;
    if (ID_CUDA(&self->driver, graph_add_kernel, &self->nodes[i], graph, after, programmatic ? 0 : count, &what) != CU_SUCCESS)
      return ID_ERROR_DEVICE;
    const cu_edge edge = {.from_port = CU_PORT_PROGRAMMATIC, .type = CU_EDGE_PROGRAMMATIC};
    if (!programmatic) continue;
    const int answer = ID_CUDA(&self->driver, graph_add_edges, graph, after, &self->nodes[i], &edge, 1);
    if (answer != CU_SUCCESS) return refused(answer);
  }
  return ID_OK;
}

/* The graph of a span. It stays as long as what is made of it, whose nodes are known by its own. */
static int make_graph(const cuda *self, const id_span *span, cu_graph *drawn, cu_executable *made) {
  cu_node *after = calloc((size_t)self->tables->launch_count + 1, sizeof *after);
  if (!after) return ID_ERROR_MEMORY;
  int code = ID_OK;
  if (ID_CUDA(&self->driver, graph_create, drawn, 0) != CU_SUCCESS) {
    *drawn = NULL;
    code = ID_ERROR_DEVICE;
  }
  for (uint32_t step = span->first; step < span->last && code == ID_OK; ++step) code = add_step(self, *drawn, step, after);
  const int answer = code == ID_OK ? ID_CUDA(&self->driver, graph_instantiate, made, *drawn, 0) : CU_SUCCESS;
  if (answer != CU_SUCCESS) {
    *made = NULL;
    code = self->programmatic ? refused(answer) : ID_ERROR_DEVICE;
  }
  free(after);
  return code;
}

static void destroy_graphs(cuda *self) {
  for (uint32_t i = 0; i < self->site->tables->span_count; ++i) {
    if (self->graphs && self->graphs[i]) self->driver.executable_destroy(self->graphs[i]);
    if (self->drawn && self->drawn[i]) self->driver.graph_destroy(self->drawn[i]);
    if (self->graphs) self->graphs[i] = NULL;
    if (self->drawn) self->drawn[i] = NULL;
  }
}

static int draw(cuda *self) {
  const id_tables *model = self->site->tables;
  int code = ID_OK;
  for (uint32_t i = 0; i < model->span_count && code == ID_OK; ++i)
    if (model->spans[i].device == self->site->device) code = make_graph(self, &model->spans[i], &self->drawn[i], &self->graphs[i]);
  return code;
}

static int make_graphs(cuda *self) {
  const id_tables *model = self->site->tables;
  self->graphs = calloc((size_t)model->span_count + 1, sizeof *self->graphs);
  self->drawn = calloc((size_t)model->span_count + 1, sizeof *self->drawn);
  self->nodes = calloc((size_t)self->tables->launch_count + 1, sizeof *self->nodes);
  if (!self->graphs || !self->drawn || !self->nodes) return ID_ERROR_MEMORY;
  int code = draw(self);
  if (code == NO_SUCH_EDGES) {
    id_forget();
    destroy_graphs(self);
    self->programmatic = 0;
    code = draw(self);
  }
  return code;
}

/* With the context current. */
static int prepare(cuda *self) {
  if (ID_CUDA(&self->driver, stream_create, &self->stream, CU_STREAM_NON_BLOCKING) != CU_SUCCESS) {
    self->stream = NULL;
    return ID_ERROR_DEVICE;
  }
  int code = load_kernels(self);
  if (code == ID_OK) code = make_memories(self);
  if (code == ID_OK) code = id_cuda_staging_make(&self->driver, &self->staging, self->site);
  if (code == ID_OK) code = resolve_arguments(self);
  if (code == ID_OK) code = make_graphs(self);
  const int waited = cuda_wait(self);
  return code == ID_OK ? waited : code;
}

static int cuda_open(const id_site *site, void **state) {
  cuda *self = calloc(1, sizeof *self);
  if (!self) return ID_ERROR_MEMORY;
  *state = self;
  self->site = site;
  self->tables = site->tables->devices[site->device].tables;
  int count = 0;
  int code = id_cuda_load(&self->driver);
  if (code != ID_OK) return code;
  const cu_driver *driver = &self->driver;
  if (ID_CUDA(driver, device_count, &count) != CU_SUCCESS) return ID_ERROR_DEVICE;
  if (count < 1) {
    id_say("the NVIDIA driver finds no GPU");
    return ID_ERROR_DEVICE;
  }
  /* The first one that is visible: CUDA_VISIBLE_DEVICES chooses. */
  if (ID_CUDA(driver, device_get, &self->ordinal, 0) != CU_SUCCESS || !architecture(self)) return ID_ERROR_DEVICE;
  if (ID_CUDA(driver, context_retain, &self->context, self->ordinal) != CU_SUCCESS) {
    self->context = NULL;
    return ID_ERROR_DEVICE;
  }
  if (!enter(self)) return ID_ERROR_DEVICE;
  code = prepare(self);
  leave(self);
  return code;
}

/* -- close -------------------------------------------------------------------------------------------------------- */

static void give_back(cuda *self) {
  const cu_driver *driver = &self->driver;
  destroy_events(self);
  destroy_graphs(self);
  for (uint32_t i = 0; self->memories && i < self->site->tables->memory_count; ++i)
    if (self->memories[i] && self->site->tables->memories[i].kind == ID_MEMORY_WEIGHTS)
      id_cuda_weights_give(driver, self->memories[i]);
    else if (self->memories[i])
      driver->memory_free(self->memories[i]);
  for (uint32_t i = 0; self->modules && i < self->tables->module_count; ++i)
    if (self->modules[i]) driver->module_unload(self->modules[i]);
  if (self->stream) driver->stream_destroy(self->stream);
  id_cuda_staging_free(driver, &self->staging);
}

static void cuda_close(void *state, int child) {
  cuda *self = state;
  if (self->context && !child) {
    if (enter(self)) {
      give_back(self);
      leave(self);
    }
    self->driver.context_release(self->ordinal);
  }
  free(self->staging.places);
  free(self->events);
  free(self->graphs);
  free(self->drawn);
  free(self->nodes);
  free(self->bound);
  free(self->memories);
  free(self->modules);
  free(self->functions);
  free(self->values);
  free(self->arguments);
  free(self);
}

static int cuda_survives_fork(const void *state) { return (void)state, 0; }

const id_device id_cuda_device = {
    .open = cuda_open,
    .close = cuda_close,
    .begin = cuda_begin,
    .run = cuda_run,
    .wait = cuda_wait,
    .end = cuda_end,
    .run_async = cuda_run_async,
    .survives_fork = cuda_survives_fork,
};
