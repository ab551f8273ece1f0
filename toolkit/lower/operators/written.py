"""Operators on plain tensors whose loops are written here in TE, where TVM's default is wrong, or has none.

They run as TVM's default does (`nests`), so every target has them, and are no refusals. TVM takes seconds to import,
so that happens only when a node comes along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ..nests import Cutter, emit
from ..reader import Reader, Refuse
from .common import attributes

if TYPE_CHECKING:
    Compute = Callable[..., Sequence[Any]]
    """Takes TE tensors, the run-time inputs first, then the constants; gives a tensor per output."""


def write(
    reader: Reader,
    node: onnx.NodeProto,
    inputs: Sequence[str],
    outputs: Sequence[str],
    compute: Compute,
    constants: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Layers for a node: `compute` makes `outputs` of `inputs` and `constants`."""
    from tvm import te

    sources = [reader.planar(reader.values[name]).storage for name in inputs]
    cutter = Cutter()
    given = []
    for index, name in enumerate(inputs):
        cutter.tensor(f"v{index}", reader.shape(name), reader.dtype(name))
        given.append(te.placeholder(reader.shape(name), reader.dtype(name), f"v{index}"))
    for name, array in (constants or {}).items():
        cutter.program.constants[name] = np.ascontiguousarray(array)
        cutter.tensor(name, array.shape, array.dtype.name)
        given.append(te.placeholder(array.shape, array.dtype.name, name))
    made = list(compute(*given))
    names = [f"o{index}" for index in range(len(outputs))]
    for name, output in zip(names, outputs, strict=True):
        cutter.tensor(name, reader.shape(output), reader.dtype(output))
    cutter.cut(te.create_prim_func([*given, *made]), [given_.op.name for given_ in given] + names)
    cutter.program.outputs = tuple(names)
    emit(reader, [node.name], node.op_type, cutter.program, sources, outputs)


def copy(reader: Reader, source: str, name: str) -> None:
    """The value `name`, a copy of a run-time value or of a constant in memory of its own."""
    from tvm import te

    node = onnx.helper.make_node("Identity", [source], [name], name=name)
    constant = reader.constants.get(source)
    reader.declare(name, reader.elem_type(source), reader.shape(source))
    shape = reader.shape(source)
    given = {} if constant is None else {"c0": constant}
    write(
        reader,
        node,
        [source] if constant is None else [],
        [name],
        lambda x: [te.compute(shape, lambda *place: x(*place), "copy")],
        given,
    )


def topk(reader: Reader, node: onnx.NodeProto) -> None:
    """TopK by ranks: a value's rank is how many come before it, of equal ones those with a lower index.

    ``rank[j] = #{i: x[i] > x[j], or x[i] == x[j] and i < j}``, and the r-th of the result is the value of rank r: work
    grows with the square of the axis, and needs no order of execution. NaNs have ranks that are not to be relied on.
    """
    from tvm import te, tirx

    x, shape, attrs = node.input[0], reader.shape(node.input[0]), attributes(node)
    axis, size = attrs.get("axis", -1) % len(shape), shape[attrs.get("axis", -1) % len(shape)]
    reader.constant(node.input[1], "the number of values")
    out = (*shape[:axis], reader.shape(node.output[0])[axis], *shape[axis + 1 :])
    kind = reader.dtype(x)

    def compute(v: Any) -> list[Any]:
        def at(place: Sequence[Any], index: Any) -> Any:
            return v(*place[:axis], index, *place[axis + 1 :])

        def before(i: Any, place: Sequence[Any]) -> Any:
            one, other = at(place, i), v(*place)
            first = one > other if attrs.get("largest", 1) else one < other
            return tirx.any(first, tirx.all(one == other, i < place[axis]))

        i = te.reduce_axis((0, size), "i")
        zero, one = tirx.const(0, "int32"), tirx.const(1, "int32")
        rank = te.compute(shape, lambda *p: te.sum(tirx.Select(before(i, p), one, zero), i), "rank")
        j = te.reduce_axis((0, size), "j")

        def found(*p: Any) -> Any:
            here = rank(*p[:axis], j, *p[axis + 1 :]) == p[axis]
            return te.max(tirx.Select(here, tirx.Cast("int32", j), zero), j)

        index = te.compute(out, found, "index")
        values = te.compute(out, lambda *p: at(p, index(*p)).astype(kind), "values")
        return [values, te.compute(out, lambda *p: index(*p).astype("int64"), "indices")]

    names = [node.output[0], node.output[1] if len(node.output) > 1 and node.output[1] else f"{node.output[0]}:indices"]
    for name, like in zip(names, (reader.elem_type(x), onnx.TensorProto.INT64), strict=True):
        reader.declare(name, like, out)
    write(reader, node, [x], names, compute)


def lrn(reader: Reader, node: onnx.NodeProto) -> None:
    """LRN: ``y = x / (bias + alpha / size * sum of the squares of `size` channels around)^beta``.

    Of an even number of channels, one more comes after than before.
    """
    from tvm import te, tirx

    x, attrs = node.input[0], attributes(node)
    shape, size = reader.shape(x), attrs["size"]
    below = (size - 1) // 2

    def compute(v: Any) -> list[Any]:
        k = te.reduce_axis((0, size), "k")

        def square(p: Sequence[Any]) -> Any:
            channel = p[1] + k - below
            inside = tirx.all(channel >= 0, channel < shape[1])
            value = v(p[0], channel, *p[2:])
            return tirx.if_then_else(inside, value * value, tirx.const(0, "float32"))

        squares = te.compute(shape, lambda *p: te.sum(square(p), k), "squares")
        bias, alpha, beta = (tirx.const(attrs.get(n, d), "float32") for n, d in _LRN)
        return [te.compute(shape, lambda *p: v(*p) / tirx.pow(bias + alpha / size * squares(*p), beta), "lrn")]

    write(reader, node, [x], [node.output[0]], compute)


_LRN = (("bias", 1.0), ("alpha", 1e-4), ("beta", 0.75))


def max_with_places(reader: Reader, node: onnx.NodeProto) -> None:
    """MaxPool and where in the whole input each maximum lies; of equal ones the first counts."""
    from tvm import te, tirx

    x, attrs = node.input[0], attributes(node)
    batch, channels, height, width = _four(reader, x)
    kernel, (stride, dilation) = attrs["kernel_shape"], (attrs.get(n, [1, 1]) for n in ("strides", "dilations"))
    pads, shape = attrs.get("pads", [0] * 4), reader.shape(node.output[0])
    total = batch * channels * height * width

    def compute(v: Any) -> list[Any]:
        def window(p: Sequence[Any], axes: Sequence[Any]) -> tuple[Any, Any, Any]:
            row = p[2] * stride[0] + axes[0] * dilation[0] - pads[0]
            column = p[3] * stride[1] + axes[1] * dilation[1] - pads[1]
            return row, column, tirx.all(row >= 0, row < height, column >= 0, column < width)

        def value(p: Sequence[Any], axes: Sequence[Any]) -> Any:
            row, column, inside = window(p, axes)
            return tirx.if_then_else(inside, v(p[0], p[1], row, column), tirx.min_value("float32"))

        def place(p: Sequence[Any], axes: Sequence[Any], largest: Any) -> Any:
            row, column, inside = window(p, axes)
            image = (p[0] * channels + p[1]) * (height * width)
            flat = image + (column * height + row if attrs.get("storage_order", 0) else row * width + column)
            found = tirx.if_then_else(inside, v(p[0], p[1], row, column) == largest(*p), tirx.const(False, "bool"))
            return tirx.if_then_else(found, tirx.Cast("int32", flat), tirx.const(total - 1, "int32"))

        r, s = te.reduce_axis((0, kernel[0]), "r"), te.reduce_axis((0, kernel[1]), "s")
        largest = te.compute(shape, lambda *p: te.max(value(p, (r, s)), axis=[r, s]), "largest")
        t, u = te.reduce_axis((0, kernel[0]), "t"), te.reduce_axis((0, kernel[1]), "u")
        places = te.compute(shape, lambda *p: te.min(place(p, (t, u), largest), axis=[t, u]), "places")
        return [largest, te.compute(shape, lambda *p: places(*p).astype("int64"), "wide")]

    if total >= 2**31:
        raise Refuse("its input has more elements than an index of 32 bits reaches")
    reader.declare(node.output[0], reader.elem_type(x), shape)
    write(reader, node, [x], list(node.output[:2]), compute)


def col2im(reader: Reader, node: onnx.NodeProto) -> None:
    """Col2Im: every place of the image sums the columns' entries that were taken there.

    ``y[n, c, i, j] = sum over p, q of x[n, (c, p, q), (a, b)]`` where ``a * stride + p * dilation - pad = i``, so also
    for b, q and j.
    """
    from tvm import te, tirx

    x, attrs = node.input[0], attributes(node)
    size = [int(n) for n in reader.constant(node.input[1], "the image's size")]
    kernel = [int(n) for n in reader.constant(node.input[2], "the block's size")]
    if len(size) != 2:
        raise Refuse(f"it makes images of {len(size)} axes, not 2")
    stride, dilation = (attrs.get(n, [1, 1]) for n in ("strides", "dilations"))
    pads, shape = attrs.get("pads", [0] * 4), reader.shape(node.output[0])
    counts = [(size[a] + pads[a] + pads[a + 2] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in range(2)]

    def compute(v: Any) -> list[Any]:
        def entry(p: Sequence[Any], taps: Sequence[Any]) -> Any:
            offsets = [p[2 + a] + pads[a] - taps[a] * dilation[a] for a in range(2)]
            rows, columns = (tirx.floordiv(offsets[a], stride[a]) for a in range(2))
            fits = [tirx.floormod(offsets[a], stride[a]) == 0 for a in range(2)]
            inside = [rows >= 0, rows < counts[0], columns >= 0, columns < counts[1]]
            channel = (p[1] * kernel[0] + taps[0]) * kernel[1] + taps[1]
            value = v(p[0], channel, rows * counts[1] + columns)
            return tirx.if_then_else(tirx.all(*fits, *inside), value, tirx.const(0, "float32"))

        p_, q_ = te.reduce_axis((0, kernel[0]), "p"), te.reduce_axis((0, kernel[1]), "q")
        return [te.compute(shape, lambda *p: te.sum(entry(p, (p_, q_)), axis=[p_, q_]), "image")]

    write(reader, node, [x], [node.output[0]], compute)


def _four(reader: Reader, name: str) -> tuple[int, ...]:
    shape = reader.shape(name)
    if len(shape) != 4:
        raise Refuse(f"'{name}' has {len(shape)} axes, not 4")
    return shape
