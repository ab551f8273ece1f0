/* schedule.c - cut the waves into chunks. */
#include "schedule.h"

#include <stdlib.h>
#include <string.h>

/* In multiply-adds. A core does 5 to 100 of them per nanosecond, and a barrier between two cores takes about a microsecond. */
#define LEAST_CHUNK 65536.0
#define LEAST_PARALLEL 131072.0

/* A chunk is this part of what is left of its share: few claims at first, small pieces to even things out with at the end. */
#define TAKE 0.3

static double unit_cost(const id_call *call) {
  const double cost = (double)call->cost / call->units;
  return cost > 0 ? cost : 1;
}

static int append(id_schedule *schedule, uint32_t *capacity, id_chunk chunk) {
  if (schedule->chunk_count == *capacity) {
    const uint32_t wider = *capacity ? 2 * *capacity : 256;
    id_chunk *chunks = realloc(schedule->chunks, wider * sizeof *chunks);
    if (!chunks) return ID_ERROR_MEMORY;
    schedule->chunks = chunks;
    *capacity = wider;
  }
  schedule->chunks[schedule->chunk_count++] = chunk;
  return ID_OK;
}

/* Cut the calls [first, last) of one phase into shares and chunks. */
static int cut(id_schedule *schedule, uint32_t *capacity, const id_call *calls, uint32_t first, uint32_t last, double total,
               id_share *shares) {
  uint32_t step = first;
  int32_t unit = 0;
  double done = 0;
  for (uint32_t worker = 0; worker < schedule->workers; ++worker) {
    const double goal = total * (worker + 1) / schedule->workers;
    shares[worker].begin = schedule->chunk_count;
    while (step < last) {
      const id_call *call = &calls[step];
      const double cost = unit_cost(call);
      /* The unit that crosses the border goes to the side that holds more of it; the last worker takes what is left. */
      const double room = (goal - done) / cost;
      const int is_last = worker + 1 == schedule->workers;
      if (!is_last && room < 0.5) break;
      double wanted = (goal - done) * TAKE;
      if (wanted < LEAST_CHUNK) wanted = LEAST_CHUNK;
      double take = wanted / cost;
      if (!is_last && take > room + 0.5) take = room + 0.5;
      const int32_t left = call->units - unit;
      const int32_t count = take >= left ? left : take < 1 ? 1 : (int32_t)take;
      const id_chunk chunk = {step, unit, unit + count};
      if (append(schedule, capacity, chunk) != ID_OK) return ID_ERROR_MEMORY;
      done += count * cost;
      unit += count;
      if (unit == call->units) {
        unit = 0;
        ++step;
      }
    }
    shares[worker].end = schedule->chunk_count;
  }
  return ID_OK;
}

int id_schedule_make(id_schedule *schedule, const id_tables *tables, uint32_t workers, int per_step) {
  const uint32_t steps = tables->info.step_count;
  memset(schedule, 0, sizeof *schedule);
  schedule->workers = workers;
  /* Never more phases than steps; one more so that nothing is empty. */
  schedule->shares = calloc(((size_t)steps + 1) * workers, sizeof *schedule->shares);
  schedule->serial = calloc((size_t)steps + 1, sizeof *schedule->serial);
  uint32_t capacity = 0;
  int code = schedule->shares && schedule->serial ? ID_OK : ID_ERROR_MEMORY;

  for (uint32_t first = 0, last; code == ID_OK && first < steps; first = last) {
    double total = 0;
    int64_t units = 0;
    for (last = first; last < steps; ++last) {
      if (last > first && (per_step || tables->info.steps[last].wave != tables->info.steps[first].wave)) break;
      total += unit_cost(&tables->calls[last]) * tables->calls[last].units;
      units += tables->calls[last].units;
    }
    const int serial = workers == 1 || units <= 1 || total < LEAST_PARALLEL;
    if (serial) {
      const int joins = !per_step && schedule->phases > 0 && schedule->serial[schedule->phases - 1];
      id_share *shares = schedule->shares + (size_t)(schedule->phases - (uint32_t)joins) * workers;
      if (!joins) shares[0].begin = schedule->chunk_count;
      for (uint32_t step = first; step < last && code == ID_OK; ++step)
        code = append(schedule, &capacity, (id_chunk){step, 0, tables->calls[step].units});
      shares[0].end = schedule->chunk_count;
      if (joins) continue;
    } else {
      code = cut(schedule, &capacity, tables->calls, first, last, total,
                 schedule->shares + (size_t)schedule->phases * workers);
    }
    schedule->serial[schedule->phases++] = (uint8_t)serial;
  }
  if (code != ID_OK) id_schedule_free(schedule);
  return code;
}

void id_schedule_free(id_schedule *schedule) {
  free(schedule->chunks);
  free(schedule->shares);
  free(schedule->serial);
  memset(schedule, 0, sizeof *schedule);
}
