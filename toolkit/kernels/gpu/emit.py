"""A thin builder for CUDA kernels in TIR: the `Emitter` of the CPU's kernels, with threads, shared memory and barriers.

The result is a device function `void k(float *a, float *b, ...)` for a fixed grid and block, which TVM's CUDA code
generator turns into C. All arithmetic is written out (`fma` is one rounding, nothing else is contracted), so a kernel
gives the same bits on every GPU, and in the tests' simulation on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir import Range

from ..elements import BRAIN, HALF
from ..emit import Emitter, Expr, const, load
from ..family import Launch

WIDEST = 16
"""Bytes of the widest load or store of a thread."""

QUAD = 4
"""Floats in it."""

DEVICE_FUNCTION = 2
"""TVM's `CallingConv.DEVICE_KERNEL_LAUNCH`."""

NARROW = {HALF: "half", BRAIN: "brain"}
"""The elements of 16 bits, and what `targets.cuda_source` calls them."""

REALS = ("float32", *NARROW)
"""What real numbers are kept in; all are computed with in fp32, but for the products of tensor cores."""

_INT = "int32"


class GpuEmitter(Emitter):
    """Collects the statements of one device function.

    Attributes:
        sixteen: what the kernel's pointers to 16 bits keep, which is one element.
        thread: `threadIdx.x`. blocks: `blockIdx.x`, `.y` and `.z`; the constant 0 along an axis of extent 1.
    """

    def __init__(self, name: str, pointers: Sequence[tuple[str, str]], launch: Launch) -> None:
        super().__init__(name, pointers)
        self.sixteen = next((element for _, element in pointers if element in NARROW), HALF)
        self._axes: list[tuple[str, Any, int]] = []
        self._waits = False
        self.thread = self._axis("threadIdx.x", launch.block[0], always=True)
        self.blocks = tuple(
            self._axis(f"blockIdx.{axis}", extent) for axis, extent in zip("xyz", launch.grid, strict=True)
        )

    def _axis(self, tag: str, extent: int, *, always: bool = False) -> Expr:
        if extent == 1 and not always:
            return 0
        var = tirx.Var(tag.replace(".", "_"), _INT)
        self._axes.append((tag, var, extent))
        return var

    def shared(self, size: int, name: str, dtype: str = "float32") -> Any:
        """`size` elements that all threads of a block see."""
        buffer = tirx.decl_buffer((size,), dtype, name, scope="shared")
        self._add(tirx.AllocBuffer(buffer))
        return buffer

    def barrier(self) -> None:
        """Every thread of the block comes here before any goes on."""
        self._add(tirx.Evaluate(tirx.call_intrin("void", "tirx.tvm_storage_sync", "shared")))

    def earlier_done(self) -> None:
        """From here on, what earlier launches wrote is there, and may be overwritten: before, a kernel reads nothing
        but constants and writes nothing. Every thread comes here, once. A kernel without this begins with it.
        """
        self._waits = True
        self._add(wait_for_earlier())

    @contextmanager
    def unrolled(self, extent: int, name: str = "u") -> Iterator[Expr]:
        """A loop that the compiler unrolls: indices made of its variable are constants, so arrays stay in registers."""
        if extent == 1:
            yield 0
            return
        var = tirx.Var(name, _INT)
        self._blocks.append([])
        yield var
        self._add_for(var, 0, extent, tirx.stmt.ForKind.UNROLLED)

    def do(self, name: str, *args: Expr) -> None:
        """Call a device function of `targets.cuda_source` for what it does; an element of a buffer is an lvalue."""
        self._add(tirx.Evaluate(tirx.call_extern("void", name, *args)))

    def copy(self, into: Any, slot: Expr, buffer: Any, index: Expr) -> None:
        """`into[slot] = buffer[index]` in one load and one store; both count quads. Between 16 bits and floats each
        lane is converted, to the nearest.
        """
        if into.dtype == buffer.dtype:
            self.put(into, slot, quad(buffer, index))
            return
        raw = self.local(QUAD, "uint16", "raw")
        if buffer.dtype == "uint16":
            self.put(raw, 0, quad(buffer, index))
            for lane in range(QUAD):
                self.store(into, slot * QUAD + lane, self.widened(load(raw, lane)))
        else:
            for lane in range(QUAD):
                self.store(raw, lane, self.narrowed(load(buffer, index * QUAD + lane)))
            self.put(into, slot, quad(raw, 0))

    def copy_quad(self, into: Any, slot: Expr, buffer: Any, index: Expr) -> None:
        """`copy` between buffers of one type, whatever it is."""
        self.put(into, slot, quad(buffer, index))

    def put(self, buffer: Any, index: Expr, value: Expr) -> None:
        """Quad `index` of `buffer` becomes `value`, four lanes."""
        self.store(buffer, index * QUAD, value)

    def copy_if(self, condition: Expr | None, into: Any, slot: Expr, buffer: Any, index: Expr) -> None:
        """`copy` where `condition` holds, zeros elsewhere; nothing is read there."""
        if condition is not None:
            self.put(into, slot, const(0.0, QUAD))
        with self.when(condition) if condition is not None else nullcontext():
            self.copy(into, slot, buffer, index)

    def read(self, pointer: str, index: Expr, lanes: int = 1) -> Expr:
        """One fp32 of what a pointer's elements stand for."""
        value = load(self.buffers[pointer], index)
        return self.widened(value) if self.elements[pointer] in NARROW else value

    def write(self, pointer: str, index: Expr, *values: Expr) -> None:
        """Store an fp32, rounded to a pointer's elements."""
        (value,) = values
        self.store(self.buffers[pointer], index, self.kept(pointer, value))

    def kept(self, pointer: str, value: Expr) -> Expr:
        """An fp32 as a pointer's elements keep it."""
        return self.narrowed(value) if self.elements[pointer] in NARROW else value

    def read_beside(self, pointer: str, index: Expr, count: int) -> list[Expr]:
        """`count` neighbours of what a pointer leads to, from `index * count` on: 16 bits as fp32, all else as it is.
        Loads are of 16 bytes, or of all where they are fewer.
        """
        buffer = self.buffers[pointer]
        values = self.local(count, buffer.dtype, f"{pointer}_values")
        for first, lanes in _accesses(buffer.dtype, count):
            self.store(values, first, load(buffer, index * count + first, lanes))
        found = [load(values, k) for k in range(count)]
        return [self.widened(value) for value in found] if self.elements[pointer] in NARROW else found

    def write_beside(self, pointer: str, index: Expr, values: Sequence[Expr]) -> None:
        """Store neighbours from `index` times their number on, of a pointer's elements, in stores as wide."""
        buffer = self.buffers[pointer]
        result = self.local(len(values), buffer.dtype, "result")
        for k, value in enumerate(values):
            kept = self.kept(pointer, value)
            self.store(result, k, kept if str(kept.ty.dtype) == buffer.dtype else tirx.Cast(buffer.dtype, kept))
        for first, lanes in _accesses(buffer.dtype, len(values)):
            self.store(buffer, index * len(values) + first, load(result, first, lanes))

    def widened(self, value: Expr) -> Expr:
        """The fp32 that 16 bits stand for."""
        return tirx.call_pure_extern("float32", f"id_from_{NARROW[self.sixteen]}", value)

    def narrowed(self, value: Expr) -> Expr:
        """The 16 bits next to an fp32; ties to even, infinity beyond the largest."""
        return tirx.call_pure_extern("uint16", f"id_to_{NARROW[self.sixteen]}", value)

    def load_if(self, condition: Expr | None, into: Any, slot: Expr, buffer: Any, index: Expr) -> None:
        """One float: `into[slot] = buffer[index]` where `condition` holds, zero elsewhere; nothing is read there."""
        if condition is not None:
            self.store(into, slot, const(0.0))
        with self.when(condition) if condition is not None else nullcontext():
            self.store(into, slot, load(buffer, index))

    def finish(self) -> tirx.PrimFunc:
        """The finished function; the builder is used up."""
        (stmts,) = self._blocks
        if not self._waits:
            stmts.insert(0, wait_for_earlier())
        decls = [tirx.DeclBuffer(b, data=v) for b, v in zip(self.buffers.values(), self._params, strict=True)]
        body: Any = tirx.SeqStmt([*decls, *stmts])
        for tag, var, extent in self._axes:
            axis = tirx.IterVar(Range(0, extent), var, tirx.IterVar.ThreadIndex, tag)
            body = tirx.AttrStmt(axis, "thread_extent", tirx.const(extent, _INT), body)
        func = tirx.PrimFunc(self._params, body)
        return func.with_attr({"global_symbol": self.name, "tirx.noalias": True, "calling_conv": DEVICE_FUNCTION})


def wait_for_earlier() -> Any:
    """The statement of `GpuEmitter.earlier_done`."""
    return tirx.Evaluate(tirx.call_extern("void", "id_earlier_done"))


def quad(buffer: Any, index: Expr) -> Expr:
    """Four neighbouring floats, from `4 * index` on.

    Addresses count quads wherever quads are moved: the code generator makes one access of them only where it sees the
    factor.
    """
    return load(buffer, index * QUAD, QUAD)


def _accesses(dtype: str, count: int) -> list[tuple[int, int]]:
    """The first of each access to `count` neighbours, and how many it has."""
    lanes = min(count, WIDEST // np.dtype(dtype).itemsize)
    return [(first, lanes) for first in range(0, count, lanes)]


def fma(a: Expr, b: Expr, c: Expr) -> Expr:
    """`a * b + c` in one rounding."""
    return call("fmaf", a, b, c)


def call(name: str, *args: Expr) -> Expr:
    """A float function of CUDA's mathematics library (and of C's: `expf`, `tanhf`)."""
    return tirx.call_pure_extern("float32", name, *args)


def inside(index: Expr, extent: int) -> Expr:
    """`0 <= index < extent`."""
    return tirx.all(tirx.const(0, _INT) <= index, index < tirx.const(extent, _INT))


def div(a: Expr, b: int) -> Expr:
    """`a // b` of numbers that are not negative."""
    return a // b if isinstance(a, int) else tirx.truncdiv(a, tirx.const(b, _INT))


def mod(a: Expr, b: int) -> Expr:
    """`a % b` of numbers that are not negative."""
    return a % b if isinstance(a, int) else tirx.truncmod(a, tirx.const(b, _INT))


def both(*conditions: Expr | None) -> Expr | None:
    """All of them; None where there is nothing to check."""
    present = [c for c in conditions if c is not None]
    return tirx.all(*present) if present else None
