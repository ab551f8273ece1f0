"""Which tensors 8 bits hold worst: what 16 bits are for, before a layer goes back to float.

How noisy a tensor is says little: what its noise does at the outputs depends on all that is behind it. So it is
measured. Behind every QuantizeLinear and DequantizeLinear of a quantized network stands a switch, which lets the tensor
through as it was:

    Given   y = DQ(Q(x))        Result   y = Where(through, x, DQ(Q(x)))

One session then computes the outputs with any of them left alone, which is what 16 bits come to, as nearly as matters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from .pictures import Picture
from .ratio import Ratio
from .runner import Runner


def sensitive(
    model: onnx.ModelProto,
    groups: Sequence[Sequence[str]],
    pictures: Sequence[Picture],
    expected: Sequence[NDArray[np.float32]],
    *,
    threads: int = 0,
) -> list[str]:
    """One tensor of each group, the one first whose group gains the outputs most where it is left as it was.

    Args:
        model: QDQ, as `insert.insert` gives it.
        groups: the names of tensors that share a scale.
        expected: the float network's outputs of the pictures, one after the other, in the graph's order.
        threads: of onnxruntime, 0 leaves the choice to it.
    """
    switched, through = onnx.ModelProto(), "{}/through"
    switched.CopyFrom(model)
    names = [group[0] for group in groups]
    _switch(switched, {name: through.format(group[0]) for group in groups for name in group})
    runner = Runner(switched, threads=threads)
    batches = list(runner.batches(pictures))
    gains: dict[str, float] = {}
    for name in names:
        switches = {through.format(other): np.array(other == name) for other in names}
        rows = [runner.run(np.stack([picture.pixels for picture in batch]), beside=switches) for batch in batches]
        levels = []
        for output, reference in zip(runner.outputs, expected, strict=True):
            ratio = Ratio()
            ratio.add(reference, np.concatenate([row[output] for row in rows]))
            levels.append(ratio.db)
        gains[name] = float(np.mean(levels))
    return sorted(names, key=lambda name: -gains[name])


def _switch(model: onnx.ModelProto, switches: dict[str, str]) -> None:
    """The switches of `sensitive`, by the name of the tensor that each lets through; in place."""
    graph = model.graph
    for name in dict.fromkeys(switches.values()):
        graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, []))
    quantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        source = quantized.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source in switches:
            made, node.output[0] = node.output[0], f"{node.output[0]}/rounded"
            nodes.append(onnx.helper.make_node("Where", [switches[source], source, node.output[0]], [made]))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
