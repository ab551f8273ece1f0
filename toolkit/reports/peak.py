"""What the machine can do at most: multiply-adds in registers, and bytes read from memory, on all threads.

Compiled C, because it must do nothing else: one vector multiply-add after the other, no loads and no stores, on enough
accumulators to hide their latency; and sums of an array that no cache holds.
"""

from __future__ import annotations

import ctypes
import math
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..kernels.isa import Isa

_ITERATIONS = 2_000_000
_READ_BYTES = 256 << 20
_PATIENCE, _MOST = 20, 200
"""Rounds without a faster one until the fastest is believed, and the most there are: other programs come and go."""


DOTS = {
    "vpdpbusd": '"vpdpbusd %1, %2, %0" : "+v"(a#) : "v"(y), "v"(y)',
    "vpdpbusd (VEX)": '"%{vex%} vpdpbusd %1, %2, %0" : "+x"(a#) : "x"(y), "x"(y)',
    "vpmaddubsw": '"vpmaddubsw %2, %2, %1; vpmaddwd %3, %1, %1; vpaddd %1, %0, %0"'
    ' : "+x"(a#), "=&x"(product) : "x"(y), "x"(ones)',
}
"""How a loop spells the instructions of `kernels.dots` that it can be made of, with the sums they leave to others:
a# += y * y.
"""

_SOURCE = """
#include <stdint.h>
typedef float v __attribute__((vector_size($BYTES)));
typedef int32_t w __attribute__((vector_size($BYTES)));

__attribute__((visibility("default"))) float multiply_add(int64_t n, float x) {
  v z = (v){0} + x, m = z + 0.5f;
  $START
  for (int64_t i = 0; i < n; ++i) { $ADD }
  v s = $SUM;
  return s[0];
}

__attribute__((visibility("default"))) float read_all(int64_t n, const v *x) {
  $ZERO
  for (int64_t i = 0; i + $CHAINS <= n; i += $CHAINS) { $READ }
  v s = $SUM;
  return s[0];
}

__attribute__((visibility("default"))) int32_t dot_add(int64_t n, int32_t x) {
  w y = (w){0} + x, ones = (w){0} + 0x10001, product = y;  // two of 16 bits, and between two instructions
  (void)ones, (void)product;
  $START_DOT
  for (int64_t i = 0; i < n; ++i) { $DOT }
  w s = $SUM;
  return s[0];
}
"""


def _source(lanes: int, chains: int, dot: str | None) -> str:
    def each(form: str) -> str:
        return " ".join(form.replace("#", str(i)) for i in range(chains))

    return Template(_SOURCE).substitute(
        BYTES=4 * lanes,
        CHAINS=chains,
        START=each("v a# = z + #.0f;"),
        ADD=each("a# = a# * m + z;"),
        ZERO=each("v a# = (v){0};"),
        READ=each("a# += x[i + #];"),
        START_DOT=each("w a# = y + #;"),
        DOT=each("a# += y;" if dot is None else f"__asm__ volatile({DOTS[dot]});"),
        SUM=" + ".join(f"a{i}" for i in range(chains)),
    )


class Peak:
    """Loops at the machine's limits, to be timed alone or among others.

    Args:
        isa: whose vectors.
        threads: all of which do the same.
        dot: the instruction of `DOTS` that `run_dot` is of.

    Attributes:
        flops: operations of one `run`.
        dots: instructions of one `run_dot`.

    Raises:
        DeployError: zig cannot compile the loops.
    """

    def __init__(self, isa: Isa, threads: int, dot: str | None = None) -> None:
        from ..targets.link import compile_c, link_shared

        chains = 24 if isa.registers >= 32 else 12
        self.flops = 2 * isa.lanes * chains * _ITERATIONS * threads
        self.dots = chains * _ITERATIONS * threads
        self._pool, self._threads = ThreadPoolExecutor(threads), threads
        self._vectors = _READ_BYTES // threads // (4 * isa.lanes)
        flags = [f"-mcpu={isa.mcpu.replace('-', '_')}"]
        if isa.machine == "x86_64":
            flags.append("-mprefer-vector-width=512")  # or LLVM halves the vectors, and then spills them
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "peak.so"
            code = compile_c(_source(isa.lanes, chains, dot), "peak.c", isa.triple, flags=flags)
            link_shared([code], ["multiply_add", "read_all", "dot_add"], path, isa.triple)
            library = ctypes.CDLL(str(path))  # stays mapped when the file is gone
        self._add, self._read, self._dot = library.multiply_add, library.read_all, library.dot_add
        self._dot.argtypes, self._dot.restype = (ctypes.c_int64, ctypes.c_int32), ctypes.c_int32
        self._add.argtypes, self._add.restype = (ctypes.c_int64, ctypes.c_float), ctypes.c_float
        self._read.argtypes, self._read.restype = (ctypes.c_int64, ctypes.c_void_p), ctypes.c_float

    def run(self) -> None:
        """One go; ctypes lets go of Python's lock, so the threads run side by side."""
        going = [self._pool.submit(self._add, _ITERATIONS, 0.25) for _ in range(self._threads)]
        for one in going:
            one.result()

    def run_dot(self) -> None:
        """As `run`, of the instruction that adds up products of bytes."""
        going = [self._pool.submit(self._dot, _ITERATIONS, 1) for _ in range(self._threads)]
        for one in going:
            one.result()

    def read(self, address: int, vector_bytes: int) -> None:
        """Every thread reads its part of an array of `_READ_BYTES` from `address` on."""
        part = self._vectors * vector_bytes
        going = [self._pool.submit(self._read, self._vectors, address + i * part) for i in range(self._threads)]
        for one in going:
            one.result()


@dataclass(frozen=True)
class Limits:
    """The most that was measured.

    Attributes:
        gmacs: thousand million multiply-adds a second, in vectors.
        of: what the multiply-adds are of: ``fp32`` or ``bytes``.
        gbytes: thousand million bytes a second, read from memory.
        how: what was measured, in words.
    """

    gmacs: float
    of: str
    gbytes: float
    how: str


def limits(isa: Isa, threads: int, *, integers: bool = False) -> Limits:
    """The fastest of as many rounds of both loops as it takes until none is faster.

    Args:
        integers: of bytes, where the instruction set multiplies them by an instruction of `DOTS`; else of fp32.

    Raises:
        DeployError: zig cannot compile the loops.
        ModuleNotFoundError: zig is not installed.
    """
    import numpy as np

    dot = next((row for row in isa.dots if row.name in DOTS), None) if integers else None
    peak = Peak(isa, threads, dot.name if dot else None)
    compute, macs = (peak.run_dot, peak.dots * dot.lanes * dot.depth) if dot else (peak.run, peak.flops / 2)
    vector = 4 * isa.lanes
    array = np.ones(_READ_BYTES // 4 + vector, np.float32)
    start = array.ctypes.data + -array.ctypes.data % vector
    fastest, still, rounds = [math.inf, math.inf], 0, 0
    while still < _PATIENCE and rounds < _MOST:
        began = time.perf_counter()
        compute()
        between = time.perf_counter()
        peak.read(start, vector)
        now = [min(a, b) for a, b in zip(fastest, (between - began, time.perf_counter() - between), strict=True)]
        still, rounds = (still + 1 if now == fastest else 0), rounds + 1
        fastest = now
    add, read = fastest
    sums = "" if dot is None or dot.adds else " and its sums"
    what = f"{dot.name}{sums} in registers" if dot else f"multiply-adds of {isa.lanes} floats in registers"
    how = (
        f"the fastest of {rounds} rounds on {threads} thread{'s' if threads > 1 else ''}: {what}, "
        f"and a sum of {_READ_BYTES >> 20} MB"
    )
    return Limits(macs / 1e9 / add, "bytes" if dot else "fp32", _READ_BYTES / 1e9 / read, how)
