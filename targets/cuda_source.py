"""Device functions to CUDA C: TVM's code generator, without the headers that it writes before every module.

TVM's prelude includes headers of the CUDA toolkit for types that our kernels do not use; without it NVRTC needs no
header at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PRELUDE = """\
#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif
#define CUDART_INF_F __int_as_float(0x7f800000)
#define CUDART_NAN_F __int_as_float(0x7fffffff)
#define uint unsigned int
#define uchar unsigned char
#define ushort unsigned short
/* A kernel may begin while earlier ones still write what it will read (id_earlier_done): where that is so, the compiler
 * must take nothing that a pointer leads to for constant, or it loads it too early, or through a cache that nobody
 * clears. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define __restrict__
#endif
"""

COMPOSED = """\
ID_HELPERS void id_mma_half(float &d0, float &d1, float &d2, float &d3, uint a0, uint a1, uint a2, uint a3, uint b0,
                            uint b1) {
  id_mma_half_8(d0, d1, d2, d3, a0, a1, b0);
  id_mma_half_8(d0, d1, d2, d3, a2, a3, b1);
}
ID_HELPERS void id_mma_bytes(int &d0, int &d1, int &d2, int &d3, uint a0, uint a1, uint a2, uint a3, uint b0, uint b1) {
  id_mma_bytes_8(d0, d1, a0, b0);
  id_mma_bytes_8(d0, d1, a2, b1);
  id_mma_bytes_8(d2, d3, a1, b0);
  id_mma_bytes_8(d2, d3, a3, b1);
}
"""
"""What sm_75 has for the same products, in two halves of the depth: of 16 bits m16n8k8; of bytes m8n8k16, of half the
rows. Registers hold the same numbers.
"""

HELPERS = (
    """\
#if !defined(ID_SIMULATED) && !defined(ID_HELPERS)
#define ID_HELPERS static __device__ __forceinline__
/* Wait until every launch that this one depends on has ended and what it wrote is there; then those that depend on this
 * one may be brought to their own wait: in this order, so that of a chain no more than two launches hold places on the
 * GPU. Without programmatic edges both do nothing. */
ID_HELPERS void id_earlier_done() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/* Of `parts` blocks, whether this is the last to come here: it sees what the others wrote before, and the counter is 0
 * again. */
ID_HELPERS int id_last(int *counter, int parts) {
  __threadfence();
  __syncthreads();
  const int last = __syncthreads_or(threadIdx.x == 0 && atomicInc((uint *)counter, parts - 1) == parts - 1);
  __threadfence();
  return last;
}
ID_HELPERS float id_from_half(ushort bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
ID_HELPERS ushort id_to_half(float value) {
  ushort bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
ID_HELPERS float id_from_brain(ushort bits) { return __int_as_float((int)((uint)bits << 16)); }
ID_HELPERS ushort id_to_brain(float value) {
  ushort bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
/* An fp32 to eleven bits. */
ID_HELPERS void id_to_tf32(uint &bits) {
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(__int_as_float((int)bits)));
}
/* Two fp32 as two pairs of bfloat16: each rounded, and what that left of it, rounded. The first is in the low bits. */
ID_HELPERS void id_split(uint &high, uint &low, uint first, uint second) {
  const float a = __int_as_float((int)first), b = __int_as_float((int)second);
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(high) : "f"(b), "f"(a));
  const float c = a - __int_as_float((int)(high << 16)), d = b - __int_as_float((int)(high & 0xffff0000u));
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(low) : "f"(d), "f"(c));
}
/* sm_75 copies at once, and the barrier behind the wait shows it to the others. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
ID_HELPERS void id_copy_async(void *to, const void *from, int bytes) {
  uint4 value = {0, 0, 0, 0};
  if (bytes) value = *(const uint4 *)from;
  *(uint4 *)to = value;
}
ID_HELPERS void id_copy_word(void *to, const void *from, int bytes) { *(uint *)to = bytes ? *(const uint *)from : 0; }
ID_HELPERS void id_copy_commit() {}
template <int N> ID_HELPERS void id_copy_wait() {}
ID_HELPERS void id_mma_half_8(float &d0, float &d1, float &d2, float &d3, uint a0, uint a1, uint b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3)
      : "r"(a0), "r"(a1), "r"(b));
}
ID_HELPERS void id_mma_bytes_8(int &d0, int &d1, uint a, uint b) {
  asm("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+r"(d0), "+r"(d1)
      : "r"(a), "r"(b));
}
"""
    + COMPOSED
    + """\
#else
/* D += A * B: 16 x 8 sums over 32 bytes of a row of A and of a column of B, in a warp's registers. */
#define ID_MMA(name, sum, kind, mode)                                                                          \
  ID_HELPERS void name(sum &d0, sum &d1, sum &d2, sum &d3, uint a0, uint a1, uint a2, uint a3, uint b0, uint b1) { \
    asm("mma.sync.aligned." kind " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"              \
        : mode(d0), mode(d1), mode(d2), mode(d3)                                                                \
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));                                                \
  }
ID_MMA(id_mma_half, float, "m16n8k16.row.col.f32.f16.f16.f32", "+f")
ID_MMA(id_mma_brain, float, "m16n8k16.row.col.f32.bf16.bf16.f32", "+f")
/* Of fp32: 16 x 8 sums over 8 numbers, of which the lowest 13 bits count for nothing. */
ID_MMA(id_mma_tf32, float, "m16n8k8.row.col.f32.tf32.tf32.f32", "+f")
ID_MMA(id_mma_bytes, int, "m16n8k32.row.col.s32.u8.s8.s32", "+r")
/* 16 bytes to shared memory: `bytes` of them, 16 or 0, from `from`, the rest zeros. They are there after the wait. */
ID_HELPERS void id_copy_async(void *to, const void *from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint)__cvta_generic_to_shared(to)),
               "l"(from), "r"(bytes)
               : "memory");
}
/* The same of 4 bytes. */
ID_HELPERS void id_copy_word(void *to, const void *from, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"((uint)__cvta_generic_to_shared(to)),
               "l"(from), "r"(bytes)
               : "memory");
}
ID_HELPERS void id_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> ID_HELPERS void id_copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
#endif
/* Four 8 x 8 matrices of 16-bit numbers; lane 8 m + r gives the address of row r of matrix m. */
ID_HELPERS void id_ldmatrix(uint &r0, uint &r1, uint &r2, uint &r3, const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3)
               : "r"((uint)__cvta_generic_to_shared(row))
               : "memory");
}
#endif
"""
)
"""What kernels call: instructions that CUDA C has no name for without NVIDIA's headers. PTX ISA: cvt, mma, ldmatrix,
cp.async, griddepcontrol (nothing is compiled of what nobody calls).
"""

_FIRST = 'extern "C" __global__'


def source(functions: Sequence[Any]) -> str:
    """The CUDA C of device functions (`tirx.PrimFunc` with thread extents and a `global_symbol`)."""
    import tvm
    from tvm import tirx

    # The oldest architecture we build for: nothing that we emit depends on it.
    target = tvm.target.Target({"kind": "cuda", "arch": "sm_80"})
    module = tvm.IRModule({str(f.attrs["global_symbol"]): f for f in functions})
    passes = [
        tirx.transform.BindTarget(target),
        tirx.transform.LowerIntrin(),
    ]
    with target, tvm.transform.PassContext(opt_level=3):
        built = tvm.get_global_func("target.build.cuda")(tvm.transform.Sequential(passes)(module), target)
    text: str = built.inspect_source()
    return PRELUDE + HELPERS + text[text.index(_FIRST) :]
