"""How much a small file may become: what its functions expand to, and what its constants fill, counted beforehand."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from inception_deploy.errors import DeployError

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

MAX_NODES = 100_000
MAX_NESTING = 32
"""Bodies of If, Loop and Scan inside of each other, functions inlined."""

MAX_CONSTANTS = 2**25
"""The elements that folding may make in one network: 128 MiB of float32. Anchors, grids and masks have 10^4 to 10^6."""

_KEPT = 4096
"""The largest constant whose numbers are looked at: what sizes are computed from is far below."""

_SMALLER = frozenset(("NonZero", "Compress", "Unique", "NonMaxSuppression"))
"""Operators whose result has a size that only their numbers tell, and is bounded by the inputs."""

_RANDOM = ("Random", "Bernoulli", "Multinomial")

_FLOATS = (1, 10, 11, 16)
"""onnx.TensorProto's FLOAT, FLOAT16, DOUBLE, BFLOAT16."""

Key = tuple[str, str, str]
Constant: TypeAlias = "NDArray[Any] | onnx.TypeProto"


def check_expansion(model: onnx.ModelProto) -> None:
    """Count the nodes of `model` with its own functions in place of their calls.

    Raises:
        DeployError: a function calls itself, or there are more than `MAX_NODES`, or bodies nested beyond `MAX_NESTING`.
    """
    functions: Mapping[Key, onnx.FunctionProto] = {(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[Key, tuple[int, int]] = {}
    for root in functions:
        # Depth first without recursion: the file decides how deep the calls go.
        path = [(root, [key for key in _calls(functions[root].node) if key in functions])]
        while path:
            current, rest = path[-1]
            if not rest:
                sizes[current] = _size(functions[current].node, sizes)
                path.pop()
                continue
            call = rest.pop()
            if any(call == key for key, _ in path):
                message = f"function {call[1]!r} calls itself"
                raise DeployError(message, kind="onnx", got=call[1], allowed="functions without recursion")
            if call not in sizes:
                path.append((call, [key for key in _calls(functions[call].node) if key in functions]))
    count, nesting = _size(model.graph.node, sizes)
    if count > MAX_NODES:
        message = "has too many nodes" + (", once its functions are expanded" if functions else "")
        raise DeployError(message, kind="onnx", got=count, allowed=f"at most {MAX_NODES}")
    if nesting > MAX_NESTING:
        message = f"nests bodies of If, Loop or Scan {nesting} deep"
        raise DeployError(message, kind="onnx", got=nesting, allowed=f"at most {MAX_NESTING}")


def _size(nodes: Any, sizes: Mapping[Key, tuple[int, int]], depth: int = 0) -> tuple[int, int]:
    """How many nodes a list of nodes expands to, and how deep their bodies are nested."""
    count, nesting = 0, depth
    for node in nodes:
        own, deep = sizes.get((node.domain, node.op_type, node.overload), (1, 0))
        count, nesting = count + own, max(nesting, depth + deep)
        for body in bodies(node):
            inner, deep = _size(body.node, sizes, depth + 1)
            count, nesting = count + inner, max(nesting, deep)
    return count, nesting


def _calls(nodes: Any) -> Iterator[Key]:
    """The operators of nodes and of their bodies."""
    for node in nodes:
        yield node.domain, node.op_type, node.overload
        for body in bodies(node):
            yield from _calls(body.node)


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds: branches and loops."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def check_constants(model: onnx.ModelProto, *, open_sizes: bool = False) -> None:
    """Go through what depends on constants only, sizes before numbers, and refuse what would be large.

    onnx's own shape inference carries small integers along, and would make them large: this comes before it. A weight
    counts as no constant: what is computed of weights is as large as they are.

    Args:
        model: its nodes in order.
        open_sizes: the sizes of the inputs are not all given yet, so a size that cannot be told is let through.

    Raises:
        DeployError: the constants would have more than `MAX_CONSTANTS` elements, or the size of one cannot be told.
    """
    _Constants(model, open_sizes).walk(model.graph, {}, {})


class _Constants:
    """What is constant in a network: its numbers where they are few, else its type."""

    def __init__(self, model: onnx.ModelProto, open_sizes: bool) -> None:
        self.opsets, self.ir_version, self.total = list(model.opset_import), model.ir_version, 0
        self.versions = {entry.domain: entry.version for entry in model.opset_import}
        self.open_sizes = open_sizes

    def walk(
        self, graph: onnx.GraphProto, outer: Mapping[str, Constant], outer_types: Mapping[str, onnx.TypeProto]
    ) -> None:
        import onnx

        known: dict[str, Constant] = dict(outer)
        types = {**outer_types, **{value.name: value.type for value in graph.input}}
        for tensor in graph.initializer:
            types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            if math.prod(tensor.dims) <= _KEPT and not (tensor.data_type in _FLOATS and len(tensor.dims) > 1):
                known[tensor.name] = onnx.numpy_helper.to_array(tensor)
        for node in graph.node:
            for body in bodies(node):
                self.walk(body, known, types)
            inputs = [name for name in node.input if name]
            if node.op_type in ("Shape", "Size") and inputs and (sizes := _sizes(types.get(inputs[0]))) is not None:
                known[node.output[0]] = _measured(node, sizes)
            elif any(True for _ in bodies(node)) or any(name not in known and name not in types for name in inputs):
                continue
            else:
                given: dict[str, Constant] = {name: known[name] if name in known else types[name] for name in inputs}
                found = self._types(node, given)
                types |= found
                if all(name in known for name in inputs) or node.op_type == "Shape":
                    known |= self._results(node, given, found)

    def _results(
        self, node: onnx.NodeProto, inputs: Mapping[str, Constant], types: Mapping[str, onnx.TypeProto]
    ) -> dict[str, Constant]:
        """The outputs of a node whose inputs are all constant, as far as they can be told."""
        found: dict[str, Constant] = {}
        for name in filter(None, node.output):
            if name not in types or not types[name].HasField("tensor_type"):
                return {}
            sizes = _sizes(types[name])
            label = f"node {node.name or name!r} ({node.op_type})"
            if sizes is None and self.open_sizes:
                return {}
            if sizes is None and node.op_type not in _SMALLER:
                message = f"{label} makes a constant whose size cannot be told before it is made"
                raise DeployError(message, kind="onnx", got=node.op_type, allowed="constants of a fixed size")
            self.total += math.prod(sizes or ())
            if self.total > MAX_CONSTANTS:
                message = f"{label} fills a constant of shape {sizes}, which is too much to fold"
                allowed = f"at most {MAX_CONSTANTS} elements of computed constants in all"
                raise DeployError(message, kind="onnx", got=self.total, allowed=allowed)
            found[name] = types[name]
        if node.op_type.startswith(_RANDOM):
            return {}
        few = all(math.prod(_sizes(kind) or ()) <= _KEPT for kind in types.values())
        numbers = {name: value for name, value in inputs.items() if not hasattr(value, "tensor_type")}
        return self._computed(node, numbers) or found if few and len(numbers) == len(inputs) else found

    def _types(self, node: onnx.NodeProto, inputs: Mapping[str, Constant]) -> dict[str, onnx.TypeProto]:
        import onnx

        types: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for name, value in inputs.items():
            if isinstance(value, onnx.TypeProto):
                types[name] = value
            else:
                data[name] = onnx.numpy_helper.from_array(value, name)
                types[name] = onnx.helper.make_tensor_type_proto(data[name].data_type, value.shape)
        try:
            schema = onnx.defs.get_schema(node.op_type, self.versions.get(node.domain, 1), node.domain)
            return onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=self.opsets, ir_version=self.ir_version
            )
        except Exception:  # the C++ checks raise what they like; onnx's own checker says it of the whole graph
            return {}

    def _computed(self, node: onnx.NodeProto, inputs: Mapping[str, Any]) -> dict[str, Constant]:
        """The numbers; nothing where the reference evaluator cannot compute them."""
        from onnx.reference import ReferenceEvaluator

        with contextlib.suppress(Exception):  # it is Python, and raises whatever its operators raise
            results = ReferenceEvaluator(node, opsets=self.versions).run(None, dict(inputs))
            return {name: value for name, value in zip(node.output, results, strict=True) if name}
        return {}


def _sizes(kind: onnx.TypeProto | None) -> list[int] | None:
    """The sizes of a tensor's type; None where one is open."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return [dim.dim_value for dim in dims] if all(dim.HasField("dim_value") for dim in dims) else None


def _measured(node: onnx.NodeProto, sizes: list[int]) -> NDArray[np.int64]:
    """What Shape or Size gives for a tensor of `sizes`."""
    import numpy as np

    if node.op_type == "Size":
        return np.array(math.prod(sizes), np.int64)
    ends = {attribute.name: attribute.i for attribute in node.attribute}
    return np.array(sizes[ends.get("start", 0) : ends.get("end")], np.int64)
