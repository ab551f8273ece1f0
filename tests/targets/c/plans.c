/* plans.c - a library of two plans: both are open at once and run by turns, again and again, and wrong numbers are refused. Linked with
 * the generated sources of `test_plans.pair`. Usage: plans weights.bin threads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inception_deploy.h"

enum { COUNT = 4096, PLANS = 2 };

static int complain(const char *what) { return printf("%s\n", what), 1; }

/* What a plan of `images` images and `steps` steps each gives. */
static void expect(const float *in, float *out, int images, uint32_t steps) {
  for (int image = 0; image < images; ++image, in += COUNT, out += COUNT) {
    float from[COUNT];
    memcpy(from, in, sizeof from);
    for (uint32_t s = 0; s < steps; ++s) {
      for (int i = 0; i < COUNT; ++i) out[i] = from[(5 * i + 3) % COUNT] + (float)i;
      memcpy(from, out, sizeof from);
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const int threads = atoi(argv[2]);
  id_model *models[PLANS], *none = (id_model *)argv;
  if (id_plans() != PLANS || id_describe_plan(0) != id_describe() || id_describe_plan(PLANS)) return complain("other plans");
  if (id_open_plan(PLANS, argv[1], 0, threads, &none) != ID_ERROR_ARGUMENT || none) return complain("a plan that there is not");
  if (id_open_plan(1, argv[1], 1, threads, &none) != ID_ERROR_ARGUMENT) return complain("an odd offset");
  static float in[PLANS * COUNT], out[PLANS * COUNT], wanted[PLANS * COUNT];
  for (int i = 0; i < PLANS * COUNT; ++i) in[i] = (float)(i % 11);
  for (uint32_t plan = 0; plan < PLANS; ++plan) {
    const int code = id_open_plan(plan, argv[1], 0, threads, &models[plan]);
    if (code != ID_OK) return complain(id_error(code));
  }
  for (int round = 0; round < 40; ++round) {
    const uint32_t plan = (uint32_t)round % PLANS;
    const id_info *info = id_describe_plan(plan);
    const void *inputs[] = {in};
    void *outputs[] = {out};
    memset(out, 0, sizeof out);
    if (info->inputs[0].shape[0] != plan + 1) return complain("another shape");
    if (id_run(models[plan], inputs, outputs) != ID_OK) return complain("it does not run");
    expect(in, wanted, (int)plan + 1, info->step_count / (plan + 1));
    if (memcmp(out, wanted, info->outputs[0].bytes) != 0) return complain("other values");
  }
  for (int plan = 0; plan < PLANS; ++plan) id_close(models[plan]);
  return 0;
}
