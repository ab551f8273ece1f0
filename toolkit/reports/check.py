"""Each stage of a deployment against the one before it: at export, and again from the bundle alone (`verify`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import inception_deploy.verify as verify

from .. import judge
from ..bundles import engines
from ..errors import DeployError
from ..feeds import feed, numbers, ports
from ..progress import NONE, Progress
from ..runtime import bundle as bundles
from ..runtime.plans import Runnable
from ..runtime.preprocessing import from_dict, load, normalised
from ..sources import original
from ..targets import precision

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from ..rounding import Rounding

    Outputs = Sequence[NDArray[Any]]

PHOTO = Path(__file__).with_name("data") / "photo.jpg"
"""The photo that export and verify look at: a real picture has structure that random numbers lack."""


def inputs(shape: Sequence[int], preprocessing: Mapping[str, Any] | None, seed: int) -> dict[str, NDArray[Any]]:
    """What the stages are compared on: a real photo, where the network takes pictures, and random numbers of two kinds.

    A network may be so sensitive on one of them that nothing can be told (`rounding`); hardly one is on all.

    Args:
        shape: of the network's input, the batch first. Each picture of a batch is the photo, shifted a little further.
        preprocessing: as in the manifest; None for a network that does not take pictures.

    Returns:
        By name, arrays of `shape`, float32 or what the preprocessing says: ``photo``; ``random``, of a normal
        distribution, where the input is float; ``uniform``, pixels of any colour, prepared.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    normal = random.standard_normal(tuple(shape), dtype=np.float32)
    if preprocessing is None:
        return {"random": normal, "uniform": random.random(tuple(shape), dtype=np.float32)}
    how = from_dict(preprocessing)
    photo = load([PHOTO], how)[0]
    across = -1 if how.layout == "nchw" else -2
    pixels = random.integers(0, 256, (shape[0], *how.crop, len(how.mean)), np.uint8)
    return {
        "photo": np.stack([np.roll(photo, 7 * index, axis=across) for index in range(shape[0])]),
        **({"random": normal} if how.dtype == "float32" else {}),
        "uniform": np.stack([normalised(picture, how) for picture in pixels]),
    }


def inputs_of(port: Mapping[str, Any], preprocessing: Mapping[str, Any] | None, seed: int) -> dict[str, NDArray[Any]]:
    """`inputs` for the first input of a network, a row of the manifest's ``inputs``; of integers that are no picture,
    two random ones.
    """
    import numpy as np

    if preprocessing is not None or port["dtype"] == "float32":
        return inputs(port["shape"], preprocessing, seed)
    random = np.random.default_rng(seed)
    return {name: numbers(port, random) for name in ("random", "uniform")}


_OVERLAP = 0.5
"""How much of their common range a photo and the calibrated range must share for the photo to be judged on as it is."""


def inputs_for_int8(
    given: Mapping[str, NDArray[Any]], model: onnx.ModelProto, calibration: NDArray[Any] | None = None
) -> dict[str, NDArray[Any]]:
    """What an int8 model is compared on: what it was calibrated on, where that is at hand; else the photo of `inputs`,
    or its random numbers cut to the calibrated range.

    Calibration saw pictures. On noise, most of what a comparison shows is saturation, and so on a photo that was
    prepared in another way than the pictures of calibration: it is stretched to their range.

    Args:
        calibration: a batch of the pictures that `model` was calibrated on.
    """
    import numpy as np

    from ..quantize import integer_network

    if calibration is not None:
        return {"calibration": calibration}
    low, high = integer_network.input_limits(model)
    if "photo" not in given:
        return {f"{name}, cut": np.clip(x, np.float32(low), np.float32(high)) for name, x in given.items()}
    photo = given["photo"]
    least, most = float(photo.min()), float(photo.max())
    shared, both = min(high, most) - max(low, least), max(high, most) - min(low, least)
    if not math.isfinite(low) or not math.isfinite(high) or shared >= _OVERLAP * both or least == most:
        return {"photo": photo}
    stretched = (photo - least) * ((high - low) / (most - least)) + low
    return {"photo, stretched": stretched.astype(np.float32)}


def rounding_of(
    model: onnx.ModelProto, given: Mapping[str, NDArray[np.float32]], *, threads: int | None = None
) -> Rounding:
    """Measures what rounding does to the outputs of `model`, a float one or a quantized one, where that is
    asked for.
    """
    from ..quantize import integer_network
    from ..rounding import Rounding

    inputs = ports(model)
    name = inputs[0]["name"]
    feeds = {key: feed(inputs, x) for key, x in given.items()}
    if not integer_network.is_quantized(model):
        return Rounding(model, feeds, run=lambda model, feeds: verify.run_onnx(model, feeds, threads=threads or 0))
    steps = integer_network.read(model).steps
    islands = [step.result for step in steps if step.kind == "quantize" and step.result != name]
    return Rounding(
        model,
        feeds,
        run=lambda model, feeds: integer_network.reference(model, feeds, threads=threads or 0),
        islands=islands,
    )


def summary(stages: Sequence[Mapping[str, object]], not_run: Iterable[Mapping[str, str]] = ()) -> dict[str, Any]:
    """The document of ``verify``; `not_run` lists the stages that could not be checked on this machine, and why."""
    return {"ok": all(entry["ok"] for entry in stages), "stages": list(stages), "not_run": list(not_run)}


def verify_bundle(
    bundle: bundles.Bundle,
    *,
    threads: int | None = None,
    driver: Path | None = None,
    compiled: engines.Engine | None = None,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Every stage of `bundle` against the one before it; `driver` as `engines.make` takes it.

    Args:
        compiled: what runs the compiled network, where this machine does not.

    The stages whose files the bundle holds are run again here. The others (PyTorch is not in a bundle; the user's own
    ONNX, and the ONNX before our passes, are there only after ``export --keep-stages``) are shown as recorded at
    export, with ``recorded``.

    Returns:
        `summary`'s document. It is ok only if the compiled library, where there is one, ran here and every row is ok.
        Of an int8 bundle also ``layers``, each layer's error (`quantize.culprit.LayerError`), and ``first_fall``, the
        name of the first one that is far less exact than what it reads, or None.
    """
    import onnx

    told = bundle.document(bundles.VERIFY)["stages"]
    recorded = {entry["stage"]: entry for entry in told if "batch" not in entry}
    taken = bundle.manifest["inputs"]
    given = inputs_of(taken[0], bundle.manifest["preprocessing"], int(bundle.manifest.get("seed", 0)))
    stages: dict[str, Mapping[str, object]] = {name: {**entry, "recorded": True} for name, entry in recorded.items()}
    computed = precision.of(bundle.manifest)
    stage = computed.stage
    model = onnx.load(str(bundle.folder / bundles.ONNX))
    int8 = onnx.load(str(bundle.onnx)) if bundle.manifest["precision"] == "int8" else None
    judged = inputs_for_int8(given, int8) if int8 is not None else given
    given = given | judged

    def run_onnx(model: onnx.ModelProto) -> dict[str, Outputs]:
        return {key: verify.run_onnx(model, feed(taken, x), threads=threads or 0) for key, x in given.items()}

    progress.stage("optimised")
    expected = run_onnx(model)
    if (bundle.folder / bundles.RAW_ONNX).exists():
        raw = onnx.load(str(bundle.folder / bundles.RAW_ONNX))
        before = run_onnx(raw)
        if (kept := bundle.folder / bundles.ORIGINAL_ONNX).exists():
            came = {key: original.run_file(kept, feed(taken, x)) for key, x in given.items()}
            rounds = rounding_of(original.in_halves(kept) or raw, given, threads=threads)
            if original.on_integers(kept):
                first = judge.row("integers", came, run_int8(raw, given, threads=threads), rounds)
            else:
                first = judge.row("onnx", came, before, rounds)
            stages["onnx"] = {**first, "stage": "onnx", "reference": stages["onnx"]["reference"], "recorded": False}
        found = judge.row("optimised", before, expected, rounding_of(raw, given, threads=threads))
        stages["optimised"] = {**found, "recorded": False}
        del raw
    layers: dict[str, Any] = {}
    if int8 is not None:
        progress.stage("quantized")
        before = {key: expected[key] for key in judged}
        expected = run_int8(int8, judged, threads=threads)
        if bundle.onnx.name == bundles.INT8_ONNX:
            found = judge.row("quantized", before, expected, rounding_of(model, judged, threads=threads))
            stages["quantized"] = {**found, "recorded": False}
            layers = culprit(model, int8, judged)
        elif "integers" in recorded:
            found = judge.row("integers", before, expected, rounding_of(model, judged, threads=threads))
            stages["integers"] = {**found, "recorded": False}
    not_run: list[dict[str, str]] = []
    others: list[dict[str, Any]] = []
    if bundle.manifest.get("onnx_only"):
        return summary([stages[key] for key in verify.TOLERANCES if key in stages]) | layers
    progress.stage("compiled")
    try:
        engine = compiled or engines.make("compiled", bundle, threads=threads, driver=driver)
    except DeployError as error:
        if error.kind != "target":
            raise
        stages.pop(stage, None)
        not_run.append({"stage": stage, "reason": error.message})
    else:
        got = {key: engine.run(*feed(taken, x).values()) for key, x in judged.items()}
        rounding = rounding_of(model if int8 is None else int8, judged, threads=threads)
        found = judge.row(stage, expected, got, rounding, allowance=not computed.approximate)
        stages[stage] = {**found, "recorded": False}
        for rows in bundle.batches[1:]:
            progress.stage(f"compiled, batch {rows}")
            row = plan_row(model if int8 is None else int8, judged, rows, engine, computed, threads=threads)
            others.append({**row, "recorded": False})
    document = summary([*(stages[key] for key in verify.TOLERANCES if key in stages), *others], not_run)
    return document | layers | {"ok": document["ok"] and not not_run}


def run_int8(
    model: onnx.ModelProto, given: Mapping[str, NDArray[np.float32]], *, threads: int | None = None
) -> dict[str, Outputs]:
    """The outputs of a QDQ model, as `quantize.network.reference` gives them: what its compiled library is held to."""
    from ..quantize import integer_network

    taken = ports(model)
    return {key: integer_network.reference(model, feed(taken, x), threads=threads or 0) for key, x in given.items()}


def culprit(model: onnx.ModelProto, int8: onnx.ModelProto, given: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """``layers`` and ``first_fall`` of `verify_bundle`."""
    import onnx_ir as ir

    from ..quantize import culprit as errors
    from ..quantize.pictures import Picture
    from ..quantize.prepare import prepare

    seen = [Picture(name, pixels) for name, batch in given.items() for pixels in batch]
    rows = errors.compare(ir.to_proto(prepare(model)), int8, seen)
    fall = errors.first_fall(rows)
    return {"layers": [layer.as_dict() for layer in rows], "first_fall": fall.layer if fall else None}


def plan_row(
    model: onnx.ModelProto,
    given: Mapping[str, NDArray[np.float32]],
    rows: int,
    compiled: Runnable,
    computed: precision.Precision,
    *,
    threads: int | None = None,
) -> dict[str, Any]:
    """How the plan for `rows` images compares with the ONNX, which computes as many as it was exported for at once.

    Args:
        model: the ONNX that was compiled.
        given: for it, as for the first plan. The first one is taken, shifted a little for every further row, so that
            rows that are mixed up show.
        compiled: runs the plan.
        computed: what it computes in.

    Returns:
        A row of ``verify`` with ``batch``.
    """
    import numpy as np

    from ..graph.rows import with_rows

    name, x = next(iter(given.items()))
    size = len(x)
    more = {name: np.stack([np.roll(x[row % size], 7 * (row // size), axis=-1) for row in range(rows)])}
    filled = np.concatenate([more[name], np.repeat(more[name][-1:], -rows % size, axis=0)])
    parts = [_reference(model, filled[at : at + size], threads) for at in range(0, len(filled), size)]
    expected = {name: [np.concatenate(arrays)[:rows] for arrays in zip(*parts, strict=True)]}
    taken = ports(model)
    got = {name: compiled.run(*feed(taken, more[name]).values())}
    rounding = rounding_of(with_rows(model, rows), more, threads=threads)
    found = judge.row(computed.stage, expected, got, rounding, allowance=not computed.approximate)
    return {**found, "batch": rows}


def _reference(model: onnx.ModelProto, x: NDArray[np.float32], threads: int | None) -> Outputs:
    """What a compiled network is held to: the outputs of its ONNX, of a quantized one as `run_int8` gives them."""
    from ..quantize import integer_network

    if integer_network.is_quantized(model):
        return run_int8(model, {"": x}, threads=threads)[""]
    return verify.run_onnx(model, feed(ports(model), x), threads=threads or 0)
