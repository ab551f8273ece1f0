"""Networks that take pictures as bytes and normalise them themselves (`export --uint8-input`).

What a camera or a decoder gives, uint8 (N, H, W, C), is then the input, a quarter of the bytes of float32; the first
nodes of the network do what was left to whoever runs it: on a GPU, the GPU does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..runtime import preprocessing as preparing
from ..runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from .resolve import Source


def taking(source: Source) -> Source:
    """The same network on uint8 (N, H, W, C): the pixels after the crop, in the order of the preprocessing's `color`.

    Raises:
        UsageError: (kind ``preprocessing``) it takes no pictures, or takes bytes already.
    """
    if source.preprocessing is None or source.preprocessing["dtype"] != "float32":
        what = "no pictures" if source.preprocessing is None else "bytes already"
        message = f"--uint8-input is for networks that take pictures as float32; {source.name} takes {what}"
        raise UsageError(message, kind="preprocessing", got=what, allowed="no --uint8-input")
    how = preparing.from_dict(source.preprocessing)
    channels = len(how.mean)
    bare = replace(
        how, mean=(0.0,) * channels, std=(1.0,) * channels, scale="1", layout="nhwc", dtype="uint8"
    )  # fmt: skip
    forward = replace(how, color="gray" if channels == 1 else "rgb")  # the bytes have the order of `color` already

    def to_onnx(say: Callable[[str], None]) -> onnx.ModelProto:
        return behind(source.onnx(say), how)

    def reference(x: NDArray[Any]) -> Sequence[NDArray[Any]]:
        return source.reference(np.stack([preparing.normalised(pixels, forward) for pixels in x]))

    return replace(
        source,
        preprocessing=preparing.as_dict(bare),
        zoo=source.zoo and {**source.zoo, "normalised": dict(source.preprocessing)},
        onnx=to_onnx,
        reference=reference,
        rounded=source.rounded and behind(source.rounded, how),
    )


def affine(how: Preprocessing) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The factor and the summand of each channel that normalise a pixel, float32 (C,)."""
    std = np.asarray(how.std, np.float64)
    factor = float(how.factor) / std
    return factor.astype(np.float32), (-np.asarray(how.mean, np.float64) / std).astype(np.float32)


def behind(model: onnx.ModelProto, how: Preprocessing) -> onnx.ModelProto:
    """A copy of a model that takes the first input as bytes and prepares it as `how` says; its name stays."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = {tensor.name for tensor in graph.initializer}
    port = next(value for value in graph.input if value.name not in constants)
    name, shape = port.name, [size.dim_value or size.dim_param for size in port.type.tensor_type.shape.dim]
    taken = {text for node in graph.node for text in (*node.output, *node.input)} | constants

    def fresh(what: str) -> str:
        text = f"{name}_{what}"
        while text in taken:
            text += "_"
        taken.add(text)
        return text

    planes = how.layout == "nchw"
    spread = (1, -1, 1, 1) if planes else (1, 1, 1, -1)
    factor, summand = (values.reshape(spread) for values in affine(how))
    floats, scaled, normalised = fresh("float"), fresh("scaled"), fresh("normalised")
    numbers = {fresh("factor"): factor, fresh("summand"): summand}
    graph.initializer.extend(numpy_helper.from_array(values, text) for text, values in numbers.items())
    for node in graph.node:
        node.input[:] = [normalised if text == name else text for text in node.input]
    turned = fresh("planes") if planes else name
    nodes = [
        *([helper.make_node("Transpose", [name], [turned], name=turned, perm=[0, 3, 1, 2])] if planes else []),
        helper.make_node("Cast", [turned], [floats], name=floats, to=TensorProto.FLOAT),
        *(
            helper.make_node(op, [of, number], [to], name=to)
            for op, of, number, to in zip(("Mul", "Add"), (floats, scaled), numbers, (scaled, normalised), strict=True)
        ),
    ]
    whole = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(whole)
    if planes:
        shape = [shape[0], *shape[2:], shape[1]]
    port.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
    return changed
