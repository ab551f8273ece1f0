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
"""

HELPERS = """\
#if !defined(ID_SIMULATED) && !defined(ID_HELPERS)
#define ID_HELPERS static __device__ __forceinline__
/* Of `parts` blocks, whether this is the last to come here; what the others wrote before is seen then. The counter is 0 again. */
ID_HELPERS int id_last(int *counter, int parts) {
  __shared__ unsigned int before;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) before = atomicInc((unsigned int *)counter, parts - 1);
  __syncthreads();
  __threadfence();
  return before == parts - 1;
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
/* D += A * B: 16 x 8 sums of fp32 over 16 products of binary16, in a warp's registers. */
ID_HELPERS void id_mma_f16(float &d0, float &d1, float &d2, float &d3, uint a0, uint a1, uint a2, uint a3,
                           uint b0, uint b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3)
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
/* Four 8 x 8 matrices of 16-bit numbers; lane 8 m + r gives the address of row r of matrix m. */
ID_HELPERS void id_ldmatrix(uint &r0, uint &r1, uint &r2, uint &r3, const ushort *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3)
               : "r"((uint)__cvta_generic_to_shared(row))
               : "memory");
}
/* 16 bytes to shared memory: `bytes` of them, 16 or 0, from `from`, the rest zeros. They are there after the wait. */
ID_HELPERS void id_copy_async(ushort *to, const ushort *from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint)__cvta_generic_to_shared(to)),
               "l"(from), "r"(bytes)
               : "memory");
}
ID_HELPERS void id_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> ID_HELPERS void id_copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
#endif
"""
"""What kernels of binary16 call: instructions that CUDA C has no name for without NVIDIA's headers. PTX ISA: cvt,
mma.m16n8k16, ldmatrix, cp.async (sm_80 and later).
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
    return PRELUDE + (HELPERS if "id_" in text else "") + text[text.index(_FIRST) :]
