/* count.c - a plugin of qemu's user mode that counts the instructions that a program executes, by their names.
 *
 *     cc -shared -fPIC -O2 -o count.so count.c
 *     qemu-aarch64 -plugin ./count.so -d plugin -D counts.txt program
 *
 * writes a line a name, "NAME COUNT", the most frequent first. The functions are those of version 1 of qemu's plugin interface
 * (qemu 4.2 and newer), declared here because Debian has no package of its header. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define ADD_U64 0 /* QEMU_PLUGIN_INLINE_ADD_U64 */
#define MOST 4096 /* names */

typedef uint64_t id;
struct tb;
struct insn;

void qemu_plugin_register_vcpu_tb_trans_cb(id plugin, void (*translated)(id plugin, struct tb *tb));
void qemu_plugin_register_vcpu_tb_exec_inline(struct tb *tb, int operation, void *place, uint64_t number);
void qemu_plugin_register_atexit_cb(id plugin, void (*ended)(id plugin, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct tb *tb);
struct insn *qemu_plugin_tb_get_insn(const struct tb *tb, size_t index);
char *qemu_plugin_insn_disas(const struct insn *insn);
void qemu_plugin_outs(const char *text);

EXPORT int qemu_plugin_version = 1;

static struct counter {
  char name[24];
  uint64_t executed;
  uint32_t here; /* in the block that is being translated */
} counters[MOST];
static size_t used;

static struct counter *counter_of(const char *text) {
  char name[sizeof counters[0].name] = {0};
  for (size_t i = 0; i + 1 < sizeof name && text[i] > ' '; ++i) name[i] = text[i];
  for (size_t i = 0; i < used; ++i)
    if (strcmp(counters[i].name, name) == 0) return &counters[i];
  if (used == MOST) return &counters[MOST - 1];
  strcpy(counters[used].name, name);
  return &counters[used++];
}

static void translated(id plugin, struct tb *tb) {
  (void)plugin;
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); ++i) {
    char *text = qemu_plugin_insn_disas(qemu_plugin_tb_get_insn(tb, i));
    ++counter_of(text ? text : "?")->here;
    free(text);
  }
  for (size_t i = 0; i < used; ++i)
    if (counters[i].here) {
      qemu_plugin_register_vcpu_tb_exec_inline(tb, ADD_U64, &counters[i].executed, counters[i].here);
      counters[i].here = 0;
    }
}

static int most_first(const void *a, const void *b) {
  const uint64_t x = ((const struct counter *)a)->executed, y = ((const struct counter *)b)->executed;
  return (x < y) - (x > y);
}

static void ended(id plugin, void *data) {
  (void)plugin, (void)data;
  char line[64];
  qsort(counters, used, sizeof counters[0], most_first);
  for (size_t i = 0; i < used; ++i) {
    snprintf(line, sizeof line, "%.23s %" PRIu64 "\n", counters[i].name, counters[i].executed);
    qemu_plugin_outs(line);
  }
}

EXPORT int qemu_plugin_install(id plugin, const void *info, int argc, char **argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(plugin, translated);
  qemu_plugin_register_atexit_cb(plugin, ended, NULL);
  return 0;
}
