/* schedule.h - which thread does which units, decided once when a model is opened. Not public.
 *
 * A schedule is a list of phases, each done when the one before it is. A phase is a wave, cut into chunks: contiguous units of one
 * step. Every worker has its own contiguous share of the chunks, equal in cost (units that follow each other share weights, so that a
 * share stays in its core's cache), and takes from the others' shares when its own is done. Waves that are too small to be worth
 * another thread are joined into one serial phase, which whoever comes first does alone, chunk by chunk in order. */
#ifndef ID_SCHEDULE_H
#define ID_SCHEDULE_H

#include "model_tables.h"

typedef struct id_chunk {
  uint32_t step;
  int32_t lo, hi;
} id_chunk;

typedef struct id_share {
  uint32_t begin, end; /* chunks */
} id_share;

typedef struct id_schedule {
  uint32_t workers;
  uint32_t phases;
  uint32_t chunk_count;
  id_chunk *chunks;
  id_share *shares; /* [phases][workers]; a serial phase has only the first */
  uint8_t *serial;  /* [phases] */
} id_schedule;

/* `per_step`: a phase for every step, in order, instead of one for every wave. Returns an ID_ code; on failure there is nothing to
 * free. */
int id_schedule_make(id_schedule *schedule, const id_tables *tables, uint32_t workers, int per_step);
void id_schedule_free(id_schedule *schedule);

#endif /* ID_SCHEDULE_H */
