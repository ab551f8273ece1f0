/* driver.c - a CUDA driver library whose device is this CPU, for tests of the runtime and of the generated kernels.
 *
 * It implements what csrc/cuda_driver.c looks up, with the driver's meaning where that matters to a caller: nothing that is put into
 * a stream happens before the stream is waited for, kernel arguments are copied at the launch, memory is full of NaNs when it is
 * allocated, and using anything after its release, or without a current context, is an error. Kernels come from a table of functions
 * that were compiled for the CPU from the same CUDA C as the cubins; a block's threads are fibers, run in either order.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_THREADS 1024
#define MAX_ARGUMENTS 16
#define STACK (64 * 1024)
#define PAGE 4096

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NOT_FOUND = 500, NOT_READY = 600,
       LAUNCH_FAILED = 719 };

typedef struct { unsigned int x, y, z; } sim_index;
typedef struct { const char *name; void (*call)(void **); int barriers; } sim_kernel;

/* -- the simulated device ------------------------------------------------------------------------------------------ */
EXPORT sim_index sim_thread, sim_block;
static ucontext_t scheduler, fibers[MAX_THREADS];
static unsigned char finished[MAX_THREADS], *stacks;
static unsigned int current;
static void (*running)(void **);
static void **running_arguments;
static int backwards, launches, copies, updates;

EXPORT void sim_barrier(void) { swapcontext(&fibers[current], &scheduler); }

static void fiber(void) {
  running(running_arguments);
  finished[current] = 1;
}

/* All threads up to their next barrier, or to their end. Mixing the two within a block is undefined on a GPU, and an error here. */
static int run_block(const sim_kernel *kernel, void **arguments, unsigned int threads) {
  running = kernel->call;
  running_arguments = arguments;
  if (!kernel->barriers) {
    for (unsigned int i = 0; i < threads; ++i) {
      sim_thread.x = backwards ? threads - 1 - i : i;
      kernel->call(arguments);
    }
    return 0;
  }
  if (!stacks) stacks = mmap(NULL, (size_t)MAX_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (unsigned int i = 0; i < threads; ++i) {
    getcontext(&fibers[i]);
    fibers[i].uc_stack.ss_sp = stacks + (size_t)i * STACK;
    fibers[i].uc_stack.ss_size = STACK;
    fibers[i].uc_link = &scheduler;
    makecontext(&fibers[i], fiber, 0);
    finished[i] = 0;
  }
  for (unsigned int done = 0; done < threads;) {
    for (unsigned int i = 0; i < threads; ++i) {
      current = backwards ? threads - 1 - i : i;
      sim_thread.x = current;
      swapcontext(&scheduler, &fibers[current]);
      done += finished[current];
    }
    if (done != 0 && done != threads) return 1;
  }
  return 0;
}

/* Backwards the last block comes first, so that of the parts of a sum another one is the last to come. */
static int run_grid(const sim_kernel *kernel, void **arguments, sim_index grid, unsigned int threads) {
  for (unsigned int k = 0, count = grid.x * grid.y * grid.z; k < count; ++k) {
    const unsigned int at = backwards ? count - 1 - k : k;
    sim_block = (sim_index){at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y};
    if (run_block(kernel, arguments, threads)) return 1;
  }
  return 0;
}

/* -- what tests set and ask ----------------------------------------------------------------------------------------- */
enum { MAX_TABLES = 512 };
static const sim_kernel *tables[MAX_TABLES];
static int table_count;
static double block_ms;
static int capability = 90, devices = 1, live, loaded;
static _Thread_local int in_context; /* as the driver has it: each thread has its own stack of contexts */
static char failing[64];
static size_t allocated;
static int failing_after;

EXPORT void fake_kernels(const sim_kernel *table) { table_count = 0, tables[0] = table, table_count = table != NULL; }
EXPORT void fake_more_kernels(const sim_kernel *table) { if (table_count < MAX_TABLES) tables[table_count++] = table; }
EXPORT void fake_block_ms(double ms) { block_ms = ms; } /* what each block of a launch takes, beside what the launch does */
EXPORT void fake_device(int count, int compute_capability) { devices = count; capability = compute_capability; }
EXPORT void fake_backwards(int yes) { backwards = yes; }
EXPORT int fake_live(void) { return live; } /* allocations, modules, streams, events and context references not yet given back */
EXPORT int fake_allocated(void) { return (int)allocated; } /* bytes */
EXPORT int fake_copies(void) { return copies; } /* between the host and the device */
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

/* A graph: kernels with the numbers of those before them. Its nodes run in any order that these allow: as they were added, or, backwards,
 * the last one that is ready first, which a dependency that nobody stated does not survive. */
typedef struct node { operation what; size_t *before, count; } node;
struct graph { node **nodes; size_t count; struct graph *of; }; /* `of`: what it was made of */

static int run_kernel(const operation *it) {
  void *pointers[MAX_ARGUMENTS];
  for (int a = 0; a < MAX_ARGUMENTS; ++a) pointers[a] = (void *)&it->arguments[a];
  ++launches;
  return run_grid(it->kernel, pointers, it->grid, it->threads) ? LAUNCH_FAILED : SUCCESS;
}

static int run_graph(const graph *it) {
  unsigned char *done = calloc(it->count + 1, 1);
  int code = SUCCESS;
  for (size_t left = it->count; left && code == SUCCESS; --left) {
    for (size_t k = 0; k < it->count; ++k) {
      const size_t at = backwards ? it->count - 1 - k : k;
      int ready = !done[at];
      for (size_t b = 0; ready && b < it->nodes[at]->count; ++b) ready = done[it->nodes[at]->before[b]];
      if (!ready) continue;
      code = run_kernel(&it->nodes[at]->what);
      done[at] = 1;
      break;
    }
  }
  free(done);
  return code;
}

static void forget(graph *it) {
  for (size_t i = 0; i < it->count; ++i) free(it->nodes[i]->before), free(it->nodes[i]);
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
EXPORT int cuInit(unsigned int flags) { return fails(__func__) ? NO_DEVICE : flags ? INVALID_VALUE : SUCCESS; }
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
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name) {
  (void)module;
  ENTER(NOT_FOUND);
  for (int i = 0; i < table_count; ++i)
    for (const sim_kernel *it = tables[i]; it->name; ++it)
      if (strcmp(it->name, name) == 0) {
        *function = (void *)(uintptr_t)it;
        return SUCCESS;
      }
  return NOT_FOUND;
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
  it->what = COPY, it->to = (void *)(uintptr_t)to, it->from = from, it->bytes = bytes;
  return SUCCESS;
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t bytes, void *stream) {
  ENTER(INVALID_VALUE);
  (void)stream;
  operation *it = append();
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
EXPORT int cuGraphAddKernelNode_v2(node **made, graph *to, node *const *after, size_t count, const kernel_node *what) {
  ENTER(INVALID_VALUE);
  if (what->kernel || what->context) return INVALID_VALUE;
  node *it = calloc(1, sizeof *it);
  it->before = calloc(count + 1, sizeof *it->before);
  for (it->count = 0; it->count < count; ++it->count) {
    size_t number = 0;
    while (number < to->count && to->nodes[number] != after[it->count]) ++number;
    if (number == to->count) return INVALID_VALUE; /* a node of another graph */
    it->before[it->count] = number;
  }
  const int code = make_launch(&it->what, what->function, (sim_index){what->gx, what->gy, what->gz}, (sim_index){what->bx, what->by, what->bz},
                               what->shared, what->arguments, what->extra);
  if (code != SUCCESS) return code;
  to->nodes = realloc(to->nodes, (to->count + 1) * sizeof *to->nodes);
  to->nodes[to->count++] = *made = it;
  return SUCCESS;
}
static graph *copy_of(graph *of) {
  graph *made = calloc(1, sizeof *made);
  made->nodes = calloc(of->count + 1, sizeof *of->nodes);
  made->count = of->count, made->of = of;
  for (size_t i = 0; i < of->count; ++i) {
    node *copy = made->nodes[i] = malloc(sizeof *copy);
    *copy = *of->nodes[i];
    copy->before = calloc(copy->count + 1, sizeof *copy->before);
    memcpy(copy->before, of->nodes[i]->before, copy->count * sizeof *copy->before);
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
