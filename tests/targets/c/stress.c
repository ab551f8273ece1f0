/* stress.c - the runtime under a sanitizer: a model of t_gather steps, opened, run, profiled and closed again and again, by two threads
 * at once. Linked with the generated model.c of `Tiny.chain`. Usage: stress weights.bin threads rounds. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inception_deploy.h"

enum { COUNT = 4096 };

static const char *weights;
static int threads, rounds;

static void expect(const float *in, float *out) {
  float from[COUNT];
  memcpy(from, in, sizeof from);
  for (uint32_t s = 0; s < id_describe()->step_count; ++s) {
    for (int i = 0; i < COUNT; ++i) out[i] = from[(5 * i + 3) % COUNT] + (float)i;
    memcpy(from, out, sizeof from);
  }
}

static void *work(void *argument) {
  const float first = *(const float *)argument;
  /* Off by one float from any alignment, so that the copies are used too. */
  float *buffer = malloc((2 * COUNT + 1) * sizeof *buffer), *wanted = malloc(COUNT * sizeof *wanted);
  double *seconds = malloc((id_describe()->step_count + 1) * sizeof *seconds);
  float *in = buffer + 1, *out = in + COUNT;
  for (int i = 0; i < COUNT; ++i) in[i] = first + (float)(i % 7);
  expect(in, wanted);
  const void *inputs[] = {in};
  void *outputs[] = {out};
  intptr_t wrong = 0;
  for (int round = 0; round < rounds; ++round) {
    id_model *model;
    const int code = id_open(weights, threads, &model);
    if (code != ID_OK) {
      printf("id_open: %s\n", id_error(code));
      wrong = 1;
      break;
    }
    /* Exactly as large as the header says, for the sanitizers. */
    double *account = malloc((size_t)id_phases(model) * (1 + (size_t)threads) * sizeof *account + 1);
    uint32_t *first = malloc(id_phases(model) * sizeof *first + 1);
    for (int run = 0; run < 20; ++run) {
      memset(out, 0, COUNT * sizeof *out);
      const int result = run % 5 == 4   ? id_profile(model, inputs, outputs, seconds)
                         : run % 5 == 2 ? id_watch(model, inputs, outputs, account, first)
                                        : id_run(model, inputs, outputs);
      if (result != ID_OK || memcmp(out, wanted, COUNT * sizeof *out) != 0) {
        printf("run %d: code %d, or other values\n", run, result);
        wrong = 1;
      }
    }
    free(account);
    free(first);
    id_close(model);
  }
  free(buffer);
  free(wanted);
  free(seconds);
  return (void *)wrong;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  weights = argv[1];
  threads = atoi(argv[2]);
  rounds = atoi(argv[3]);
  float one = 1, two = 2;
  pthread_t other;
  void *wrong;
  if (pthread_create(&other, NULL, work, &two) != 0) return 2;
  const int own = work(&one) != NULL;
  pthread_join(other, &wrong);
  return own || wrong != NULL;
}
