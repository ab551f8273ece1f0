/* report.c - what run_model shows, as text for people or as members of a JSON object. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

void id_show_string(const char *text) {
  putchar('"');
  for (; *text; ++text) {
    const unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\')
      printf("\\%c", c);
    else if (c < 0x20)
      printf("\\u%04x", c);
    else
      putchar(c);
  }
  putchar('"');
}

/* -- times -------------------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double percentile(const double *sorted, int count, double percent) { /* numpy's: linear between two */
  const double place = percent / 100 * (count - 1);
  const int low = (int)place, high = low + 1 < count ? low + 1 : low;
  return sorted[low] + (place - low) * (sorted[high] - sorted[low]);
}

static long peak_kib(void) { /* the most memory that the process had; -1 where the system does not tell */
  char line[128];
  long found = -1;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "VmHWM: %ld", &found) == 1) break;
  if (file) fclose(file);
  return found;
}

void id_show_times(double *ms, int runs, int threads, int json) {
  double mean = 0, variance = 0;
  for (int i = 0; i < runs; ++i) mean += ms[i] / runs;
  for (int i = 0; i < runs; ++i) variance += (ms[i] - mean) * (ms[i] - mean) / runs;
  qsort(ms, (size_t)runs, sizeof *ms, ascending);
  const double p50 = percentile(ms, runs, 50), p90 = percentile(ms, runs, 90), p99 = percentile(ms, runs, 99);
  if (json)
    printf(
        ", \"threads\": %d, \"runs\": %d, \"p50_ms\": %.4f, \"p90_ms\": %.4f, \"p99_ms\": %.4f, \"mean_ms\": %.4f, "
        "\"sd_ms\": %.4f, \"peak_kib\": %ld",
        threads, runs, p50, p90, p99, mean, sqrt(variance), peak_kib());
  else
    printf("p50 %.3f ms, p90 %.3f, p99 %.3f, mean %.3f, deviation %.3f (%d run%s, %d thread%s)\n", p50, p90, p99, mean,
           sqrt(variance), runs, runs > 1 ? "s" : "", threads, threads > 1 ? "s" : "");
}

void id_show_profile(const id_info *info, const double *seconds, int json) {
  double total = 0;
  for (uint32_t i = 0; i < info->step_count; ++i) total += seconds[i];
  if (json)
    fputs(", \"steps\": [", stdout);
  else
    printf("%10s %6s %10s  %-12s %s\n", "ms", "%", "GMAC/s", "work", "step");
  for (uint32_t i = 0; i < info->step_count; ++i) {
    const id_step *step = &info->steps[i];
    if (json) {
      printf("%s{\"name\": ", i ? ", " : "");
      id_show_string(step->name);
      fputs(", \"op\": ", stdout);
      id_show_string(step->op);
      printf(", \"ms\": %.6f, \"macs\": %" PRIu64 "}", 1e3 * seconds[i], step->macs);
    } else {
      printf("%10.4f %6.2f %10.3f  %-12s %s\n", 1e3 * seconds[i], total > 0 ? 100 * seconds[i] / total : 0,
             seconds[i] > 0 ? 1e-9 * (double)step->macs / seconds[i] : 0, step->op, step->name);
    }
  }
  if (json) putchar(']');
}

/* -- classes ------------------------------------------------------------------------------------------------------ */

/* Numbers that are probabilities already stay. */
static void softmax(const float *logits, size_t count, int already, double *scores) {
  double most = -INFINITY, sum = 0;
  for (size_t i = 0; i < count; ++i) most = logits[i] > most ? logits[i] : most;
  for (size_t i = 0; i < count; ++i) sum += scores[i] = already ? logits[i] : exp(logits[i] - most);
  for (size_t i = 0; i < count && !already; ++i) scores[i] /= sum;
}

static void show_class(size_t index, double score, char **names, int first, int json) {
  char number[24];
  snprintf(number, sizeof number, "%zu", index);
  if (!json) {
    printf("%8.6f %6s%s%s\n", score, number, names ? "  " : "", names ? names[index] : "");
    return;
  }
  printf("%s{\"index\": %s, \"label\": ", first ? "" : ", ", number);
  id_show_string(names ? names[index] : number);
  if (isfinite(score))
    printf(", \"score\": %.6f}", score);
  else
    fputs(", \"score\": null}", stdout);
}

static void show_row(const float *values, size_t count, const double *scores, int most, char **names, int json) {
  unsigned char *shown = id_obtain(count);
  memset(shown, 0, count);
  for (int rank = 0; rank < most && (size_t)rank < count; ++rank) {
    size_t best = count;
    for (size_t i = 0; i < count; ++i)
      if (!shown[i] && (best == count || values[i] > values[best])) best = i;
    shown[best] = 1;
    show_class(best, scores[best], names, rank == 0, json);
  }
  free(shown);
}

void id_show_top(const id_port *port, const float *values, int most, int probabilities, char **names, const char **rows, int json) {
  const size_t count = (size_t)port->shape[0], classes = (size_t)port->shape[1];
  double *scores = id_obtain(classes * sizeof *scores);
  if (json) fputs(", \"top\": [", stdout);
  for (size_t row = 0; row < count; ++row) {
    softmax(values + row * classes, classes, probabilities, scores);
    if (json)
      fputs(row ? ", [" : "[", stdout);
    else if (count > 1 && rows)
      puts(rows[row]);
    else if (count > 1)
      printf("row %zu\n", row);
    show_row(values + row * classes, classes, scores, most, names, json);
    if (json) putchar(']');
  }
  if (json) putchar(']');
  free(scores);
}

/* -- the model ---------------------------------------------------------------------------------------------------- */

void id_show_info(const id_info *info) {
  printf("target %s\nneeds", info->target);
  for (uint32_t i = 0; i < info->feature_count; ++i) printf(" %s", info->features[i]);
  const char *missing = id_missing_feature();
  printf("%s%s\n", missing ? "; this processor lacks " : "", missing ? missing : "");
  for (int side = 0; side < 2; ++side)
    for (uint32_t i = 0; i < (side ? info->output_count : info->input_count); ++i) {
      const id_port *port = side ? &info->outputs[i] : &info->inputs[i];
      printf("%s %s %s ", side ? "output" : "input", port->name, port->dtype);
      for (uint32_t axis = 0; axis < port->axes; ++axis) printf("%s%" PRId64, axis ? "x" : "", port->shape[axis]);
      printf(" %" PRIu64 " bytes\n", port->bytes);
    }
  if (id_plans() > 1) {
    printf("plans for images at once");
    for (uint32_t i = 0; i < id_plans(); ++i) printf("%s %" PRId64, i ? "," : "", id_describe_plan(i)->inputs[0].shape[0]);
    putchar('\n');
  }
  printf("weights %" PRIu64 " bytes\nactivations %" PRIu64 " bytes\nsteps %" PRIu32 "\n", info->weights_bytes, info->arena_bytes,
         info->step_count);
}
