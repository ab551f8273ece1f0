"""What the command ``quantize`` does: a model by name, pictures by path, one ONNX out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from inception_deploy import artifact, sources
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.graph import driver
from inception_deploy.progress import NONE, Progress

from .calibrate import Ranges
from .pictures import pictures
from .quantise import Quantizer, Recipe, input_shape
from .search import gate


@dataclass(frozen=True)
class Job:
    """One call of ``quantize``.

    Args:
        model: as for ``export --model``.
        output: the .onnx to write.
        calibration: a folder or an .npz; may be None where `ranges` exists.
        ranges: a JSON that is read where it exists, and written where it does not.
        images: the first so many only.
        max_drop, evaluate: the accuracy gate: points of top-1, and labelled pictures.
        force: replace `output`.
    """

    model: str
    output: Path
    calibration: Path | None
    recipe: Recipe
    ranges: Path | None = None
    images: int | None = None
    max_drop: float | None = None
    evaluate: Path | None = None
    force: bool = False
    threads: int = 0


def run(job: Job, progress: Progress = NONE) -> dict[str, Any]:
    """Quantise and write; gives the document of ``quantize``.

    A calibration keeps its state beside the output until it is done, so that a killed one goes on.

    Raises:
        UsageError: an unknown model, scheme or method; neither calibration nor ranges.
        DeployError: the output exists, or the work could not be done; nothing was written.
    """
    if os.path.lexists(job.output) and not job.force:
        message = f"{job.output} already exists; --force replaces it"
        raise DeployError(message, kind="exists", got=str(job.output), allowed="a path that does not exist yet")
    given = Ranges.load(job.ranges) if job.ranges is not None and job.ranges.exists() else None
    looks = job.recipe.repairs.needs_inputs or job.max_drop is not None
    if job.calibration is None and (given is None or looks):
        what = (
            "nothing says what range the tensors have" if given is None else "repairs and --max-drop look at pictures"
        )
        raise UsageError(f"{what}; give --calibration", kind="calibration", got=None, allowed="a folder or an .npz")
    progress.stage("export")
    source = sources.resolve(sources.Request(model=job.model))
    for note in source.notes:
        progress.note(note)
    exported = source.onnx(lambda what: progress.update(0, 0, what))
    progress.stage("optimise")
    model, _ = driver.optimise(exported, verify=False)
    del exported
    state = job.output.with_name(f".{job.output.name}.calibration.npz")
    quantizer = Quantizer(
        model,
        job.calibration,
        preprocessing=source.preprocessing,
        state=state,
        limit=job.images,
        threads=job.threads,
        progress=progress,
    )
    shape = input_shape(model)
    del model
    result = quantizer.quantize(job.recipe, given)
    document: dict[str, Any] = {"drop_points": None}
    if job.max_drop is not None and job.evaluate is not None:
        labelled = pictures(job.evaluate, shape, source.preprocessing, labels=source.labels)
        gated = gate(
            quantizer, job.recipe, labelled, job.max_drop, first=result, threads=job.threads, progress=progress
        )
        result = gated.quantized
        document = {
            "drop_points": gated.drop_points,
            "top1": {"fp32": gated.float32.percent, "int8": gated.int8.percent, "images": gated.int8.count},
            "steps": [{"float_layers": list(s.float_layers), "drop_points": s.drop_points} for s in gated.steps],
        }
    progress.stage("write")
    with artifact.atomic_file(job.output) as partial:
        onnx.save(result.model, str(partial))
    if job.ranges is not None and given is None:
        result.ranges.save(job.ranges)
    for left in (state, state.with_name(f"{state.name}.equalised")):
        left.unlink(missing_ok=True)
    return {
        "model": str(job.output),
        "scheme": result.scheme.name,
        "method": result.ranges.method,
        "images": result.images,
        "float_nodes": list(result.float_nodes),
        "repairs": list(result.repairs),
        **document,
    }
