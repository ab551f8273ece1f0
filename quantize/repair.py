"""What can be done for the accuracy after training, each by itself.

equalise            scales the channels between two layers so that both layers' weights use their range
correct_bias        takes away the mean error that rounding the weights causes at a layer's output
round_adaptively    rounds each weight up or down so that the layer's output on real inputs changes least
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from inception_deploy.graph.rewrite import constant, integer, ints, operand, set_constant
from inception_deploy.progress import NONE, Progress

from .insert import weight_scales
from .integer_weights import fit_pairs, round_weight
from .pictures import Pictures
from .runner import Runner, chunked, look
from .scheme import Params, Scheme
from .structure import Structure

Array = NDArray[Any]

DAMPING = 0.01
"""Of the mean diagonal, added to a layer's second moments: inputs that never occur must not decide a rounding."""

_LIMIT = 8.0
_ROUNDS = 20
_SETTLED = 1e-3
SAMPLES = 4096
"""Windows of each layer's input that are looked at, of all pictures together."""

LARGEST = 4608
"""The most inputs of a window that are solved for."""

_BLOCK = 128


@dataclass(frozen=True)
class Repairs:
    """Switches.

    Attributes:
        equalise: cross-layer equalisation.
        bias: bias correction.
        rounding: adaptive rounding.
        reconstruct: each layer is made up for what those before it did (`reconstruct`), which includes the other two.
        images: how many pictures the last three look at.
    """

    equalise: bool = False
    bias: bool = False
    rounding: bool = False
    reconstruct: bool = False
    images: int = 16

    @property
    def needs_inputs(self) -> bool:
        """Whether pictures are needed."""
        return self.bias or self.rounding or self.reconstruct


# -- equalisation -----------------------------------------------------------------------------------------------------


def equalise(model: ir.Model, structure: Structure) -> int:
    """Cross-layer equalisation, in place; gives how many pairs of layers were changed.

    Given: ``Conv2(Relu(Conv1(x)))`` with no other reader between. A factor ``f > 0`` a channel passes through the Relu:
    dividing Conv1's row and bias by it and multiplying Conv2's column with it changes nothing in float. Result: the
    largest weights of row and column are equal, ``f = r1 / sqrt(r1 r2)``, at most 8 either way. A Clip is no pair: its
    bound is the same for every channel.

    Repeated until the factors settle, because a layer is the second of one pair and the first of the next.
    """
    found = list(pairs(structure))
    for _ in range(_ROUNDS):
        change = max((_equalise(first, second) for first, second in found), default=0.0)
        if change < _SETTLED:
            break
    return len(found)


def pairs(structure: Structure) -> Iterable[tuple[ir.Node, ir.Node]]:
    """The pairs of nodes that `equalise` scales the channels between."""
    reads = {layer.inputs[0]: layer for layer in structure.layers if layer.kind == "linear"}
    users: dict[ir.Value, int] = {}
    for layer in structure.layers:
        for value in layer.inputs:
            users[value] = users.get(value, 0) + 1
    for layer in structure.layers:
        output = layer.outputs[0]
        if layer.kind != "linear" or any(node.op_type != "Relu" for node in layer.nodes[1:]):
            continue
        second = reads.get(output)
        if second is None or users[output] != 1 or len(list(output.uses())) != 1 or output.is_graph_output():
            continue
        if layer.nodes[0].op_type == second.nodes[0].op_type and _plain(second.nodes[0]):
            yield layer.nodes[0], second.nodes[0]


def _plain(node: ir.Node) -> bool:
    """Whether each input channel meets weights of its own: no groups, or depthwise with one output a channel."""
    weight, group = constant(node.inputs[1]), integer(node, "group", 1)
    return weight is not None and (group == 1 or (group == len(weight) and weight.shape[1] == 1))


def _equalise(first: ir.Node, second: ir.Node) -> float:
    """One pair; gives how far the factors are from 1."""
    w1, w2 = constant(first.inputs[1]), constant(second.inputs[1])
    assert w1 is not None
    assert w2 is not None
    depthwise = integer(second, "group", 1) > 1
    rows = np.abs(w1).reshape(len(w1), -1).max(axis=1).astype(np.float64)
    columns = np.abs(w2).max(axis=tuple(range(1, w2.ndim)) if depthwise else (0, *range(2, w2.ndim))).astype(np.float64)
    usable = (rows > 0) & (columns > 0)
    factor = np.sqrt(np.where(usable, rows, 1.0) / np.where(usable, columns, 1.0))
    # Powers of two would be exact; the nearest float32 costs one rounding of a weight, far below int8's step.
    factor = np.clip(factor, 1 / _LIMIT, _LIMIT).astype(np.float32)
    set_constant(first, 1, "weight", w1 / factor.reshape(-1, *[1] * (w1.ndim - 1)))
    bias = constant(operand(first, 2))
    if bias is not None:
        set_constant(first, 2, "bias", bias / factor)
    shape = (-1, *[1] * (w2.ndim - 1)) if depthwise else (1, -1, *[1] * (w2.ndim - 2))
    set_constant(second, 1, "weight", w2 * factor.reshape(shape))
    return float(np.abs(np.log(factor)).max())


# -- what the layers read ---------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What a linear layer's inputs were like.

    Attributes:
        mean: of each weight's input, (groups, K): K is a group's inputs times the window.
        moments: the mean of ``x x^T``, float32 (groups, K, K); None where only the mean was wanted, or K is too large.
    """

    mean: NDArray[np.float64]
    moments: NDArray[np.float32] | None
    count: int = 0


def inputs_of(
    model: onnx.ModelProto,
    structure: Structure,
    source: Pictures,
    repairs: Repairs,
    *,
    threads: int = 0,
    progress: Progress = NONE,
) -> dict[str, Seen]:
    """The moments of the inputs of every layer with weights in the float model, by the name of the node that has them.

    A fixed number of windows of each picture is taken, the same on every run.
    """
    by_input: dict[ir.Value, list[ir.Node]] = {}
    for layer in structure.layers:
        if layer.weighted is not None and layer.weighted.inputs[0] is not None:
            by_input.setdefault(layer.weighted.inputs[0], []).append(layer.weighted)
    readers = {value.name or "": users for value, users in by_input.items()}
    runner = Runner(model, list(readers), threads=threads)
    chunks = chunked(by_input)
    result: dict[str, Seen] = {}
    done = 0
    for batch in runner.batches(source):
        for name, values in look(runner, batch, chunks):
            for node in readers[name]:
                patches = patches_of(node, values, max(16, SAMPLES // repairs.images))
                _remember(result, node.name or "", patches, repairs.rounding)
        done += len(batch)
        progress.update(min(done, repairs.images), repairs.images)
        if done >= repairs.images:
            break
    for seen in result.values():
        seen.mean /= seen.count
        if seen.moments is not None:
            seen.moments /= seen.count
    return result


def _remember(result: dict[str, Seen], name: str, patches: NDArray[np.float32], moments: bool) -> None:
    groups, size, count = patches.shape
    if name not in result:
        square = np.zeros((groups, size, size), np.float32) if moments and size <= LARGEST else None
        result[name] = Seen(np.zeros((groups, size)), square)
    seen = result[name]
    seen.count += count
    seen.mean += patches.sum(axis=2, dtype=np.float64)
    if seen.moments is not None:
        seen.moments += patches @ patches.transpose(0, 2, 1)


def patches_of(node: ir.Node, x: Array, samples: int) -> NDArray[np.float32]:
    """Windows of a layer's input, (groups, K, at most about `samples`), spread evenly over all places."""
    if node.op_type == "Gemm":
        return np.expand_dims(x.T, 0)
    weight = constant(node.inputs[1])
    assert weight is not None
    group, kernel = integer(node, "group", 1), weight.shape[2:]
    top, left, bottom, right = ints(node, "pads", [0] * 4)
    dilations, strides = ints(node, "dilations", [1, 1]), ints(node, "strides", [1, 1])
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    views = views[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    count, channels, rows, columns = views.shape[:4]
    places = np.arange(0, count * rows * columns, max(1, count * rows * columns // samples))
    n, place = np.divmod(places, rows * columns)
    i, j = np.divmod(place, columns)
    picked = views[n, :, i, j]  # (samples, channels, KH, KW)
    flat = picked.reshape(len(places), group, channels // group * math.prod(kernel))
    return np.ascontiguousarray(flat.transpose(1, 2, 0))


# -- bias -------------------------------------------------------------------------------------------------------------


def correct_bias(
    structure: Structure,
    params: Mapping[ir.Value, Params],
    scheme: Scheme,
    seen: Mapping[str, Seen],
    rounded: Mapping[str, NDArray[np.int8]],
) -> int:
    """Subtract from each bias the mean error of its layer's rounded weights, ``(W_q - W) E[x]``; in place.

    Only the weights' own error is taken, with the float model's inputs: no layer answers for what those before it did.
    A bias may only change while the scales are settled, so layers without one get none. Gives how many changed.
    """
    fired = 0
    for layer in structure.layers:
        node = layer.weighted
        bias = constant(operand(node, 2)) if node is not None else None
        if node is None or bias is None or node.name not in seen:
            continue
        weight = constant(node.inputs[1])
        assert weight is not None
        scale = weight_scales(layer, params, scheme)
        q = rounded.get(layer.name, round_weight(weight, scale, scheme))
        column = scale.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
        mean = seen[node.name or ""].mean
        error = (q * column - weight).reshape(len(mean), len(weight) // len(mean), -1)
        shift = np.einsum("gok,gk->go", error, mean).reshape(-1)
        set_constant(node, 2, "bias", (bias - shift).astype(np.float32))
        fired += 1
    return fired


# -- rounding ---------------------------------------------------------------------------------------------------------


Rounded = dict[str, tuple[NDArray[np.float32], NDArray[np.int8]]]
"""By the name of their node, the scale that a layer's weights were rounded for, and the weights."""


def round_adaptively(
    structure: Structure,
    params: Mapping[ir.Value, Params],
    scheme: Scheme,
    seen: Mapping[str, Seen],
    known: Rounded | None = None,
) -> dict[str, NDArray[np.int8]]:
    """Round each layer's weights so that ``E |(W_q - W) x|^2`` is small, not ``|W_q - W|``.

    One weight after the other is rounded to the nearest, and the weights not yet rounded move so as to make up for its
    error as well as they can; how well is in the inverse of the second moments ``E[x x^T]`` (the Hessian of the error).
    A row is left as rounding to the nearest has it where that is better after all.

    Args:
        known: what was rounded before for inputs like these, and is taken where its scale is the same; in place.

    Returns:
        int8 weights by the name of their node; layers whose windows are too large to be solved are left out.
    """
    result, known = {}, {} if known is None else known
    for layer in structure.layers:
        found = seen.get(layer.weighted.name or "") if layer.weighted is not None else None
        if layer.weighted is None or found is None or found.moments is None:
            continue
        weight = constant(layer.weighted.inputs[1])
        assert weight is not None
        scale = weight_scales(layer, params, scheme)
        if layer.name not in known or not np.array_equal(known[layer.name][0], scale):
            groups = len(found.moments)
            rows = weight.reshape(groups, len(weight) // groups, -1).astype(np.float64)
            steps = scale.astype(np.float64).reshape(groups, -1)
            solved = round_rows(rows, steps, found.moments.astype(np.float64), scheme.weight_limits)
            q = solved.reshape(weight.shape).astype(np.int8)
            known[layer.name] = scale, fit_pairs(q) if scheme.pairs else q
        result[layer.name] = known[layer.name][1]
    return result


def round_rows(
    rows: NDArray[np.float64], steps: NDArray[np.float64], moments: NDArray[np.float64], limits: tuple[int, int]
) -> NDArray[np.float64]:
    """(groups, O, K) weights as whole numbers of their row's step, (groups, O); moments are (groups, K, K)."""
    nearest = np.clip(np.rint(rows / steps[:, :, None]), *limits)
    size = rows.shape[2]
    diagonal = np.trace(moments, axis1=1, axis2=2) / size
    # Inputs that never occur decide nothing: any rounding is as good, and the nearest is kept below.
    damped = moments + np.where(diagonal > 0, DAMPING * diagonal, 1.0)[:, None, None] * np.eye(size)
    # The upper factor of the inverse holds, row by row, the inverse of what is left after each weight is settled.
    upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    left = rows.copy()
    q = np.empty_like(rows)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        errors = np.empty((*rows.shape[:2], stop - start))
        for index in range(start, stop):
            q[:, :, index] = np.clip(np.rint(left[:, :, index] / steps), *limits)
            error = (left[:, :, index] - q[:, :, index] * steps) / upper[:, None, index, index]
            left[:, :, index:stop] -= error[:, :, None] * upper[:, None, index, index:stop]
            errors[:, :, index - start] = error
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]

    def cost(candidate: NDArray[np.float64]) -> NDArray[np.float64]:
        error = candidate * steps[:, :, None] - rows
        return np.asarray(((error @ moments) * error).sum(axis=2))

    return np.asarray(np.where((cost(q) < cost(nearest))[:, :, None], q, nearest))
