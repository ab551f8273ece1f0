/* device.h - what a device does for a model; api.c does everything else: it checks arguments, the processor and the weights file, and
 * keeps one inference at a time in a handle. Not public.
 *
 * A new device implements `id_device` in a file of its own, beside cpu_device.c and cuda_device.c, and says in a header like
 * cpu_tables.h what the generated model.c tells it. */
#ifndef ID_DEVICE_H
#define ID_DEVICE_H

#include "model_tables.h"

/* What a device is given when a model is opened; lives until it is closed. */
typedef struct id_site {
  const id_model *model;
  const id_tables *tables;
  const unsigned char *weights; /* the weights file; NULL for an empty one */
  uint32_t device;              /* this one, in tables->devices */
  uint32_t threads;             /* that an inference may use on the processor */
  const char *weights_path;     /* during `open` only */
  const char *driver;           /* the library that drives the device, during `open` only; NULL for the usual one */
} id_site;

/* All functions that return `int` return an ID_ code. `state` is what `open` made. Members that say so may be NULL. */
typedef struct id_device {
  /* Make ready: allocate the device's own memories, resolve addresses. `*state` is NULL before the call; where it is set `close`
   * follows, whatever is returned. */
  int (*open)(const id_site *site, void **state);
  /* Give everything back. `child`: in the child of a fork(), which has a copy of the memory and no share in threads or hardware. */
  void (*close)(void *state, int child);
  /* Where the processor finds a memory of this device; NULL where it cannot look. The member may be NULL. */
  void *(*address)(void *state, uint32_t memory);

  /* One inference is: `begin` of every device, `run` of every span in order, `end` of every device whose `begin` was called. */

  /* Take the inputs that are this device's, one pointer per port of the model; remember where its outputs go. */
  int (*begin)(void *state, const void *const *inputs, void *const *outputs);
  /* Do the steps of a span, or start them. `seconds`: receives the time of every step of the model, by its index, and then all is done
   * on return; NULL for no clock. On ID_ERROR_KERNEL `*failed` is the step. */
  int (*run)(void *state, uint32_t span, double *seconds, uint32_t *failed);
  /* Return when everything that was started is done; called before a span of another device. NULL where `run` does not return before. */
  int (*wait)(void *state);
  /* Give the outputs; `code` is what became of the inference so far. Nothing of the caller's may be in use afterwards, even on failure. */
  int (*end)(void *state, void *const *outputs, int code);

  /* One inference on buffers of the device, all of the model's steps, put into a stream of the device and not waited for. NULL where
   * there are no streams. */
  int (*run_async)(void *state, const void *const *inputs, void *const *outputs, void *stream);

  /* How many phases an inference has in which its threads wait for each other, and the account of the next one: the
   * next inference fills it as id_watch says, where it is not NULL. Both members may be NULL: nothing to tell. */
  uint32_t (*phases)(const void *state);
  void (*watch)(void *state, double *seconds, uint32_t *first_steps);

  /* Whether an inference may run in the child of a fork(). */
  int (*survives_fork)(const void *state);

  int maps_weights; /* it uses the mapped weights file as long as it is open */
  int uses_threads; /* of id_site */
  int takes_driver; /* of id_site */
} id_device;

/* Where the processor finds a memory of a device that was opened before; NULL where it cannot look. */
void *id_host_address(const id_model *model, uint32_t memory);

#endif /* ID_DEVICE_H */
