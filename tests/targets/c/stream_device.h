/* stream_device.h - a device for tests that executes command streams, as an accelerator on a bus does: it has memory of its own, which the
 * processor sees too, and does nothing before it is waited for. Not a part of the product. */
#include "device.h"

enum { STREAM_COUNT = 4096 };
enum { STREAM_END = 0, STREAM_GATHER = 1, STREAM_TRAP = 2 };

/* out[i] = in[(5 * i + 3) % STREAM_COUNT] + weight[i]; the operands are arguments of the step. */
typedef struct stream_command {
  uint32_t opcode, in, weight, out;
} stream_command;

typedef struct stream_code {
  const stream_command *commands; /* up to STREAM_END */
} stream_code;

enum { STREAM_OPEN = 1, STREAM_ADDRESS, STREAM_BEGIN, STREAM_RUN, STREAM_WAIT, STREAM_FINISH };

/* Which function fails, once. */
typedef struct stream_tables {
  int fails;
} stream_tables;

extern const id_device stream_device;
