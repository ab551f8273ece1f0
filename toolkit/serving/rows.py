"""An ONNX of a fixed batch as one that takes any number of rows, for servers that gather requests.

The first size of every input and output becomes a symbol, and a Reshape to the batch keeps the first size it gets
instead. Whether the rest of the graph goes along is not guessed: both are run and compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import inception_deploy.verify as verify

from .. import feeds
from ..errors import DeployError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

ROWS = "rows"


def freed(model: onnx.ModelProto, *, integers: bool) -> onnx.ModelProto | None:
    """The same network for any number of rows, compared with the given one; None where the graph does not allow it.

    Args:
        model: with one input whose first size is the batch, (N, ...), and outputs likewise; it stays as it is.
        integers: it is a quantized one, in which a tie may round to its neighbour.
    """
    import onnx

    (port,) = feeds.ports(model)
    batch = port["shape"][0]
    free = onnx.ModelProto()
    free.CopyFrom(model)
    del free.graph.value_info[:]
    outputs = list(free.graph.output)
    for value in (*(v for v in free.graph.input if v.name == port["name"]), *outputs):
        value.type.tensor_type.shape.dim[0].dim_param = ROWS
    _keep_first_sizes(free, batch)
    count = next(count for count in (3, 2) if count != batch)
    x = feeds.numbers({**port, "shape": [count, *port["shape"][1:]]}, np.random.default_rng(0))
    try:
        got = verify.run_onnx(free, {port["name"]: x})
        stage = "emulated-int8" if integers else "optimised"
        rows = [verify.compare(a, b, stage) for a, b in zip(_in_batches(model, port, x), got, strict=True)]
    except DeployError:  # onnxruntime refuses it, or a shape is another
        return None
    return free if all(row["ok"] for row in rows) else None


def _in_batches(model: onnx.ModelProto, port: feeds.Port, x: NDArray[Any]) -> list[NDArray[Any]]:
    """What the given model makes of the rows, filled up with the last one."""
    batch = port["shape"][0]
    filled = np.concatenate([x, np.repeat(x[-1:], -len(x) % batch, axis=0)])
    parts = [verify.run_onnx(model, {port["name"]: filled[at : at + batch]}) for at in range(0, len(filled), batch)]
    return [np.concatenate(outputs)[: len(x)] for outputs in zip(*parts, strict=True)]


def _keep_first_sizes(model: onnx.ModelProto, batch: int) -> None:
    """A Reshape to (batch, ...) becomes one to (0, ...): the size that comes in, in ONNX's words."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        zero = any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)
        if node.op_type != "Reshape" or zero or node.input[1] not in constants:
            continue
        sizes = numpy_helper.to_array(constants[node.input[1]])
        if sizes.size and sizes[0] == batch:
            name = f"{node.output[0]}/sizes"
            model.graph.initializer.append(numpy_helper.from_array(np.array([0, *sizes[1:]], np.int64), name))
            node.input[1] = name
