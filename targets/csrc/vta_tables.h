/* vta_tables.h - what the generated model.c tells the device `vta`, beside id_model_tables. Not part of the public interface. */
#ifndef ID_VTA_TABLES_H
#define ID_VTA_TABLES_H

#include "device.h"
#include "vta_driver.h"

/* A part of a memory. */
typedef struct id_vta_range {
  uint64_t offset, bytes;
  uint32_t memory; /* in id_tables.memories */
} id_vta_range;

/* The instructions of a span. */
typedef struct id_vta_stream {
  uint64_t first; /* where in the weights file they begin, 16 bytes each */
  uint32_t count;
  uint64_t relocations; /* where in the weights file they begin */
  uint32_t relocation_count;
  uint32_t first_flush, flush_count;           /* in id_vta_tables.ranges: what the host may have written since the stream before */
  uint32_t first_invalidate, invalidate_count; /* what it touches before the next one */
} id_vta_stream;

/* A relocation is 8 bytes, little-endian: the instruction, 4 bytes; the memory in id_tables.memories, 2; the bytes of its elements, 2. The
 * instruction's dram_base counts elements from the memory's begin; it will count them from the physical address 0. */
enum { ID_VTA_RELOCATION = 8, ID_VTA_INSTRUCTION = 16 };

/* What a step does: some of the instructions of its span's stream. */
typedef struct id_vta_code {
  uint32_t stream;            /* in id_vta_tables.streams */
  uint32_t first_instruction; /* of the step */
  uint64_t cost;              /* compared with the other steps of the stream: how its time is shared out */
} id_vta_code;

/* A driver that is linked in: the simulator, or that of a board in a program that loads no libraries. */
typedef struct id_vta_linked {
  vta_driver driver;
  /* What the last run that failed did wrong, and in which instruction; NULL where none failed. Without such a function it is a board's. */
  const char *(*fault)(uint32_t *instruction);
} id_vta_linked;

typedef struct id_vta_tables {
  const id_vta_stream *streams;
  const id_vta_range *pieces; /* of the memories, ordered by memory and offset: each is allocated by itself */
  const id_vta_range *ranges;
  const id_vta_linked *linked; /* NULL: the driver is a library */
  uint32_t stream_count, piece_count;
  uint32_t alignment;   /* of a physical address: the largest element, a power of two */
  uint32_t dram_shift;  /* where in the first word of an instruction dram_base stands, 32 bits of it */
  uint32_t wait;        /* polls until the VTA is given up */
  uint32_t flushed;     /* what the processor caches is flushed and invalidated; otherwise the VTA sees it */
} id_vta_tables;

extern const id_device id_vta_device;
extern const id_vta_linked id_vta_simulator, id_vta_zynq;

#endif /* ID_VTA_TABLES_H */
