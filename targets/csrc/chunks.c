/* chunks.c - cut the waves into chunks. */
#include "chunks.h"

#include <stdlib.h>
#include <string.h>

/* In multiply-adds. A core does 5 to 100 of them per nanosecond, and a barrier between two cores takes about a microsecond. */
#define LEAST_CHUNK 65536.0
#define LEAST_PARALLEL 131072.0

/* A chunk is this part of what is left of its share: few claims at first, small pieces to even things out with at the end. */
#define TAKE 0.3

static double unit_cost(const id_cpu_code *code) {
  const double cost = (double)code->cost / code->units;
  return cost > 0 ? cost : 1;
}

static int append(id_chunking *chunking, uint32_t *capacity, id_chunk chunk) {
  if (chunking->chunk_count == *capacity) {
    const uint32_t wider = *capacity ? 2 * *capacity : 256;
    id_chunk *chunks = realloc(chunking->chunks, wider * sizeof *chunks);
    if (!chunks) return ID_ERROR_MEMORY;
    chunking->chunks = chunks;
    *capacity = wider;
  }
  chunking->chunks[chunking->chunk_count++] = chunk;
  return ID_OK;
}

/* Cut the steps [first, last) of one phase into shares and chunks. */
static int cut(id_chunking *chunking, uint32_t *capacity, const id_tables *tables, uint32_t first, uint32_t last, double total,
               id_share *shares) {
  uint32_t step = first;
  int32_t unit = 0;
  double done = 0;
  for (uint32_t worker = 0; worker < chunking->workers; ++worker) {
    const double goal = total * (worker + 1) / chunking->workers;
    shares[worker].begin = chunking->chunk_count;
    while (step < last) {
      const id_cpu_code *code = id_cpu_code_of(tables, step);
      const double cost = unit_cost(code);
      /* The unit that crosses the border goes to the side that holds more of it; the last worker takes what is left. */
      const double room = (goal - done) / cost;
      const int is_last = worker + 1 == chunking->workers;
      if (!is_last && room < 0.5) break;
      double wanted = (goal - done) * TAKE;
      if (wanted < LEAST_CHUNK) wanted = LEAST_CHUNK;
      double take = wanted / cost;
      if (!is_last && take > room + 0.5) take = room + 0.5;
      const int32_t left = code->units - unit;
      const int32_t count = take >= left ? left : take < 1 ? 1 : (int32_t)take;
      const id_chunk chunk = {step, unit, unit + count};
      if (append(chunking, capacity, chunk) != ID_OK) return ID_ERROR_MEMORY;
      done += count * cost;
      unit += count;
      if (unit == code->units) {
        unit = 0;
        ++step;
      }
    }
    shares[worker].end = chunking->chunk_count;
  }
  return ID_OK;
}

int id_chunks_make(id_chunking *chunking, const id_tables *tables, const id_span *span, uint32_t workers, int per_step) {
  const uint32_t steps = span->last - span->first;
  memset(chunking, 0, sizeof *chunking);
  chunking->workers = workers;
  /* Never more phases than steps; one more so that nothing is empty. */
  chunking->shares = calloc(((size_t)steps + 1) * workers, sizeof *chunking->shares);
  chunking->serial = calloc((size_t)steps + 1, sizeof *chunking->serial);
  uint32_t capacity = 0;
  int code = chunking->shares && chunking->serial ? ID_OK : ID_ERROR_MEMORY;

  for (uint32_t first = span->first, last; code == ID_OK && first < span->last; first = last) {
    double total = 0;
    int64_t units = 0;
    for (last = first; last < span->last; ++last) {
      if (last > first && (per_step || tables->info.steps[last].wave != tables->info.steps[first].wave)) break;
      const id_cpu_code *it = id_cpu_code_of(tables, last);
      total += unit_cost(it) * it->units;
      units += it->units;
    }
    const int serial = workers == 1 || units <= 1 || total < LEAST_PARALLEL;
    if (serial) {
      const int joins = !per_step && chunking->phases > 0 && chunking->serial[chunking->phases - 1];
      id_share *shares = chunking->shares + (size_t)(chunking->phases - (uint32_t)joins) * workers;
      if (!joins) shares[0].begin = chunking->chunk_count;
      for (uint32_t step = first; step < last && code == ID_OK; ++step)
        code = append(chunking, &capacity, (id_chunk){step, 0, id_cpu_code_of(tables, step)->units});
      shares[0].end = chunking->chunk_count;
      if (joins) continue;
    } else {
      code = cut(chunking, &capacity, tables, first, last, total, chunking->shares + (size_t)chunking->phases * workers);
    }
    chunking->serial[chunking->phases++] = (uint8_t)serial;
  }
  if (code != ID_OK) id_chunks_free(chunking);
  return code;
}

void id_chunks_free(id_chunking *chunking) {
  free(chunking->chunks);
  free(chunking->shares);
  free(chunking->serial);
  memset(chunking, 0, sizeof *chunking);
}
