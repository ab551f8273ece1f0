"""Everything that the page says, read and measured once. What cannot be had here is left out with its reason."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...bundles import engines
from ...errors import DeployError
from ...feeds import feed
from ...progress import NONE, Progress
from ...runtime import bundle as bundles
from ...runtime.bundle import Bundle
from ...runtime.model import Model
from .. import bench, check, inspect, peak
from ..evaluate import evaluate
from ..throughput import WINDOW_S, throughput
from .facts import Facts, Photo, Range
from .layers import layers_of

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from .network import Network

_PROFILES = 15
_FEW = 5
"""Runs of a plan of many images, at least."""
_ROUNDS = 3
"""Of the engines when several streams run at once."""
_TOP = 5
_THUMBNAIL = 480
_LOOKED_AT = 32
"""Tensors whose values are held at a time."""

BUILD = "it needs inception-deploy[build]: pip install 'inception-deploy[build]'"


def gather(
    bundle: Bundle,
    *,
    image: Path | None = None,
    labels: Path | None = None,
    pictures: Path | None = None,
    evaluation: Mapping[str, Any] | None = None,
    exported: Mapping[str, Any] | None = None,
    against: Sequence[str] | None = None,
    runs: int = 30,
    threads: int | None = None,
    progress: Progress = NONE,
) -> Facts:
    """The facts of an opened bundle.

    Args:
        image: a picture to classify; the one that exports are checked on where None.
        labels: the names of the classes, one a line; the bundle's, or ImageNet's, where None.
        pictures: labelled ones, to evaluate on.
        evaluation, exported: documents of ``evaluate``, where that was done before, and of ``export``.
        against: the engines to time beside the bundle; those that are installed where None.
        runs: of each engine.
        threads: every core that this process may use where None.

    Raises:
        UsageError: there is no such engine.
        DeployError: the bundle is damaged; a picture or the labels do not fit; an engine that was asked for cannot run.
    """
    for name in against or ():
        engines.check_peer(name)
    threads = threads or engines.default_threads()
    if pictures is not None:  # first, because others may have got them wrong
        evaluation = _evaluation(bundle, pictures, labels, threads, progress)
    progress.stage("read")
    missing: dict[str, str] = {}
    found: dict[str, Any] = {}
    inspected = inspect.describe(bundle, threads=threads, progress=progress, runs=_PROFILES)
    layers = layers_of(inspected["steps"])
    if "not_run" in inspected:
        missing |= dict.fromkeys(("latency", "photo", "profile", "limits"), inspected["not_run"])
    else:
        progress.stage("photo")
        with _without(missing, "photo"):
            found["photo"] = _photo(bundle, image, labels, threads, missing)
        found["latency"] = _latency(bundle, against, runs, threads, missing, progress)
        found["plans"] = _latency_of_plans(bundle, found["latency"], runs, threads, progress)
        found["throughput"] = _throughput(bundle, found["latency"], runs, threads, progress)
        progress.stage("limits")
        with _without(missing, "limits"):
            found["limits"] = _limits(bundle, threads, missing)
    with _without(missing, "network"):
        found["network"] = _network(bundle, inspected, layers)
    if bundle.manifest["precision"] == "int8":
        progress.stage("int8")
        found |= _int8(bundle, missing, threads)
    return Facts(
        manifest=bundle.manifest,
        plan=bundle.document(bundles.PLAN),
        verified=bundle.document(bundles.VERIFY),
        refusals=inspected["refusals"],
        inspected=inspected,
        layers=layers,
        machine=bench.machine(),
        threads=threads,
        when=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        runs=_PROFILES,
        evaluation=evaluation,
        exported=exported,
        simulated=engines.simulated(bundle),
        missing=missing,
        **found,
    )


@dataclass(frozen=True)
class _Float(Bundle):
    """An int8 bundle whose ONNX is the float network that it was made from."""

    @property
    def onnx(self) -> Path:
        return self.folder / bundles.ONNX


def _evaluation(
    bundle: Bundle, pictures: Path, labels: Path | None, threads: int, progress: Progress
) -> dict[str, Any]:
    """The document of ``evaluate``; of an int8 bundle with a row for the float network, where onnxruntime is here."""
    document = evaluate(bundle, pictures, labels=labels, threads=threads, progress=progress)
    if bundle.onnx.name == bundles.INT8_ONNX and importlib.util.find_spec("onnxruntime"):
        real = _Float(bundle.source, bundle.folder, bundle.manifest)
        before = evaluate(real, pictures, runtimes=["onnxruntime"], labels=labels, threads=threads, progress=progress)
        document["engines"] += [{**row, "engine": "onnxruntime, fp32"} for row in before["engines"]]
    return document


@contextmanager
def _without(missing: dict[str, str], part: str) -> Iterator[None]:
    """Where a package of the builder is missing, the part is, too."""
    try:
        yield
    except ModuleNotFoundError:
        missing[part] = BUILD


def _photo(
    bundle: Bundle, image: Path | None, labels: Path | None, threads: int, missing: dict[str, str]
) -> Photo | None:
    """The classified picture; None for a network that takes none."""
    if bundle.manifest["preprocessing"] is None:
        if image is not None:
            message = f"bundle {bundle.source} does not take pictures, so there is nothing to show {image} to"
            raise DeployError(message, kind="input", got=str(image), allowed="no --image")
        missing["photo"] = "the network does not take pictures"
        return None
    path = image or check.PHOTO
    with engines.load_compiled(bundle, threads) as library:
        guesses = Model(bundle, library.run, labels=labels)(str(path)).top(_TOP)
    return Photo(path.name, _thumbnail(path), guesses, image is not None)


def _thumbnail(path: Path) -> bytes:
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        small = ImageOps.exif_transpose(opened).convert("RGB")
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=82, optimize=True)
    return stream.getvalue()


def _latency(
    bundle: Bundle,
    against: Sequence[str] | None,
    runs: int,
    threads: int,
    missing: dict[str, str],
    progress: Progress,
) -> list[dict[str, Any]]:
    """Rows of ``bench``, ours first, all engines in turns."""
    arrays = feed(bundle.manifest["inputs"]).values()
    calls: dict[str, Callable[[], object]] = {}
    progress.stage("load")
    for name in ("compiled", *(_installed(bundle) if against is None else against)):
        try:
            engine = engines.make(name, bundle, threads=threads)
            engine.run(*arrays)
        except (DeployError, ModuleNotFoundError) as error:
            if against is not None or name == "compiled":
                raise
            missing[name] = getattr(error, "message", str(error))
            continue
        calls[name] = partial(engine.run, *arrays)
    if against is None:
        missing |= {name: "it is not installed" for name in bench.PEERS_WANTED if name not in calls | missing}
    return _rows(bundle, calls, runs, progress)


def _latency_of_plans(
    bundle: Bundle, first: Sequence[Mapping[str, Any]], runs: int, threads: int, progress: Progress
) -> list[tuple[int, list[dict[str, Any]]]]:
    """Images at once and rows as `_latency`'s of every plan after the first, with the engines of those rows. A plan of
    many images is run less often, so that each takes about the time of the first.
    """
    found = []
    for plan, images in zip(bundle.plans[1:], bundle.batches[1:], strict=True):
        progress.stage(f"{images} images")
        arrays = feed(plan.manifest["inputs"]).values()
        calls = {
            row["engine"]: partial(engines.make(row["engine"], plan, threads=threads).run, *arrays) for row in first
        }
        found.append((images, _rows(plan, calls, max(_FEW, runs * bundle.batches[0] // images), progress)))
    return found


def _throughput(
    bundle: Bundle, latency: Sequence[Mapping[str, Any]], runs: int, threads: int, progress: Progress
) -> list[dict[str, Any]]:
    """Rows of `throughput.throughput`, of the engines of `latency` that can: as many streams as threads, of one each. A
    round lasts a second, or `runs` inferences where that is shorter.
    """
    if threads < 2 or engines.simulated(bundle):
        return []
    names = [row["engine"] for row in latency if row["engine"] in engines.STREAMED]
    window_s = min(WINDOW_S, runs * latency[0]["p50_ms"] / 1e3)
    return throughput(bundle, names, threads, threads=1, rounds=_ROUNDS, window_s=window_s, progress=progress)


def _rows(
    bundle: Bundle, calls: Mapping[str, Callable[[], object]], runs: int, progress: Progress
) -> list[dict[str, Any]]:
    measured = bench.interleave(calls, runs, progress, pause_s=bench.pause_s(calls))
    return [
        {"engine": name, **figures, **({"onnx": bundle.onnx.name} if name in bench.ON_ONNX else {})}
        for name, figures in measured.items()
    ]


def _installed(bundle: Bundle) -> list[str]:
    """The peers that are worth timing and are here; PyTorch where the bundle says which module it was."""
    found = [name for name in bench.PEERS_WANTED if importlib.util.find_spec(name)]
    return [name for name in found if name != "torch" or bundle.manifest.get("zoo")]


def _limits(bundle: Bundle, threads: int, missing: dict[str, str]) -> peak.Limits | None:
    from ...targets import described
    from ...targets.cpu import Cpu

    target = described(bundle.manifest["target_details"])
    if not isinstance(target, Cpu):
        missing["limits"] = f"nothing measures what {target.name} can do at most"
        return None
    try:
        return peak.limits(target.isa, threads, integers=bool(bundle.manifest.get("integers")))
    except DeployError as error:
        missing["limits"] = error.message
        return None


def _network(bundle: Bundle, inspected: Mapping[str, Any], layers: Sequence[Any]) -> Network:
    import onnx

    from .network import network_of

    model = onnx.load(str(bundle.folder / bundles.ONNX), load_external_data=False)
    return network_of(model, inspected["layers"], layers)


def _int8(bundle: Bundle, missing: dict[str, str], threads: int) -> dict[str, Any]:
    """What is known of an int8 network's errors and ranges."""
    tensors = (bundle.manifest.get("quantization") or {}).get("tensors", {})
    ranges = [_range(name, how) for name, how in tensors.items()]
    if bundle.onnx.name != bundles.INT8_ONNX:
        missing["errors"] = "somebody else quantized the file, and the bundle has no float network to compare with"
        return {"ranges": ranges}
    try:
        import onnx
        import onnx_ir as ir

        from ...quantize.prepare import prepare

        model, int8 = onnx.load(str(bundle.folder / bundles.ONNX)), onnx.load(str(bundle.onnx))
        inputs = bundle.manifest["inputs"]
        given = check.inputs_of(inputs[0], bundle.manifest["preprocessing"], int(bundle.manifest.get("seed", 0)))
        judged = check.inputs_for_int8(given, int8)
        found = check.culprit(model, int8, judged)
        held = _held(ir.to_proto(prepare(model)), ranges, next(iter(judged.values()))[:1], threads)
    except ModuleNotFoundError:
        missing["errors"] = BUILD
        return {"ranges": ranges}
    return {
        "errors": found["layers"],
        "first_fall": found["first_fall"],
        "judged_on": list(judged),
        "ranges": held,
    }


def _range(name: str, how: Mapping[str, Any]) -> Range:
    import numpy as np

    limits = np.iinfo(how["dtype"])
    low, high = ((end - how["zero_point"]) * how["scale"] for end in (limits.min, limits.max))
    return Range(name, how["dtype"], how["scale"], how["zero_point"], low, high)


def _held(model: onnx.ModelProto, ranges: Sequence[Range], pixels: NDArray[Any], threads: int) -> list[Range]:
    """`ranges`, in the network's order, with what the tensors of the float network hold for one input."""
    from ...quantize.runner import Runner

    made = [model.graph.input[0].name, *(value for node in model.graph.node for value in node.output)]
    place = {value: index for index, value in enumerate(made)}
    ranges = sorted(ranges, key=lambda one: place.get(one.tensor, len(place)))
    known = [one for one in ranges if one.tensor in place]
    runner = Runner(model, [one.tensor for one in known], threads=threads)
    seen: dict[str, Range] = {}
    for part in _parts(known):
        values = runner.run(pixels, [one.tensor for one in part])
        for one in part:
            x = values[one.tensor]
            outside = float(((x < one.low - one.scale / 2) | (x > one.high + one.scale / 2)).mean())
            seen[one.tensor] = replace(one, least=float(x.min()), most=float(x.max()), clipped=outside)
    return [seen.get(one.tensor, one) for one in ranges]


def _parts(ranges: Sequence[Range]) -> Iterable[Sequence[Range]]:
    return (ranges[first : first + _LOOKED_AT] for first in range(0, len(ranges), _LOOKED_AT))
