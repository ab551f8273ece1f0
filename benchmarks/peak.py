"""The machine's fp32 peak: a loop of independent multiply-adds in registers, on all threads, to be timed among others.

Compiled C, because it must do nothing else: no loads, no stores, one vector FMA after the other on enough accumulators
to hide their latency.
"""

from __future__ import annotations

import ctypes
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inception_deploy.targets.cpu import Isa
from inception_deploy.targets.link import compile_c, link_shared


def _source(lanes: int, chains: int) -> str:
    start = "".join(f"  v a{i} = z + {i}.0f;\n" for i in range(chains))
    body = "".join(f"    a{i} = a{i} * m + z;\n" for i in range(chains))
    total = " + ".join(f"a{i}" for i in range(chains))
    return (
        f"#include <stdint.h>\ntypedef float v __attribute__((vector_size({4 * lanes})));\n"
        '__attribute__((visibility("default"))) float multiply_add(int64_t n, float x);\n'
        f"float multiply_add(int64_t n, float x) {{\n  v z = (v){{0}} + x, m = z + 0.5f;\n{start}"
        f"  for (int64_t i = 0; i < n; ++i) {{\n{body}  }}\n  v s = {total};\n  return s[0];\n}}\n"
    )


class Peak:
    """`run()` does `flops` operations on `threads` threads."""

    def __init__(self, isa: Isa, threads: int, iterations: int = 2_000_000) -> None:
        chains = 24 if isa.registers >= 32 else 12
        self.flops = 2 * isa.lanes * chains * iterations * threads
        self._pool, self._threads, self._iterations = ThreadPoolExecutor(threads), threads, iterations
        flags = [f"-mcpu={isa.mcpu.replace('-', '_')}"]
        if isa.machine == "x86_64":
            flags.append("-mprefer-vector-width=512")  # or LLVM halves the vectors, and then spills them
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "peak.so"
            code = compile_c(_source(isa.lanes, chains), "peak.c", isa.triple, flags=flags)
            link_shared([code], ["multiply_add"], path, isa.triple)
            self._function = ctypes.CDLL(str(path)).multiply_add  # stays mapped when the file is gone
        self._function.argtypes, self._function.restype = (ctypes.c_int64, ctypes.c_float), ctypes.c_float

    def run(self) -> None:
        """One go; ctypes lets go of Python's lock, so the threads run side by side."""
        going = [self._pool.submit(self._function, self._iterations, 0.25) for _ in range(self._threads)]
        for one in going:
            one.result()
