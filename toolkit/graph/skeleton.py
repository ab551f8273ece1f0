"""A graph without its weights: what onnx's and onnxsim's C++ take, and what spares them hundreds of megabytes.

Checker, shape inference and simplifier each want the whole model serialised, so a 550 MB VGG would be copied half a
dozen times a call. None of them needs the values of a weight. So a weight becomes a graph input of its shape for the
time of the call; other constants (shapes, axes, scales) stay, because shape inference reads their values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

LARGE_BYTES = 1024
"""Above this any constant counts as a weight. The longest shape vector or axis list is far below."""


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """`model` as a protobuf whose weights are graph inputs; `model` itself stays as it was.

    Weights are all floating-point constants of two axes or more, and all that are larger than `LARGE_BYTES`.
    """
    import onnx_ir as ir

    graph = model.graph
    inputs, initializers = list(graph.inputs), dict(graph.initializers)
    tensors = {
        name: value.const_value
        for name, value in initializers.items()
        if value.const_value is not None and _is_weight(value.const_value)
    }
    try:
        for name, tensor in tensors.items():
            value = initializers[name]
            value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
            del graph.initializers[name]
            value.const_value = None
            if not value.is_graph_input():
                graph.inputs.append(value)
        return ir.to_proto(model)
    finally:
        graph.inputs.clear()  # not a deletion of the new ones: that would leave them marked as inputs (onnx_ir 1.1)
        graph.inputs.extend(inputs)
        graph.initializers.clear()
        for name, value in initializers.items():
            value.const_value = tensors.get(name, value.const_value)
            graph.register_initializer(value)


def _is_weight(tensor: ir.TensorProtocol) -> bool:
    return (tensor.dtype.is_floating_point() and len(tensor.shape) > 1) or tensor.nbytes > LARGE_BYTES


def restore(bare: onnx.ModelProto, original: ir.Model) -> ir.Model:
    """The inverse of `skeleton` after a C++ tool changed the graph: `bare` with the weights that `original` holds.

    The weights are shared with `original`, not copied. Those that the tool made superfluous are dropped.
    """
    import onnx_ir as ir

    model = ir.from_proto(bare)
    own = {value.name for value in original.graph.inputs}
    for value in [value for value in model.graph.inputs if value.name not in own]:
        model.graph.inputs.remove(value)
        if value.uses() or value.is_graph_output():
            value.const_value = original.graph.initializers[value.name or ""].const_value
            model.graph.register_initializer(value)
    return model


def check(model: ir.Model) -> None:
    """Run onnx's checker and its strict shape inference; every value of `model` gets the inferred shape and type.

    Shapes that were there before are forgotten first, so a pass that changes a shape need not say so.

    Raises:
        onnx.shape_inference.InferenceError, onnx.checker.ValidationError: the graph is wrong.
    """
    import onnx
    import onnx_ir as ir

    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    inferred = onnx.shape_inference.infer_shapes(skeleton(model), check_type=True, strict_mode=True, data_prop=True)
    outputs = [*inferred.graph.output, *(o for node in inferred.graph.node for o in _outputs_of_bodies(node))]
    unknown = [o.type.tensor_type for o in outputs if o.type.HasField("tensor_type")]
    unknown = [kind for kind in unknown if not kind.HasField("shape")]
    for kind in unknown:  # the checker wants a shape of every output, and a file may leave even the rank open
        kind.shape.SetInParent()
    onnx.checker.check_model(inferred)
    for kind in unknown:
        kind.ClearField("shape")
    found = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    for node in model.graph:
        for value in node.outputs:
            if value.name in found:
                value.type = ir.serde.deserialize_type_proto_for_type(found[value.name].type)
                value.shape = ir.serde.deserialize_type_proto_for_shape(found[value.name].type)


def _outputs_of_bodies(node: onnx.NodeProto) -> Iterator[onnx.ValueInfoProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from attribute.g.output
            for inner in attribute.g.node:
                yield from _outputs_of_bodies(inner)
