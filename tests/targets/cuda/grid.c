/* grid.c - grids of threads on this CPU: the blocks of a launch one after the other, and the threads of a block as fibers, in either order.
 *
 * A launch may begin before the launches that it waits for have ended (`begin_early`): its first block goes on until every thread of it
 * has come to sim_earlier_done, and is put aside, with its shared memory, while the others are done. Of a kernel that does not wait all
 * blocks go on to their end. So what a kernel does before its wait happens at the earliest time that a GPU allows, and what it
 * does after at the latest. The other launch is in the middle of a block of its own then, whose shared memory is kept as well.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <setjmp.h>
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
#define STATE (16 << 20) /* of what device.h keeps for a block, at the most */
#define PAGE 4096

typedef struct { unsigned int x, y, z; } sim_index;
typedef struct { const char *name; void (*call)(void **); int barriers; char *shared, *shared_end; } sim_kernel;

/* A block in work, or put aside. */
typedef struct block {
  unsigned int threads, current, done;
  enum { READY, AT_BARRIER, WAITING, FINISHED } how[MAX_THREADS];
  jmp_buf back, fibers[MAX_THREADS];
  unsigned char begun[MAX_THREADS]; /* which fibers there are; they are used again by the next block */
  unsigned char *stacks, *shared;   /* a copy of the kernel's, while it is put aside */
  void *state;
  sim_index at;
  struct block *next;
} block;

/* A launch. */
typedef struct grid {
  const sim_kernel *kernel;
  void *arguments[MAX_ARGUMENTS]; /* their addresses */
  sim_index extent;
  unsigned int threads, begun; /* blocks */
  block *aside;
  int early, triggered, done, failed;
} grid;

EXPORT sim_index sim_thread, sim_block;
EXPORT void *sim_state;
static block *working;
static grid *running;
static int backwards, launches, early_starts;

static void start_dependents(void);

/* From a thread back to what runs the threads, until it is this one's turn again. */
static void leave_as(int how) {
  block *mine = working;
  mine->how[mine->current] = how;
  if (!_setjmp(mine->fibers[mine->current])) _longjmp(mine->back, 1);
}

EXPORT void sim_barrier(void) { leave_as(AT_BARRIER); }
EXPORT int sim_is_early(void) { return running && running->early; }
EXPORT void sim_earlier_done(void) {
  while (sim_is_early()) leave_as(WAITING);
  if (!running || running->triggered) return;
  running->triggered = 1;
  start_dependents();
}

static void fiber(void) {
  for (;;) {
    running->kernel->call(running->arguments);
    ++working->done;
    leave_as(FINISHED);
  }
}

/* A thread's turn. Contexts only make a fiber's stack its own: to switch them takes two calls of the system's, and a jump none. */
static __attribute__((noinline)) void give_turn(block *it, unsigned int thread) {
  it->current = sim_thread.x = thread;
  if (_setjmp(it->back)) return;
  if (it->begun[thread]) _longjmp(it->fibers[thread], 1);
  ucontext_t made;
  it->begun[thread] = 1;
  getcontext(&made);
  made.uc_stack.ss_sp = it->stacks + (size_t)thread * STACK;
  made.uc_stack.ss_size = STACK;
  made.uc_link = NULL;
  makecontext(&made, fiber, 0);
  setcontext(&made);
}

static block *spare; /* blocks that nobody uses, with their memory */

static block *take_block(unsigned int threads) {
  block *it = spare;
  if (it) spare = it->next;
  if (!it) {
    it = calloc(1, sizeof *it);
    it->stacks = mmap(NULL, (size_t)MAX_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    it->state = mmap(NULL, STATE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  it->threads = threads, it->done = 0;
  for (unsigned int i = 0; i < threads; ++i) it->how[i] = READY;
  return it;
}

static void give_block(block *it) {
  free(it->shared);
  it->shared = NULL;
  it->next = spare;
  spare = it;
}

static void *kept(const sim_kernel *kernel) {
  const size_t bytes = (size_t)(kernel->shared_end - kernel->shared);
  void *copy = malloc(bytes + 1);
  return bytes ? memcpy(copy, kernel->shared, bytes) : copy;
}

static void put_back(const sim_kernel *kernel, const void *copy) {
  if (kernel->shared != kernel->shared_end) memcpy(kernel->shared, copy, (size_t)(kernel->shared_end - kernel->shared));
}

/* All threads up to their next barrier, or to their end, and so on; mixing the two within a block is undefined on a GPU, and an error
 * here. Returns with those that wait for earlier launches still waiting. */
static int run_threads(block *it, int *waits) {
  working = it;
  sim_block = it->at;
  sim_state = it->state;
  for (*waits = 0; it->done < it->threads && !*waits;) {
    for (unsigned int i = 0; i < it->threads; ++i) {
      const unsigned int at = backwards ? it->threads - 1 - i : i;
      if (it->how[at] != READY && it->how[at] != WAITING) continue;
      give_turn(it, at);
      *waits |= it->how[at] == WAITING;
    }
    if (*waits) break;
    if (it->done && it->done != it->threads) return 1;
    for (unsigned int i = 0; i < it->threads; ++i)
      if (it->how[i] == AT_BARRIER) it->how[i] = READY;
  }
  return 0;
}

static int go_on(grid *it, block *mine) {
  int waits = 0;
  const int failed = run_threads(mine, &waits);
  if (waits && !failed) {
    it->aside = mine;
    mine->shared = kept(it->kernel);
    return 0;
  }
  if (!failed) give_block(mine);
  return failed;
}

/* Backwards the last block comes first, so that of the parts of a sum another one is the last to come. */
static sim_index next_block(grid *it) {
  const unsigned int count = it->extent.x * it->extent.y * it->extent.z, at = backwards ? count - 1 - it->begun : it->begun;
  ++it->begun;
  return (sim_index){at % it->extent.x, at / it->extent.x % it->extent.y, at / it->extent.x / it->extent.y};
}

static int run_block(grid *it) {
  const sim_index at = next_block(it);
  if (it->early || it->kernel->barriers) {
    block *mine = take_block(it->threads);
    mine->at = at;
    return go_on(it, mine);
  }
  working = NULL;
  sim_block = at;
  for (unsigned int i = 0; i < it->threads; ++i) {
    sim_thread.x = backwards ? it->threads - 1 - i : i;
    it->kernel->call(it->arguments);
  }
  return 0;
}

/* As far as it goes, whatever else is in the middle of a block. */
static int advance(grid *it) {
  grid *outer = running;
  block *outer_block = working;
  const sim_index thread = sim_thread, at = sim_block;
  void *state = sim_state, *shared = outer ? kept(outer->kernel) : NULL;
  running = it;
  if (!it->begun) ++launches;
  block *aside = it->aside;
  it->aside = NULL;
  if (aside) {
    put_back(it->kernel, aside->shared);
    it->failed = go_on(it, aside);
  }
  const unsigned int count = it->extent.x * it->extent.y * it->extent.z;
  while (!it->failed && !it->aside && it->begun < count) it->failed = run_block(it);
  it->done = !it->aside;
  if (outer) put_back(outer->kernel, shared);
  free(shared);
  running = outer, working = outer_block, sim_thread = thread, sim_block = at, sim_state = state;
  return it->failed;
}

static const char *early_names[4096]; /* of the kernels that began early, in order */

static void begin_early(grid *it) {
  it->early = 1;
  early_names[early_starts++ % 4096] = it->kernel->name;
  advance(it);
}

/* To its end; all before it are done. Returns whether it failed. */
static int complete(grid *it) {
  it->early = 0;
  return it->done ? it->failed : advance(it);
}

/* Of a launch that something else's failure left where it was; its fibers are in the middle of it, so nobody uses the block again. */
static void give_up(grid *it) { it->aside = NULL; }

