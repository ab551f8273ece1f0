"""The network as a graph of layers in blocks, for its picture and for what a layer must move at least.

A box is a layer of the plan, or a join that no kernel computes: a concat is an address. A *cut* is a box that every
path goes through; boxes between two cuts are a block, and cuts that follow each other are a block together.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .layers import Layer

if TYPE_CHECKING:
    import onnx

_JOINS = ("Concat",)
_CHAIN = 8
"""Cuts in a row that are one block."""


@dataclass(frozen=True)
class Box:
    """A layer or a join.

    Attributes:
        name, label: what it is called, and what it is in a few letters: ``3x3 conv``.
        layer: None where nothing is computed.
        shape: of its result.
        reads: the earlier boxes, by number.
        first: it reads the network's input.
        elements: that it reads, weights among them, and writes, each once.
    """

    name: str
    label: str
    layer: Layer | None
    shape: tuple[int, ...]
    reads: tuple[int, ...]
    first: bool
    elements: int


@dataclass(frozen=True)
class Block:
    """Boxes that are drawn together, by number, in an order in which they can run."""

    title: str
    boxes: tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """All boxes, in an order in which they can run, and their blocks."""

    boxes: tuple[Box, ...]
    blocks: tuple[Block, ...]


def network_of(model: onnx.ModelProto, costs: Sequence[Mapping[str, Any]], layers: Sequence[Layer]) -> Network:
    """The graph of a plan's layers.

    Args:
        model: the float network that the plan was lowered from.
        costs: `inspect`'s ``layers``, a row a node of it, in order.
        layers: of the plan.
    """
    owner: dict[str, int] = {node: layer.number for layer in layers for node in layer.nodes}
    group: list[int | None] = []
    members: dict[int, list[int]] = {}
    for index, node in enumerate(model.graph.node):
        number = owner.get(node.name)
        if number is None and node.op_type in _JOINS:
            number = len(layers) + index
        group.append(number)
        if number is not None:
            members.setdefault(number, []).append(index)
    made = {value: index for index, node in enumerate(model.graph.node) for value in node.output}
    reads = {number: _reads(number, indices, model, made, group) for number, indices in members.items()}
    order = _order(reads)
    place = {number: position for position, number in enumerate(order)}
    weights = {row["layer"]: row["parameters"] for row in costs}
    shapes = {row["layer"]: tuple(row["shape"]) for row in costs}
    boxes: list[Box] = []
    for number in order:
        nodes = [model.graph.node[index] for index in members[number]]
        main = max(nodes, key=lambda node: weights.get(node.name, 0))
        before = tuple(sorted(place[other] for other in reads[number] if other is not None))
        taken = sum(math.prod(boxes[other].shape) for other in before)
        first = None in reads[number]
        if first:
            taken += sum(_elements(port) for port in model.graph.input)
        shape = shapes.get(nodes[-1].name, ())
        total = taken + math.prod(shape) + sum(weights.get(node.name, 0) for node in nodes)
        layer = layers[number] if number < len(layers) else None
        boxes.append(Box(layer.name if layer else main.name, label(main), layer, shape, before, first, total))
    return Network(tuple(boxes), tuple(_blocks(boxes)))


def _reads(
    number: int, indices: Iterable[int], model: onnx.ModelProto, made: Mapping[str, int], group: Sequence[int | None]
) -> dict[int | None, None]:
    """The groups that a group reads, through nodes of no group; None for the network's input."""
    inputs = {port.name for port in model.graph.input} - {weight.name for weight in model.graph.initializer}
    found: dict[int | None, None] = {}
    open_, seen = list(indices), set(indices)
    while open_:
        for value in model.graph.node[open_.pop()].input:
            source = made.get(value)
            if value in inputs:
                found[None] = None
            if source is None or source in seen:
                continue
            if group[source] is None:
                seen.add(source)
                open_.append(source)
            elif group[source] != number:
                found[group[source]] = None
    return found


def _order(reads: Mapping[int, Iterable[int | None]]) -> list[int]:
    """The groups in an order in which they can run, as near to their numbers as that allows."""
    waits = {number: {other for other in before if other is not None} for number, before in reads.items()}
    readers: dict[int, list[int]] = {}
    for number, before in waits.items():
        for other in before:
            readers.setdefault(other, []).append(number)
    ready = [number for number, before in waits.items() if not before]
    heapq.heapify(ready)
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers.get(order[-1], ()):
            waits[reader].discard(order[-1])
            if not waits[reader]:
                heapq.heappush(ready, reader)
    return order  # of groups that wait for each other, none: a picture of part of the network is still one


def _elements(port: onnx.ValueInfoProto) -> int:
    return math.prod(axis.dim_value or 1 for axis in port.type.tensor_type.shape.dim)


def label(node: onnx.NodeProto) -> str:
    """What a node is, in a few letters."""
    attributes = {a.name: a for a in node.attribute}
    kernel = "x".join(map(str, attributes["kernel_shape"].ints)) if "kernel_shape" in attributes else ""
    groups = attributes["group"].i if "group" in attributes else 1
    stride = max(attributes["strides"].ints, default=1) if "strides" in attributes else 1
    names = {"Conv": "conv" if groups == 1 else "group conv", "MaxPool": "max pool", "AveragePool": "avg pool",
             "GlobalAveragePool": "global avg", "Gemm": "linear", "MatMul": "linear"}  # fmt: skip
    name = names.get(node.op_type, node.op_type.lower())
    return " ".join(filter(None, (kernel, name, f"/{stride}" if stride > 1 else "")))


def _blocks(boxes: Sequence[Box]) -> list[Block]:
    """Runs of boxes between cuts."""
    reach, cuts = max((number for number, box in enumerate(boxes) if box.first), default=-1), []
    for number, end in enumerate(_ends(boxes)):
        if reach <= number:
            cuts.append(number)
        reach = max(reach, end)
    blocks: list[list[int]] = []
    first, chain = 0, False
    for cut in cuts:
        inner = list(range(first, cut + 1))
        if len(inner) == 1 and chain and len(blocks[-1]) < _CHAIN:
            blocks[-1] += inner
        else:
            blocks.append(inner)
            chain = len(inner) == 1
        first = cut + 1
    if first < len(boxes):
        blocks.append(list(range(first, len(boxes))))
    return [Block(title([boxes[number].name for number in inner]), tuple(inner)) for inner in blocks]


def _ends(boxes: Sequence[Box]) -> list[int]:
    """The last reader of every box; itself where there is none."""
    ends = list(range(len(boxes)))
    for number, box in enumerate(boxes):
        for other in box.reads:
            ends[other] = max(ends[other], number)
    return ends


def title(names: Sequence[str]) -> str:
    """The part that names have in common, up to a separator; else the first and the last."""
    common = names[0]
    for name in names[1:]:
        while not name.startswith(common):
            common = common[:-1]
    if common in names:  # a whole name
        return common or f"{names[0]} to {names[-1]}"
    cut = max(common.rfind(separator) for separator in "/._")
    return common[: max(cut, 0)].strip("/._") or f"{names[0]} to {names[-1]}"
