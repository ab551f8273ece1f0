"""A layer of bytes as one that a VTA computes: convolutions, windows and maps as a `spec.Vta`, with its constants.

Given: a layer of `lower.integers`, whose convolutions take bytes 128 lower than they lie. What is not so, or what a
VTA has no instruction for, is refused with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..kernels.elements import BLOCK, BYTE, Addition, Rounding
from ..kernels.spec import Conv, Map, Pick, Reads, Term, Vta, Window, WindowOp
from ..kernels.spec.vta import Pooling, Reduce
from ..kernels.vta import constants
from .layers import Layer, Param, Storage
from .pack import channelwise, physical_weight
from .reader import Refuse
from .vta_sums import LARGEST_DIAGONAL, Ends, Sum, half

SIGNED = 128
"""How much lower than it lies a byte is taken."""

Range = Callable[[Storage], Ends]
"""The ends of the bytes in a storage, signed."""

REPEATED = 1
"""A tile of the largest power of two may be added twice so often, instead of shifting."""


def convert(layer: Layer, of: Range) -> list[Layer]:
    """The same work in steps of a VTA; several where a map's edges are computed apart.

    Args:
        of: what range each input has.

    Raises:
        Refuse: it stays on the host, for this reason.
    """
    spec = layer.spec
    if isinstance(spec, Conv) and spec.in_element == BYTE:
        return list(_weighed(layer, spec, of)) if spec.weighed else [_convolution(layer, spec, of)]
    if isinstance(spec, Window) and spec.in_element == BYTE:
        if spec.op is WindowOp.AVERAGE:
            return list(_average(layer, spec, of))
        return [_maximum(layer, spec, of) if spec.op is WindowOp.MAX else _depthwise(layer, spec, of)]
    if isinstance(spec, Map) and spec.in_element == BYTE and spec.out_element == BYTE:
        return [_map(layer, spec, of)]
    raise Refuse("a VTA moves no values" if isinstance(spec, Pick) else "it computes in float")


def far(how: Addition) -> bool:
    """The sides of an add lie so many bits apart that the second one takes a sum of its own."""
    return how.shifts[1] > LARGEST_DIAGONAL + REPEATED


def ends_of(rounding: Rounding) -> Ends:
    """The clamp of a rounding, of signed bytes."""
    return rounding.low - SIGNED, rounding.high - SIGNED


def _shifts(rounding: Rounding | None) -> Rounding:
    """The rounding of a step, which is a shift."""
    if rounding is None:
        raise Refuse("its result leaves as float")
    if not rounding.shift or rounding.zero != SIGNED:
        raise Refuse("its scales are no powers of two; quantize with the scheme 'power-of-two'")
    return rounding


# -- convolutions ----------------------------------------------------------------------------------------------------
def _multiplied(layer: Layer, spec: Conv) -> tuple[Term, NDArray[np.int8]]:
    """What a convolution sums, and its tiles."""
    weight, output = layer.operands[1], layer.output
    assert isinstance(weight, Param)
    assert output.slots is not None
    if spec.planar:
        raise Refuse("it reads pixels of few channels")
    if spec.row_sets * spec.column_sets > 1:
        raise Refuse("its zero point is not 0; quantize with the scheme 'power-of-two'")
    if spec.weight_element != "int8":
        raise Refuse("its weights need more than 8 bits")
    if weight.role == "dense":
        wide = np.zeros((spec.out_channels, *weight.array.shape[1:]), np.int8)
        wide[output.slots] = weight.array
    elif weight.role == "physical":
        wide = weight.array
    else:
        wide = physical_weight(weight.array, spec, layer.reads[0], output)
    own = spec.groups > 1
    term = Term(
        spec.channels * spec.groups // BLOCK, spec.height, spec.width, spec.kernel, spec.stride, spec.pad,
        spec.dilation, Reads.OWN if own else Reads.ALL, spec.channels // BLOCK if own else 0,
        spec.out_channels // spec.groups // BLOCK if own else 1,
    )  # fmt: skip
    return term, constants.tiles(wide.astype(np.int8), BLOCK)


def _convolution(layer: Layer, spec: Conv, of: Range) -> Layer:
    """Also a fully connected layer; with an add, in two stages."""
    source, output = layer.reads[0], layer.output
    term, tiles = _multiplied(layer, spec)
    bias, factor = (o for o in layer.operands[2:4] if isinstance(o, Param))
    assert output.slots is not None
    total = Sum(layer.value, spec.out_channels)
    size = (spec.out_height, spec.out_width)
    inside = spec.addition.inside if spec.addition is not None else None
    if inside is not None:
        factors = np.zeros(spec.out_channels, np.int64)
        factors[output.slots] = factor.array - inside
        _shortcut(total, factors, output.slots, layer.reads[1], of, size)
    total.term(term, source, tiles, of(source))
    biases = channelwise(bias.array.reshape(-1), output)
    if spec.rounding is None:
        total.accumulators(biases)
        return _layer(layer, spec.batch, size, total, planes=4)
    rounding = _shifts(spec.rounding if inside is None or spec.addition is None else spec.addition.rounding)
    total.close(biases, channelwise(factor.array, output), ends_of(rounding), output.slots)
    if spec.addition is not None and inside is None:
        _add(total, spec.addition, layer.reads[1], of, size)
    return _layer(layer, spec.batch, size, total)


def _weighed(layer: Layer, spec: Conv, of: Range) -> Iterator[Layer]:
    """Sums of windows that count m / 2^j times, which those at the edges do otherwise: steps of their own. The sum is
    taken as often as m has bits, which shift what is there already.
    """
    source, output = layer.reads[0], layer.output
    term, tiles = _multiplied(layer, spec)
    bias, factor, windows = (o.array for o in layer.operands[2:5] if isinstance(o, Param))
    rounding, shift = _shifts(spec.rounding), channelwise(factor, output)
    plain = channelwise(bias.reshape(-1), output) - half(shift, spec.out_channels)
    for (top, left), (rows, columns), (times, bits) in _rectangles(windows.transpose(1, 2, 0)):
        total = Sum(layer.value, spec.out_channels)
        at = _moved(term, top, left)
        ones = [bit for bit in range(times.bit_length()) if times >> bit & 1][::-1]
        for bit, below in zip(ones, [*ones[1:], 0], strict=True):
            total.term(replace(at, shift=bit - below), source, tiles, of(source))
        biases = (plain.astype(np.int64) << bits).astype(np.int32) + half(shift + bits, spec.out_channels)
        total.close(biases, shift + np.int32(bits), ends_of(rounding), output.slots)
        yield _part(_layer(layer, spec.batch, (rows, columns), total), (top, left), spec.out_height, spec.out_width)


def _shortcut(
    total: Sum, shift: NDArray[np.int64], slots: NDArray[np.int64], addend: Storage, of: Range, size: tuple[int, int]
) -> None:
    """Another tensor in the exponent of each channel's accumulators: before all else, as that shifts what is there."""
    known = shift[slots]
    least, most = int(known.min()), int(known.max())
    if least < 0:
        raise Refuse("the other side of its add is finer than its sums")
    base = max(0, most - LARGEST_DIAGONAL)
    if base == REPEATED:  # a second product costs less than a shift
        for part in (np.minimum(shift, LARGEST_DIAGONAL), np.where(shift > LARGEST_DIAGONAL, LARGEST_DIAGONAL, -1)):
            values = np.zeros(len(shift), np.int8)
            values[slots] = np.where(part >= 0, 1 << np.maximum(part, 0), 0)[slots]
            term = Term(addend.blocks, *size, reads=Reads.OWN, span=1)
            total.term(term, addend, constants.diagonal(values[:, None, None], BLOCK), of(addend))
        return
    bands = [base] if least >= base else list(range(least, most + 1, LARGEST_DIAGONAL + 1))
    for first, below in zip(bands[::-1], [*bands[:-1][::-1], 0], strict=True):
        values = np.zeros(len(shift), np.int8)
        band = slots[(known >= first) & (known <= first + LARGEST_DIAGONAL)]
        values[band] = 1 << shift[band] - first
        term = Term(addend.blocks, *size, reads=Reads.OWN, span=1, shift=first - below)
        total.term(term, addend, constants.diagonal(values[:, None, None], BLOCK), of(addend))


def _add(total: Sum, how: Addition, addend: Storage, of: Range, size: tuple[int, int]) -> None:
    """A stage more: the byte, and another tensor's."""
    total.lead(how.shifts[0])
    term = Term(addend.blocks, *size, reads=Reads.OWN)
    repeats = max(0, how.shifts[1] - LARGEST_DIAGONAL)
    if repeats > REPEATED:
        raise Refuse(f"the other side of its add lies {how.shifts[1]} bits higher")
    for _ in range(1 << repeats):
        total.times(term, addend, 1 << how.shifts[1] - repeats, of(addend))
    _round(total, how)


def _round(total: Sum, how: Addition) -> None:
    """End a sum of two tensors."""
    rounding, shift = _shifts(how.rounding), int(how.factor)
    if how.zeros != (SIGNED, SIGNED) or shift < 0:
        raise Refuse("the two sides of its add have zero points, or a finer result")
    total.close(half(shift, total.slots), np.full(total.slots, shift, np.int32), ends_of(rounding))


# -- windows ---------------------------------------------------------------------------------------------------------
def _window_term(spec: Window) -> Term:
    return Term(
        spec.blocks, spec.height, spec.width, spec.kernel, spec.stride, spec.pad[:2], spec.dilation, Reads.OWN, 1
    )


def _depthwise(layer: Layer, spec: Window, of: Range) -> Layer:
    """Each channel's weights on the diagonal of a tile."""
    weight, bias, factor = (o for o in layer.operands[1:4] if isinstance(o, Param))
    rounding, output = _shifts(spec.rounding), layer.output
    total = Sum(layer.value, spec.channels)
    tiles = constants.diagonal(channelwise(weight.array[:, 0], output).astype(np.int8), BLOCK)
    total.term(_window_term(spec), layer.reads[0], tiles, of(layer.reads[0]))
    total.close(channelwise(bias.array, output), channelwise(factor.array, output), ends_of(rounding), output.slots)
    return _layer(layer, spec.batch, (spec.out_height, spec.out_width), total)


def _maximum(layer: Layer, spec: Window, of: Range) -> Layer:
    if spec.dilation != (1, 1):
        raise Refuse("a maximum over a dilated window")
    source = layer.reads[0]
    total = Sum(layer.value, spec.channels)
    total.times(Term(spec.blocks, spec.height, spec.width, reads=Reads.OWN), source, 1, of(source))
    nothing = np.zeros(spec.channels, np.int32)
    total.close(nothing, nothing, (-SIGNED, SIGNED - 1))
    window = Pooling(Reduce.MAX, spec.height, spec.width, spec.kernel, spec.stride, spec.pad[:2])
    return _layer(layer, spec.batch, (spec.out_height, spec.out_width), total, window)


def _average(layer: Layer, spec: Window, of: Range) -> Iterator[Layer]:
    """A convolution whose taps are equal. Where the windows at the edges count less, those are steps of their own."""
    rounding = _shifts(spec.rounding)
    factors = layer.operands[1]
    assert isinstance(factors, Param)
    table = factors.array.reshape(spec.out_height, spec.out_width, 2)
    for (top, left), size, (times, shift) in _rectangles(table):
        total = Sum(layer.value, spec.channels)
        total.times(_moved(_window_term(spec), top, left), layer.reads[0], times, of(layer.reads[0]))
        total.close(half(shift, spec.channels), np.full(spec.channels, shift, np.int32), ends_of(rounding))
        yield _part(_layer(layer, spec.batch, size, total), (top, left), spec.out_height, spec.out_width)


def _rectangles(table: NDArray[np.int32]) -> Iterator[tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]:
    """Where a table `[H, W, 2]` is the same: the corner of each rectangle, its size, and the two numbers."""
    for top, rows in _runs(table):
        for left, columns in _runs(table.transpose(1, 0, 2)):
            first, second = (int(number) for number in table[top, left])
            yield (top, left), (rows, columns), (first, second)


def _runs(table: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Where equal rows begin, and how many there are."""
    starts = [0, *(i for i in range(1, len(table)) if not np.array_equal(table[i - 1], table[i]))]
    return list(zip(starts, np.diff([*starts, len(table)]).tolist(), strict=True))


def _moved(term: Term, top: int, left: int) -> Term:
    """The term of a rectangle of the output that begins there."""
    return replace(term, pad=(term.pad[0] - top * term.stride[0], term.pad[1] - left * term.stride[1]))


def _part(layer: Layer, corner: tuple[int, int], height: int, width: int) -> Layer:
    """A step that computes a rectangle of a map of that size."""
    assert isinstance(layer.spec, Vta)
    if (layer.spec.height, layer.spec.width) != (height, width):
        layer.spec = replace(layer.spec, whole=(height, width), corner=corner)
        layer.macs = layer.macs * layer.spec.height * layer.spec.width // (height * width)
    return layer


# -- one value at a time ---------------------------------------------------------------------------------------------
def _map(layer: Layer, spec: Map, of: Range) -> Layer:
    channels, source = spec.blocks * BLOCK, layer.reads[0]
    total = Sum(layer.value, channels)
    # what lies in a plane is all the same here: one row of pixels, or the map's own where it is known to be square
    rows, columns = _rectangle(spec.pixels)
    term = Term(spec.blocks, rows, columns, reads=Reads.OWN)
    if spec.op == "add":
        assert spec.addition is not None
        shifts = spec.addition.shifts
        first, second = (0, 1) if shifts[0] >= shifts[1] else (1, 0)  # the one with digits first
        for side in (first, second):
            storage = layer.reads[side]
            total.times(term, storage, 1 << shifts[side], of(storage))
        _round(total, spec.addition)
    elif spec.op == "clip":
        assert spec.rounding is not None
        total.times(term, source, 1, of(source))
        nothing = np.zeros(channels, np.int32)
        total.close(nothing, nothing, ends_of(spec.rounding))
    elif spec.op == "rescale":
        rounding, shift = _shifts(spec.rounding), int(spec.constants[0])
        total.times(term, source, 1 << max(0, -shift), of(source))
        shift = max(0, shift)
        total.close(half(shift, channels), np.full(channels, shift, np.int32), ends_of(rounding))
    else:
        raise Refuse(f"a VTA has no instruction for '{spec.op}'")
    return _layer(layer, spec.batch, (rows, columns), total)


def _rectangle(pixels: int) -> tuple[int, int]:
    """A map of so many pixels that is as square as can be: tiles of it are easily cut."""
    rows = next(n for n in range(math.isqrt(pixels), 0, -1) if pixels % n == 0)
    return rows, pixels // rows


def _layer(
    layer: Layer, batch: int, size: tuple[int, int], total: Sum, pooling: Pooling | None = None, planes: int = 1
) -> Layer:
    """The layer with another spec."""
    spec = Vta(batch, total.slots // BLOCK, *size, tuple(total.stages), pooling, planes=planes)
    return Layer(layer.op, layer.nodes, spec, total.operands, layer.output, layer.value, layer.macs, after=layer.after)
