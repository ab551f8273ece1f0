"""The numbers of a linear step of a QDQ model: weights and bias of the node that has them, as integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from inception_deploy.graph.rewrite import (
    constant,
    dequantized,
    integer,
    number,
    numbers_of,
    operand,
    text,
)
from inception_deploy.verify import bound

from .arith import INT32
from .scheme import Params

WIDEST = 2**15 - 1
"""The largest weight that there are kernels for."""

COARSE, COARSE_OF_WIDE = 0.1, 0.5
"""How much of a byte's step a result may be off because a bias, or a weight beside a large bias, is rounded; and how
much of a step of 16 bits.
"""

BYTES = ("uint8", "int8")
"""The types of weights that there are kernels for."""

_BLOCK = 16
_MOST_OF_WIDE = 2**46


class StaysFloatError(Exception):
    """Why a node is no integer step."""


@dataclass(frozen=True)
class Linear:
    """The numbers of a linear step: ``acc = sum (x - zero) * weight + bias``, one scale an output.

    Attributes:
        weight: int8 (O, I / groups, KH, KW) or (O, I); int16 where it less its zero point needs 9 bits.
        scale: float32 (O,). bias: int32 (O,), in the scale of `acc`; int64 beside inputs of 16 bits.
    """

    weight: NDArray[np.int8] | NDArray[np.int16]
    scale: NDArray[np.float32]
    bias: NDArray[np.int32] | NDArray[np.int64] | None


def coarse(y: Params) -> float:
    """How much a result may be off by what is rounded besides itself."""
    return y.scale * (COARSE_OF_WIDE if y.wide else COARSE)


def numbers_of_linear(node: ir.Node, x: Params, y: Params | None, ours: bool, taps: int) -> Linear:
    """The weight with outputs first and no zero point, and the bias in the accumulator's scale.

    Of a file of others, a scale may be too coarse for the bias beside it, which is a float or has a scale of its own:
    then it is finer by a power of two, and the weights are of 16 bits. Or it is so fine, as in a channel that is
    almost 0, that sums with the bias leave 32 bits: then it is coarser in that channel.

    Args:
        y: of the result; None where it leaves as float.
        ours: the insertion chose scales for which all sums fit, and biases in them.
        taps: a weight in the model is the sum of so many equal ones.

    Raises:
        StaysFloatError: with the reason.
    """
    if node.op_type == "Conv" and text(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise StaysFloatError("its padding depends on the size of the map, which is not known")
    if integer(node, "transA", 0):
        raise StaysFloatError("transA is set")
    outputs = 0 if node.op_type == "Conv" or integer(node, "transB", 0) else 1
    weight, scale = _weight(node, outputs)
    scale = (scale / np.float32(taps)).astype(np.float32)
    if node.op_type == "Gemm":
        scale = (scale * np.float32(number(node, "alpha", 1.0))).astype(np.float32)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise StaysFloatError("a scale of its weights is not a positive number")
    bias = _bias(node, np.float32(x.scale) * scale, x)
    found = Linear(weight, scale, bias)
    found = found if ours else _finer(found, node, x, y)
    if x.wide:
        _require_short_sums(found, node, x)
        return found
    return found if ours else _fitted(found, x, y)


def channels_summed(weight: NDArray[np.int8] | NDArray[np.int16]) -> int:
    """Of how many input channels, whichever they are, int32 holds all products with numbers of 16 bits as they lie,
    for every output; all of them, or a multiple of 16.

    Args:
        weight: (O, I, ...).
    """
    each = -np.sort(-np.abs(weight.astype(np.int64)).reshape(*weight.shape[:2], -1).sum(2), axis=1)
    count = int(((each.cumsum(1) << 15) <= INT32.max).all(0).sum())
    return count if count == each.shape[1] else count // _BLOCK * _BLOCK


def _require_short_sums(found: Linear, node: ir.Node, x: Params) -> None:
    """There are kernels for the sums of products with numbers of 16 bits."""
    bias = np.zeros(1, np.int64) if found.bias is None else np.abs(found.bias.astype(np.int64))
    if node.op_type == "Conv" and integer(node, "group", 1) == len(found.weight) > 1 == found.weight.shape[1]:
        sums = np.abs(found.weight.astype(np.int64)).reshape(len(found.weight), -1).sum(1) * x.reach + bias
        if sums.max(initial=0) > INT32.max:
            raise StaysFloatError("a sum of its products may need more than 32 bits")
    elif not channels_summed(found.weight):
        raise StaysFloatError("the sum of 16 channels' products may need more than 32 bits")


def _finer(found: Linear, node: ir.Node, x: Params, y: Params | None) -> Linear:
    """With weights of 16 bits, where that is what the bias needs to be near enough to what it is."""
    real = _real_bias(node)
    if real is None or y is None:
        return found
    error = _bias_error(found, real, x)
    bits = int(np.ceil(np.log2(max(error / coarse(y), 1.0))))
    most = int(np.abs(found.weight.astype(np.int64)).max(initial=1))
    if not bits:
        return found
    if most << bits > WIDEST:
        raise StaysFloatError("its bias is finer than the scale of its products, by more than its result allows")
    scale = np.ldexp(found.scale, -bits).astype(np.float32)
    wider = (found.weight.astype(np.int16) << bits).astype(np.int16)
    return Linear(wider, scale, _bias(node, np.float32(x.scale) * scale, x))


def _bias_error(found: Linear, real: NDArray[np.float64], x: Params) -> float:
    assert found.bias is not None
    return float(np.abs(found.bias * (np.float64(np.float32(x.scale)) * found.scale) - real).max(initial=0))


def _fitted(found: Linear, x: Params, y: Params | None) -> Linear:
    """With coarser scales in the channels whose sums might leave 32 bits."""
    weight, scale = found.weight.astype(np.int64), found.scale.astype(np.float64)
    bias = np.zeros(len(weight), np.int64) if found.bias is None else found.bias.astype(np.int64)
    axes = tuple(range(1, weight.ndim))
    over = np.abs(weight).sum(axes) * x.reach + np.abs(bias) > INT32.max
    if not over.any():
        return found
    column = np.where(over, 2.0, 1.0)
    halved = np.rint(weight / column.reshape(-1, *[1] * len(axes)))
    rounded = np.abs(halved * column.reshape(-1, *[1] * len(axes)) - weight).sum(axes) * x.reach + over
    if y is None or found.bias is None or (rounded * scale * x.scale).max() > coarse(y):
        raise StaysFloatError("a sum of its products may need more than 32 bits")
    kept = halved.astype(np.int8) if found.weight.dtype == np.int8 else halved.astype(np.int16)
    less = Linear(kept, (scale * column).astype(np.float32), np.rint(bias / column).astype(np.int32))
    return _fitted(less, x, y)


def _weight(node: ir.Node, outputs: int) -> tuple[NDArray[np.int8] | NDArray[np.int16], NDArray[np.float32]]:
    """The integers less their zero point, with outputs on the first axis, and a scale for each; `outputs` is the axis
    they have in the model.
    """
    maker = node.inputs[1].producer() if node.inputs[1] is not None else None
    q, scale = (None, None) if maker is None else (constant(maker.inputs[0]), constant(operand(maker, 1)))
    if maker is None or maker.op_type != "DequantizeLinear" or q is None or scale is None:
        raise StaysFloatError("its weights are not quantized")
    if str(q.dtype) not in BYTES or integer(maker, "block_size", 0):
        blocks = " in blocks with scales of their own" if integer(maker, "block_size", 0) else ""
        raise StaysFloatError(f"its weights are {q.dtype}{blocks}, and one scale an output and 8 bits are known")
    zero = constant(operand(maker, 2))
    zero = np.zeros((), q.dtype) if zero is None else zero
    axis = integer(maker, "axis", 1)
    axis = axis + q.ndim if axis < 0 else axis
    if (scale.size > 1 or zero.size > 1) and axis != outputs:
        raise StaysFloatError("its weights have a scale for each input")
    if outputs == 1:
        q = q.T
    column = (-1,) + (1,) * (q.ndim - 1)
    centred = q.astype(np.int16) - zero.astype(np.int16).reshape(column)
    wide = centred.min(initial=0) < -128 or centred.max(initial=0) > 127  # 9 bits
    spread = np.broadcast_to(scale.astype(np.float32).reshape(-1), (len(q),))
    return np.ascontiguousarray(centred.astype(np.int16 if wide else np.int8)), spread


def _bias(node: ir.Node, scale: NDArray[np.float32], x: Params) -> NDArray[np.int32] | NDArray[np.int64] | None:
    """int32 in the accumulator's scale, or int64 beside numbers of 16 bits: as it stands where it is quantized so, else
    rounded to it.
    """
    value = operand(node, 2)
    if value is None:
        return None
    kept = dequantized(value)
    if kept is not None and number(node, "beta", 1.0) == 1.0 and (exact := _exact_bias(kept, scale)) is not None:
        return exact
    real = _real_bias(node)
    if real is None or real.size not in (1, scale.size):
        raise StaysFloatError("its bias is computed at run time, or is not one number an output")
    rounded = np.rint(np.broadcast_to(real, scale.shape) / scale)
    most = _MOST_OF_WIDE if x.wide else INT32.max
    if not np.isfinite(rounded).all() or np.abs(rounded).max(initial=0) > most:
        raise StaysFloatError(f"its bias does not fit {47 if x.wide else 32} bits in the scale of its products")
    return rounded.astype(np.int64) if x.wide else np.asarray(rounded, np.int32)


def _real_bias(node: ir.Node) -> NDArray[np.float64] | None:
    """The numbers of a constant bias, float64 (O,) or (1,); None where it is none of these."""
    value = operand(node, 2)
    kept = dequantized(value)
    real = constant(value) if kept is None else numbers_of(kept)
    if real is None or (real.size > 1 and real.shape[-1] != real.size):
        return None
    return np.asarray(real.astype(np.float64).reshape(-1) * number(node, "beta", 1.0))


def _exact_bias(node: ir.Node, scale: NDArray[np.float32]) -> NDArray[np.int32] | None:
    """The integers of a dequantized bias, where they are in that scale."""
    q, own, zero = (constant(operand(node, index)) for index in range(3))
    if q is None or own is None or q.dtype != np.int32 or q.size != scale.size or own.size not in (1, scale.size):
        return None
    same = np.allclose(np.broadcast_to(own.reshape(-1), scale.shape), scale, rtol=bound("rounding"), atol=0)
    return np.asarray(q.reshape(-1), np.int32) if same and (zero is None or not zero.any()) else None
