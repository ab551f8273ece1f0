"""A network for another number of images at once: the same weights, every shape inferred anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inception_deploy.errors import DeployError

from .skeleton import check

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


def with_rows(model: onnx.ModelProto, rows: int) -> onnx.ModelProto:
    """`model` with `rows` images in a batch.

    The first axis of the input becomes `rows`, and with it the first number of every Reshape's and Expand's constant
    shape that was the batch before. Whether the rows are then computed as before is for the caller to compare
    (`verify`): a graph can hold the batch in other places too.

    Args:
        model: of static shapes and one input; left as it was.

    Raises:
        DeployError: (kind ``batch``) several inputs, or no shapes fit together with so many images.
    """
    import onnx_ir as ir

    copy = ir.from_proto(model)
    check(copy)  # what is not in the file of the shapes before
    given = [value for value in copy.graph.inputs if value.name not in copy.graph.initializers]
    if len(given) != 1 or given[0].shape is None or not len(given[0].shape):
        names = [value.name for value in given]
        message = f"a network of {len(given)} inputs has one number of images: it is not known which axes are the batch"
        raise DeployError(message, kind="batch", got=names, allowed="one input, whose first axis is the batch")
    before = given[0].shape[0]
    for node in list(copy.graph):
        if node.op_type in ("Reshape", "Expand"):
            _reshape(copy, node, before, rows)
    given[0].shape = ir.Shape([rows, *given[0].shape[1:]])
    for output in copy.graph.outputs:
        output.shape = None
    try:
        check(copy)
    except Exception as error:  # onnx's ValidationError and InferenceError have no common base
        raise fixed(rows, str(error).strip().splitlines()[0]) from error
    for output in copy.graph.outputs:
        if output.shape is None or not len(output.shape) or output.shape[0] != rows:
            raise fixed(rows, f"output {output.name!r} is {output.shape}")
    return ir.to_proto(copy)


def fixed(rows: int, why: str) -> DeployError:
    """The error of a network that computes one number of images only."""
    message = f"the network does not compute {rows} images as it computes one: {why}"
    return DeployError(message, kind="batch", got=rows, allowed="one number of images, --batch N")


def _reshape(model: ir.Model, node: ir.Node, before: object, rows: int) -> None:
    """Give a constant shape that begins with the batch the new one."""
    import onnx_ir as ir

    source, shape = node.inputs[0], node.inputs[1]
    if source is None or shape is None or shape.const_value is None:
        return
    sizes = shape.const_value.numpy()
    batched = node.op_type == "Expand" or (source.shape is not None and len(source.shape) and source.shape[0] == before)
    if not len(sizes) or sizes[0] != before or not batched:
        return
    name = f"{node.outputs[0].name}:shape:{rows}"
    tensor = ir.tensor(np.array([rows, *sizes[1:]], sizes.dtype), name=name)
    value = ir.Value(name=name, shape=ir.Shape(sizes.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    node.replace_input_with(1, value)
