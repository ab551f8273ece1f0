"""The accuracy gate: int8's top-1 against float's, and which layers must stay float so that it holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from inception_deploy.errors import DeployError
from inception_deploy.progress import NONE, Progress

from .culprit import layer_errors
from .pictures import Picture, Pictures
from .quantizer import QuantizedModel, Quantizer, Recipe
from .runner import Runner
from .scheme import scheme
from .structure import WEIGHTED

FEWEST = 50
"""Labelled pictures that say anything of a drop: of 50, one is two points."""

LOOKED_AT = 8
"""Pictures that rank the layers; each layer's error is measured on the same ones."""


@dataclass(frozen=True)
class Accuracy:
    """Top-1 on labelled pictures.

    Attributes:
        right: how many were right.
        count: of how many.
    """

    right: int
    count: int

    @property
    def percent(self) -> float:
        """Top-1 in percent."""
        return 100 * self.right / self.count


@dataclass(frozen=True)
class Step:
    """One round of the gate: the layers that were float, what top-1 was lost with them so, and the layers whose tensors
    had 16 bits instead.
    """

    float_layers: tuple[str, ...]
    drop_points: float
    wide_layers: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        wide = {"wide_layers": list(self.wide_layers)} if self.wide_layers else {}
        return {"float_layers": list(self.float_layers), "drop_points": self.drop_points, **wide}


@dataclass(frozen=True)
class Gated:
    """What the gate let through.

    Attributes:
        quantized: the model that holds.
        drop_points: fp32's top-1 minus int8's, in points; negative where int8 is better.
        float32, int8: both accuracies.
        steps: the rounds, the last one the one that held.
    """

    quantized: QuantizedModel
    drop_points: float
    float32: Accuracy
    int8: Accuracy
    steps: tuple[Step, ...]


def accuracy(model: onnx.ModelProto, source: Iterable[Picture], *, threads: int = 0) -> Accuracy:
    """Top-1 of a model's first output in onnxruntime, one picture after the other.

    Raises:
        DeployError: (kind ``evaluate``) a picture has no class, or one that the model does not have; or there is none.
    """
    runner = Runner(model, threads=threads)
    right = count = 0
    for batch in runner.batches(source):
        pixels = np.stack([picture.pixels for picture in batch])
        scores: NDArray[np.float32] = next(iter(runner.run(pixels).values())).reshape(len(batch), -1)
        for picture, row in zip(batch, scores, strict=True):
            if picture.label is None or not 0 <= picture.label < row.size:
                message = f"{picture.name} has no class that the network knows"
                allowed = f"folders named 0 to {row.size - 1} or by class, or 'labels' in the .npz"
                raise DeployError(message, kind="evaluate", got=picture.label, allowed=allowed)
            right += int(row.argmax() == picture.label)
            count += 1
    if not count:
        raise DeployError("there is no picture to evaluate on", kind="evaluate", got=0, allowed="labelled pictures")
    return Accuracy(right, count)


def gate(
    quantizer: Quantizer,
    recipe: Recipe,
    evaluation: Pictures,
    max_drop: float,
    *,
    first: QuantizedModel | None = None,
    widen: bool = True,
    threads: int = 0,
    progress: Progress = NONE,
) -> Gated:
    """Quantize so that at most `max_drop` points of top-1 are lost.

    Where more are lost, the tensors of the layers whose own error is largest get 16 bits; where that is not enough,
    these layers go back to float; then twice as many: the ranking is cheap and rough, and doubling makes up for that in
    few rounds.

    Args:
        evaluation: labelled pictures, as calibration must not have seen them.
        first: the recipe's result where it is there already.
        widen: tensors may have 16 bits, where the scheme has such.

    Raises:
        DeployError: (kind ``drop``) not even with every layer in float does it hold, which only a negative limit can
            do; (kind ``evaluate``) the pictures are too few to judge by, or the float network gets none of them right.
    """
    progress.stage("evaluate")
    float32 = accuracy(quantizer.prepared, evaluation, threads=threads)
    if float32.count < FEWEST:
        message = f"{float32.count} labelled pictures in {evaluation.name} are too few to tell how much top-1 is lost"
        raise DeployError(message, kind="evaluate", got=float32.count, allowed=f"at least {FEWEST}")
    if not float32.right:
        raise DeployError(
            f"the float network has 0 % top-1 on the {float32.count} pictures in {evaluation.name}: there is nothing "
            "to lose; are its weights trained, and are the labels its classes?",
            kind="evaluate",
            got="0 % top-1",
            allowed="pictures whose classes the network was trained for",
        )
    result = first or quantizer.quantize(recipe)
    int8 = accuracy(result.model, evaluation, threads=threads)
    steps = [Step((), float32.percent - int8.percent)]
    ranking: list[str] = []
    size, widen = 1, widen and not scheme(recipe.scheme).power_of_two
    turns = itertools.cycle((True, False) if widen else (False,))
    while steps[-1].drop_points > max_drop:
        if not ranking:
            rows = layer_errors(quantizer, result, evaluation, limit=LOOKED_AT, threads=threads)
            # Layers with weights first: the others only pass on what those get wrong, or share their scales.
            ranking = [row.layer for row in sorted(rows, key=lambda row: (row.kind not in WEIGHTED, row.own_db))]
            ranking += [layer.name for layer in quantizer.structure().layers if layer.name not in ranking]
        if size >= 2 * len(ranking):
            got = f"{steps[-1].drop_points:.2f} points"
            message = f"int8 loses {got} of top-1 with every layer in float"
            raise DeployError(message, kind="drop", got=got, allowed=f"at most {max_drop} points")
        chosen = tuple(ranking[:size])
        lost, count = f"{steps[-1].drop_points:.2f} points lost", f"{len(chosen)} layers"
        wide = next(turns)
        if wide:
            progress.note(f"{lost}; what {count} read and make has 16 bits: {chosen[0]}, ...")
            layers = [layer for layer in quantizer.structure().layers if layer.name in chosen]
            tensors = {value.name or "" for layer in layers for value in (*layer.inputs, *layer.outputs)}
            changed = replace(recipe, sixteen=recipe.sixteen | tensors)
        else:
            progress.note(f"{lost}; {count} go back to float: {chosen[0]}, ...")
            changed = replace(recipe, keep_float=recipe.keep_float | set(chosen))
            size *= 2
        result = quantizer.quantize(changed)
        int8 = accuracy(result.model, evaluation, threads=threads)
        drop = float32.percent - int8.percent
        steps.append(Step((), drop, chosen) if wide else Step(chosen, drop))
    return Gated(result, steps[-1].drop_points, float32, int8, tuple(steps))
