/* run_model.c - a bundle's network as a program: files in, files and classes out, times. Linked with the network and a C library, it
 * needs nothing else on a device but weights.bin beside it, or at its own end (`cat run_model weights.bin > alone`), or linked in. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "inception_deploy.h"
#include "json.h"
#include "model_tables.h"
#include "picture.h"
#include "program.h"
#include "tensor_file.h"

#define MAX_PORTS 64
#define MAX_REPEAT 1000000

static const char usage[] =
    "usage: run_model [OPTION]... FILE...\n"
    "Runs the network on a FILE for each of its inputs: a .npy, or the bare numbers. A network that takes pictures takes\n"
    "PPM (P6) and PGM (P5) too (djpeg and pngtopnm make them), one for each image of its batch, and prepares them as its\n"
    "manifest.json says.\n"
    "\n"
    "  --output FILE.npy   write the first output there; given again, the next one\n"
    "  --top N             show the N best classes (5; 0 for none)\n"
    "  --labels FILE       names of the classes, one a line (labels.txt beside the program, where there is one)\n"
    "  --batch N           the plan for N images at once, of those that --info lists (the one that fits the FILEs, else the first)\n"
    "  --threads N         threads to compute with (one a processor that this process may use)\n"
    "  --repeat N          run N times and show the percentiles of the times (1)\n"
    "  --profile           show the time of every step, each done alone\n"
    "  --random            numbers from -1 to 1 instead of FILEs\n"
    "  --json              everything as one JSON document on standard output\n"
    "  --info              what the network takes and gives; runs nothing\n"
    "  --weights FILE      (those in the program, or at its own end, or weights.bin beside it)\n"
    "  --manifest FILE     (manifest.json beside the program)\n"
    "Exit status: 0 done, 1 the work could not be done, 2 wrong usage.\n"
    "Example: run_model --top 3 photo.ppm\n";

static struct {
  const char *outputs[MAX_PORTS], *labels, *weights, *manifest;
  const char **files;
  uint32_t output_count, file_count;
  int threads, repeat, top, profile, json, info, random, batch;
} wanted = {.repeat = 1, .top = 5};

/* -- options ------------------------------------------------------------------------------------------------------ */

static int number(const char *option, const char *text, int least, int most) {
  char *end;
  errno = 0;
  const long value = strtol(text, &end, 10);
  if (errno || end == text || *end || value < least || value > most)
    id_stop(2, "%s takes a number from %d to %d, not '%s'", option, least, most, text);
  return (int)value;
}

static void parse(int argc, char **argv) {
  wanted.files = id_obtain((uint64_t)argc * sizeof *wanted.files);
  int options = 1;
  for (int i = 1; i < argc; ++i) {
    const char *word = argv[i];
    if (!options || word[0] != '-' || !word[1]) {
      wanted.files[wanted.file_count++] = word;
    } else if (strcmp(word, "--") == 0) {
      options = 0;
    } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
      fputs(usage, stdout);
      exit(0);
    } else if (strcmp(word, "--profile") == 0) {
      wanted.profile = 1;
    } else if (strcmp(word, "--random") == 0) {
      wanted.random = 1;
    } else if (strcmp(word, "--json") == 0) {
      wanted.json = 1;
    } else if (strcmp(word, "--info") == 0) {
      wanted.info = 1;
    } else {
      static const char *const valued[] = {"--output", "--top",     "--labels",   "--threads",
                                           "--repeat", "--weights", "--manifest", "--batch"};
      size_t which = 0;
      while (which < sizeof valued / sizeof valued[0] && strcmp(word, valued[which]) != 0) ++which;
      if (which == sizeof valued / sizeof valued[0]) id_stop(2, "there is no option %s; run_model --help lists them", word);
      if (++i == argc) id_stop(2, "%s takes a value", word);
      const char *value = argv[i];
      switch (which) {
        case 0:
          if (wanted.output_count == MAX_PORTS) id_stop(2, "there are too many --output");
          wanted.outputs[wanted.output_count++] = value;
          break;
        case 1: wanted.top = number(word, value, 0, 1000); break;
        case 2: wanted.labels = value; break;
        case 3: wanted.threads = number(word, value, 1, ID_MAX_THREADS); break;
        case 4: wanted.repeat = number(word, value, 1, MAX_REPEAT); break;
        case 5: wanted.weights = value; break;
        case 7: wanted.batch = number(word, value, 1, INT32_MAX); break;
        default: wanted.manifest = value;
      }
    }
  }
  if (wanted.random && wanted.file_count) id_stop(2, "--random takes no FILEs");
}

/* -- files beside the program ------------------------------------------------------------------------------------- */

/* manifest.json, or NULL where there is none. */
static const char *manifest(void) {
  static char *text;
  static const char *path;
  if (path) return text;
  path = wanted.manifest ? wanted.manifest : id_beside("manifest.json");
  size_t length = 0;
  text = id_text_of(path, &length);
  if (!text && wanted.manifest) id_stop(1, "%s: %s", path, strerror(errno));
  if (text && !id_json_check(text, length)) id_stop(1, "%s: is damaged; it is no JSON", path);
  return text;
}

/* The names of `classes` classes; NULL where there are none. */
static char **labels(size_t classes) {
  const char *path = wanted.labels ? wanted.labels : id_beside("labels.txt");
  size_t length = 0, count = 0;
  char *text = id_text_of(path, &length);
  if (!text) {
    if (wanted.labels) id_stop(1, "%s: %s", path, strerror(errno));
    return NULL;
  }
  char **names = id_obtain((classes + 1) * sizeof *names);
  for (char *line = text; *line; ++count) {
    char *end = line + strcspn(line, "\n"), *next = *end ? end + 1 : end;
    if (end > line && end[-1] == '\r') --end;
    *end = 0;
    if (count < classes) names[count] = line;
    line = next;
  }
  if (count != classes) id_stop(1, "%s: has %zu lines, the network %zu classes", path, count, classes);
  return names;
}

/* -- the model ---------------------------------------------------------------------------------------------------- */

/* What else there is to say of a failure, as the end of a line. */
static const char *detail(void) {
  static char text[512] = ": ";
  return id_detail(text + 2, sizeof text - 2) ? text : "";
}

static uint64_t images_of(uint32_t plan) {
  const id_port *port = &id_describe_plan(plan)->inputs[0];
  return port->axes > 0 && port->shape[0] > 0 ? (uint64_t)port->shape[0] : 1;
}

#define NPY_HEADER 4096 /* bytes that a file of numbers may have before them */

/* The plan for as many images as there are in the files; the first where there is none. */
static uint32_t plan_for_files(void) {
  FILE *file = wanted.file_count ? fopen(wanted.files[0], "rb") : NULL;
  if (!file) return 0;
  const int picture = id_is_picture(file);
  const off_t size = fseeko(file, 0, SEEK_END) == 0 ? ftello(file) : 0;
  fclose(file);
  for (uint32_t plan = 0; plan < id_plans(); ++plan) {
    const uint64_t bytes = id_describe_plan(plan)->inputs[0].bytes;
    if (picture ? images_of(plan) == wanted.file_count : size > 0 && (uint64_t)size >= bytes && (uint64_t)size - bytes <= NPY_HEADER)
      return plan;
  }
  return 0;
}

static uint32_t chosen_plan(void) {
  if (!wanted.batch) return id_plans() > 1 ? plan_for_files() : 0;
  for (uint32_t plan = 0; plan < id_plans(); ++plan)
    if (images_of(plan) == (uint64_t)wanted.batch) return plan;
  id_stop(2, "there is no plan for %d images at once; --info lists the plans", wanted.batch);
}

static id_model *open_model(uint32_t plan, const id_info *info) {
  id_model *model = NULL;
  const char *weights = wanted.weights ? wanted.weights : id_own_path();
  uint64_t offset = 0;
  int code;
  if (!wanted.weights && id_model_weights) {
    code = id_open_plan(plan, NULL, 0, wanted.threads, &model);
  } else if (!wanted.weights && id_weights_at_end(info->weights_bytes, &offset)) {
    code = id_open_plan(plan, weights, offset, wanted.threads, &model);
  } else {
    if (!wanted.weights) weights = id_beside("weights.bin");
    code = plan ? id_open_plan(plan, weights, 0, wanted.threads, &model) : id_open(weights, wanted.threads, &model);
  }
  if (code == ID_ERROR_CPU)
    id_stop(1, "this processor lacks %s, which the program was built for (target %s)", id_missing_feature(), info->target);
  if (code >= ID_ERROR_WEIGHTS_OPEN && code <= ID_ERROR_WEIGHTS_TAG) id_stop(1, "%s: %s", weights, id_error(code));
  if (code != ID_OK) id_stop(1, "%s%s", id_error(code), detail());
  return model;
}

/* -- inputs ------------------------------------------------------------------------------------------------------- */

static void fill_random(const id_port *port, void *data) {
  uint32_t state = 1;
  const int floats = strcmp(port->dtype, "float32") == 0;
  for (uint64_t i = 0; i < port->bytes / (floats ? 4 : 1); ++i) {
    state = state * UINT32_C(1664525) + UINT32_C(1013904223);
    if (floats)
      ((float *)data)[i] = (float)(int32_t)state / 2147483648.0f;
    else
      ((unsigned char *)data)[i] = (unsigned char)(port->bytes % 8 ? state >> 24 : state >> 31);
  }
}

static FILE *opened(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) id_stop(1, "%s: %s", path, strerror(errno));
  return file;
}

static void take_picture(const char *path, FILE *file, const id_port *port, void *input, uint64_t bytes) {
  static id_preparation how;
  static int read;
  if (!read++) {
    if (!manifest()) id_stop(1, "%s: no manifest.json beside the program says how pictures are prepared", path);
    const char *wrong = id_preparation_read(&how, manifest());
    if (wrong) id_stop(1, "%s: %s", path, wrong);
  }
  if (id_prepared_bytes(&how) != bytes || strcmp(port->dtype, how.floats ? "float32" : "uint8") != 0)
    id_stop(1, "%s: input %s takes no picture as manifest.json prepares it", path, port->name);
  id_picture picture;
  const char *wrong = id_picture_read(&picture, file);
  if (!wrong) wrong = id_prepare(&how, &picture, input);
  if (wrong) id_stop(1, "%s: %s", path, wrong);
  free(picture.pixels);
}

static void take_inputs(const id_info *info, void **inputs) {
  uint32_t next = 0;
  for (uint32_t i = 0; i < info->input_count; ++i) {
    const id_port *port = &info->inputs[i];
    if (wanted.random) {
      fill_random(port, inputs[i]);
      continue;
    }
    const uint64_t images = port->axes > 0 && port->shape[0] > 0 ? (uint64_t)port->shape[0] : 1;
    uint64_t taken = 0;
    for (; taken == 0 || taken < images; ++taken) {
      if (next == wanted.file_count) break;
      FILE *file = opened(wanted.files[next]);
      const int picture = id_is_picture(file);
      if (!picture && taken > 0) id_stop(2, "%s: is no picture, as the ones before it", wanted.files[next]);
      unsigned char *place = (unsigned char *)inputs[i] + taken * (port->bytes / images);
      const char *wrong = NULL;
      if (picture)
        take_picture(wanted.files[next], file, port, place, port->bytes / images);
      else
        wrong = id_tensor_read(port, inputs[i], file);
      if (wrong) {
        const char *other = id_other_picture(file);
        id_stop(1, "%s: %s", wanted.files[next], other ? other : wrong);
      }
      fclose(file);
      ++next;
      if (!picture) taken = images;
    }
    if (taken < images)
      id_stop(2, "input %s takes %s%" PRIu64 " picture%s; see run_model --help", port->name, "a .npy file of its shape, or ",
              images, images > 1 ? "s" : "");
  }
  if (next < wanted.file_count)
    id_stop(2, "%s: the network takes no more than the %" PRIu32 " files before it", wanted.files[next], next);
}

/* -- the program -------------------------------------------------------------------------------------------------- */

static void must(const id_info *info, const id_model *model, int code) {
  if (code == ID_ERROR_KERNEL) id_stop(1, "step %s failed%s", info->steps[id_failed_step(model)].name, detail());
  if (code != ID_OK) id_stop(1, "%s%s", id_error(code), detail());
}

static void compute(const id_info *info, id_model *model, void **inputs, void **outputs) {
  const void *const *given = (const void *const *)inputs;
  const id_port *first = &info->outputs[0];
  const int classes = wanted.top > 0 && first->axes == 2 && strcmp(first->dtype, "float32") == 0;
  char **names = classes ? labels((size_t)first->shape[1]) : NULL;
  const char *kind = classes ? id_json_member(id_json_item(id_json_member(manifest(), "outputs"), 0), "kind") : NULL;
  double *ms = id_obtain((uint64_t)wanted.repeat * sizeof *ms), *seconds = id_obtain((info->step_count + 1) * sizeof *seconds);
  if (wanted.repeat > 1) must(info, model, id_run(model, given, outputs)); /* caches and clocks warm up */
  for (int i = 0; i < wanted.repeat; ++i) {
    const double start = id_seconds();
    must(info, model, id_run(model, given, outputs));
    ms[i] = 1e3 * (id_seconds() - start);
  }
  for (uint32_t i = 0; i < wanted.output_count; ++i)
    if (!id_tensor_write(&info->outputs[i], outputs[i], wanted.outputs[i]))
      id_stop(1, "%s: cannot be written: %s", wanted.outputs[i], strerror(errno));
  if (wanted.json) fputs("{\"target\": ", stdout), id_show_string(info->target);
  if (classes) {
    const char **rows = wanted.file_count == (uint64_t)first->shape[0] ? wanted.files : NULL;
    id_show_top(first, outputs[0], wanted.top, id_json_is(kind, "probabilities"), names, rows, wanted.json);
  }
  id_show_times(ms, wanted.repeat, id_threads(model), wanted.json);
  if (wanted.profile) {
    must(info, model, id_profile(model, given, outputs, seconds));
    id_show_profile(info, seconds, wanted.json);
  }
  if (wanted.json) fputs("}\n", stdout);
  free(ms);
  free(seconds);
}

static void run(uint32_t plan, const id_info *info) {
  void *inputs[MAX_PORTS] = {0}, *outputs[MAX_PORTS] = {0};
  id_model *model = open_model(plan, info);
  for (uint32_t i = 0; i < info->input_count; ++i) inputs[i] = id_obtain(info->inputs[i].bytes);
  for (uint32_t i = 0; i < info->output_count; ++i) outputs[i] = id_obtain(info->outputs[i].bytes);
  take_inputs(info, inputs);
  compute(info, model, inputs, outputs);
  for (uint32_t i = 0; i < info->input_count; ++i) free(inputs[i]);
  for (uint32_t i = 0; i < info->output_count; ++i) free(outputs[i]);
  id_close(model);
}

int main(int argc, char **argv) {
  parse(argc, argv);
  const uint32_t plan = chosen_plan();
  const id_info *info = id_describe_plan(plan);
  if (info->input_count > MAX_PORTS || info->output_count > MAX_PORTS)
    id_stop(1, "the network has more than %d inputs or outputs", MAX_PORTS);
  if (wanted.output_count > info->output_count)
    id_stop(2, "the network has %" PRIu32 " outputs, not %" PRIu32, info->output_count, wanted.output_count);
  if (wanted.info)
    id_show_info(info);
  else
    run(plan, info);
  if (fflush(stdout) != 0 || ferror(stdout)) id_stop(1, "standard output: %s", strerror(errno));
  return 0;
}
