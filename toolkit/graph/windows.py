"""The pass that gives every window explicit pads, so that nothing after it needs to know `auto_pad` or `ceil_mode`.

Both are rules that tools read differently (onnx's shape inference counts a ceil_mode pool's last window where it lies
in the padding altogether, onnxruntime and torch do not), and numbers of pads are none. What is written here is
onnxruntime's reading, because it is what a user's file is held to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from inception_deploy.graph.rewrite import add_constant, insert, integer, ints, operand, shape, text
from inception_deploy.graph.skeleton import check

POOLS = ("AveragePool", "LpPool", "MaxPool")
SAME = ("SAME_UPPER", "SAME_LOWER")


class Window(NamedTuple):
    """One axis: the size of what it slides over, its stride, and its extent with the gaps of its dilation."""

    size: int
    stride: int
    extent: int


def explicit_windows(model: ir.Model) -> int:
    """Write `auto_pad`, `ceil_mode` and ConvTranspose's `output_shape` as pads.

    Given: a Conv, ConvTranspose or pool over x with these attributes, x's sizes known. Result: the same with `pads`.
    Algebra: see `same_pads`, `ceil_pads` and `_transposed`. A pool that counts its padding but not what ceil_mode adds
    to it reads ``Pad(x)``, and its own pads are only what was added. Every shape is inferred again.
    """
    fired = 0
    while found := _ready(model):
        for node in found:
            _explicit(node)
        fired += len(found)
        check(model)
    return fired


def same_pads(mode: str, axes: Sequence[Window]) -> list[int]:
    """The pads of SAME_UPPER or SAME_LOWER: ``out = ceil(size / stride)``, an odd one at the end, or at the begin."""
    totals = [max(0, (-(-a.size // a.stride) - 1) * a.stride + a.extent - a.size) for a in axes]
    return _distributed(totals, more_at_end=mode == "SAME_UPPER")


def ceil_pads(axes: Sequence[Window], pads: Sequence[int]) -> list[int]:
    """What to add to the end's pads so that rounding down gives as many windows as ceil_mode does.

    A window counts that starts inside the input or the padding before it; one that starts in the padding behind does
    not, whatever it overlaps.
    """
    added = []
    for axis, begin, end in zip(axes, pads, pads[len(axes) :], strict=False):
        count = -(-(axis.size + begin + end - axis.extent) // axis.stride) + 1
        if (count - 1) * axis.stride >= axis.size + begin:
            count -= 1
        added.append(max(0, (count - 1) * axis.stride + axis.extent - axis.size - begin - end))
    return added


def _ready(model: ir.Model) -> list[ir.Node]:
    """The nodes to change whose inputs have their final shapes: no ceil_mode pool comes before them."""
    unsure: set[ir.Value] = set()
    found = []
    for node in model.graph:
        doubtful = any(value in unsure for value in node.inputs if value is not None)
        implicit = node.domain == "" and _is_implicit(node)
        if implicit and not doubtful and (_sizes(node) is not None or text(node, "auto_pad", "NOTSET") == "VALID"):
            found.append(node)
        if doubtful or (implicit and integer(node, "ceil_mode", 0)):
            unsure.update(node.outputs)
    return found


def _is_implicit(node: ir.Node) -> bool:
    names = ("auto_pad", "output_shape") if node.op_type in ("Conv", "ConvTranspose") else ("auto_pad",)
    asked = node.op_type in ("Conv", "ConvTranspose", *POOLS) and bool(_kernel(node))
    return asked and (any(name in node.attributes for name in names) or bool(integer(node, "ceil_mode", 0)))


def _kernel(node: ir.Node) -> tuple[int, ...]:
    """The window's sizes; none where they are unknown."""
    weight = shape(operand(node, 1)) if node.op_type not in POOLS else None
    return tuple(ints(node, "kernel_shape", weight[2:] if weight else ()))


def _sizes(node: ir.Node) -> list[int] | None:
    """Those of the axes that the window slides over, where all are known."""
    x = operand(node, 0)
    sizes = [] if x is None or x.shape is None else [size for size in x.shape[2:] if isinstance(size, int)]
    return sizes if len(sizes) == len(_kernel(node)) else None


def _axes(node: ir.Node) -> list[Window]:
    kernel = _kernel(node)
    strides, dilations = ints(node, "strides", [1] * len(kernel)), ints(node, "dilations", [1] * len(kernel))
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    return [Window(*axis) for axis in zip(_sizes(node) or [0] * len(kernel), strides, extents, strict=True)]


def _explicit(node: ir.Node) -> None:
    axes, mode = _axes(node), text(node, "auto_pad", "NOTSET")
    pads = ints(node, "pads", [0] * 2 * len(axes)) if mode == "NOTSET" else [0] * 2 * len(axes)
    if node.op_type == "ConvTranspose":
        pads = _transposed(node, axes, mode, pads)
    elif mode in SAME:  # of a pool without the gaps of its dilation, whose output then is smaller than the rule says
        plain = [axis._replace(extent=size) for axis, size in zip(axes, _kernel(node), strict=True)]
        pads = same_pads(mode, plain if node.op_type in POOLS else axes)
    if integer(node, "ceil_mode", 0):
        added = ceil_pads(axes, pads)
        if any(added) and any(pads) and node.op_type == "AveragePool" and integer(node, "count_include_pad", 0):
            _pad_before(node, pads)
            pads = [0] * len(pads)
        if not any(pads):  # what is added is never counted
            node.attributes.pop("count_include_pad", None)
        pads = [*pads[: len(axes)], *(a + b for a, b in zip(pads[len(axes) :], added, strict=True))]
    for name in ("auto_pad", "ceil_mode", "output_shape"):
        node.attributes.pop(name, None)
    node.attributes["pads"] = ir.AttrInt64s("pads", pads)


def _transposed(node: ir.Node, axes: list[Window], mode: str, pads: list[int]) -> list[int]:
    """The pads of a transposed convolution that give a wanted size: `output_shape`, or SAME's ``size * stride``.

    It makes ``stride * (size - 1) + extent + output_padding`` places, of which the pads are cut off. Where fewer than
    wanted are made, `output_padding` grows for an `output_shape`, and SAME makes as many as there are.
    """
    wanted = stated = ints(node, "output_shape")[-len(axes) :]
    if not stated and mode in SAME:
        wanted = [axis.size * axis.stride for axis in axes]
    if not wanted:
        return pads
    beyond = ints(node, "output_padding", [0] * len(axes))
    made = [a.stride * (a.size - 1) + a.extent + more for a, more in zip(axes, beyond, strict=True)]
    missing = [max(0, size - count) for size, count in zip(wanted, made, strict=True)]
    if stated and any(missing):
        grown = [more + lack for more, lack in zip(beyond, missing, strict=True)]
        node.attributes["output_padding"] = ir.AttrInt64s("output_padding", grown)
    totals = [max(0, count - size) for size, count in zip(wanted, made, strict=True)]
    return _distributed(totals, more_at_end=mode == "SAME_UPPER")


def _distributed(totals: list[int], *, more_at_end: bool) -> list[int]:
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return [*small, *large] if more_at_end else [*large, *small]


def _pad_before(node: ir.Node, pads: list[int]) -> None:
    """Let a Pad with zeros do the padding of `node`."""
    half = len(pads) // 2
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    sizes = np.asarray([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    given = add_constant(graph, f"{node.name}/pads", sizes)
    (padded,) = insert(node, "Pad", f"{node.name}/pad", [node.inputs[0], given])
    node.replace_input_with(0, padded)
