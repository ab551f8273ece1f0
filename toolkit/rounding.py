"""What rounding alone does to the outputs of a network, measured: the scale on which a difference is judged that is
larger than the fixed tolerance.

The same ONNX runs again with its weights and inputs half an ulp off, each in its own type: one number of float32 in
four moves to the next one up and one in four to the next one down, a number of float16 likewise among those of float16.
How far the outputs move is what any two right executions may differ by, in size: a deep network multiplies it on one
input and damps it on another. The draws are seeded, so a measurement can be repeated.

An int8 network rounds where floats become integers, and one byte more or less is far more than an ulp. Values that are
computed in float between its integers (`islands`) are moved by some ulps instead, so that bytes that lie next to a tie
flip as they may in any right execution; what passes no such island does not move at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

import inception_deploy.verify as verify

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Feeds: TypeAlias = "Mapping[str, NDArray[Any]]"
    Outputs: TypeAlias = "Sequence[NDArray[Any]]"
    Run: TypeAlias = "Callable[[onnx.ModelProto, dict[str, NDArray[Any]]], Outputs]"

DRAWS = 3
"""How often the weights are drawn: the noise is the largest of so many. Each draw is one run in onnxruntime."""

ISLAND_ULPS = 16
"""How far a value of float32 between integers moves: enough for a draw to flip some of the bytes next to a tie."""

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)

_RANGES = {
    **dict.fromkeys(("Sigmoid", "Softmax", "HardSigmoid"), 1.0),
    **dict.fromkeys(("Tanh", "Softsign", "Erf", "Sin", "Cos"), 2.0),
}
"""The widths of the ranges of operators that have one."""

_MOVES = frozenset(
    ("Identity", "Cast", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split",
     "Dropout", "Concat", "QuantizeLinear", "DequantizeLinear", "MaxPool", "GlobalMaxPool", "AveragePool",
     "GlobalAveragePool", "DepthToSpace", "SpaceToDepth", "Expand", "Tile")
)  # fmt: skip
"""Operators whose results lie within the range of what they read."""


@dataclass(frozen=True)
class Nature:
    """What an output is.

    Attributes:
        span: the width of its range; None where it has none.
        scores: for class numbers, the name of the tensor that they were chosen from, and the axis they count along.
    """

    span: float | None = None
    scores: tuple[str, int] | None = None


class Rounding:
    """Measures when it is asked for the first time, and remembers.

    Args:
        model: the reference, or what is nearest to it: its weights and graph are not changed.
        feeds: the arrays of every input, by the name of the set of inputs.
        run: executes a model.
        islands: of an int8 model, the tensors that are computed in float and become integers again.
        seed: of the draws.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        feeds: Mapping[str, Feeds],
        *,
        run: Run = verify.run_onnx,
        islands: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.natures = natures(model)
        self._shown = list(dict.fromkeys(nature.scores[0] for nature in self.natures if nature.scores is not None))
        self._model = _with_outputs(model, self._shown) if self._shown else model
        self._feeds, self._run, self._islands, self._seed = feeds, run, islands, seed
        self._before: dict[str, Outputs] = {}
        self._measured: dict[str, list[float]] = {}

    def noise(self, name: str) -> list[float]:
        """How far rounding moves each output on the inputs `name`: of quantities, relative to the largest; of integers,
        the share that changes; 1 where an output is finite no more.
        """
        return self._noise(name)[: len(self.natures)]

    def scores(self, name: str, index: int, *, measured: bool) -> verify.Scores | None:
        """What output `index` was chosen from on the inputs `name`, with its noise where `measured` asks for it; None
        where the output is no class number.
        """
        found = self.natures[index].scores
        if found is None:
            return None
        place = len(self.natures) + self._shown.index(found[0])
        return verify.Scores(self._outputs(name)[place], found[1], self._noise(name)[place] if measured else None)

    def _noise(self, name: str) -> list[float]:
        if name not in self._measured:
            before = self._outputs(name)
            largest = [0.0] * len(before)
            for draw in range(DRAWS):
                seed = self._seed + draw
                feeds = dict(self._feeds[name]) if self._islands is not None else moved_feeds(self._feeds[name], seed)
                after = self._run(perturbed(self._model, seed, self._islands), feeds)
                moved = [_moved(a, b) for a, b in zip(before, after, strict=True)]
                largest = [max(pair) for pair in zip(largest, moved, strict=True)]
            self._measured[name] = largest
        return self._measured[name]

    def _outputs(self, name: str) -> Outputs:
        if name not in self._before:
            self._before[name] = self._run(self._model, dict(self._feeds[name]))
        return self._before[name]


def perturbed(model: onnx.ModelProto, seed: int, islands: Sequence[str] | None = None) -> onnx.ModelProto:
    """A copy of `model` whose weights are half an ulp off; of one with `islands`, only those values are moved.

    A weight moves to a neighbour of its own type with the probability 1/2. Zeros stay, since a pruned weight is exact,
    and so do numbers of which there is only one in a tensor: scales, bounds and exponents.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    random = np.random.default_rng(seed)
    if islands is not None:
        _move_islands(result.graph, islands, random)
        return result
    inside = [attribute.t for node in result.graph.node for attribute in node.attribute if node.op_type == "Constant"]
    for tensor in [*result.graph.initializer, *inside]:
        if tensor.data_type in _FLOATS:
            values = numpy_helper.to_array(tensor)
            if values.size > 1:
                tensor.CopyFrom(numpy_helper.from_array(_half_an_ulp_off(values, random), tensor.name))
    return result


def moved_feeds(feeds: Feeds, seed: int) -> dict[str, NDArray[Any]]:
    """`feeds` half an ulp off; integers as they are."""
    random = np.random.default_rng((seed, 1))
    return {
        name: _half_an_ulp_off(np.ascontiguousarray(x), random) if x.dtype.kind == "f" else x
        for name, x in feeds.items()
    }


def _half_an_ulp_off(values: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """By the bits: of every IEEE type and of bfloat16, the next number away from zero is the next integer."""
    bits = values.view(f"u{values.itemsize}").copy()
    draw = random.integers(0, 4, bits.shape, np.uint8)
    moves = np.isfinite(values) & (values != 0)
    step = bits.dtype.type(1)
    np.add(bits, step, out=bits, where=moves & (draw == 0))
    np.subtract(bits, step, out=bits, where=moves & (draw == 1))
    moved = bits.view(values.dtype)
    return np.where(np.isfinite(moved), moved, values)


def _move_islands(graph: onnx.GraphProto, islands: Sequence[str], random: np.random.Generator) -> None:
    """Multiply each island by a number next to 1; its readers read the product."""
    outputs = {value.name for value in graph.output}
    nodes = list(graph.node)
    del graph.node[:]
    renamed: dict[str, str] = {}
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        graph.node.append(node)
        for name in [name for name in node.output if name in islands and name not in outputs]:
            factor, renamed[name] = f"{name}/ulps", f"{name}/moved"
            ulps = np.float32(random.choice([-ISLAND_ULPS, ISLAND_ULPS])) * np.finfo(np.float32).eps
            graph.initializer.append(numpy_helper.from_array(np.asarray(1 + ulps, np.float32), factor))
            graph.node.append(helper.make_node("Mul", [name, factor], [renamed[name]], name=renamed[name]))


def _moved(before: NDArray[Any], after: NDArray[Any]) -> float:
    if before.shape != after.shape:
        return 1.0
    if before.dtype.kind in "biu":
        return float((before != after).mean()) if before.size else 0.0
    a, b = before.astype(np.float64), after.astype(np.float64)
    finite = np.isfinite(a)
    if not finite.any() or not np.isfinite(b[finite]).all():
        return float(finite.any())
    scale = float(np.abs(a[finite]).max())
    moved = float(np.abs(a[finite] - b[finite]).max())
    return moved / scale if scale > 0 else float(moved > 0)


def natures(model: onnx.ModelProto) -> list[Nature]:
    """What each output of `model` is, as far as its graph tells."""
    makers = {name: node for node in model.graph.node for name in node.output}
    return [Nature(_span(value.name, makers), _scores(value.name, makers)) for value in model.graph.output]


def _span(name: str, makers: Mapping[str, onnx.NodeProto]) -> float | None:
    """The width of a tensor's range, looked for through operators that keep it."""
    widths = set()
    todo, seen = [name], set()
    while todo:
        node = makers.get(todo.pop())
        if node is None:
            return None
        if node.output[0] in seen:
            continue
        seen.add(node.output[0])
        if node.op_type in _RANGES:
            widths.add(_RANGES[node.op_type])
        elif node.op_type in _MOVES:
            todo += list(node.input) if node.op_type == "Concat" else [node.input[0]]
        else:
            return None
    return max(widths)


def _scores(name: str, makers: Mapping[str, onnx.NodeProto]) -> tuple[str, int] | None:
    """What class numbers were chosen from, looked for through casts; None where they are none, or were moved since."""
    node = makers.get(name)
    while node is not None and node.op_type in ("Cast", "Identity"):
        name = node.input[0]
        node = makers.get(name)
    if node is None or (node.op_type == "TopK" and name == node.output[0]):
        return None
    if node.op_type not in ("ArgMax", "ArgMin", "TopK"):
        return None
    default = -1 if node.op_type == "TopK" else 0
    return node.input[0], next((a.i for a in node.attribute if a.name == "axis"), default)


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """`model` with more outputs; names that are outputs or inputs already are shown through an Identity."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for name in names:
        result.graph.node.append(helper.make_node("Identity", [name], [f"{name}/shown"], name=f"{name}/shown"))
        result.graph.output.append(helper.make_empty_tensor_value_info(f"{name}/shown"))
    return result
