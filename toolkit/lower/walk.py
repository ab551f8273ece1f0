"""ONNX to layers: walks the optimised graph once, fusing epilogues and adopting branches into their concat as it goes.

An operator is read by its handler in `table.OPS`. A handler that cannot serve a node raises `Refuse` with the reason;
the node then takes TVM's default kernels (`default.extern`) and is listed in the Plan's refusals.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import DeployError
from ..quantize.integer_network import is_quantized
from . import islands, norms, pictures
from .bytes.integers import Integers
from .default import alone, extern, importable
from .layers import Network, Storage, Value, needed
from .operators.written import copy
from .reader import Reader, Refuse
from .table import OPS

RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"})
"""Operators that give something else each time."""


def read(
    model: onnx.ModelProto,
    *,
    byte_offset: int | None = None,
    element: str = "float32",
    weighs: bool = False,
    sixteen: bool = True,
) -> Network:
    """The layers of an optimised model with static shapes.

    Args:
        byte_offset: a quantized model is computed in integers where it can be, by convolutions that take bytes so much
            lower than they lie. None: in float32, as ONNX defines it.
        element: what float activations are kept in.
        weighs: windows of an average pooling may count differently in the convolution behind it.
        sixteen: quantized numbers of 16 bits are integers, too.

    Raises:
        DeployError: a shape is not static, or an operator is neither ours nor TVM's.
    """
    reader = Reader(model, element)
    steps = None
    if byte_offset is not None and is_quantized(model):
        steps = Integers(reader, reader.model, byte_offset, weighs=weighs, sixteen=sixteen)
    graph = reader.model.graph
    feeds = [i for i in graph.input if i.name not in reader.constants]
    for index, feed in enumerate(feeds):
        shape = reader.shape(feed.name)
        size = int(np.prod(shape, dtype=np.int64))
        batch = shape[0] if shape and size else 1
        storage = Storage(feed.name, batch, size // batch, port=("input", index), dtype=reader.dtype(feed.name))
        reader.values[feed.name] = Value(feed.name, shape, storage)
        reader.network.inputs.append(reader.values[feed.name])
    for node in graph.node:
        if not any(reader.uses[name] for name in node.output) or node.output[0] in reader.folded:
            continue
        if pictures.take(reader, node):
            continue
        if steps is not None and steps.take(node):
            continue
        if node.op_type == "Constant":
            reader.constants[node.output[0]] = constant_of(node)
            continue
        known = node.input and all(name in reader.constants or not name for name in node.input)
        if known and node.op_type != "DequantizeLinear" and _fold(reader, node):
            continue
        # integers ask for values by their own names
        if steps is None and (islands.take(reader, node) or norms.take(reader, node)):
            continue
        if node.op_type != "DequantizeLinear":
            _no_integers(reader, [*node.input], f"node '{node.name}' ({node.op_type})")
        handler = OPS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            if handler is None:
                raise Refuse(f"there is no kernel of ours for {node.op_type}")
            handler(reader, node)
        except Refuse as refuse:
            try:
                extern(reader, node, str(refuse))
            except DeployError as error:
                raise _with_others(reader, node, error) from error
    _no_integers(reader, reader.output_names, "the graph's output")
    for index, output in enumerate(graph.output):
        _give_out(reader, index, output.name)
    # changes of layout that a refused handler had begun
    reader.network.layers = needed(reader.network.layers)
    return reader.network


def _with_others(reader: Reader, node: onnx.NodeProto, error: DeployError) -> DeployError:
    """`error`, which says that a node cannot be compiled, with the operators behind it that cannot either: a user who
    mends one at a time would see one at a time.
    """
    if error.kind != "operator":
        return error
    nodes = list(reader.model.graph.node)
    found: dict[str, list[str]] = {}
    for other in nodes[nodes.index(node) + 1 :]:
        ours = other.op_type in OPS and other.domain in ("", "ai.onnx")
        if not ours and any(reader.uses[name] for name in other.output) and not importable(reader, other):
            found.setdefault(other.op_type, []).append(other.name)
    listed = "; ".join(f"{operator} ({', '.join(names[:3])})" for operator, names in sorted(found.items()))
    message = error.message + (f"; nor can be: {listed}" if listed else "")
    got = [error.got, *sorted(found)] if found else error.got
    return DeployError(message, kind=error.kind, got=got, allowed=error.allowed)


def _no_integers(reader: Reader, names: list[str], who: str) -> None:
    """Raise where a value that QuantizeLinear gave is read as it is: here it is kept as the real number it stands
    for.
    """
    if found := [name for name in names if name in reader.quantized]:
        message = f"{who} reads '{found[0]}', an 8-bit integer, without DequantizeLinear"
        raise DeployError(message, kind="onnx", got=found[0], allowed="QuantizeLinear and DequantizeLinear in pairs")


def _fold(reader: Reader, node: onnx.NodeProto) -> bool:
    """Compute a node of constants alone now; False where that is not possible (what is random, what has a body)."""
    from onnx.reference import ReferenceEvaluator

    if node.op_type in RANDOM or any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
        return False
    try:
        results = ReferenceEvaluator(onnx.load_model_from_string(alone(reader, node, list(node.output)))).run(None, {})
    except Exception:  # whatever the reference stumbles over, the handlers and TVM have a say yet
        return False
    reader.constants.update({name: np.asarray(r) for name, r in zip(node.output, results, strict=True)})
    return True


def _give_out(reader: Reader, index: int, name: str) -> None:
    """Let the caller's buffer receive an output of the graph."""
    islands.settle(reader, name)
    if name not in reader.values:
        copy(reader, name, name)
    value = reader.values[name]
    root = value.storage.root
    if not value.storage.blocked and root.port is None:
        root.port = ("output", index)
    else:
        if (
            root.port is not None and not value.storage.blocked
        ):  # an input, or another output: copied by way of a packed form
            if not value.storage.real:
                raise DeployError(
                    f"output '{name}' of the graph is its input, or another output, unchanged",
                    kind="onnx",
                    got=name,
                    allowed="outputs that the network computes, or float32",
                )
            size = value.storage.batch * value.storage.elements
            flat = Storage(name, 1, size, parent=value.storage)
            value = reader.blocked(Value(f"{name}:flat", (1, size), flat))
        elements = len(value.storage.slots if value.storage.slots is not None else ()) * value.storage.pixels
        value = reader.planar(value, Storage(name, value.storage.batch, elements, port=("output", index)))
    reader.network.outputs.append(Value(name, reader.shape(name), value.storage))


def constant_of(node: onnx.NodeProto) -> np.ndarray:
    """The array of a Constant node."""
    attribute = node.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
        return np.asarray(value, np.float32 if "float" in attribute.name else np.int64)
    raise DeployError(
        f"the constant of node '{node.name}' is no tensor of numbers",
        kind="onnx",
        got=attribute.name,
        allowed="value, value_float, value_floats, value_int, value_ints",
    )
