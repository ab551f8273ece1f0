/* threads.c - a team of threads that helps its owner, and what they wait with. */
#define _GNU_SOURCE
#include "threads.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

/* An inference waits every few hundred microseconds, and waking a thread takes fifty; so waiting begins with looking. Not for long: an
 * idle model must not take processor time. */
#define SPIN_SECONDS 100e-6
#define STACK_BYTES ((size_t)2 << 20)

/* Set in `gate` while helpers may begin; the bits below count those inside. */
#define OPEN 0x80000000u

struct id_team {
  id_signal calls; /* goes up with every id_team_begin */
  id_signal gate;
  _Atomic int stop;
  double spin;
  uint32_t helpers;
  id_help help;
  void *context;
  struct helper {
    id_team *team;
    pthread_t thread;
    uint32_t worker;
  } members[];
};

static void breathe(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield");
#endif
}

void id_signal_wait(id_signal *signal, uint32_t seen, double spin) {
  const double start = id_seconds();
  do {
    for (int i = 0; i < 32; ++i) {
      if (atomic_load_explicit(&signal->value, memory_order_acquire) != seen) return;
      breathe();
    }
  } while (id_seconds() - start < spin);
  /* All sequentially consistent: either id_signal_wake sees the sleeper, or the futex call sees the new value. */
  atomic_fetch_add(&signal->asleep, 1);
  while (atomic_load(&signal->value) == seen) syscall(SYS_futex, &signal->value, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
  atomic_fetch_sub(&signal->asleep, 1);
}

void id_signal_wake(id_signal *signal) {
  if (atomic_load(&signal->asleep) > 0) syscall(SYS_futex, &signal->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static int enter(id_team *team) {
  uint32_t gate = atomic_load_explicit(&team->gate.value, memory_order_relaxed);
  while (gate & OPEN)
    if (atomic_compare_exchange_weak_explicit(&team->gate.value, &gate, gate + 1, memory_order_acquire, memory_order_relaxed))
      return 1;
  return 0;
}

static void leave(id_team *team) {
  if (atomic_fetch_sub(&team->gate.value, 1) == 1) id_signal_wake(&team->gate); /* closed, and this was the last inside */
}

static void *live(void *argument) {
  const struct helper *self = argument;
  id_team *team = self->team;
  for (uint32_t seen = 0;;) {
    id_signal_wait(&team->calls, seen, team->spin);
    seen = atomic_load_explicit(&team->calls.value, memory_order_acquire);
    if (atomic_load_explicit(&team->stop, memory_order_relaxed)) return NULL;
    if (enter(team)) {
      team->help(team->context, self->worker);
      leave(team);
    }
  }
}

static void call_all(id_team *team) {
  atomic_fetch_add(&team->calls.value, 1);
  id_signal_wake(&team->calls);
}

void id_team_begin(id_team *team) {
  atomic_store(&team->gate.value, OPEN); /* id_team_end left it at 0 */
  call_all(team);
}

void id_team_end(id_team *team) {
  uint32_t gate = atomic_fetch_and(&team->gate.value, ~OPEN) & ~OPEN;
  while (gate) {
    id_signal_wait(&team->gate, gate, team->spin);
    gate = atomic_load_explicit(&team->gate.value, memory_order_acquire);
  }
}

static void halt(id_team *team, uint32_t started) {
  atomic_store_explicit(&team->stop, 1, memory_order_relaxed);
  call_all(team);
  for (uint32_t i = 0; i < started; ++i) pthread_join(team->members[i].thread, NULL);
  free(team);
}

id_team *id_team_start(uint32_t helpers, id_help help, void *context) {
  const size_t bytes = sizeof(id_team) + helpers * sizeof(struct helper);
  void *memory;
  if (posix_memalign(&memory, ID_CACHE_LINE, bytes) != 0) return NULL;
  memset(memory, 0, bytes);
  id_team *team = memory;
  team->helpers = helpers;
  team->help = help;
  team->context = context;
  team->spin = id_spin_seconds(helpers + 1);

  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) {
    free(team);
    return NULL;
  }
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  /* Signals belong to the program's own threads. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  uint32_t started = 0;
  while (started < helpers) {
    struct helper *helper = &team->members[started];
    helper->team = team;
    helper->worker = started + 1;
    if (pthread_create(&helper->thread, &attributes, live, helper) != 0) break;
    ++started;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (started < helpers) {
    halt(team, started);
    return NULL;
  }
  return team;
}

void id_team_stop(id_team *team) {
  if (team) halt(team, team->helpers);
}

double id_spin_seconds(uint32_t threads) {
  /* With more threads than processors, who looks keeps from running whom it waits for. */
  return threads <= id_processors() ? SPIN_SECONDS : 0;
}
