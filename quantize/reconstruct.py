"""Layers made up for what those before them did, one after the other.

A layer of the float network gives ``Y = W X + b`` for the inputs ``X`` that it sees there. In the integer network it
sees ``X^``, with the errors of all layers before it. So its weights are first moved to where they undo as much of that
as linear weights can, and then rounded adaptively, for the inputs that they will really be multiplied with:

    W' = W + (W X - W X^) X^T (X^ X^T + d I)^-1             least squares, held to W by the damping d
    W_q = round(W'), each error made up for by the weights that are not yet rounded (`repair.round_rows`)
    b'  = mean(Y) - W_q mean(X^)

The integer network is executed exactly (`integer_network`), step by step on a few pictures, each with the weights and
biases found so far. Layers whose windows are too large to be solved keep their weights, pooled ones all they have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from inception_deploy.graph.rewrite import constant, operand
from inception_deploy.progress import NONE, Progress

from . import arith
from .integer_network import read
from .integer_steps import IntegerStep
from .integer_weights import fit_pairs
from .pictures import Picture, Pictures
from .repair import LARGEST, SAMPLES, Repairs, patches_of, round_rows
from .runner import Runner, chunked, look
from .scheme import Scheme
from .step_weights import Linear
from .structure import Layer, Structure

Array = NDArray[Any]

HELD = 1.0
"""Of the mean diagonal of the inputs' second moments: how strongly moved weights are held to what they were. A few
pictures tell the strongest directions; at a hundredth of this EfficientNet-Lite0 loses 5 to 7 dB on other pictures.
"""


def reconstruct(
    model: onnx.ModelProto,
    draft: onnx.ModelProto,
    structure: Structure,
    scheme: Scheme,
    source: Pictures,
    repairs: Repairs,
    *,
    threads: int = 0,
    progress: Progress = NONE,
) -> tuple[dict[str, NDArray[np.int8]], dict[str, NDArray[np.float32]]]:
    """New weights and biases.

    Args:
        model: the float network, with the structure `structure`.
        draft: what `insert.insert` made of it.
        repairs: how many pictures are looked at.

    Returns:
        int8 weights by the name of their layer, in the scales that they have in `draft`; float32 biases by the same.
    """
    pictures = list(islice(source, repairs.images))
    samples = max(16, SAMPLES // max(1, len(pictures)))
    layers = {layer.name: layer for layer in structure.layers if layer.kind == "linear"}
    targets = _targets(model, layers, pictures, samples, threads)
    network = read(draft)
    left = Counter(tensor.name for step in network.steps for tensor in step.inputs)
    values: list[dict[str, Array]] = [
        {**network.constants, network.inputs[0]: picture.pixels[None]} for picture in pictures
    ]
    weights, biases = {}, {}
    for done, step in enumerate(network.steps):
        layer = layers.get(step.name)
        if step.kind == "linear" and layer is not None and step.linear is not None:
            x = step.inputs[0]
            seen = [arith.dequantize(each[x.name], x.params.scale, x.params.zero) for each in values]
            inputs = np.concatenate([patches_of(layer.nodes[0], one, samples) for one in seen], axis=2)
            step, weights[layer.name], biases[layer.name] = _solve(step, layer, scheme, inputs, targets[layer.name])
        for each in values:
            network.execute(step, each)
        for tensor in step.inputs:
            left[tensor.name] -= 1
            if not left[tensor.name]:
                for each in values:
                    del each[tensor.name]
        progress.update(done + 1, len(network.steps))
    return weights, biases


def _targets(
    model: onnx.ModelProto, layers: Mapping[str, Layer], pictures: list[Picture], samples: int, threads: int
) -> dict[str, NDArray[np.float32]]:
    """What each layer gives in the float network at the places that are looked at, (groups, O / groups, places)."""
    readers: dict[ir.Value, list[Layer]] = {}
    for layer in layers.values():
        readers.setdefault(layer.inputs[0], []).append(layer)
    by_name = {value.name or "": users for value, users in readers.items()}
    runner = Runner(model, list(by_name), threads=threads)
    result: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layers}
    for picture in pictures:
        for value, x in look(runner, [picture], chunked(readers)):
            for layer in by_name[value]:
                seen = patches_of(layer.nodes[0], x, samples)
                result[layer.name].append(_float_rows(layer).astype(np.float32) @ seen)
    made = {}
    for name, layer in layers.items():
        rows = np.concatenate(result[name], axis=2)
        bias = constant(operand(layer.nodes[0], 2))
        made[name] = rows if bias is None else rows + bias.reshape(rows.shape[0], -1, 1)
    return made


def _float_rows(layer: Layer) -> NDArray[np.float64]:
    """A layer's weights, (groups, O / groups, K)."""
    node = layer.nodes[0]
    weight = constant(node.inputs[1])
    assert weight is not None
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    return np.asarray(weight.reshape(groups, len(weight) // groups, -1), np.float64)


def _solve(
    step: IntegerStep, layer: Layer, scheme: Scheme, inputs: NDArray[np.float32], target: NDArray[np.float32]
) -> tuple[IntegerStep, NDArray[np.int8], NDArray[np.float32]]:
    """The step with its new numbers, and the weights and the bias that are to be inserted."""
    assert step.linear is not None
    rows, scale = _float_rows(layer), step.linear.scale.astype(np.float64)
    groups, _, size = rows.shape
    q = step.linear.weight.reshape(rows.shape).astype(np.float64)
    steps = scale.reshape(groups, -1)
    bias = constant(operand(layer.nodes[0], 2))
    own = np.zeros(scale.shape) if bias is None else bias.astype(np.float64)
    mean = inputs.mean(axis=2, dtype=np.float64)
    if size <= LARGEST:
        count = inputs.shape[2]
        moments = (inputs @ inputs.transpose(0, 2, 1)).astype(np.float64) / count
        missing = target - own.reshape(groups, -1, 1) - rows @ inputs
        # A mean is the bias's affair, not the weights'.
        missing -= missing.mean(axis=2, keepdims=True)
        diagonal = np.trace(moments, axis1=1, axis2=2) / size
        damped = moments + np.where(diagonal > 0, HELD * diagonal, 1.0)[:, None, None] * np.eye(size)
        pull = missing @ inputs.transpose(0, 2, 1) / count
        moved = rows + np.linalg.solve(damped, pull.transpose(0, 2, 1)).transpose(0, 2, 1)
        q = round_rows(moved, steps, moments, scheme.weight_limits)
        if scheme.pairs:
            whole_rows = q.reshape(step.linear.weight.shape).astype(np.int8)
            q = fit_pairs(whole_rows).reshape(rows.shape).astype(np.float64)
    real = q * steps[:, :, None]
    new = (target.mean(axis=2, dtype=np.float64) - np.einsum("gok,gk->go", real, mean)).reshape(-1)
    weight = q.reshape(step.linear.weight.shape).astype(np.int8)
    whole = None if bias is None else np.rint(new / (np.float32(step.inputs[0].params.scale) * scale)).astype(np.int32)
    return replace(step, linear=Linear(weight, step.linear.scale, whole)), weight, new.astype(np.float32)
