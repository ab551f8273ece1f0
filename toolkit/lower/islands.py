"""Islands of channels-last in a network of maps: they are computed on the map, and their Transposes vanish.

Given: Transpose(0, 2, 3, 1) of a map, operators that treat every pixel alike, Transpose(0, 3, 1, 2) back. Result: the
same operators on the map as it lies in blocks of channels. MatMul with a constant is a 1x1 convolution, which takes the
constants added and multiplied behind it; a constant of one value a channel is one on either side; LayerNormalization
over the last axis is over the channels (`spec.ChannelNorm`). ConvNeXt and its relatives are made of such islands.

`Reader.islands` says of each value inside which map holds it, in NCHW. A reader of such a value that is none of these
operators gets it as plain memory. An island also begins where a product or a norm along the last axis reads plain
memory (N, ..., C): its rows are put into blocks, which is cheap beside what is computed on them.

Values of three axes (N, L, C) are maps of L x 1 pixels, and their transposes (0, 2, 1), of a map flattened to (N, C, L)
and back, are what (0, 2, 3, 1) and (0, 3, 1, 2) are to those of four.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from ..kernels.spec import ChannelNorm, Pack, Unpack
from .layers import Param, Storage, Value
from .operators.common import attributes
from .reader import Reader, Refuse, blocks_of_dtype
from .table import OPS

_IN, _OUT = ([0, 2, 3, 1], [0, 2, 1]), ([0, 3, 1, 2], [0, 2, 1])

ELEMENTWISE = frozenset(
    (
        *("Abs", "Add", "Clip", "Div", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity"),
        *("LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Selu", "Sigmoid"),
        *("Softplus", "Softsign", "Sqrt", "Sub", "Tanh"),
    )
)
"""Operators that do to each value what its place has no part in."""


def take(reader: Reader, node: onnx.NodeProto) -> bool:
    """Whether a node begins or ends an island, or was computed inside of one. Where not, what it reads of islands has
    been made a tensor of its own.
    """
    perm = list(attributes(node).get("perm", ())) if node.op_type == "Transpose" else []
    if perm in _IN and _is_map(reader, node.input[0]):
        _enter(reader, node)
        return True
    if node.op_type in _BEGIN and node.input[0] not in reader.islands:
        _begin(reader, node.input[0])
    if not any(name in reader.islands for name in node.input):
        return False
    if perm in _OUT and node.input[0] in reader.islands:
        _leave(reader, node)
        return True
    handler = _HANDLERS.get(node.op_type) or (_elementwise if node.op_type in ELEMENTWISE else None)
    if handler is not None and node.domain in ("", "ai.onnx"):
        try:
            handler(reader, node)
        except Refuse:
            pass
        else:
            return True
    for name in dict.fromkeys(node.input):
        settle(reader, name)
    return False


def _enter(reader: Reader, node: onnx.NodeProto) -> None:
    """From NCHW: the map as it is; a flattened one as one of L x 1 pixels."""
    name, value = node.output[0], reader.values[node.input[0]]
    if len(value.shape) == 3:
        inside = _map_of(reader, name)
        shape = reader.shape(inside)
        reader.values[inside] = replace(value, name=inside, shape=shape, height=shape[2], width=1)
    else:
        reader.islands[name] = node.input[0]
        reader.uses[node.input[0]] += reader.uses[name] - 1


def settle(reader: Reader, name: str) -> None:
    """Make a value of an island a tensor whose axes lie as its shape says."""
    if name not in reader.islands or name in reader.values:
        return
    shape = reader.shape(name)
    source = reader.with_slots(reader.values[reader.islands[name]], np.arange(shape[-1])).storage
    storage = Storage(name, source.batch, shape[-1] * source.pixels)
    spec = Unpack(source.batch, shape[-1], source.blocks, source.pixels, last=True)
    reader.emit("unpack", [], spec, [(source, "in_stride")], storage, name)
    reader.values[name] = Value(name, shape, storage)


def _is_map(reader: Reader, name: str) -> bool:
    """A float value in blocks with the axes of a map, or of a flattened one."""
    value = reader.values.get(name)
    return value is not None and value.storage.real and len(value.shape) in (3, 4) and value.storage.blocked


def _begin(reader: Reader, name: str) -> None:
    """An island that begins at plain memory, if `name` is a tensor of three or four axes in some."""
    value = reader.values.get(name)
    if value is None or value.storage.dtype != "float32" or value.storage.blocked or len(value.shape) not in (3, 4):
        return
    (n, channels, height, width), blocks = _turned(value.shape), blocks_of_dtype(value.shape[-1], reader.element)
    inside = _map_of(reader, name)
    storage = Storage(inside, n, height * width, blocks, np.arange(channels), dtype=reader.element)
    spec = Pack(n, channels, blocks, height * width, last=True)
    reader.emit("pack", [], spec, [(value.storage, "")], storage, inside)
    reader.values[inside] = Value(inside, reader.shape(inside), storage, height, width)


def _turned(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """The shape in NCHW of a value inside an island."""
    n, height, *width, channels = shape
    return n, channels, height, width[0] if width else 1


def _leave(reader: Reader, node: onnx.NodeProto) -> None:
    """Back to NCHW: the map under another name."""
    inside, out = reader.islands[node.input[0]], node.output[0]
    value = reader.values[inside]
    layer = reader.producer.get(value.storage)
    if layer is not None and layer.value == inside and reader.private(inside):
        layer.value = layer.output.name = out  # what follows may still go into its epilogue
        layer.nodes.append(node.name)
    reader.values[out] = replace(value, name=out, shape=reader.shape(out))


def _map_of(reader: Reader, name: str) -> str:
    """The NCHW name of a value that is made inside an island, declared."""
    inside = f"{name}:map"
    reader.declare(inside, reader.elem_type(name), _turned(reader.shape(name)))
    reader.uses[inside] = reader.uses[name]
    reader.islands[name] = inside
    return inside


def _elementwise(reader: Reader, node: onnx.NodeProto) -> None:
    """The same operator on maps; constants turn their axes with them. Beside the map there may be one value a channel,
    which other nodes compute (GRN).
    """
    shape = reader.shape(node.output[0])
    each = (shape[0], *(1 for _ in shape[1:-1]), shape[-1])
    values = [name for name in node.input if name and name not in reader.constants]
    if any(reader.shape(name) not in (shape, each) for name in values):
        raise Refuse("its operands are neither the map nor one value a channel")
    names = []
    for name in node.input:
        if name in values and name not in reader.islands:
            _begin(reader, name)
        if name in reader.islands:
            names.append(reader.islands[name])
        elif not name or (name in reader.constants and reader.constants[name].size == 1):
            names.append(name)
        else:
            array = reader.constant(name, "an operand")
            full = (1,) * (len(shape) - array.ndim) + array.shape
            names.append(f"{name}:map{len(shape)}")
            reader.constants[names[-1]] = np.moveaxis(array.reshape(full), -1, 1).reshape(_turned(full))
    turned = onnx.NodeProto()
    turned.CopyFrom(node)
    turned.input[:] = names
    turned.output[:] = [_map_of(reader, node.output[0])]
    _on_map(reader, turned, node.output)


def _on_map(reader: Reader, turned: onnx.NodeProto, outputs: Sequence[str]) -> None:
    """Compute a node that was turned to NCHW; where that is refused, its `outputs` are in no island."""
    try:
        OPS[turned.op_type](reader, turned)
    except Refuse:
        for name in outputs:
            del reader.islands[name]
        raise


def _matmul(reader: Reader, node: onnx.NodeProto) -> None:
    """A product along the last axis is a 1x1 convolution; what is added to it or multiplied with it goes into its
    weights.
    """
    if node.input[0] not in reader.islands:
        raise Refuse("it multiplies something else than the map")
    weight = reader.constant(node.input[1], "the weight")
    if weight.ndim != 2:
        raise Refuse(f"the weight has {weight.ndim} axes, not 2")
    weight, bias, nodes = weight.T.astype(np.float32), np.zeros(weight.shape[1], np.float32), [node]
    while (follower := reader.only_reader(nodes[-1].output[0])) is not None:
        numbers = _per_channel(reader, follower, nodes[-1].output[0], len(bias))
        if numbers is None:
            break
        if follower.op_type == "Add":
            bias = bias + numbers
        else:
            weight, bias = weight * numbers[:, None], bias * numbers
        nodes.append(follower)
    reader.folded.update(follower.output[0] for follower in nodes[1:])
    out, name = nodes[-1].output[0], node.name or node.output[0]
    inputs = [reader.islands[node.input[0]], f"{name}:weight", f"{name}:bias"]
    reader.constants[inputs[1]], reader.constants[inputs[2]] = weight[:, :, None, None], bias
    OPS["Conv"](reader, helper.make_node("Conv", inputs, [_map_of(reader, out)], node.name))
    layer = reader.producer[reader.values[reader.islands[out]].storage]
    layer.nodes.extend(follower.name for follower in nodes[1:])


def _per_channel(reader: Reader, node: onnx.NodeProto, name: str, channels: int) -> np.ndarray | None:
    """The constant that an Add or Mul has beside a value, one number a channel of the last axis; None for anything
    else.
    """
    if node.op_type not in ("Add", "Mul") or len(node.input) != 2:
        return None
    other = node.input[1] if node.input[0] == name else node.input[0]
    array = reader.constants.get(other)
    if array is None or array.size not in (1, channels) or (array.ndim and array.shape[-1] != array.size):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float32)


def _channels(reader: Reader, node: onnx.NodeProto) -> None:
    """Concat or Split along the last axis: of channels."""
    axis, rank = attributes(node).get("axis", 0), len(reader.shape(node.output[0]))
    if axis % rank != rank - 1:
        raise Refuse(f"it is along axis {axis} of {rank}, not the channels")
    parts = node.input if node.op_type == "Concat" else node.input[:1]
    for name in parts:
        if name not in reader.islands:
            _begin(reader, name)
        if name not in reader.islands:
            raise Refuse(f"'{name}' is no map")
    turned = onnx.NodeProto()
    turned.CopyFrom(node)
    turned.input[: len(parts)] = [reader.islands[name] for name in parts]
    turned.output[:] = [_map_of(reader, name) for name in node.output]
    next(a for a in turned.attribute if a.name == "axis").i = 1
    _on_map(reader, turned, node.output)


def _reduce(reader: Reader, node: onnx.NodeProto) -> None:
    """A reduction over the pixels."""
    attrs = attributes(node)
    axes = attrs.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = reader.constant(node.input[1], "the list of axes").tolist()
    rank = len(reader.shape(node.input[0]))
    if axes is None or sorted(axis % rank for axis in axes) != [*range(1, rank - 1)] or not attrs.get("keepdims", 1):
        raise Refuse(f"axes {axes} are not the pixels")
    out = node.output[0]
    turned = helper.make_node(node.op_type, [reader.islands[node.input[0]]], [_map_of(reader, out)], node.name)
    turned.attribute.append(helper.make_attribute("axes", [2, 3]))
    _on_map(reader, turned, [out])


def _layer_norm(reader: Reader, node: onnx.NodeProto) -> None:
    """LayerNormalization over the last axis."""
    attrs, last = attributes(node), len(reader.shape(node.input[0])) - 1
    if attrs.get("axis", -1) not in (-1, last) or any(reader.uses[name] for name in node.output[1:]):
        raise Refuse("it is over more than the last axis, or gives its statistics out")
    value = reader.blocked(reader.value(reader.islands[node.input[0]]))
    source = value.storage
    assert source.slots is not None
    channels = len(source.slots)
    scale = reader.constant(node.input[1], "the scale").astype(np.float32)
    given = len(node.input) > 2 and node.input[2]
    bias = reader.constant(node.input[2], "the bias") if given else np.zeros(channels)
    if scale.size != channels or bias.size != channels:
        raise Refuse("its scale or bias is not one number a channel")
    inside = _map_of(reader, node.output[0])
    partial = channels != source.blocks * source.block
    spec = ChannelNorm(source.batch, source.blocks, source.pixels, float(attrs.get("epsilon", 1e-5)))
    spec = replace(spec, channels=channels if partial else 0)
    storage = Storage(inside, source.batch, source.pixels, source.blocks, source.slots, dtype=source.dtype)
    arrays = (scale, bias, np.ones(channels)) if partial else (scale, bias)
    numbers = [Param("channel", array.reshape(-1).astype(np.float32)) for array in arrays]
    reader.emit("layernorm", [node.name], spec, [(source, "in_stride"), *numbers], storage, inside)
    reader.values[inside] = Value(inside, reader.shape(inside), storage, value.height, value.width)


_BEGIN = frozenset({"LayerNormalization", "MatMul"})
"""Operators whose work along the last axis is worth the rows' way into blocks."""

_HANDLERS: dict[str, Callable[[Reader, onnx.NodeProto], None]] = {
    "Concat": _channels,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Split": _channels,
    **dict.fromkeys(("ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum"), _reduce),
}
