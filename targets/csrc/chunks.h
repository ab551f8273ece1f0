/* chunks.h - which thread does which units, decided once when a model is opened. Not public.
 *
 * A chunking of some steps is a list of phases, each done when the one before it is. A phase is a wave, cut into chunks: contiguous units of one
 * step. Every worker has its own contiguous share of the chunks, equal in cost (units that follow each other share weights, so that a
 * share stays in its core's cache), and takes from the others' shares when its own is done. Waves that are too small to be worth
 * another thread are joined into one serial phase, which whoever comes first does alone, chunk by chunk in order. */
#ifndef ID_CHUNKS_H
#define ID_CHUNKS_H

#include "cpu_tables.h"

typedef struct id_chunk {
  uint32_t step;
  int32_t lo, hi;
} id_chunk;

typedef struct id_share {
  uint32_t begin, end; /* chunks */
} id_share;

typedef struct id_chunking {
  uint32_t workers;
  uint32_t phases;
  uint32_t chunk_count;
  id_chunk *chunks;
  id_share *shares; /* [phases][workers]; a serial phase has only the first */
  uint8_t *serial;  /* [phases] */
} id_chunking;

/* Cut the steps of a span of the CPU's. `per_step`: a phase for every step, in order, instead of one for every wave. Returns an ID_
 * code; on failure there is nothing to free. */
int id_chunks_make(id_chunking *chunking, const id_tables *tables, const id_span *span, uint32_t workers, int per_step);
void id_chunks_free(id_chunking *chunking);

#endif /* ID_CHUNKS_H */
