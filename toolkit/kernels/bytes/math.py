"""The integer arithmetic of `quantize.arith` on vectors of int32, as expressions. What is said of bytes goes for
quantized numbers of 16 bits, where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ..arm import NARROW
from ..dots import Dot
from ..elements import BYTE, SIXTEEN, Addition, Product, Rounding, Scaling, element_of
from ..emit import NEON, Emitter, Expr, clamp, const, load, splat
from ..spec import Conv, Map, WinogradOutput
from ..x86 import VPMADDUBSW_SUM, VPMADDWD_SUM

ROUNDER, ROUNDER_BITS = 1.5 * 2**23, 0x4B400000
"""A float among whole ones: added to a small number, it leaves its nearest integer in the lowest bits (the sum's bits
less the float's own).
"""

To = Callable[[Expr, Rounding], Expr]
"""How float32 lanes become bytes: rounded, plus a zero point, saturated; int32 lanes of them, or bytes."""

MOST = 255
"""The largest byte."""

SUMS = {
    "llvm.x86.avx2.pmadd.wd": (VPMADDWD_SUM, "vpmaddwd_sum"),
    "llvm.x86.avx2.pmadd.ub.sw": (VPMADDUBSW_SUM, "vpmaddubsw_sum"),
}
"""Products whose sum LLVM is not left to order: a module of its language, and the function."""


def whole(value: int, lanes: int) -> Expr:
    """An int32 constant in every lane."""
    return splat(tirx.const(value, "int32"), lanes)


def widen(value: Expr) -> Expr:
    """Quantized numbers as int32."""
    return tirx.Cast(_vector("int32", _lanes(value)), value)


def narrow(value: Expr, element: str = BYTE) -> Expr:
    """int32 that an element holds in what that is kept in; bytes as they are."""
    stored = element_of(element).stored
    return value if value.ty.dtype.startswith(stored) else tirx.Cast(_vector(stored, _lanes(value)), value)


def real(value: Expr) -> Expr:
    """int32 as float32, the nearest one; float32 as it is."""
    return value if value.ty.dtype.startswith("float32") else tirx.Cast(_vector("float32", _lanes(value)), value)


def gathered(high: Expr, low: Expr) -> Expr:
    """``high * 2^16 + low`` of int32 lanes, as the float32 next to it: float64 holds the sum."""
    lanes = _lanes(high)
    double = _vector("float64", lanes)
    whole_sum = tirx.Cast(double, high) * splat(tirx.const(65536.0, "float64"), lanes) + tirx.Cast(double, low)
    return tirx.Cast(_vector("float32", lanes), whole_sum)


def product(a: Expr, b: Expr) -> Expr:
    """`a * b` of float32 lanes, rounded before anything is added to it: compilers (TVM's LLVM, NVIDIA's) make one
    instruction of a product and a sum, which rounds once, unless something stands between. A maximum with what no
    product of bytes and scales falls below does.
    """
    return tirx.max(a * b, const(-1e30, _lanes(a)))


def dot(em: Emitter, row: Dot, acc: Expr, words: Expr, weights: Expr) -> Expr:
    """int32 lanes plus, lane by lane, the products of a word of the inputs (lanes of `row.word`) and weights; of a row
    that is code, four times as many at once too.
    """
    dtype = f"int32x{row.lanes}"
    first = tirx.reinterpret(f"{row.first}x{row.count}", words)
    if row.llvm in SUMS:
        module, name = SUMS[row.llvm]
        return em.inline(module, name, dtype, acc, first, weights)
    if row.code:
        many = _lanes(acc) // row.lanes
        name = row.llvm if many == 1 else f"{row.llvm}{many}"
        return em.inline(row.code, name, str(acc.ty.dtype), acc, first, weights)
    if row.adds and row.lanes == NEON and row.first == row.second and row.rows == 1:
        # what is the same word in all lanes comes last: the instruction takes it out of a register by its number
        return tirx.call_llvm_pure_intrin(dtype, row.llvm, acc, weights, first)
    if row.adds:
        return tirx.call_llvm_pure_intrin(dtype, row.llvm, acc, first, weights)
    return acc + tirx.call_llvm_pure_intrin(dtype, row.llvm, first, weights)


def broadcast(em: Emitter, row: Dot, words: Any, pixel: int, word: int, count: int) -> Expr:
    """A word of the inputs in all lanes, as `row` takes it.

    Args:
        words: a buffer of them.
        pixel: where a pixel's words begin. word: which one. count: how many it has.
    """
    if not row.code:
        return splat(load(words, pixel + word), row.lanes)
    several = load(words, pixel, count) if count == row.lanes else splat(load(words, pixel + word), row.lanes)
    number = word if count == row.lanes else 0
    dtype = f"{row.first}x{row.lanes * row.depth}"
    return em.inline(row.code, f"lay{number}", dtype, tirx.reinterpret(dtype, several))


def rounded(acc: Expr, factor: Expr, how: Rounding, to: To | None = None) -> Expr:
    """`Rounding` of int32 lanes, or of sums as float32, to int32 lanes between `low` and `high`, or to bytes.

    Args:
        factor: float32 lanes; or int32 lanes, how far to shift, where ``2^(n-1)`` is in `acc` already.
        to: how floats are rounded; `nearest` by default.
    """
    lanes = _lanes(acc)
    if how.shift:
        shifted = tirx.shift_right(acc, factor) + whole(how.zero, lanes)
        return tirx.min(tirx.max(shifted, whole(how.low, lanes)), whole(how.high, lanes))
    return (to or nearest)(real(acc) * factor, how)


def nearest(value: Expr, how: Rounding) -> Expr:
    """float32 lanes, rounded to the nearest integer (ties to even), plus the zero point, saturated.

    Rounded by an addition (`ROUNDER`): every machine has that for vectors, and an instruction that rounds not all.
    """
    lanes = _lanes(value)
    # The bounds are whole numbers: to bound before rounding gives the same, and what is bounded is small. No `clamp`:
    # no integer is a NaN, which the lower bound takes the place of here.
    # A bound of -0 does what 0 does, and is no number whose maximum LLVM makes two instructions of in wide vectors.
    low, high = (const(float(bound - how.zero) or -0.0, lanes) for bound in (how.low, how.high))
    bounded = tirx.min(tirx.max(value, low), high)
    bits = tirx.reinterpret(_vector("int32", lanes), bounded + const(ROUNDER, lanes))
    return bits + whole(how.zero - ROUNDER_BITS, lanes)


def to_bytes(em: Emitter, instruction: str, element: str = BYTE) -> To | None:
    """What makes bytes of float32 lanes as `nearest` and `narrow` do; None without an instruction of `arm.NARROW`, or
    for another element.
    """
    if not instruction or element != BYTE:
        return None

    def saturated(value: Expr, how: Rounding) -> Expr:
        lanes = _lanes(value)
        zero = splat(tirx.const(how.zero, "int16"), 8)
        found = em.inline(NARROW[instruction], f"bytes{lanes}", f"uint8x{lanes}", value, zero)
        if how.low > 0:
            found = tirx.max(found, splat(tirx.const(how.low, "uint8"), lanes))
        return tirx.min(found, splat(tirx.const(how.high, "uint8"), lanes)) if how.high < MOST else found

    return saturated


def shift_half(shift: int) -> int:
    """What a rounding shift adds before it shifts: ``2^(shift-1)``, nothing for 0."""
    return 1 << (shift - 1) if shift > 0 else 0


def added(a: Expr, b: Expr, how: Addition, to: To | None = None) -> Expr:
    """`Addition` of two bytes, both as int32 lanes; int32 lanes again. `to` is as `rounded` takes it."""
    lanes = _lanes(a)
    left, right = a - whole(how.zeros[0], lanes), b - whole(how.zeros[1], lanes)
    if how.unaligned is not None:
        total = product(real(left), const(how.unaligned[0], lanes)) + product(
            real(right), const(how.unaligned[1], lanes)
        )
        return (to or nearest)(total, how.rounding)
    acc = left * whole(1 << how.shifts[0], lanes) + right * whole(1 << how.shifts[1], lanes)
    return _by(acc, how.factor, how.rounding, to)


def scaled(q: Expr, numbers: tuple[Expr, Expr], how: Scaling, to: To | None = None) -> Expr:
    """`Scaling` of a byte, as int32 lanes; int32 lanes again, or bytes.

    Args:
        numbers: the scale and the shift of each lane's channel, float32. to: as `rounded` takes it.
    """
    centred = q - whole(how.zero, _lanes(q))
    return (to or nearest)(product(real(centred), numbers[0]) + numbers[1], how.rounding)


def scaling_at(em: Any, slot: Expr, channels: int, lanes: int) -> tuple[Expr, Expr]:
    """The scales and the shifts of the channels from `slot` on, of so many."""
    scale, shift = (load(em.buffers["scaling"], start + slot, lanes) for start in (0, channels))
    return em.let(scale, "scale"), em.let(shift, "shift")


def multiplied(a: Expr, b: Expr, how: Product, *, long: bool = False) -> Expr:
    """`Product` of two quantized numbers, both as int32 lanes; int32 lanes again.

    Args:
        long: 32 bits may not hold the product. float32 holds both factors, so its product is the exact one's nearest.
    """
    lanes = _lanes(a)
    left, right = a - whole(how.zeros[0], lanes), b - whole(how.zeros[1], lanes)
    return _by(real(left) * real(right) if long else left * right, how.factor, how.rounding)


def _by(acc: Expr, factor: float, how: Rounding, to: To | None = None) -> Expr:
    """`Rounding` of int32 lanes by one factor; of a shift, with its half added here."""
    lanes = _lanes(acc)
    if how.shift:
        shift = int(factor)
        return rounded(acc + whole(shift_half(shift), lanes), whole(shift, lanes), how)
    return rounded(acc, const(factor, lanes), how, to)


def joined(acc: Expr, b: Expr, factor: Expr, how: Addition, to: To | None = None) -> Expr:
    """`Addition` inside: accumulators and a byte, as int32 lanes, rounded once to int32 lanes.

    Args:
        factor, to: as `rounded` takes them; the factor of the accumulators.
    """
    lanes = _lanes(acc)
    assert how.inside is not None
    other = b - whole(how.zeros[1], lanes)
    if how.rounding.shift:
        total = acc + tirx.shift_left(other, factor - whole(how.inside, lanes))
        return rounded(total, factor, how.rounding)
    total = product(real(acc), factor) + product(real(other), const(how.factor, lanes))
    return (to or nearest)(total, how.rounding)


def leave(
    em: Emitter,
    spec: Conv | WinogradOutput,
    acc: Expr,
    factor: Expr,
    add_at: Expr,
    dst_at: Expr,
    instruction: str = "",
    scaling: tuple[Expr, Expr] | None = None,
) -> None:
    """Store a convolution's sums, int32 lanes or already as float32, as quantized numbers or as float32.

    Args:
        scaling: the numbers of `spec.scaling`, where there is one (`scaling_at`).
        instruction: what makes bytes of floats at once, as `to_bytes` takes it.
    """
    if spec.rounding is None:
        em.store(em.buffers["dst"], dst_at, clamp(real(acc) * factor, spec.activation))
        return
    how, to = spec.addition, to_bytes(em, instruction, spec.out_element)
    other = None if how is None else widen(load(em.buffers["add"], add_at, _lanes(acc)))
    if how is not None and how.inside is not None:
        em.store(em.buffers["dst"], dst_at, narrow(joined(acc, other, factor, how, to), spec.out_element))
        return
    last = to if how is None else None  # what follows wants numbers, not bytes
    q = em.let(rounded(acc, factor, spec.rounding, last if scaling is None else None), "q")
    if scaling is not None:
        assert spec.scaling is not None
        q = em.let(scaled(q, scaling, spec.scaling, last), "q")
    if how is not None:
        q = added(q, other, how, to)
    em.store(em.buffers["dst"], dst_at, narrow(q, spec.out_element))


def averaged(acc: Expr, times: Expr, shift: Expr, how: Rounding) -> Expr:
    """`Rounding` of a window's sum, int32 lanes, times a fraction: int32 numbers, the same in every lane."""
    lanes = _lanes(acc)
    half = tirx.shift_right(tirx.shift_left(tirx.const(1, "int32"), shift), 1)
    return rounded(acc * splat(times, lanes) + splat(half, lanes), splat(shift, lanes), how)


def mapped(spec: Map, value: Expr, second: Any = None) -> Expr:
    """What a `Map` but a table makes of values: int32 lanes of bytes, of ``dequantize`` float32.

    Args:
        value: int32 lanes, of ``quantize`` float32.
        second: the second operand, likewise; of ``affine`` the scales and the shifts.
    """
    lanes, how = _lanes(value), spec.rounding
    if spec.op == "affine":
        assert spec.scaling is not None
        return scaled(value, second, spec.scaling)
    if spec.op == "add":
        assert spec.addition is not None
        return added(value, second, spec.addition)
    if spec.op == "mul":
        assert spec.product is not None
        return multiplied(value, second, spec.product, long=spec.in_element == spec.second_element == SIXTEEN)
    if spec.op == "dequantize":
        return real(value - whole(spec.zero, lanes)) * const(spec.constants[0], lanes)
    assert how is not None
    if spec.op == "quantize":
        return nearest(value / const(spec.constants[0], lanes), how)
    if spec.op == "clip":
        return tirx.min(tirx.max(value, whole(how.low, lanes)), whole(how.high, lanes))
    centred = value - whole(spec.zero, lanes)
    if not how.shift:
        return rounded(centred, const(spec.constants[0], lanes), how)
    shift = int(spec.constants[0])
    acc = centred * whole(1 << max(0, -shift), lanes) + whole(shift_half(shift), lanes)
    return rounded(acc, whole(max(0, shift), lanes), how)


def _lanes(value: Expr) -> int:
    return int(value.ty.dtype.lanes)


def _vector(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"
