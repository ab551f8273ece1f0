/* cpu_features.c - does this processor have what the library was built for? Names are those of /proc/cpuinfo.
 *
 * inception_deploy.targets.library.CPU_FEATURES lists the same names; a name that is not here counts as missing. */
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>

#include "model_tables.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { EAX, EBX, ECX, EDX };

/* Bits of XCR0: the registers that the operating system saves. Without them an instruction that cpuid promises still faults. */
#define SAVES_SSE 0x2u
#define SAVES_AVX 0x6u
#define SAVES_AVX512 0xe6u
#define SAVES_AMX 0x60000u

static const struct {
  const char *name;
  uint32_t leaf, subleaf, word, bit, saved;
} features[] = {
    {"pni", 1, 0, ECX, 0, SAVES_SSE},
    {"ssse3", 1, 0, ECX, 9, SAVES_SSE},
    {"fma", 1, 0, ECX, 12, SAVES_AVX},
    {"sse4_1", 1, 0, ECX, 19, SAVES_SSE},
    {"sse4_2", 1, 0, ECX, 20, SAVES_SSE},
    {"movbe", 1, 0, ECX, 22, 0},
    {"popcnt", 1, 0, ECX, 23, 0},
    {"avx", 1, 0, ECX, 28, SAVES_AVX},
    {"f16c", 1, 0, ECX, 29, SAVES_AVX},
    {"bmi1", 7, 0, EBX, 3, 0},
    {"avx2", 7, 0, EBX, 5, SAVES_AVX},
    {"bmi2", 7, 0, EBX, 8, 0},
    {"avx512f", 7, 0, EBX, 16, SAVES_AVX512},
    {"avx512dq", 7, 0, EBX, 17, SAVES_AVX512},
    {"avx512ifma", 7, 0, EBX, 21, SAVES_AVX512},
    {"avx512cd", 7, 0, EBX, 28, SAVES_AVX512},
    {"avx512bw", 7, 0, EBX, 30, SAVES_AVX512},
    {"avx512vl", 7, 0, EBX, 31, SAVES_AVX512},
    {"avx512vbmi", 7, 0, ECX, 1, SAVES_AVX512},
    {"avx512_vbmi2", 7, 0, ECX, 6, SAVES_AVX512},
    {"avx512_vnni", 7, 0, ECX, 11, SAVES_AVX512},
    {"avx512_bitalg", 7, 0, ECX, 12, SAVES_AVX512},
    {"avx512_vpopcntdq", 7, 0, ECX, 14, SAVES_AVX512},
    {"amx_bf16", 7, 0, EDX, 22, SAVES_AMX},
    {"avx512_fp16", 7, 0, EDX, 23, SAVES_AVX512},
    {"amx_tile", 7, 0, EDX, 24, SAVES_AMX},
    {"amx_int8", 7, 0, EDX, 25, SAVES_AMX},
    {"avx_vnni", 7, 1, EAX, 4, SAVES_AVX},
    {"avx512_bf16", 7, 1, EAX, 5, SAVES_AVX512},
    {"abm", 0x80000001u, 0, ECX, 5, 0},
};

static uint64_t saved_registers(void) {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1u)) return SAVES_SSE; /* no OSXSAVE: no xgetbv */
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

/* Linux hands out the tile registers on demand: a process asks once, and its threads inherit the permission. */
static int may_use_tiles(void) {
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static int has(const char *name) {
  for (size_t i = 0; i < sizeof features / sizeof features[0]; ++i) {
    if (strcmp(features[i].name, name) != 0) continue;
    uint32_t word[4];
    if (!__get_cpuid_count(features[i].leaf, features[i].subleaf, &word[EAX], &word[EBX], &word[ECX], &word[EDX])) return 0;
    if (!(word[features[i].word] >> features[i].bit & 1u)) return 0;
    if ((saved_registers() & features[i].saved) != features[i].saved) return 0;
    return features[i].saved != SAVES_AMX || may_use_tiles();
  }
  return 0;
}

#elif defined(__linux__) && (defined(__aarch64__) || defined(__arm__))
#include <sys/auxv.h>

/* Bits of AT_HWCAP and AT_HWCAP2, from Linux's uapi headers, written out because older headers lack the newer ones. */
static const struct {
  const char *name;
  unsigned long entry, bit;
} features[] = {
#if defined(__aarch64__)
    {"fp", AT_HWCAP, 0},     {"asimd", AT_HWCAP, 1},     {"crc32", AT_HWCAP, 7},     {"atomics", AT_HWCAP, 8},
    {"fphp", AT_HWCAP, 9},   {"asimdhp", AT_HWCAP, 10},  {"asimdrdm", AT_HWCAP, 12}, {"asimddp", AT_HWCAP, 20},
    {"sve", AT_HWCAP, 22},   {"asimdfhm", AT_HWCAP, 23}, {"sve2", AT_HWCAP2, 1},     {"i8mm", AT_HWCAP2, 13},
    {"bf16", AT_HWCAP2, 14},
#else
    {"neon", AT_HWCAP, 12},  {"vfpv3", AT_HWCAP, 13}, {"vfpv4", AT_HWCAP, 16},   {"idiva", AT_HWCAP, 17},
    {"idivt", AT_HWCAP, 18}, {"fphp", AT_HWCAP, 22},  {"asimdhp", AT_HWCAP, 23}, {"asimddp", AT_HWCAP, 24},
#endif
};

static int has(const char *name) {
  for (size_t i = 0; i < sizeof features / sizeof features[0]; ++i)
    if (strcmp(features[i].name, name) == 0) return (int)(getauxval(features[i].entry) >> features[i].bit & 1u);
  return 0;
}

#else
static int has(const char *name) { return (void)name, 0; }
#endif

const char *id_missing_feature(void) {
  const id_info *info = &id_model_tables.info;
  for (uint32_t i = 0; i < info->feature_count; ++i)
    if (!has(info->features[i])) return info->features[i];
  return NULL;
}
