/* driver.c - a CUDA driver library whose device is this CPU, for tests of the runtime and of the generated kernels.
 *
 * It implements what csrc/cuda_driver.c looks up, with the driver's meaning where that matters to a caller: nothing that is put into
 * a stream happens before the stream is waited for, kernel arguments are copied at the launch, memory is full of NaNs when it is
 * allocated, and using anything after its release, or without a current context, is an error. Kernels come from a table of functions
 * that were compiled for the CPU from the same CUDA C as the cubins; grid.c, which stands before this, runs them.
 */
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NOT_FOUND = 500, NOT_READY = 600,
       LAUNCH_FAILED = 719, NOT_SUPPORTED = 801 };


/* -- what tests set and ask ----------------------------------------------------------------------------------------- */
enum { MAX_TABLES = 512 };
static const sim_kernel *tables[MAX_TABLES];
static int table_count;
static double block_ms;
static int capability = 90, devices = 1, live, loaded, copies, pageable, updates;
static _Thread_local int in_context; /* as the driver has it: each thread has its own stack of contexts */
static char failing[64];
static size_t allocated;
static int failing_after;

EXPORT void fake_kernels(const sim_kernel *table) { table_count = 0, tables[0] = table, table_count = table != NULL; }
EXPORT void fake_more_kernels(const sim_kernel *table) { if (table_count < MAX_TABLES) tables[table_count++] = table; }
EXPORT void fake_block_ms(double ms) { block_ms = ms; } /* what each block of a launch takes, beside what the launch does */
EXPORT void fake_device(int count, int compute_capability) { devices = count; capability = compute_capability; }
EXPORT void fake_backwards(int yes) { backwards = yes; }
EXPORT int fake_early(void) { return early_starts; } /* launches that began before what they wait for had ended */
EXPORT int fake_live(void) { return live; } /* allocations, modules, streams, events and context references not yet given back */
EXPORT const char *fake_early_name(int number) { return early_names[number % 4096]; }
EXPORT int fake_allocated(void) { return (int)allocated; } /* bytes */
EXPORT int fake_copies(void) { return copies; } /* between the host and the device */
EXPORT int fake_pageable(void) { return pageable; } /* of these, to or from memory of the host that is not page-locked */
EXPORT int fake_updates(void) { return updates; } /* of nodes of graphs */
EXPORT int fake_launches(void) { return launches; }
EXPORT int fake_loaded(void) { return loaded; } /* e_flags of the image that was loaded last: its architecture */
EXPORT void fake_fail(const char *function, int after) { /* the call of `function` that comes after `after` others fails */
  snprintf(failing, sizeof failing, "%s", function);
  failing_after = after;
}

static int fails(const char *function) { return strcmp(failing, function) == 0 && failing_after-- == 0; }

#define ENTER(code)                           \
  do {                                        \
    if (fails(__func__)) return (code);       \
    if (!in_context) return INVALID_CONTEXT;  \
  } while (0)

/* -- the stream ------------------------------------------------------------------------------------------------------ */
typedef struct graph graph;
typedef struct { enum { COPY, FILL, LAUNCH, RECORD, GRAPH } what; const graph *nodes; void *to; const void *from; size_t bytes; int value; const sim_kernel *kernel;
                 sim_index grid; unsigned int threads; void *arguments[MAX_ARGUMENTS]; double *time; } operation;
static operation *queue;
static size_t queued, room;
static double ticks;

/* A graph: kernels with the numbers of those before them, and whether the edge from there is programmatic. Its nodes run in any order that
 * these allow: as they were added, or, backwards, the last one that is ready first, which a dependency that nobody stated does not
 * survive. One whose edges are programmatic begins as soon as it may: when all before it are done, or have triggered. */
typedef struct node { operation what; size_t *before, count; unsigned char *programmatic; } node;
struct graph { node **nodes; size_t count; struct graph *of; }; /* `of`: what it was made of */

static grid launch_of(const operation *it) {
  grid made = {.kernel = it->kernel, .extent = it->grid, .threads = it->threads};
  for (int a = 0; a < MAX_ARGUMENTS; ++a) made.arguments[a] = (void *)&it->arguments[a];
  return made;
}

static int run_kernel(const operation *it) {
  grid made = launch_of(it);
  return complete(&made) ? LAUNCH_FAILED : SUCCESS;
}

static const graph *in_work; /* with `grids`, one a node */
static grid *grids;

/* Whether all that a node waits for is done; or, to begin early, has come so far that it may. */
static int is_ready(const node *it, int early) {
  for (size_t b = 0; b < it->count; ++b) {
    const grid *before = &grids[it->before[b]];
    if (!before->done && !(early && it->programmatic[b] && before->triggered)) return 0;
  }
  return 1;
}

/* Called by the launch that has just triggered. */
static void start_dependents(void) {
  for (size_t k = 0; in_work && k < in_work->count; ++k) {
    const size_t at = backwards ? in_work->count - 1 - k : k;
    grid *it = &grids[at];
    if (!it->begun && !it->done && !is_ready(in_work->nodes[at], 0) && is_ready(in_work->nodes[at], 1)) begin_early(it);
  }
}

static int run_graph(const graph *it) {
  in_work = it;
  grids = calloc(it->count + 1, sizeof *grids);
  for (size_t k = 0; k < it->count; ++k) grids[k] = launch_of(&it->nodes[k]->what);
  int failed = 0;
  for (int more = 1; more && !failed;) {
    more = 0;
    for (size_t k = 0; k < it->count && !more; ++k) {
      const size_t at = backwards ? it->count - 1 - k : k;
      if (grids[at].done || !is_ready(it->nodes[at], 0)) continue;
      more = 1;
      failed = complete(&grids[at]);
    }
  }
  for (size_t k = 0; k < it->count; ++k) failed |= grids[k].failed || !grids[k].done, give_up(&grids[k]);
  free(grids);
  in_work = NULL;
  return failed ? LAUNCH_FAILED : SUCCESS;
}

static void forget(graph *it) {
  for (size_t i = 0; i < it->count; ++i) free(it->nodes[i]->before), free(it->nodes[i]->programmatic), free(it->nodes[i]);
  free(it->nodes);
  free(it);
}

static operation *append(void) {
  if (queued == room) {
    room = room ? 2 * room : 64;
    queue = realloc(queue, room * sizeof *queue);
  }
  memset(&queue[queued], 0, sizeof *queue);
  return &queue[queued++];
}

static int drain(void) {
  int code = SUCCESS;
  for (size_t i = 0; i < queued && code == SUCCESS; ++i) {
    operation *it = &queue[i];
    ticks += 0.5; /* milliseconds: every operation takes as long */
    if (it->what == COPY) ++copies, memcpy(it->to, it->from, it->bytes);
    if (it->what == FILL) memset(it->to, it->value, it->bytes);
    if (it->what == RECORD) *it->time = ticks;
    if (it->what == LAUNCH) code = run_kernel(it), ticks += block_ms * it->grid.x * it->grid.y * it->grid.z;
    if (it->what == GRAPH) code = run_graph(it->nodes), forget((graph *)it->nodes);
  }
  queued = 0;
  return code;
}

/* What a wait for the stream says: everything in it is done, or nothing is any more. */
static int wait_for_all(int failed) {
  const int code = drain();
  return failed ? LAUNCH_FAILED : code;
}

/* -- the driver's interface ------------------------------------------------------------------------------------------ */
/* In a process that no test speaks to, the environment says what the functions above do: FAKE_BLOCK_MS, and FAKE_KERNELS, a folder whose
 * libraries of kernels are taken as they come. */
EXPORT int cuInit(unsigned int flags) {
  if (getenv("FAKE_BLOCK_MS")) block_ms = strtod(getenv("FAKE_BLOCK_MS"), NULL);
  return fails(__func__) ? NO_DEVICE : flags ? INVALID_VALUE : SUCCESS;
}
static void take_what_has_come(void) {
  static char taken[MAX_TABLES];
  for (int i = 0; getenv("FAKE_KERNELS") && i < MAX_TABLES; ++i) {
    char path[4096];
    snprintf(path, sizeof path, "%s/kernels%d.so", getenv("FAKE_KERNELS"), i);
    void *library = taken[i] ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) continue;
    taken[i] = 1;
    fake_more_kernels(dlsym(library, "table"));
  }
}
EXPORT int cuGetErrorName(int code, const char **name) {
  *name = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : code == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : "CUDA_ERROR_OTHER";
  return SUCCESS;
}
EXPORT int cuDeviceGetCount(int *count) { *count = devices; return SUCCESS; }
EXPORT int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal < devices ? SUCCESS : INVALID_VALUE; }
EXPORT int cuDeviceGetName(char *name, int length, int device) { (void)device; snprintf(name, (size_t)length, "simulated"); return SUCCESS; }
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  if (attribute == 75) *value = capability / 10;
  else if (attribute == 76) *value = capability % 10;
  else if (attribute == 16) *value = 132; /* multiprocessors, and the clocks in kHz, the bus and the cache of an H100 */
  else if (attribute == 13) *value = 1830000;
  else if (attribute == 36) *value = 2619000;
  else if (attribute == 37) *value = 5120;
  else if (attribute == 38) *value = 50 << 20;
  else return INVALID_VALUE;
  return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) {
  if (fails(__func__)) return OUT_OF_MEMORY;
  *context = (void *)(uintptr_t)(device + 1);
  ++live;
  return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; --live; return SUCCESS; }
EXPORT int cuCtxPushCurrent_v2(void *context) { if (!context || fails(__func__)) return INVALID_CONTEXT; ++in_context; return SUCCESS; }
EXPORT int cuCtxPopCurrent_v2(void **context) { if (!in_context) return INVALID_CONTEXT; --in_context; *context = NULL; return SUCCESS; }

EXPORT int cuModuleLoadData(void **module, const void *image) {
  ENTER(INVALID_IMAGE);
  const unsigned char *bytes = image;
  if (memcmp(bytes, "\177ELF", 4) != 0 || bytes[18] != 190) return INVALID_IMAGE; /* EM_CUDA */
  loaded = bytes[48];
  *module = malloc(1);
  ++live;
  return SUCCESS;
}
EXPORT int cuModuleUnload(void *module) { ENTER(INVALID_VALUE); free(module); --live; return SUCCESS; }
static const sim_kernel *named(const char *name) {
  for (int i = 0; i < table_count; ++i)
    for (const sim_kernel *it = tables[i]; it->name; ++it)
      if (strcmp(it->name, name) == 0) return it;
  return NULL;
}
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name) {
  (void)module;
  ENTER(NOT_FOUND);
  if (!named(name)) take_what_has_come();
  *function = (void *)(uintptr_t)named(name);
  return *function ? SUCCESS : NOT_FOUND;
}

/* An allocation ends where its last page ends, so that a kernel that runs past it crashes. */
typedef struct { size_t mapped, bytes; } header;
static size_t mapped_for(size_t bytes) { return (bytes + 2 * PAGE - 1) / PAGE * PAGE + PAGE; }

EXPORT int cuMemAlloc_v2(unsigned long long *pointer, size_t bytes) {
  ENTER(OUT_OF_MEMORY);
  if (bytes == 0) return INVALID_VALUE;
  const size_t rounded = (bytes + 255) / 256 * 256, size = mapped_for(rounded + PAGE);
  unsigned char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return OUT_OF_MEMORY;
  mprotect(memory + size - PAGE, PAGE, PROT_NONE);
  unsigned char *start = memory + size - PAGE - rounded;
  memset(start, 0xff, rounded); /* NaN */
  ((header *)memory)->mapped = size;
  allocated += ((header *)memory)->bytes = rounded;
  *(void **)(start - sizeof(void *)) = memory;
  *pointer = (unsigned long long)(uintptr_t)start;
  ++live;
  return SUCCESS;
}
EXPORT int cuMemFree_v2(unsigned long long pointer) {
  ENTER(INVALID_VALUE);
  void *memory = *(void **)((uintptr_t)pointer - sizeof(void *));
  allocated -= ((header *)memory)->bytes;
  munmap(memory, ((header *)memory)->mapped);
  --live;
  return SUCCESS;
}

/* Page-locked memory of the host. */
enum { MAX_LOCKED = 64 };
static struct { unsigned char *memory; size_t bytes; } locked[MAX_LOCKED];

EXPORT int cuMemHostAlloc(void **memory, size_t bytes, unsigned int flags) {
  ENTER(OUT_OF_MEMORY);
  if (flags || !bytes) return INVALID_VALUE;
  for (int i = 0; i < MAX_LOCKED; ++i) {
    if (locked[i].memory) continue;
    *memory = locked[i].memory = malloc(bytes), locked[i].bytes = bytes;
    memset(*memory, 0xff, bytes);
    ++live;
    return SUCCESS;
  }
  return OUT_OF_MEMORY;
}
EXPORT int cuMemFreeHost(void *memory) {
  ENTER(INVALID_VALUE);
  for (int i = 0; i < MAX_LOCKED; ++i) {
    if (locked[i].memory != memory) continue;
    free(memory);
    locked[i].memory = NULL;
    --live;
    return SUCCESS;
  }
  return INVALID_VALUE;
}
static int is_locked(const void *memory, size_t bytes) {
  const unsigned char *at = memory;
  for (int i = 0; i < MAX_LOCKED; ++i)
    if (locked[i].memory && at >= locked[i].memory && at + bytes <= locked[i].memory + locked[i].bytes) return 1;
  return 0;
}

EXPORT int cuStreamCreate(void **stream, unsigned int flags) { ENTER(OUT_OF_MEMORY); (void)flags; *stream = malloc(1); ++live; return SUCCESS; }
EXPORT int cuStreamDestroy_v2(void *stream) { ENTER(INVALID_VALUE); free(stream); --live; return SUCCESS; }
EXPORT int cuStreamSynchronize(void *stream) {
  (void)stream;
  return in_context ? wait_for_all(fails(__func__)) : INVALID_CONTEXT;
}

EXPORT int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t bytes, void *stream) {
  ENTER(INVALID_VALUE);
  (void)stream;
  operation *it = append();
  pageable += !is_locked(from, bytes);
  it->what = COPY, it->to = (void *)(uintptr_t)to, it->from = from, it->bytes = bytes;
  return SUCCESS;
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t bytes, void *stream) {
  ENTER(INVALID_VALUE);
  (void)stream;
  operation *it = append();
  pageable += !is_locked(to, bytes);
  it->what = COPY, it->to = to, it->from = (const void *)(uintptr_t)from, it->bytes = bytes;
  return SUCCESS;
}

/* Not done: what a fresh allocation holds must not matter to any kernel, and NaNs show where it does. */
EXPORT int cuMemsetD8Async(unsigned long long to, unsigned char value, size_t bytes, void *stream) {
  ENTER(INVALID_VALUE);
  (void)to, (void)value, (void)bytes, (void)stream;
  return SUCCESS;
}

EXPORT int cuMemsetD32Async(unsigned long long to, unsigned int value, size_t words, void *stream) {
  ENTER(INVALID_VALUE);
  (void)stream;
  if (value) return INVALID_VALUE; /* `drain` sets bytes */
  operation *it = append();
  it->what = FILL, it->to = (void *)(uintptr_t)to, it->bytes = 4 * words;
  return SUCCESS;
}

/* A launch as it will run; the arguments are copied. */
static int make_launch(operation *it, void *function, sim_index grid, sim_index block, unsigned int shared, void **arguments, void **extra) {
  const sim_kernel *kernel = function;
  if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535 || !block.x || block.x > MAX_THREADS) return INVALID_VALUE;
  if (block.y != 1 || block.z != 1 || shared || extra) return INVALID_VALUE;
  it->what = LAUNCH, it->kernel = kernel, it->grid = grid, it->threads = block.x;
  /* The driver takes as many arguments as the function has; their number is the table's last word on it. */
  int count = 0;
  for (const char *c = strchr(kernel->name, '\0') + 1; count < MAX_ARGUMENTS && c[count] == '*'; ++count) it->arguments[count] = *(void **)arguments[count];
  return SUCCESS;
}

EXPORT int cuLaunchKernel(void *function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz,
                          unsigned int shared, void *stream, void **arguments, void **extra) {
  ENTER(LAUNCH_FAILED);
  (void)stream;
  operation made;
  memset(&made, 0, sizeof made);
  const int code = make_launch(&made, function, (sim_index){gx, gy, gz}, (sim_index){bx, by, bz}, shared, arguments, extra);
  if (code == SUCCESS) *append() = made;
  return code;
}

typedef struct { void *function; unsigned int gx, gy, gz, bx, by, bz, shared; void **arguments, **extra; void *kernel, *context; } kernel_node;
_Static_assert(sizeof(kernel_node) == 72, "CUDA_KERNEL_NODE_PARAMS_v2");

EXPORT int cuGraphCreate(graph **made, unsigned int flags) {
  ENTER(OUT_OF_MEMORY);
  *made = calloc(1, sizeof **made);
  ++live;
  return flags ? INVALID_VALUE : SUCCESS;
}
/* Which node of a graph this is; its count where it is of another. */
static size_t number_of(const graph *it, const node *wanted) {
  size_t number = 0;
  while (number < it->count && it->nodes[number] != wanted) ++number;
  return number;
}
static int add_edge(const graph *it, node *to, const node *from, int programmatic) {
  const size_t number = number_of(it, from);
  for (size_t b = 0; b < to->count; ++b)
    if (to->before[b] == number) return INVALID_VALUE; /* there already */
  if (number == it->count) return INVALID_VALUE;
  to->before = realloc(to->before, (to->count + 1) * sizeof *to->before);
  to->programmatic = realloc(to->programmatic, to->count + 1);
  to->before[to->count] = number;
  to->programmatic[to->count++] = (unsigned char)programmatic;
  return SUCCESS;
}
EXPORT int cuGraphAddKernelNode_v2(node **made, graph *to, node *const *after, size_t count, const kernel_node *what) {
  ENTER(INVALID_VALUE);
  if (what->kernel || what->context) return INVALID_VALUE;
  node *it = calloc(1, sizeof *it);
  int code = make_launch(&it->what, what->function, (sim_index){what->gx, what->gy, what->gz}, (sim_index){what->bx, what->by, what->bz},
                         what->shared, what->arguments, what->extra);
  for (size_t k = 0; k < count && code == SUCCESS; ++k) code = add_edge(to, it, after[k], 0);
  if (code != SUCCESS) return code;
  to->nodes = realloc(to->nodes, (to->count + 1) * sizeof *to->nodes);
  to->nodes[to->count++] = *made = it;
  return SUCCESS;
}
#ifndef FAKE_OLDER /* than CUDA 12.3 */
typedef struct { unsigned char from_port, to_port, type, reserved[5]; } edge;
EXPORT int cuGraphAddDependencies_v2(graph *it, node *const *from, node *const *to, const edge *edges, size_t count) {
  ENTER(NOT_SUPPORTED);
  for (size_t k = 0; k < count; ++k) {
    static const edge ends, programmatic = {1, 0, 1, {0}}; /* by its end; by its trigger */
    const int is = memcmp(&edges[k], &programmatic, sizeof(edge)) == 0;
    if (!is && memcmp(&edges[k], &ends, sizeof(edge)) != 0) return INVALID_VALUE;
    if (is && capability < 90) return NOT_SUPPORTED;
    if (number_of(it, to[k]) == it->count) return INVALID_VALUE;
    const int code = add_edge(it, to[k], from[k], is);
    if (code != SUCCESS) return code;
  }
  return SUCCESS;
}
#endif
static graph *copy_of(graph *of) {
  graph *made = calloc(1, sizeof *made);
  made->nodes = calloc(of->count + 1, sizeof *of->nodes);
  made->count = of->count, made->of = of;
  for (size_t i = 0; i < of->count; ++i) {
    node *copy = made->nodes[i] = malloc(sizeof *copy);
    *copy = *of->nodes[i];
    copy->before = calloc(copy->count + 1, sizeof *copy->before);
    if (copy->count) memcpy(copy->before, of->nodes[i]->before, copy->count * sizeof *copy->before);
    copy->programmatic = calloc(copy->count + 1, 1);
    if (copy->count) memcpy(copy->programmatic, of->nodes[i]->programmatic, copy->count);
  }
  return made;
}
EXPORT int cuGraphInstantiateWithFlags(graph **made, graph *of, unsigned long long flags) {
  ENTER(OUT_OF_MEMORY);
  if (flags) return INVALID_VALUE;
  *made = copy_of(of);
  ++live;
  return SUCCESS;
}
/* From the next launch on. The node is the graph's that was instantiated, which has to be there still. */
EXPORT int cuGraphExecKernelNodeSetParams_v2(graph *made, node *which, const kernel_node *what) {
  ENTER(INVALID_VALUE);
  for (size_t i = 0; i < made->of->count; ++i)
    if (made->of->nodes[i] == which) {
      ++updates;
      return make_launch(&made->nodes[i]->what, what->function, (sim_index){what->gx, what->gy, what->gz},
                         (sim_index){what->bx, what->by, what->bz}, what->shared, what->arguments, what->extra);
    }
  return INVALID_VALUE;
}
static int free_graph(graph *it) {
  forget(it);
  --live;
  return SUCCESS;
}
EXPORT int cuGraphDestroy(graph *it) { ENTER(INVALID_VALUE); return free_graph(it); }
EXPORT int cuGraphExecDestroy(graph *it) { ENTER(INVALID_VALUE); return free_graph(it); }
EXPORT int cuGraphLaunch(graph *it, void *stream) {
  ENTER(LAUNCH_FAILED);
  (void)stream;
  operation *made = append();
  made->what = GRAPH, made->nodes = copy_of(it); /* what is changed later is for later launches */
  return SUCCESS;
}

EXPORT int cuEventCreate(void **event, unsigned int flags) { ENTER(OUT_OF_MEMORY); (void)flags; *event = calloc(1, sizeof(double)); ++live; return SUCCESS; }
EXPORT int cuEventDestroy_v2(void *event) { ENTER(INVALID_VALUE); free(event); --live; return SUCCESS; }
EXPORT int cuEventRecord(void *event, void *stream) {
  ENTER(INVALID_VALUE);
  (void)stream;
  operation *it = append();
  it->what = RECORD, it->time = event;
  return SUCCESS;
}
EXPORT int cuEventElapsedTime(float *milliseconds, void *start, void *end) {
  ENTER(INVALID_VALUE);
  if (queued) return NOT_READY;
  *milliseconds = (float)(*(double *)end - *(double *)start);
  return SUCCESS;
}
