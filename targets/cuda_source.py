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
    return PRELUDE + text[text.index(_FIRST) :]
