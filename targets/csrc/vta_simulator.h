/* vta_simulator.h - a VTA as data, and what executes its instructions. Not public.
 *
 * inception_deploy.targets.vta.simulator has the same structures, and writes `id_vta_machine` and `id_vta_fields` where they are
 * compiled in. */
#ifndef ID_VTA_SIMULATOR_H
#define ID_VTA_SIMULATOR_H

#include <stdint.h>

/* What nobody has written; as the epoch of a write. */
#define VTA_NEVER UINT32_MAX
#define VTA_MESSAGE 240

enum { SHR_WRAPS, SHR_IMMEDIATE_WIDE, SHR_BOUNDED };

typedef struct vta_place {
  int32_t word, shift, width, is_signed;
} vta_place;

typedef struct vta_machine {
  int32_t batch, block;
  int32_t uop_depth, inp_depth, wgt_depth, acc_depth;
  int32_t uop_bytes, inp_bytes, wgt_bytes, acc_bytes;
  /* The profile. */
  int32_t acc_8bit;        /* LOAD ACC_8BIT exists */
  int32_t mul;             /* ALU MUL exists */
  int32_t shift;           /* SHR_... */
  int32_t own_output;      /* OUT is a memory of its own; otherwise STORE narrows the accumulator */
  int32_t reset_writes;    /* a reset GEMM writes OUT, the sum that would have been */
  int32_t immediate_src;   /* an ALU step with an immediate takes acc[src] */
  int32_t distance;        /* steps between two updates of an accumulator element, at least; 0 for any */
  int32_t stale_alu;       /* an ALU step does not see what the step before it wrote */
  int32_t empty_loops;     /* a loop without iterations does nothing; otherwise it is never to be emitted */
  int32_t strict_memory;   /* x_size 0 does nothing, y_size 0 hangs; otherwise pads are written all the same */
  int32_t flat_uops;       /* LOAD UOP ignores y_size, LOAD WGT ignores pads */
  int32_t store_pads;      /* STORE ignores pads; otherwise it refuses them */
  int32_t commands;        /* an engine's queue of instructions; 0 for no limit */
  int32_t tokens;          /* of a queue; 0 for no limit */
  int32_t poisoned;        /* SRAM starts with nothing in it; otherwise with zeros */
  int32_t ordered;         /* unordered accesses of two engines, and what is left over at the end, are faults */
} vta_machine;

/* A contiguous piece of DRAM. States count in `granule` bytes. */
typedef struct vta_region {
  uint64_t address, bytes;
  uint8_t *data;
  uint32_t *stored; /* the STORE that wrote it, 0 where it was there from the start, or VTA_NEVER */
  uint32_t *read;   /* [2]: the last LOAD of the load engine, of the compute engine */
} vta_region;

typedef struct vta_counts {
  uint64_t instructions, gemm_steps, reset_steps, alu_steps;
  uint64_t bytes[6]; /* by memory type; STORE's are OUT's */
} vta_counts;

/* Execute `count` instructions. The regions are ordered by their addresses, and state is counted in `granule` bytes. Returns 0, or -1
 * with the instruction at fault and what it did, VTA_MESSAGE bytes at most. */
int vta_simulate(const vta_machine *is, const vta_place *fields, const uint8_t *code, uint32_t count, vta_region *regions,
                 uint32_t region_count, uint32_t granule, vta_counts *counts, uint32_t *at_fault, char *message);

/* Of the accelerator that is compiled in. */
extern const vta_machine id_vta_machine;
extern const vta_place id_vta_fields[];
extern const int32_t id_vta_coherent; /* it sees memory that nobody has flushed */

#endif /* ID_VTA_SIMULATOR_H */
