"""The functions that use what is there: the zoo, the targets, bundles. Numpy is enough for what is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..progress import NONE, Progress
from .common import Document, PathLike, needs_builder, path_of, size_of

if TYPE_CHECKING:
    from ..runtime.given import Given
    from ..runtime.model import Model


def models() -> list[Document]:
    """The networks of the zoo: ``name, aliases, input, parameters, macs, top1, weights, options``."""
    from ..models import specs

    return [
        {
            "name": spec.name,
            "aliases": list(spec.aliases),
            "input": list(spec.input),
            "parameters": spec.parameters,
            "macs": spec.macs,
            "top1": spec.top1,
            "weights": spec.weights_source,
            "options": {option.name: option.help for option in spec.options},
        }
        for spec in specs()
    ]


def targets() -> list[Document]:
    """What can be compiled for: ``name, needs, builds, runs, reason``, of this machine."""
    from ..targets import listing

    return listing()


@needs_builder
def load(
    bundle: PathLike,
    *,
    runtime: str = "compiled",
    threads: int | None = None,
    driver: PathLike | None = None,
    labels: PathLike | Sequence[str] | None = None,
) -> Model:
    """A bundle, ready to be called. Needs numpy alone, and Pillow for pictures.

    >>> net = load("irv2-cpu")
    >>> net("photo.jpg").top(5)
    >>> net(["a.jpg", "b.jpg"]).top(1)
    >>> logits = np.asarray(net(x))  # x: float32 (N, 3, 299, 299), already prepared

    Args:
        bundle: a folder or .zip that `export` wrote.
        runtime: ``compiled``; or ``onnxruntime``, on the bundle's ONNX.
        threads: to compute with; every core this process may use where None.
        driver: the library that drives the bundle's accelerator; the usual one where None.
        labels: the names of the classes, or a text file with one a line; the bundle's, or ImageNet's, where None.

    Raises:
        DeployError: (kind ``bundle``) there is none, or it is damaged; (kind ``target``) it cannot run here.
    """
    from ..bundles import engines
    from ..runtime import bundle as bundles
    from ..runtime.model import Model

    with bundles.open(Path(bundle)) as opened:
        plans = engines.plans(runtime, opened, threads=threads, driver=path_of(driver)).open_all()
        return Model(opened, plans.run, labels=labels, close=plans.close)


@needs_builder
def run(
    bundle: PathLike,
    given: Given,
    *,
    runtime: str = "compiled",
    top_k: int = 5,
    labels: PathLike | None = None,
    output: PathLike | None = None,
    allow_nan: bool = False,
    threads: int | None = None,
    driver: PathLike | None = None,
    progress: Progress = NONE,
) -> Document:
    """Run a bundle once and say how long it takes; `load` is for programs.

    Args:
        given: pictures or a tensor, see `inception_deploy.runtime.given`.
        runtime, threads, driver, labels: as for `load`.
        top_k: how many classes to name.
        allow_nan: take inputs that hold a NaN or an infinity.
        output: write the first output there, float32, as .npy.

    Returns:
        ``runtime, latency_ms, inputs, outputs, top``.

    Raises:
        DeployError, UsageError: as `load`; what was given does not fit, is missing or damaged.
    """
    from ..reports.run import run as once
    from ..runtime import bundle as bundles

    progress.stage("open")
    with bundles.open(Path(bundle)) as opened:
        return once(
            opened,
            given,
            runtime=runtime,
            top_k=top_k,
            labels=path_of(labels),
            output=path_of(output),
            allow_nan=allow_nan,
            threads=threads,
            driver=path_of(driver),
            progress=progress,
        )


@needs_builder
def evaluate(
    bundle: PathLike,
    data: PathLike,
    *,
    runtime: Sequence[str] = (),
    csv: PathLike | None = None,
    classes: str | None = None,
    labels: PathLike | None = None,
    images: int | None = None,
    workers: int | None = None,
    output: PathLike | None = None,
    resume: bool = False,
    threads: int | None = None,
    driver: PathLike | None = None,
    progress: Progress = NONE,
) -> Document:
    """Measure a bundle's accuracy on labelled pictures, in its compiled library and in onnxruntime.

    >>> evaluate("irv2-int8", "imagenet/val", images=1000)

    Args:
        data: a folder with a folder of pictures a class, as torchvision's ImageFolder; a .csv of files and classes, or
            a folder with one in it; an .npz of images and labels.
        runtime: of ``compiled`` and ``onnxruntime``; both, where they can run here, if none is named.
        csv: the table, where it does not lie in the folder.
        classes: what the names of classes are: ``label``, ``wnid`` (ImageNet's), ``number`` or ``order`` (of the sorted
            names); the first that knows all of them where None.
        labels, threads, driver: as for `load`.
        images: take only so many pictures, spread evenly.
        workers: threads that prepare pictures; every core this process may use where None.
        output, resume: a file to write, a JSON line a picture; and whether to go on with it where it is there.

    Returns:
        ``images, engines, per_class, confusion``, and more; accuracies are percentages.

    Raises:
        DeployError, UsageError: as `load`; the pictures are damaged, or their classes not the network's.
    """
    from ..reports.evaluate import evaluate as measure
    from ..runtime import bundle as bundles

    progress.stage("open")
    with bundles.open(Path(bundle)) as opened:
        return measure(
            opened,
            Path(data),
            runtimes=[runtime] if isinstance(runtime, str) else runtime,
            table=path_of(csv),
            rule=classes,
            labels=path_of(labels),
            images=images,
            workers=workers,
            output=path_of(output),
            resume=resume,
            threads=threads,
            driver=path_of(driver),
            progress=progress,
        )


@needs_builder
def compare(
    *bundles: PathLike,
    data: PathLike | None = None,
    csv: PathLike | None = None,
    classes: str | None = None,
    labels: PathLike | None = None,
    images: int | None = None,
    runs: int = 30,
    fail_if: str | Sequence[str] = (),
    output: PathLike | None = None,
    threads: int | None = None,
    driver: PathLike | None = None,
    progress: Progress = NONE,
) -> Document:
    """Hold bundles against the first one: outputs on the same pictures, speed, size, memory, and accuracy.

    >>> compare("irv2-cpu", "irv2-int8", data="labelled/", fail_if=["latency > 1.05", "drop > 0.5"])["ok"]

    Args:
        bundles: two or more.
        data, csv, classes, labels, images: as for `evaluate`; crops of a photo where there is no `data`.
        runs: rounds of the measurement of speed.
        threads, driver: as for `load`, of all the bundles.
        output: an .html file to write, which shows all of it.
        fail_if: conditions on what `inception_deploy.reports.compare.FIGURES` lists, for each bundle against the first.

    Returns:
        ``bundles, pairs, failed, ok``, and more.

    Raises:
        UsageError: fewer than two bundles; a condition that cannot be read.
        DeployError: as `evaluate`; a condition speaks of a figure that is not known here; the page cannot be
            written.
    """
    from .. import artifact
    from ..reports.compare import compare as measure
    from ..reports.page import compared

    if output is not None:
        artifact.require_file(Path(output))
    document = measure(
        [Path(path) for path in bundles],
        data=path_of(data),
        table=path_of(csv),
        rule=classes,
        labels=path_of(labels),
        images=images,
        runs=runs,
        fail_if=[fail_if] if isinstance(fail_if, str) else fail_if,
        threads=threads,
        driver=path_of(driver),
        progress=progress,
    )
    if output is not None:
        compared.write(document, Path(output))
    return document | {"page": None if output is None else str(output)}


@needs_builder
def bench(
    *bundles: PathLike,
    against: Sequence[str] = (),
    runs: int = 30,
    threads: int | None = None,
    driver: PathLike | None = None,
    device: str | None = None,
    streams: int | None = None,
    batch: int | Sequence[int] | None = None,
    progress: Progress = NONE,
) -> list[Document]:
    """Time bundles, and other engines on the same networks, in interleaved rounds of one call each.

    >>> bench("irv2-cpu", "irv2-int8", against=["onnxruntime"])

    Args:
        against: of ``onnxruntime``, ``openvino``, ``torch`` and ``torch-compile``.
        driver: as for `load`, of all the bundles.
        streams: also measure images a second of so many handles at once, each with `threads` threads (the cores shared
            out where None).
        batch: of bundles of several plans, those to time, by their numbers of images; all where None.
        device: another machine, ``ssh://[user@]host[:port]``, where the bundles' programs are timed, one after the
            other; it needs nothing installed, and nothing is left there.

    Returns:
        A document a bundle: ``bundle, precision, machine, threads, batch, results, ratio``, and more.

    Raises:
        DeployError, UsageError: an engine is not known, not installed, or cannot run a bundle here; the device cannot
            be reached, or cannot run it.
    """
    from ..reports.bench import bench as measure
    from ..reports.bench import bench_device

    paths = [Path(path) for path in bundles]
    batches = () if batch is None else (batch,) if isinstance(batch, int) else batch
    if device is not None:
        if against or streams or driver is not None:
            message = "--against, --driver and --streams are for this machine, not for --device"
            raise UsageError(message, kind="usage", got=list(against) or device, allowed="--runs, --threads, --batch")
        return bench_device(paths, device, runs=runs, threads=threads, batches=batches, progress=progress)
    if streams and driver is not None:
        message = "--streams are of a library without an accelerator"
        raise UsageError(message, kind="usage", got="--driver", allowed="one of the two")
    return measure(
        paths,
        against=against,
        runs=runs,
        threads=threads,
        driver=path_of(driver),
        streams=streams,
        batches=batches,
        progress=progress,
    )


@needs_builder
def bench_torch(
    model: str,
    *,
    backward: bool = False,
    runs: int = 10,
    threads: int | None = None,
    batch: int = 1,
    width: float = 1.0,
    num_classes: int | None = None,
    input_size: int | tuple[int, int] | None = None,
    progress: Progress = NONE,
) -> Document:
    """Time a network of the zoo in PyTorch: forward, and with `backward` forward and backward together too."""
    from ..reports.bench import bench_torch as measure

    return measure(
        model,
        backward=backward,
        runs=runs,
        threads=threads,
        batch=batch,
        width=width,
        num_classes=num_classes,
        input_size=size_of(input_size),
        progress=progress,
    )


@needs_builder
def inspect(path: PathLike, *, threads: int | None = None, progress: Progress = NONE) -> Document:
    """A bundle's or an ONNX file's work, branches, memory, placement and time per layer.

    Without the builder's packages a bundle still says what was compiled and how long its steps take; ``nodes``,
    ``branches`` and ``layers`` are None then.

    Raises:
        DeployError: the file or the bundle is damaged.
    """
    from ..reports.inspect import inspect as look

    return look(Path(path), threads=threads, progress=progress)


@needs_builder
def report(
    bundle: PathLike,
    output: PathLike,
    *,
    image: PathLike | None = None,
    labels: PathLike | None = None,
    evaluate: PathLike | None = None,
    exported: PathLike | None = None,
    against: Sequence[str] | None = None,
    runs: int = 30,
    threads: int | None = None,
    progress: Progress = NONE,
) -> Document:
    """Measure a bundle on this machine, beside the engines that are installed, and write one self-contained HTML page.

    Args:
        image: a picture to classify; the one that exports are checked on where None.
        labels: the names of the classes; the bundle's, or ImageNet's, where None.
        evaluate: labelled pictures, as `evaluate` takes them, or a .json with the document that it gave.
        exported: a .json with the document that `export` gave.
        against: engines as for `bench`; those that are installed where None.
        runs: of each engine.

    Returns:
        ``report, bundle, bytes``.

    Raises:
        DeployError, UsageError: the bundle or a file is damaged, an engine that was asked for is not known or cannot
            run, or the page cannot be written.
    """
    from ..reports.page.write import write

    return write(
        Path(bundle),
        Path(output),
        image=path_of(image),
        labels=path_of(labels),
        evaluate=path_of(evaluate),
        exported=path_of(exported),
        against=against,
        runs=runs,
        threads=threads,
        progress=progress,
    )
