/* threads.h - a team of threads that helps its owner, and what they wait with. Not public.
 *
 * Nobody ever waits for a helper that has nothing in hand: a helper that the operating system has put aside, or that is slow to wake,
 * simply does not take part. */
#ifndef ID_THREADS_H
#define ID_THREADS_H

#include <stdatomic.h>
#include <stdint.h>

#define ID_CACHE_LINE 64

/* A number that can be waited on. */
typedef struct id_signal {
  _Alignas(ID_CACHE_LINE) _Atomic uint32_t value;
  _Atomic uint32_t asleep;
} id_signal;

/* Return once the value is not `seen`, which may be at once; everything written before it was changed is visible then. Looks for
 * `spin` seconds before it sleeps. */
void id_signal_wait(id_signal *signal, uint32_t seen, double spin);

/* Wake who sleeps; after every change of the value that somebody may wait for, which must be sequentially consistent. */
void id_signal_wake(id_signal *signal);

typedef struct id_team id_team;

/* Called by a helper, at most once between id_team_begin and id_team_end; returns when there is nothing left to help with. `worker` is
 * 1 or more: 0 is the owner. */
typedef void (*id_help)(void *context, uint32_t worker);

/* Start `helpers` threads, at least 1. NULL where that fails. */
id_team *id_team_start(uint32_t helpers, id_help help, void *context);
void id_team_stop(id_team *team);

/* Call the helpers, without waiting for any. Between begin and end, what they read may not change but by their own rules. */
void id_team_begin(id_team *team);
/* Let no more helpers begin, and wait until those that did have returned. */
void id_team_end(id_team *team);

/* How long it pays to look before sleeping, with so many threads. */
double id_spin_seconds(uint32_t threads);

#endif /* ID_THREADS_H */
