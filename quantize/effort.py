"""How to quantize a network, found by measuring: no default is right for all of them.

A part of the calibration pictures is held back. Each candidate recipe is calibrated on the rest, and its outputs on the
part held back are compared with the float network's: signal over quantization noise, in decibels, over all outputs.
One thing is changed at a time, in the order of `_questions`, and kept where it gains enough (`WORTH`, `SLOWER`): so a
candidate differs from the best before it in one respect, and a recipe that is simpler wins where it is as good.

    fast      nothing is measured: ranges by least squared error, no repairs
    normal    bias correction, equalisation, the method of ranges, scales of their own for concats and average pools,
              the whole range of weights where the scheme keeps to less, adaptive rounding
    best      16 bits for a few tensors, and reconstruction: each layer made up for what those before it did
              (`reconstruct`)

Candidates run in onnxruntime, whose float graph rounds the ties of powers of two to even: all of them alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from inception_deploy.errors import UsageError, nearest
from inception_deploy.graph.cost import cost
from inception_deploy.progress import NONE, Progress

from .calibrate import Ranges
from .pictures import Picture, Pictures
from .quantizer import QuantizedModel, Quantizer, Recipe
from .ratio import Ratio
from .runner import Runner
from .scheme import scheme

Effort = Literal["fast", "normal", "best"]

EFFORTS: tuple[Effort, ...] = ("fast", "normal", "best")

EVERY = 4
"""One picture of so many is held back."""

FEWEST, MOST = 2, 32
"""Pictures held back that say anything, and so many that more say little."""

METHODS_ASKED = ("minmax", "percentile")
"""Entropy takes the longest to choose by, and was the best nowhere (docs/quantization.md)."""

WORK = 50e9
"""Multiply-adds of one look at the pictures held back: a large network is judged on fewer of them, 8 at least."""

WORTH, SLOWER = 0.1, 1.0
"""Decibels that a change must gain, and that one must gain by which the compiled network is slower: it rounds once
more, multiplies more slowly, or has numbers of 16 bits.
"""

WIDE_ASKED = (1, 2, 4, 8)
"""How many tensors, with those that share their scales, are given 16 bits."""


@dataclass(frozen=True)
class Trial:
    """One candidate.

    Attributes:
        candidate: what it changed, in words.
        sqnr_db: at the outputs, on the pictures held back.
        kept: it gained enough over the best before it.
    """

    candidate: str
    sqnr_db: float
    kept: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"candidate": self.candidate, "sqnr_db": round(self.sqnr_db, 2), "kept": self.kept}


@dataclass(frozen=True)
class Chosen:
    """What was found.

    Attributes:
        recipe, quantized: the last candidate that was kept.
        trials: all candidates, in order.
        held_back: on how many pictures they were measured.
    """

    recipe: Recipe
    quantized: QuantizedModel
    trials: tuple[Trial, ...] = ()
    held_back: int = 0


def check(effort: str) -> Effort:
    """`effort`, if there is such a one.

    Raises:
        UsageError: (kind ``effort``) there is none.
    """
    for known in EFFORTS:
        if effort == known:
            return known
    near = nearest(effort, EFFORTS)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(f"there is no effort '{effort}'{hint}", kind="effort", got=effort, allowed=list(EFFORTS))


def split(model: onnx.ModelProto, source: Pictures) -> tuple[Pictures, list[Picture]]:
    """The pictures to calibrate on, and those held back: every `EVERY`-th, and not more than tell anything new.

    Where that leaves too few to judge by, none is held back.
    """
    most = max(8, min(MOST, int(WORK / max(1, cost(model).macs))))
    behind = islice(enumerate(source), EVERY * most)
    held = [picture for index, picture in behind if index % EVERY == EVERY - 1]
    last = EVERY * len(held)
    varied = [picture for picture in held if picture.pixels.min() < picture.pixels.max()]
    if len(varied) < FEWEST:
        return source, []

    def read(start: int) -> Iterator[Picture]:
        left = (p for index, p in enumerate(source) if index >= last or index % EVERY != EVERY - 1)
        return islice(left, start, None)

    count = None if source.count is None else source.count - len(held)
    rest = Pictures(source.name, count, f"{source.fingerprint} without {len(held)} of {EVERY}", read)
    return rest, varied


def choose(
    quantizer: Quantizer,
    base: Recipe,
    effort: Effort,
    held: Sequence[Picture],
    *,
    fixed: frozenset[str] = frozenset(),
    ranges: Ranges | None = None,
    threads: int = 0,
    progress: Progress = NONE,
) -> Chosen:
    """The recipe for a network.

    Args:
        quantizer: calibrates without the pictures of `held`.
        base: what the first candidate is.
        held: the pictures held back; where there are none, nothing is measured.
        fixed: what the user has said: names of `Recipe`, `Choices` and `Repairs`.
        ranges: of an earlier calibration: what they were chosen by is fixed, too.
    """
    if effort == "fast" or not held:
        return Chosen(base, quantizer.quantize(base, ranges))
    if scheme(base.scheme).power_of_two:
        fixed |= {"sixteen"}
    judge = _Judge(quantizer.prepared, held, threads)
    if ranges is not None:
        fixed |= {"scheme", "method", "concat", "add", "average", "moves", "equalise"}
    best = quantizer.quantize(base, ranges)
    progress.stage("measure")
    recipe, level = base, judge.sqnr(best)
    trials, tried = [Trial("as it is", level, kept=True)], [base]
    for question in _questions(quantizer, base, fixed, effort):
        start, ranked = recipe, list[str]()
        for words, change in question:
            if "sixteen" in change:
                ranked = ranked or quantizer.sensitive(start, ranges, held)
                change = {**change, "sixteen": frozenset(ranked[: change["sixteen"]])}
            candidate = _changed(start, change)
            if candidate in tried:
                continue
            tried.append(candidate)
            progress.update(len(trials), 0, words)
            made = quantizer.quantize(candidate, ranges, quiet=True)
            got = judge.sqnr(made)
            slower = any(getattr(candidate, name) != getattr(recipe, name) for name in ("choices", "scheme", "sixteen"))
            kept = got >= level + (SLOWER if slower else WORTH)
            trials.append(Trial(words, got, kept))
            if kept:
                best, recipe, level = made, candidate, got
    return Chosen(recipe, best, tuple(trials), len(held))


Change = tuple[str, Mapping[str, Any]]
"""What is changed, in words and by name; ``sixteen`` says how many tensors have 16 bits (`Quantizer.sensitive`)."""


def _questions(quantizer: Quantizer, base: Recipe, fixed: frozenset[str], effort: Effort) -> list[list[Change]]:
    """What is asked, in order; the answers to one question exclude each other."""
    structure = quantizer.structure()
    kinds = {layer.kind for layer in structure.layers}
    asked: list[list[Change]] = [[("bias correction", {"bias": True})]]
    if quantizer.pairs():
        asked.append([("equalisation", {"equalise": True})])
    asked.append([(f"ranges by {name}", {"method": name}) for name in METHODS_ASKED])
    if "concat" in kinds:
        asked.append([("own scales around concats", {"concat": "own"})])
    if any(layer.nodes[0].op_type == "AveragePool" for layer in structure.layers):
        asked.append([("own scales behind average pools", {"average": "own"})])
    if scheme(base.scheme).pairs:
        asked.append([("the whole range of weights", {"scheme": "float-scale"})])
    # The slowest at last, and once: it settles whether the bias is corrected besides.
    asked.append(
        [
            ("adaptive rounding, bias correction", {"rounding": True, "bias": True}),
            ("adaptive rounding alone", {"rounding": True, "bias": False}),
        ]
    )
    if effort == "best" and "sixteen" not in fixed:
        asked.append([(f"16 bits for {count}", {"sixteen": count}) for count in WIDE_ASKED])
    if effort == "best" and not fixed & {"rounding", "bias"}:
        asked.append([("reconstruction", {"reconstruct": True, "images": 32})])
    return [[(words, {k: v for k, v in change.items() if k not in fixed}) for words, change in q] for q in asked]


def _changed(recipe: Recipe, change: Mapping[str, Any]) -> Recipe:
    def of(part: object) -> dict[str, Any]:
        return {name: value for name, value in change.items() if hasattr(part, name)}

    choices, repairs = replace(recipe.choices, **of(recipe.choices)), replace(recipe.repairs, **of(recipe.repairs))
    return replace(recipe, **of(recipe), choices=choices, repairs=repairs)


class _Judge:
    """The float network's outputs, and how far from them others are."""

    def __init__(self, model: onnx.ModelProto, held: Sequence[Picture], threads: int) -> None:
        self.held, self.threads = held, threads
        self.expected = self._outputs(model)

    def sqnr(self, made: QuantizedModel) -> float:
        """In decibels, over all outputs and pictures: each output counts alike."""
        rows = self._outputs(made.model)
        levels = []
        for name, reference in self.expected.items():
            ratio = Ratio()
            ratio.add(reference, rows[name])
            levels.append(ratio.db)
        return float(np.mean(levels))

    def _outputs(self, model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
        runner = Runner(model, threads=self.threads)
        seen: dict[str, list[NDArray[Any]]] = {}
        for batch in runner.batches(self.held):
            for name, values in runner.run(np.stack([picture.pixels for picture in batch])).items():
                seen.setdefault(name, []).append(values)
        return {name: np.concatenate(values) for name, values in seen.items()}
