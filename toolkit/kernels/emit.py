"""A thin builder for TIR functions with a plain C signature.

Kernel templates are Python functions that call an `Emitter`; what Python unrolls is unrolled in the kernel, what
`loop` opens is a loop in it. The result needs neither TVM's packed calling convention nor its runtime::

    int32_t kernel(void *const *args, int32_t lo, int32_t hi)

`args` holds a pointer for every parameter, flat and indexed in elements. `lo <= unit < hi` is the range of work units
the call has to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm import tirx
from tvm.ir import PointerType, PrimType, StringImm

from . import arm, x86
from .elements import BF16, BLOCK, BRAIN, HALF, PAIR, element_of

Expr = Any  # tvm.ir.Expr; operators on it build expressions
_INT = "int32"
NEON = 4
"""Lanes of fp32 of ARM's vectors; no other machine has as many."""


class Emitter:
    """Collects the statements of one kernel.

    Args:
        name: the C symbol.
        pointers: name and element of every pointer parameter, in order: a name in `elements.ELEMENTS`, or any dtype.
    """

    def __init__(self, name: str, pointers: Sequence[tuple[str, str]]) -> None:
        self.name = name
        self.elements = dict(pointers)
        pointers = [(n, element_of(element).stored) for n, element in pointers]
        self._params = [tirx.Var(n, PointerType(PrimType(dtype))) for n, dtype in pointers]
        self.buffers = {
            n: tirx.decl_buffer((1,), dtype, n, data=var, layout=None)
            for (n, dtype), var in zip(pointers, self._params, strict=True)
        }
        self.lo = tirx.Var("lo", _INT)
        self.hi = tirx.Var("hi", _INT)
        self._blocks: list[list[Any]] = [[]]
        self._imports: set[str] = set()

    # -- statements ------------------------------------------------------------------------------------------------
    def _add(self, stmt: Any) -> None:
        self._blocks[-1].append(stmt)

    def _close(self) -> Any:
        stmts = self._blocks.pop()
        return stmts[0] if len(stmts) == 1 else tirx.SeqStmt(stmts) if stmts else tirx.Evaluate(0)

    @contextmanager
    def loop(self, extent: Expr, name: str = "i", start: Expr = 0) -> Iterator[Expr]:
        """A serial loop over `start <= i < start + extent`."""
        var = tirx.Var(name, _INT)
        self._blocks.append([])
        yield var
        self._add_for(var, start, extent, tirx.stmt.ForKind.SERIAL)

    def _add_for(self, var: Any, start: Expr, extent: Expr, kind: Any) -> None:
        body = self._close()
        self._add(
            tirx.For(
                var,
                tirx.const(start, _INT) if isinstance(start, int) else start,
                tirx.const(extent, _INT) if isinstance(extent, int) else extent,
                kind,
                body,
            )
        )

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """Statements done only where `condition` holds."""
        self._blocks.append([])
        yield
        body = self._close()
        self._add(tirx.IfThenElse(condition, body, None))

    @contextmanager
    def units(self) -> Iterator[Expr]:
        """The outermost loop: one iteration a work unit."""
        with self.loop(self.hi - self.lo, "unit", self.lo) as unit:
            yield unit

    def let(self, value: Expr, name: str = "t") -> Expr:
        """Name a scalar or vector value; it is computed once, here."""
        if isinstance(value, int):
            return value
        var = tirx.Var(name, value.ty)
        self._add(tirx.Bind(var, value))
        return var

    def local(self, size: int, dtype: str = "float32", name: str = "acc") -> Any:
        """Scratch of `size` elements on the stack; constant indices end up in registers."""
        buffer = tirx.decl_buffer((size,), dtype, name, scope="local")
        self._add(tirx.AllocBuffer(buffer))
        return buffer

    def store(self, buffer: Any, index: Expr, value: Expr) -> None:
        """`buffer[index ...] = value`, as wide as `value`."""
        lanes = value.ty.dtype.lanes
        self._add(tirx.BufferStore(buffer, value, [ramp(index, lanes)]))

    def read(self, pointer: str, index: Expr, lanes: int = 1) -> Expr:
        """fp32 lanes of what a pointer's elements stand for."""
        buffer, element = self.buffers[pointer], self.elements[pointer]
        value = load(buffer, index, lanes)
        if element == PAIR:
            return widen(value) + widen(load(buffer, index + element_of(PAIR).block, lanes))
        if element == HALF:
            return tirx.Cast(_vector("float32", lanes), tirx.reinterpret(_vector("float16", lanes), value))
        return widen(value) if element in (BF16, BRAIN) else value

    def write(self, pointer: str, index: Expr, *values: Expr) -> None:
        """Store fp32 lanes, rounded to a pointer's elements. Two vectors of 16 lanes are a whole pixel of a block."""
        buffer, element = self.buffers[pointer], self.elements[pointer]
        if element == PAIR:
            parts = self.halves(*values)
            self.store(buffer, index, parts[0])
            self.store(buffer, index + element_of(PAIR).block, parts[1])
        elif element == BF16:
            self.store(buffer, index, self.narrow(*values))
        elif element == BRAIN and values[0].ty.dtype.lanes == NEON:
            for start in range(0, len(values), 2):
                self.store(buffer, index + start * NEON, self.brain(*values[start : start + 2]))
        else:
            for i, value in enumerate(values):
                lanes = value.ty.dtype.lanes
                if element == HALF:
                    value = tirx.Cast(_vector("float16", lanes), value)
                    value = tirx.reinterpret(_vector(element_of(HALF).stored, lanes), value)
                elif element == BRAIN:
                    value = self.narrow(value)
                self.store(buffer, index + i * lanes, value)

    def halves(self, *values: Expr) -> tuple[Expr, Expr]:
        """fp32 lanes as the bfloat16 next to them, and the bfloat16 next to what that leaves.

        The high halves are rounded by adding half a unit to the bits: which way a tie goes does not matter to the sum,
        and it is less work than the conversion there and back.
        """
        parts = [self.split(value) for value in values]
        return self.narrow(*(high for high, _ in parts)), self.narrow(*(rest for _, rest in parts))

    def split(self, value: Expr) -> tuple[Expr, Expr]:
        """fp32 lanes rounded to what bfloat16 can hold, and what that leaves, both as fp32."""
        value = self.let(value, "value")
        high = self.let(nearest(value), "high")
        return high, value - high

    def narrow(self, *values: Expr) -> Expr:
        """fp32 lanes as bfloat16, rounded to the nearest, ties to even. Two vectors of 16 lanes become one of 32.

        Vectors need AVX512_BF16.
        """
        lanes = values[0].ty.dtype.lanes
        if lanes == 1:
            bits = self.let(tirx.reinterpret("uint32", values[0]), "bits")
            odd = (bits >> _bits(16, 1)) & _bits(1, 1)
            return tirx.Cast(BITS16, (bits + _bits(0x7FFF, 1) + odd) >> _bits(16, 1))
        lanes *= len(values)
        return self.inline(x86.NARROW, f"narrow{lanes}", _vector(BITS16, lanes), *values)

    def brain(self, *values: Expr) -> Expr:
        """One or two of ARM's vectors of fp32 as bfloat16, rounded to the nearest, ties to even."""
        lanes = NEON * len(values)
        return self.inline(arm.BRAIN, f"brain{lanes}", _vector(BITS16, lanes), *values)

    def inline(self, module: str, function: str, dtype: str, *values: Expr) -> Expr:
        """A call of a function of a module in LLVM's own language, for what TVM has no word for."""
        self._imports.add(module)
        return tirx.call_extern(dtype, function, *values)

    def hidden(self, index: Expr, lanes: int) -> Expr:
        """`index`; for ARM's vectors, which load from near an address only, one that LLVM does not see through."""
        return self.inline(arm.HIDDEN, "hidden", _INT, index) if lanes == NEON else index

    def run(self, call: Expr) -> None:
        """A call for what it does, not for what it gives."""
        self._add(tirx.Evaluate(call))

    def prefetch(self, buffer: Any, index: Expr) -> None:
        """Ask for the cache line that holds `buffer[index]`, into the second-level cache; any address will do."""
        line = tirx.address_of(load(buffer, index))
        self.run(tirx.call_llvm_intrin("void", "llvm.prefetch.p0", line, *(tirx.const(v, _INT) for v in (0, 2, 1))))

    def finish(self) -> tirx.PrimFunc:
        """The finished function; the builder is used up."""
        (stmts,) = self._blocks
        decls = [tirx.DeclBuffer(b, data=v) for b, v in zip(self.buffers.values(), self._params, strict=True)]
        body = tirx.SeqStmt([*decls, *stmts])
        return c_function(self.name, self._params, self.lo, self.hi, body, self._imports)


def c_function(
    name: str, params: Sequence[Any], lo: Any, hi: Any, body: Any, imports: Iterable[str] = ()
) -> tirx.PrimFunc:
    """`body`, which does the units `lo <= unit < hi` on the pointers `params`, behind the C signature of every kernel.

    It becomes an inner function that takes the pointers as arguments: LLVM believes of arguments only that they do not
    alias, and without that nothing is vectorised or moved out of a loop.

    Args:
        imports: LLVM modules whose functions the body calls.
    """
    args = tirx.Var("args", PointerType(PrimType("void")))
    loads = [
        tirx.Bind(param, tirx.call_extern(param.ty, "argument", args, tirx.const(index, _INT)))
        for index, param in enumerate(params)
    ]
    inner = tirx.AttrStmt(tirx.const(0, _INT), "compute_scope", StringImm(f"{name}_units"), body)
    whole: Any = tirx.SeqStmt([*loads, inner, tirx.Return(tirx.const(0, _INT))])
    for text in sorted({*imports, _ARGUMENT_IR}):
        whole = tirx.AttrStmt(tirx.const(0, _INT), "pragma_import_llvm", StringImm(text), whole)
    func = tirx.PrimFunc([args, lo, hi], whole, ret_type=PrimType(_INT))
    return func.with_attr({"global_symbol": name, "tirx.noalias": True, "calling_conv": 0})


_ARGUMENT_IR = """; ModuleID = 'argument'
define internal ptr @argument(ptr %args, i32 %index) alwaysinline {
  %place = getelementptr inbounds ptr, ptr %args, i32 %index
  %pointer = load ptr, ptr %place, align 4
  ret ptr %pointer
}
"""
"""One of a kernel's pointers. TVM has no buffers of pointers, whose size depends on the machine."""

BITS16 = element_of(BF16).stored
"""The type that bfloat16 is kept in."""


def widen(value: Expr) -> Expr:
    """bfloat16 lanes as fp32, exactly."""
    lanes = value.ty.dtype.lanes
    return tirx.reinterpret(_vector("float32", lanes), tirx.Cast(_vector("uint32", lanes), value) << _bits(16, lanes))


def _vector(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def nearest(value: Expr) -> Expr:
    """fp32 lanes rounded to what bfloat16 can hold, ties away from zero."""
    lanes = value.ty.dtype.lanes
    bits = tirx.reinterpret(_vector("uint32", lanes), value)
    return tirx.reinterpret(_vector("float32", lanes), (bits + _bits(0x8000, lanes)) & _bits(0xFFFF0000, lanes))


def _bits(value: int, lanes: int) -> Expr:
    return splat(tirx.const(value, "uint32"), lanes)


def ramp(index: Expr, lanes: int) -> Expr:
    """The index vector `index, index + 1, ...` of `lanes` elements; `index` itself for one lane."""
    index = tirx.const(index, _INT) if isinstance(index, int) else index
    return index if lanes == 1 else tirx.Ramp(index, 1, lanes)


def load(buffer: Any, index: Expr, lanes: int = 1) -> Expr:
    """`lanes` consecutive elements of `buffer` from `index` on."""
    return tirx.BufferLoad(buffer, [ramp(index, lanes)])


def splat(value: Expr, lanes: int) -> Expr:
    """`value` in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def const(value: float, lanes: int = 1) -> Expr:
    """An fp32 constant in every lane."""
    return splat(tirx.const(value, "float32"), lanes)


def fma(a: Expr, b: Expr, c: Expr) -> Expr:
    """`a * b + c` lane by lane, in one rounding where the machine can."""
    return tirx.call_llvm_pure_intrin(str(c.ty.dtype), "llvm.fmuladd", a, b, c)


def together(element: str, lanes: int) -> int:
    """Vectors of a pixel of a block that are best done at once: two where they are all of it, so that its halves are
    rounded and stored as whole lines.
    """
    return 2 if 2 * lanes == element_of(element).block == 2 * BLOCK else 1


def clamp(value: Expr, bounds: tuple[float, float] | None) -> Expr:
    """`value` limited to `bounds`; an infinite bound costs nothing.

    A NaN stays one, as in onnxruntime: max(a, b) becomes ``a > b ? a : b``, and what cannot be compared is b. It is one
    instruction of x86 either way, and `_bound` says what of ARM.
    """
    if bounds is None:
        return value
    lanes = value.ty.dtype.lanes
    low, high = bounds
    if low != float("-inf"):
        value = _bound("maximum", tirx.max, const(low, lanes), value)
    return value if high == float("inf") else _bound("minimum", tirx.min, const(high, lanes), value)


def _bound(name: str, usual: Any, bound: Expr, value: Expr) -> Expr:
    """The larger or the smaller. NEON has an instruction that keeps a NaN, where a comparison takes three."""
    if value.ty.dtype.lanes != NEON:
        return usual(bound, value)
    return tirx.call_llvm_pure_intrin(str(value.ty.dtype), f"llvm.{name}", value, bound)
