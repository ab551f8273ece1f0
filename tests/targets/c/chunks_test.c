/* chunks_test.c - random models, cut into chunks for many numbers of workers: every unit exactly once, in the right phase, and shares
 * as even as the units allow. Prints what is wrong and returns 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunks.h"

enum { STEPS = 40, UNITS = 700 };

static uint32_t state = 1;
static uint32_t random_below(uint32_t limit) { /* xorshift32 */
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state % limit;
}

const id_tables id_model_tables = {.info.abi_version = ID_ABI_VERSION};

static int complain(const char *what, uint32_t round, uint32_t workers) {
  printf("%s (round %u, %u workers)\n", what, (unsigned)round, (unsigned)workers);
  return 1;
}

static int check(const id_tables *tables, const id_span *span, uint32_t round, uint32_t workers, int per_step) {
  static uint8_t done[STEPS][UNITS];
  memset(done, 0, sizeof done);
  id_chunking chunking;
  if (id_chunks_make(&chunking, tables, span, workers, per_step) != ID_OK) return complain("no chunks", round, workers);
  int wrong = 0;
  int64_t finished = -1; /* the last wave of the phases before */
  uint32_t next_chunk = 0;
  for (uint32_t phase = 0; phase < chunking.phases; ++phase) {
    const id_share *shares = chunking.shares + (size_t)phase * workers;
    int64_t last_wave = finished;
    double most = 0, total = 0, widest = 0;
    for (uint32_t worker = 0; worker < workers; ++worker) {
      if (chunking.serial[phase] && worker > 0) continue;
      if (shares[worker].begin != next_chunk) wrong |= complain("a share does not follow the one before", round, workers);
      next_chunk = shares[worker].end;
      double cost = 0;
      for (uint32_t c = shares[worker].begin; c < shares[worker].end; ++c) {
        const id_chunk *chunk = &chunking.chunks[c];
        const id_cpu_code *call = id_cpu_code_of(tables, chunk->step);
        const int64_t wave = per_step ? (int64_t)chunk->step : (int64_t)tables->info.steps[chunk->step].wave;
        if (chunk->lo >= chunk->hi || chunk->hi > call->units) wrong |= complain("an impossible chunk", round, workers);
        if (wave <= finished) wrong |= complain("a wave starts before the one before has ended", round, workers);
        if (!chunking.serial[phase] && last_wave > finished && wave != last_wave)
          wrong |= complain("two waves in one phase", round, workers);
        if (wave < last_wave) wrong |= complain("a wave goes back", round, workers);
        last_wave = wave;
        for (int32_t unit = chunk->lo; unit < chunk->hi && unit < UNITS; ++unit) ++done[chunk->step][unit];
        const double unit_cost = (double)call->cost / call->units;
        cost += unit_cost * (chunk->hi - chunk->lo);
        if (unit_cost > widest) widest = unit_cost;
      }
      total += cost;
      if (cost > most) most = cost;
    }
    /* No share is more than one unit above its due, and rounding. */
    if (!chunking.serial[phase] && most > total / workers + widest * 1.01 + 65536)
      wrong |= complain("an uneven share", round, workers);
    finished = last_wave;
  }
  if (next_chunk != chunking.chunk_count) wrong |= complain("chunks that no share has", round, workers);
  for (uint32_t step = 0; step < tables->info.step_count; ++step)
    for (int32_t unit = 0; unit < id_cpu_code_of(tables, step)->units; ++unit)
      if (done[step][unit] != (step >= span->first && step < span->last))
        wrong |= complain("a unit is not done exactly once", round, workers);
  id_chunks_free(&chunking);
  return wrong;
}

int main(void) {
  static const uint32_t workers[] = {1, 2, 3, 4, 7, 16, 64, 256};
  int wrong = 0;
  for (uint32_t round = 0; round < 300 && !wrong; ++round) {
    id_step steps[STEPS];
    id_call calls[STEPS];
    id_cpu_code codes[STEPS];
    memset(steps, 0, sizeof steps);
    memset(codes, 0, sizeof codes);
    uint32_t wave = 0;
    for (uint32_t i = 0; i < STEPS; ++i) {
      wave += i > 0 && random_below(2);
      steps[i].wave = wave;
      calls[i] = (id_call){.code = &codes[i]};
      codes[i].units = (int32_t)(random_below(4) ? 1 + random_below(UNITS) : 1 + random_below(3));
      codes[i].cost = (uint64_t)1 << random_below(34);
      if (random_below(8) == 0) codes[i].cost = 0;
    }
    id_tables tables = id_model_tables;
    tables.info.step_count = random_below(10) ? STEPS : random_below(3);
    tables.info.steps = steps;
    tables.calls = calls;
    id_span span = {0, 0, tables.info.step_count};
    if (round % 3 == 0 && span.last == STEPS) { /* a part of a model: the rest is another device's */
      span.first = random_below(STEPS / 2);
      span.last -= random_below(STEPS / 2);
    }
    for (size_t i = 0; i < sizeof workers / sizeof workers[0]; ++i) {
      wrong |= check(&tables, &span, round, workers[i], 0);
      wrong |= check(&tables, &span, round, workers[i], 1);
    }
  }
  return wrong;
}
