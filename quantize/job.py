"""Quantizing by paths: what ``quantize`` does from end to end, and ``export --precision int8`` on its way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from inception_deploy import artifact
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.graph import driver
from inception_deploy.progress import NONE, Progress
from inception_deploy.sources import metadata, preparing, resolve

from .calibrate import Ranges
from .effort import Effort, choose, split
from .pictures import Picture, pictures
from .quantizer import QuantizedModel, Quantizer, Recipe, input_shape
from .scheme import scheme
from .search import gate


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a model is quantized, with pictures by path.

    Attributes:
        calibration: a folder or an .npz; may be None where `ranges` exists.
        ranges: a JSON that is read where it exists, and written where it does not.
        images: calibrate on the first so many only.
        max_drop, evaluate: the accuracy gate: points of top-1, and labelled pictures.
        threads: of onnxruntime; 0 leaves the choice to it.
        effort: how much is found by measuring (`effort`), and by what name the user has said what is not: of the fields
            of `Recipe`, `Choices` and `Repairs`.
        sixteen: how many tensors have 16 bits, those that 8 hold worst; None: as `effort` finds.
    """

    sixteen: int | None = None
    effort: Effort = "normal"
    fixed: frozenset[str] = frozenset()
    recipe: Recipe = field(default_factory=Recipe)
    calibration: Path | None = None
    ranges: Path | None = None
    images: int | None = None
    max_drop: float | None = None
    evaluate: Path | None = None
    threads: int = 0

    def known(self) -> Ranges | None:
        """The ranges of an earlier calibration, where there are any.

        Raises:
            UsageError: (kind ``calibration``) nothing says what range the tensors have, or what is asked for needs
                pictures; (kind ``usage``) of `max_drop` and `evaluate` only one is given.
            DeployError: (kind ``ranges``) the file is damaged.
        """
        if (self.max_drop is None) != (self.evaluate is None):
            message = "--max-drop and --evaluate go together"
            raise UsageError(message, kind="usage", got=None, allowed="both or neither")
        given = Ranges.load(self.ranges) if self.ranges is not None and self.ranges.exists() else None
        looks = self.recipe.repairs.needs_inputs or self.max_drop is not None or bool(self.sixteen)
        if self.calibration is None and (given is None or looks):
            what = (
                "nothing says what range the tensors have"
                if given is None
                else "repairs, --sixteen-bit and --max-drop look at pictures"
            )
            raise UsageError(f"{what}; give --calibration", kind="calibration", got=None, allowed="a folder or an .npz")
        return given


@dataclass(frozen=True, kw_only=True)
class Job(Options):
    """One call of the command ``quantize``.

    Attributes:
        model: as for ``export --model``.
        output: the .onnx to write.
        force: replace `output`.
        preprocessing: what the user says of it.
    """

    model: str
    output: Path
    force: bool = False
    preprocessing: preparing.Said = field(default_factory=preparing.Said)


def run(job: Job, progress: Progress = NONE) -> dict[str, Any]:
    """Quantize and write; gives the document of ``quantize``.

    Raises:
        UsageError: an unknown model, scheme or method; neither calibration nor ranges.
        DeployError: the output exists, or the work could not be done; nothing was written.
    """
    if os.path.lexists(job.output) and not job.force:
        message = f"{job.output} already exists; --force replaces it"
        raise DeployError(message, kind="exists", got=str(job.output), allowed="a path that does not exist yet")
    job.known()
    progress.stage("export")
    source = resolve.resolve(resolve.Request(model=job.model, preprocessing=job.preprocessing))
    for note in source.notes:
        progress.note(note)
    exported = source.onnx(lambda what: progress.update(0, 0, what))
    progress.stage("optimise")
    model, _ = driver.optimise(exported, verify=False)
    del exported
    with calibrating(job.output) as state:
        result, document = quantize(
            model, job, preprocessing=source.preprocessing, labels=source.labels, state=state, progress=progress
        )
        progress.stage("write")
        metadata.write(result.model, source.name, source.preprocessing, source.labels)
        with artifact.atomic_file(job.output) as partial:
            onnx.save(result.model, str(partial))
    return {"model": str(job.output), **document}


@contextmanager
def calibrating(output: Path) -> Iterator[Path]:
    """Where a calibration keeps its state until `output` is written: beside it, so that a killed one goes on."""
    state = output.with_name(f".{output.name}.calibration.npz")
    yield state
    for left in (state, state.with_name(f"{state.name}.equalised")):
        left.unlink(missing_ok=True)
        for abandoned in left.parent.glob(f".{left.name}.*.partial"):  # of a process that was killed while it wrote
            shutil.rmtree(abandoned, ignore_errors=True)


def sample(
    model: onnx.ModelProto, options: Options, preprocessing: Mapping[str, Any] | None
) -> NDArray[np.float32] | None:
    """One batch of what a model is calibrated on, for a comparison; None where nothing is.

    Pictures of one colour are taken only where there are no others: they tell little.
    """
    if options.calibration is None:
        return None
    source = pictures(options.calibration, input_shape(model), preprocessing, limit=options.images)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    varied = (picture.pixels for picture in source if picture.pixels.min() < picture.pixels.max())
    rows = list(islice(varied, batch)) or [picture.pixels for picture in islice(source, batch)]
    return np.stack(rows + rows[-1:] * (batch - len(rows)))


def quantize(
    model: onnx.ModelProto,
    options: Options,
    *,
    preprocessing: Mapping[str, Any] | None,
    labels: Sequence[str] | None,
    state: Path,
    progress: Progress = NONE,
) -> tuple[QuantizedModel, dict[str, Any]]:
    """Calibrate, quantize, and hold the accuracy gate.

    Args:
        model: an optimised float32 model.
        preprocessing, labels: of its source.
        state: what `calibrating` gave.

    Returns:
        The model, and what the document of ``quantize`` says about it.

    Raises:
        UsageError, DeployError: as `Options.known`, `Quantizer` and `Quantizer.quantize`.
    """
    given = options.known()
    labelled = None
    if options.evaluate is not None:  # opened first: a wrong path shows before the work
        labelled = pictures(options.evaluate, input_shape(model), preprocessing, labels=labels)
    source, held = None, list[Picture]()
    if options.calibration is not None:
        source = pictures(options.calibration, input_shape(model), preprocessing, limit=options.images)
        if options.effort != "fast":
            source, held = split(model, source)
            if not held:
                progress.note("too few pictures to hold some back: nothing is measured, as with --effort fast")
    quantizer = Quantizer(model, source, state=state, threads=options.threads, progress=progress)
    base = options.recipe
    if given is not None:
        said = {name: value for name, value in base.choices.as_dict().items() if name in options.fixed}
        base = replace(base, choices=replace(given.choices, **said))
    fixed = options.fixed
    if options.sixteen is not None:
        fixed |= {"sixteen"}
        if options.sixteen:
            scheme(base.scheme).require_wider()
            worst = quantizer.sensitive(base, given, held)[: options.sixteen]
            base = replace(base, sixteen=frozenset(worst))
    chosen = choose(
        quantizer,
        base,
        options.effort,
        held,
        fixed=fixed,
        ranges=given,
        threads=options.threads,
        progress=progress,
    )
    result = chosen.quantized
    measured: dict[str, Any] = {"drop_points": None}
    if options.max_drop is not None and labelled is not None:
        gated = gate(
            quantizer,
            chosen.recipe,
            labelled,
            options.max_drop,
            first=result,
            widen="sixteen" not in fixed,
            threads=options.threads,
            progress=progress,
        )
        result = gated.quantized
        measured = {
            "drop_points": gated.drop_points,
            "top1": {"fp32": gated.float32.percent, "int8": gated.int8.percent, "images": gated.int8.count},
            "steps": [step.as_dict() for step in gated.steps],
        }
    if options.ranges is not None and given is None:
        result.ranges.save(options.ranges)
    return result, {
        "scheme": result.scheme.name,
        "method": result.ranges.method,
        "images": result.images + chosen.held_back,
        "float_nodes": list(result.float_nodes),
        "sixteen_bit": list(result.sixteen),
        "repairs": list(result.repairs),
        "choices": chosen.recipe.choices.as_dict(),
        "effort": options.effort,
        "held_back": chosen.held_back,
        "candidates": [trial.as_dict() for trial in chosen.trials],
        **measured,
    }
