/* inception_deploy.h - run a compiled network from C.
 *
 * A bundle holds `model.so`, which this header describes, and `weights.bin`. The library needs the C library and nothing else: no
 * Python, no TVM. Link against it (`cc main.c model.so`), or load it with dlopen; every bundle exports the same names, so a program
 * that uses two bundles loads each with dlopen(path, RTLD_NOW | RTLD_LOCAL).
 *
 *     id_model *model;
 *     int code = id_open("weights.bin", 0, &model);
 *     if (code != ID_OK) { fprintf(stderr, "%s\n", id_error(code)); return 1; }
 *     const void *inputs[] = {image};
 *     void *outputs[] = {logits};
 *     code = id_run(model, inputs, outputs);
 *     id_close(model);
 *
 * C99 and newer, C++ too.
 */
#ifndef INCEPTION_DEPLOY_H
#define INCEPTION_DEPLOY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ID_API __attribute__((visibility("default")))
#else
#define ID_API
#endif

/* The version of everything in this header. It changes when a program compiled against an older one would break. */
#define ID_ABI_VERSION 1

/* What every function that returns `int` returns. The numbers never change their meaning. */
enum {
  ID_OK = 0,
  ID_ERROR_ARGUMENT = 1,     /* a null pointer, or a number of threads below 0 or above ID_MAX_THREADS */
  ID_ERROR_CPU = 2,          /* the library was built for a feature that this processor lacks: id_missing_feature() */
  ID_ERROR_WEIGHTS_OPEN = 3, /* the weights file cannot be opened or read */
  ID_ERROR_WEIGHTS_SIZE = 4, /* the weights file has the wrong size: it is truncated, or another model's */
  ID_ERROR_WEIGHTS_TAG = 5,  /* the weights file has the right size and other content */
  ID_ERROR_MEMORY = 6,       /* out of memory */
  ID_ERROR_THREADS = 7,      /* the threads could not be started */
  ID_ERROR_KERNEL = 8,       /* a step failed: id_failed_step(); the outputs are undefined */
  ID_ERROR_BUSY = 9,         /* the handle is running in another thread */
  ID_ERROR_FORKED = 10,      /* the handle was opened before fork(), whose child has none of its threads */
  ID_ERROR_DEVICE = 11       /* no device or driver that the library was built for, or it failed */
};

#define ID_MAX_THREADS 256

/* An input or output: one contiguous array. */
typedef struct id_port {
  const char *name;
  const char *dtype;    /* as numpy spells it: "float32" */
  const int64_t *shape; /* `axes` extents, outermost first (NCHW for images) */
  uint32_t axes;
  uint64_t bytes;
} id_port;

/* One kernel call of an inference. */
typedef struct id_step {
  const char *name; /* the last network node it computes */
  const char *op;   /* what kind of work it is: "conv", "maxpool", ... */
  uint32_t wave;    /* steps of one wave are independent, and run at the same time */
  uint64_t macs;    /* multiply-adds */
} id_step;

/* Everything known of the model without opening it. */
typedef struct id_info {
  uint32_t abi_version;        /* ID_ABI_VERSION of the library */
  const char *target;          /* the target it was built for, as the export command took it */
  const char *const *features; /* the `feature_count` processor features it needs, as /proc/cpuinfo has them */
  uint32_t feature_count;
  uint64_t arena_bytes;   /* memory for activations, per handle */
  uint64_t weights_bytes; /* size of weights.bin, mapped read-only and shared between handles */
  uint64_t weights_tag;   /* checksum of weights.bin */
  uint32_t input_count;
  uint32_t output_count;
  uint32_t step_count;
  uint32_t wave_count;
  const id_port *inputs;
  const id_port *outputs;
  const id_step *steps;
} id_info;

/* A model that is ready to run. Handles do not share anything that changes: two of them may run at once from two threads. One handle
 * runs one inference at a time (ID_ERROR_BUSY otherwise). */
typedef struct id_model id_model;

/* What the library holds. Never fails; the result lives as long as the library is loaded. */
ID_API const id_info *id_describe(void);

/* The first feature in id_describe()->features that this processor (or its operating system) lacks; NULL where it has them all. */
ID_API const char *id_missing_feature(void);

/* One sentence for a result code, in English, without a full stop. Never NULL. */
ID_API const char *id_error(int code);

/* Check the processor and the weights, allocate all memory, start the threads.
 *
 * weights_path: the bundle's weights.bin; it may be removed or replaced (by rename) afterwards, and must not be written into.
 *               NULL for the weights that the library holds itself, where it was exported with --embed; all functions that open
 *               take it so. (Libraries without, and those of before, call it an ID_ERROR_ARGUMENT.)
 * threads: how many threads an inference uses, the caller's among them; 0 for one per processor that the caller may run on.
 *          1 starts no thread at all.
 * model: receives the handle; NULL on failure.
 */
ID_API int id_open(const char *weights_path, int threads, id_model **model);

/* The same, of weights that lie inside of a file, `offset` bytes from its start, a multiple of 64: in a package, or behind a program. */
ID_API int id_open_at(const char *path, uint64_t offset, int threads, id_model **model);

/* id_open, with the shared library that drives the model's accelerator named; NULL for the one that id_open takes.
 *
 * driver: as dlopen takes it. A model that has no accelerator with a driver of that kind refuses any (ID_ERROR_ARGUMENT).
 */
ID_API int id_open_with_driver(const char *weights_path, int threads, const char *driver, id_model **model);

/* A library may hold several plans of its network, each for another number of images at once, on the same weights: how many there are.
 * Plan 0, the one for the fewest images, is what the functions without a plan describe and open. (Bundles of before lack these three.) */
ID_API uint32_t id_plans(void);

/* id_describe of a plan; NULL where there is none of that number. The first axis of every input and output is its number of images. */
ID_API const id_info *id_describe_plan(uint32_t plan);

/* id_open_at of a plan. Handles of several plans may be open at once; the mapped weights are the same memory.
 *
 * plan: below id_plans(), or it is an ID_ERROR_ARGUMENT.
 */
ID_API int id_open_plan(uint32_t plan, const char *path, uint64_t offset, int threads, id_model **model);

/* What the last failure in this process had to say beside its code, for a person: into `text`, at most `bytes` with the 0 at its end.
 * Empty where there was nothing. Returns its length. */
ID_API uint32_t id_detail(char *text, uint32_t bytes);

/* How many threads id_run uses. */
ID_API int id_threads(const id_model *model);

/* One inference.
 *
 * inputs, outputs: one pointer per port, in the order of id_describe(), each to `bytes` bytes. Buffers that are aligned to 64 bytes
 * are used in place, others are copied. An output must not overlap an input or another output.
 */
ID_API int id_run(id_model *model, const void *const *inputs, void *const *outputs);

/* One inference on a GPU's own memory, put into a stream and not waited for: nothing is copied, and nothing is done by the processor.
 *
 * inputs, outputs: as id_run takes them, but addresses in the memory of the GPU that the handle is open on, multiples of 16. They have to
 * stay there until the stream has come so far, and so has the handle.
 * stream: a CUstream of that GPU's primary context; NULL for its default stream. Inferences of one handle follow each other in whatever
 * streams they are. A model that is not for a GPU alone refuses (ID_ERROR_ARGUMENT). Libraries of before lack the function.
 */
ID_API int id_run_async(id_model *model, const void *const *inputs, void *const *outputs, void *stream);

/* One inference with a clock: `seconds_per_step` receives the wall time of each of id_describe()->step_count steps. Steps run one
 * after the other, each on all threads, so their sum is more than id_run takes. What id_run_async has put into a stream is waited for
 * before, by the caller. */
ID_API int id_profile(id_model *model, const void *const *inputs, void *const *outputs, double *seconds_per_step);

/* How many phases id_watch gives an account of: waves, or several small ones that one thread does; 0 where one thread does everything, or
 * all work is done by devices. */
ID_API uint32_t id_phases(const id_model *model);

/* One inference as id_run does it, with a clock for every thread.
 *
 * seconds: for each phase 1 + id_threads() numbers: its wall time, then how long each thread was at work in it, that of the caller first.
 *   What is missing to the wall time is waiting: for work that cannot be shared out evenly, or for the processor.
 * first_steps: for each phase the index of its first step.
 */
ID_API int id_watch(id_model *model, const void *const *inputs, void *const *outputs, double *seconds, uint32_t *first_steps);

/* The index of the step that made the last id_run or id_profile return ID_ERROR_KERNEL; -1 where none did. */
ID_API int id_failed_step(const id_model *model);

/* Stop the threads and free the memory; NULL is fine. The handle must not be running. */
ID_API void id_close(id_model *model);

#ifdef __cplusplus
}
#endif

#endif /* INCEPTION_DEPLOY_H */
