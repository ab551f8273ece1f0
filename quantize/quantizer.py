"""The whole quantization on one page: prepare, repair, calibrate, choose, assign, insert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from inception_deploy.errors import DeployError, UsageError
from inception_deploy.feeds import ports
from inception_deploy.graph.cost import cost
from inception_deploy.graph.rewrite import operand, set_constant
from inception_deploy.progress import NONE, Progress

from . import ranges as methods
from .apart import apart
from .assign import assign
from .calibrate import Ranges, Statistics, choose, collect
from .insert import insert, too_fine
from .integer_network import float_nodes
from .pictures import Given, Picture, Pictures, pictures
from .prepare import prepare
from .reconstruct import reconstruct
from .repair import Repairs, Rounded, Seen, correct_bias, equalise, inputs_of, pairs, round_adaptively
from .runner import Runner
from .scheme import Choices, Params, Scheme, scheme
from .sensitive import sensitive
from .structure import Structure, analyse

DEFAULT_METHOD = "mse"

LEAST_JUDGED, MOST_JUDGED, WORK = 2, 8, 500e9
"""Pictures that a tensor's part in the error is measured on, and multiply-adds of all such measurements together, as
far as the least allows.
"""


@dataclass(frozen=True)
class QuantizedModel:
    """A model in int8.

    Attributes:
        model: the QDQ ONNX.
        scheme: how its integers are meant.
        ranges: of its tensors; save them to quantize again without calibrating.
        float_nodes: the names of the nodes that compute in float.
        images: how many pictures it was calibrated on.
        repairs: what was done to it besides, in words.
        sixteen: the names of its tensors of 16 bits.
    """

    model: onnx.ModelProto
    scheme: Scheme
    ranges: Ranges
    float_nodes: tuple[str, ...]
    images: int
    repairs: tuple[str, ...] = ()
    sixteen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """How to quantize.

    Attributes:
        scheme: a name of `scheme.SCHEMES`.
        method: a name of `ranges.METHODS`.
        percentile: for that method.
        choices: how the scales of neighbours relate.
        repairs: what is done to the weights before and after.
        keep_float: the names of nodes that stay float.
        sixteen: the names of tensors that have 16 bits, with those that share a scale with them.
    """

    scheme: str | Scheme = "float-scale"
    method: str = DEFAULT_METHOD
    percentile: float = methods.PERCENTILE
    choices: Choices = field(default_factory=Choices)
    repairs: Repairs = field(default_factory=Repairs)
    keep_float: frozenset[str] = frozenset()
    sixteen: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Names are checked here, before anything is calibrated; UsageError."""
        self.choices.require(scheme(self.scheme))
        methods.check(self.method, self.percentile)
        if self.sixteen:
            scheme(self.scheme).require_wider()


class Quantizer:
    """A float model that is calibrated once and quantized as often as needed.

    Args:
        model: an optimised float32 model, any batch; left as it was.
        calibration: see `pictures.pictures`.
        preprocessing: of the network, as in the manifest, for pictures.
        state: a file that keeps the calibration; one that was killed goes on from it.
        limit: take only the first so many pictures.
        threads: of onnxruntime, 0 leaves the choice to it.

    Raises:
        DeployError: the model or the calibration pictures cannot be used; see `prepare`, `pictures` and `collect`.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        calibration: Given | None,
        *,
        preprocessing: Mapping[str, Any] | None = None,
        state: Path | None = None,
        limit: int | None = None,
        threads: int = 0,
        progress: Progress = NONE,
    ) -> None:
        self._threads, self._progress, self._state = threads, progress, state
        prepared = prepare(model)
        self.prepared = ir.to_proto(prepared)
        self.source: Pictures | None = None
        if calibration is not None:
            self.source = pictures(calibration, input_shape(model), preprocessing, limit=limit)
        self._equalised: dict[bool, onnx.ModelProto] = {False: self.prepared}
        self._statistics: dict[bool, Statistics] = {}
        self._rounded: dict[tuple[bool, int, str], Rounded] = {}
        self._seen: dict[tuple[bool, bool, int], dict[str, Seen]] = {}

    def statistics(self, equalised: bool = False) -> Statistics:
        """What calibration saw; computed on the first call. Equalised weights have activations of their own."""
        if equalised not in self._statistics:
            assert self.source is not None
            self._progress.stage("calibrate")
            model = ir.from_proto(self._float(equalised))
            state = self._state
            if state is not None and equalised:
                state = state.with_name(f"{state.name}.equalised")
            self._statistics[equalised] = collect(
                model, analyse(model), self.source, state=state, threads=self._threads, progress=self._progress
            )
        return self._statistics[equalised]

    def quantize(self, recipe: Recipe, given: Ranges | None = None, *, quiet: bool = False) -> QuantizedModel:
        """Quantize by a recipe.

        Args:
            given: ranges that were saved before; nothing is calibrated then.
            quiet: one of many: its stages are not told.

        Raises:
            UsageError: an unknown scheme or method.
            DeployError: (kind ``ranges``) `given` does not fit.
        """
        how, repairs, done = scheme(recipe.scheme), recipe.repairs, []
        proto = self._float(repairs.equalise)
        model = ir.from_proto(proto)
        if repairs.equalise:
            done.append("equalised the channels of neighbouring layers")
        structure, ends, params = self._settle(model, recipe, how, given)
        rounded = {}
        if repairs.reconstruct:
            rounded = self._reconstructed(recipe, proto, structure, given)
            done.append(f"made up {len(rounded)} layers for what those before them did")
        elif repairs.needs_inputs:
            seen = self.seen(repairs)
            if repairs.rounding:
                known = self._rounded.setdefault((repairs.equalise, repairs.images, how.name), {})
                rounded = round_adaptively(structure, params, how, seen, known)
                done.append(f"rounded the weights of {len(rounded)} layers by what their inputs are like")
            if repairs.bias:
                count = correct_bias(structure, params, how, seen, rounded)
                done.append(f"corrected the biases of {count} layers")
        if not quiet:
            self._progress.stage("insert")
        result = insert(model, structure, params, how, rounded=rounded, settled=repairs.reconstruct)
        images = ends.images
        wide = tuple(value.name or "" for value in structure.values if params[value].wide)
        return QuantizedModel(result, how, ends, tuple(float_nodes(result)), images, tuple(done), wide)

    def _reconstructed(
        self, recipe: Recipe, proto: onnx.ModelProto, structure: Structure, given: Ranges | None
    ) -> dict[str, NDArray[np.int8]]:
        """The weights of `reconstruct`; the biases of `structure` are changed."""
        assert self.source is not None
        how, repairs = scheme(recipe.scheme), replace(recipe.repairs, reconstruct=False, bias=True, rounding=False)
        draft = self.quantize(replace(recipe, repairs=repairs), given, quiet=True).model
        weights, biases = reconstruct(
            proto, draft, structure, how, self.source, repairs, threads=self._threads, progress=self._progress
        )
        for layer in structure.layers:
            if layer.name in biases and operand(layer.nodes[0], 2) is not None:
                set_constant(layer.nodes[0], 2, "bias", biases[layer.name])
        return weights

    def seen(self, repairs: Repairs) -> dict[str, Seen]:
        """What the inputs of layers with weights were like; computed on the first call."""
        key = (repairs.equalise, repairs.rounding, repairs.images)
        more = (repairs.equalise, True, repairs.images)  # moments are there with their mean
        if key not in self._seen and more not in self._seen:
            assert self.source is not None
            proto = self._float(repairs.equalise)
            structure = analyse(ir.from_proto(proto))
            self._seen[key] = inputs_of(
                proto, structure, self.source, repairs, threads=self._threads, progress=self._progress
            )
        return self._seen[key if key in self._seen else more]

    def sensitive(self, recipe: Recipe, given: Ranges | None = None, judged: Sequence[Picture] = ()) -> list[str]:
        """A tensor of each group of a recipe that shares a scale, the one first that 8 bits hold worst
        (`sensitive.sensitive`).

        Args:
            given: as for `quantize`.
            judged: pictures to measure on; where there are none, some of those that it was calibrated on.
        """
        if not judged:
            assert self.source is not None
            judged = list(islice(self.source, MOST_JUDGED))
        plain = replace(recipe, sixteen=frozenset(), repairs=replace(recipe.repairs, reconstruct=False))
        made = self.quantize(plain, given, quiet=True)
        structure = analyse(ir.from_proto(self._float(recipe.repairs.equalise)), made.float_nodes, recipe.choices)
        groups = [[value.name or "" for value in group] for group in structure.groups(recipe.choices)]
        work = cost(self.prepared).macs * len(groups)
        judged = judged[: max(LEAST_JUDGED, min(MOST_JUDGED, int(WORK / max(1, work))))]
        runner = Runner(self.prepared, threads=self._threads)
        rows = [runner.run(np.stack([picture.pixels for picture in batch])) for batch in runner.batches(judged)]
        expected = [np.concatenate([row[name] for row in rows]) for name in runner.outputs]
        return sensitive(made.model, groups, judged, expected, threads=self._threads)

    def pairs(self) -> int:
        """How many pairs of layers `repair.equalise` would change."""
        return sum(1 for _ in pairs(self.structure()))

    def _settle(
        self, model: ir.Model, recipe: Recipe, how: Scheme, given: Ranges | None
    ) -> tuple[Structure, Ranges, dict[ir.Value, Params]]:
        """What computes in integers, and with which scales: found again where the scales forbid a part of it."""
        statistics = None if given is not None else self.statistics(recipe.repairs.equalise)
        ends, params = given, dict[ir.Value, Params]()
        floats, alone, lost = set(recipe.keep_float), set[str](), dict[str, float]()
        while True:
            structure = analyse(model, floats, recipe.choices, alone)
            if statistics is not None:
                by: dict[str, Any] = {"method": recipe.method, "percentile": recipe.percentile}
                own = choose(statistics, structure, how, recipe.choices, **by, sixteen=recipe.sixteen)
                ends = own if ends is None else replace(ends, ends={**ends.ends, **own.ends})
            assert ends is not None
            ends.require(structure, how, recipe.choices, "the ranges file")
            if statistics is not None and not lost and (lost := apart(structure, statistics.histograms)):
                told = ", ".join(f"{name} ({ratio:.0f} times)" for name, ratio in list(lost.items())[:3])
                self._progress.note(f"one scale cannot hold what is joined there, so this stays in float32: {told}")
                floats |= set(lost)
                continue
            params = assign(structure, ends.ends, how, recipe.choices, recipe.sixteen)
            if not (finer := too_fine(structure, params, how)):
                return structure, ends, params
            alone |= finer

    def structure(self, keep_float: Sequence[str] = ()) -> Structure:
        """The layers of the float model."""
        return analyse(ir.from_proto(self.prepared), keep_float)

    def _float(self, equalised: bool) -> onnx.ModelProto:
        if equalised not in self._equalised:
            model = ir.from_proto(self.prepared)
            equalise(model, analyse(model))
            self._equalised[True] = ir.to_proto(model)
        return self._equalised[equalised]


def quantize(
    model: onnx.ModelProto,
    calibration: Given | None = None,
    *,
    recipe: Recipe | None = None,
    ranges: Ranges | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    state: Path | None = None,
    limit: int | None = None,
    threads: int = 0,
    progress: Progress = NONE,
    **changes: Any,
) -> QuantizedModel:
    """Turn an optimised float32 ONNX into int8, as a QDQ ONNX.

    Args:
        model: as `graph.driver.optimise` gives it.
        calibration: pictures: a folder, an .npz, a Python iterable or a function that gives one.
        recipe: how; `changes` (``scheme=``, ``method=``, ...) replace its fields.
        ranges: of an earlier quantization, in the place of `calibration`.
        preprocessing, state, limit, threads: as for `Quantizer`.

    Raises:
        UsageError, DeployError: as `Quantizer` and `Quantizer.quantize`; also where neither `calibration` nor `ranges`
            is given, or a repair is asked for without pictures.
    """
    wanted = replace(recipe or Recipe(), **changes)
    if calibration is None and (ranges is None or wanted.repairs.needs_inputs):
        what = "a repair looks at pictures" if ranges is not None else "nothing says what range the tensors have"
        raise UsageError(f"{what}; give --calibration", kind="calibration", got=None, allowed="a folder or an .npz")
    made = Quantizer(
        model, calibration, preprocessing=preprocessing, state=state, limit=limit, threads=threads, progress=progress
    )
    return made.quantize(wanted, ranges)


def input_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    """(C, H, W) of a model's input.

    Raises:
        DeployError: (kind ``quantize``) there are several.
    """
    given = ports(model, open_size=0)
    if len(names := [port["name"] for port in given]) > 1:
        message = f"a network of {len(names)} inputs cannot be quantized: calibration feeds one"
        raise DeployError(message, kind="quantize", got=names, allowed="one input, or a quantized ONNX")
    return tuple(given[0]["shape"][1:])
