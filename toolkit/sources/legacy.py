"""What onnx's version converter loses of old files, said in a way that it keeps. Each rewriting is exact.

* Before opset 7 a second operand with ``broadcast=1`` is laid on the first one's axes from `axis` on (on the last ones
  without it), and PRelu's slope on the channels. Numpy's rule, which holds since, lays it on the last axes.
* A Pad of opset 2 to 10 may have a `value` that its mode does not use; as an attribute it is unknown since.
* Upsample (7 to 9) and Resize of opset 10 take coordinates as ``i / scale``, "asymmetric", and the place below
  ("floor"; Resize to a smaller size the one above). Since opset 11 Resize has other defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from inception_deploy.errors import DeployError
from inception_deploy.graph.rewrite import (
    add_constant,
    constant,
    free_name,
    insert,
    integer,
    nodes,
    operand,
    rank,
    text,
)

BROADCASTING = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "PRelu", "Pow", "Sub", "Xor")


class Sampler(NamedTuple):
    """An Upsample, or a Resize of opset 10: the node's name, and the axes that it makes smaller where that is known."""

    node: str
    smaller: bool
    larger: bool


def align_operands(model: ir.Model) -> int:
    """Give each second operand of opset 6's broadcasting the trailing axes of size 1 that numpy's rule needs.

    Given: ``Add<broadcast=1, axis=k>(a, b)`` with both ranks known. Result: ``Add<broadcast=1>(a, Unsqueeze(b))``, b's
    last axes being of size 1 up to a's last one.

    Raises:
        DeployError: a rank is not known.
    """
    fired = 0
    for node in nodes(model, *BROADCASTING):
        a, b = operand(node, 0), operand(node, 1)
        slope = node.op_type == "PRelu"
        if not slope and not (integer(node, "broadcast", 0) and "axis" in node.attributes):
            continue
        if rank(a) is None or rank(b) is None:
            message = f"node {node.name or node.op_type!r} broadcasts a tensor of unknown rank"
            raise DeployError(message, kind="onnx", got=node.op_type, allowed="a file of opset 7 or newer")
        ranks = int(rank(a) or 0), int(rank(b) or 0)
        start = 1 if slope else integer(node, "axis", 0) % max(ranks[0], 1)
        behind = ranks[0] - start - ranks[1]
        node.attributes.pop("axis", None)
        if behind > 0 and not (slope and ranks[1] != 1):
            axes = list(range(ranks[1], ranks[1] + behind))
            (wide,) = insert(node, "Unsqueeze", f"{node.name or node.op_type}/operand", [b], axes=axes)
            node.replace_input_with(1, wide)
            fired += 1
    return fired


def drop_idle_values(model: ir.Model) -> int:
    """Drop the `value` of a Pad that takes its numbers from the map: the converter leaves it, and no newer Pad has it.

    Given: ``Pad<mode="reflect", value=v>(x)`` of an opset before 11, or "edge". Result: the same without `value`.
    """
    found = [node for node in nodes(model, "Pad") if "value" in node.attributes and text(node, "mode", "") in _OWN]
    for node in found:
        node.attributes.pop("value")
    return len(found)


_OWN = ("reflect", "edge")


def samplers(model: ir.Model) -> dict[str, Sampler]:
    """The nodes whose coordinates the converter is to lose, by the name of their output."""
    found = {}
    for node in nodes(model, "Upsample", "Resize"):
        given = node.attributes.get("scales")
        scales = list(given.as_floats()) if given is not None else constant(operand(node, 1))
        small = scales is not None and any(scale < 1 for scale in scales)
        large = scales is None or any(scale > 1 for scale in scales)
        found[node.outputs[0].name or ""] = Sampler(
            str(node.name or node.op_type), small and node.op_type == "Resize", large
        )
    return found


def keep_coordinates(model: ir.Model, old: Mapping[str, Sampler]) -> int:
    """Give the Resize nodes that came of `samplers` the coordinates that they had.

    Given: the converted model. Result: "asymmetric" coordinates, and of "nearest" the place below, or above where the
    size shrinks. One that does both is done in two steps, because a node has one rule.

    Raises:
        DeployError: the converter made something else of one.
    """
    made = {value.name: node for node in nodes(model, "Resize") for value in node.outputs}
    for name, sampler in old.items():
        node = made.get(name)
        if node is None:
            message = f"node {sampler.node!r} was lost when its opset was converted"
            raise DeployError(message, kind="onnx", got=sampler.node, allowed="a file of opset 11 or newer")
        node.attributes["coordinate_transformation_mode"] = ir.AttrString(
            "coordinate_transformation_mode", "asymmetric"
        )
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "ceil" if sampler.smaller else "floor")
        if sampler.smaller and sampler.larger:
            _in_two_steps(node)
    return len(old)


def _in_two_steps(node: ir.Node) -> None:
    """Let another Resize enlarge before `node` shrinks."""
    graph, scales = node.graph, constant(operand(node, 2))
    assert isinstance(graph, ir.Graph)
    if scales is None:
        raise DeployError(f"node {node.name!r} scales by what is not constant", kind="onnx", allowed="constant scales")
    up = add_constant(graph, f"{node.name}/up", np.maximum(scales, 1).astype(np.float32))
    down = add_constant(graph, f"{node.name}/down", np.minimum(scales, 1).astype(np.float32))
    attributes = {name: attribute.value for name, attribute in node.attributes.items()} | {"nearest_mode": "floor"}
    (larger,) = insert(node, "Resize", free_name(graph, f"{node.name}/larger"), [*node.inputs[:2], up], **attributes)
    node.replace_input_with(0, larger)
    node.replace_input_with(2, down)
