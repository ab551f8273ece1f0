"""The front door: one function a command, with the command's options. `inception_deploy` hands them out by name.

Each is imported without anything heavy, and imports what it needs when it is called. One that needs the builder's
packages says so where they are not installed. Paths are text or `Path`. What is returned is the document that the
command prints with ``--json``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeAlias, TypeVar

from .errors import DeployError, UsageError
from .progress import NONE, Progress

if TYPE_CHECKING:
    import torch

    from .runtime.given import Given
    from .runtime.model import Model

PathLike: TypeAlias = "str | os.PathLike[str]"
Preparing: TypeAlias = "PathLike | Mapping[str, Any] | None"
Document: TypeAlias = "dict[str, Any]"

P = ParamSpec("P")
R = TypeVar("R")

# fmt: off
_BUILDERS = frozenset({
    "torch", "tvm", "tvm_ffi", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "onnxsim", "safetensors", "jinja2",
    "ziglang", "cloudpickle", "psutil",
})
# fmt: on
"""The modules of what ``inception-deploy[build]`` installs."""


def _needs_builder(function: Callable[P, R]) -> Callable[P, R]:
    """Where a package of the builder is missing, the error says what to install."""

    @wraps(function)
    def guarded(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return function(*arguments, **options)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _BUILDERS:
                raise
            raise DeployError(
                f"{function.__name__.replace('_', ' ')} needs the packages of inception-deploy[build]: "
                "pip install 'inception-deploy[build]'",
                kind="install",
                got=f"no {error.name}",
            ) from error

    return guarded


def models() -> list[Document]:
    """The networks of the zoo: ``name, aliases, input, parameters, macs, top1, weights, options``."""
    from .models import specs

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
    from .targets import listing

    return listing()


@_needs_builder
def export(
    model: PathLike | torch.nn.Module,
    output: PathLike,
    *,
    target: str = "cpu",
    precision: str | None = None,
    weights: PathLike | None = None,
    ema: bool = False,
    input_size: int | tuple[int, int] | None = None,
    width: float | None = None,
    batch: int | None = None,
    num_classes: int | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    preprocessing: Preparing = None,
    calibration: PathLike | None = None,
    scheme: str | None = None,
    images: int | None = None,
    max_drop: float | None = None,
    evaluate: PathLike | None = None,
    tuned: PathLike | None = None,
    verified: bool = True,
    keep_stages: bool = False,
    require_int8: float | None = None,
    force: bool = False,
    progress: Progress = NONE,
) -> Document:
    """From a network to a verified, compiled bundle.

    >>> export("irv2", "irv2-int8", precision="int8", calibration="photos/")

    Args:
        model: a network of the zoo (``models()``), a trained .safetensors file, an .onnx file, or
            ``"file.py:callable"`` or ``"package.module:callable"`` that gives an nn.Module; or an nn.Module itself,
            which is copied and stays as it is.
        output: the bundle to write: a folder, or a .zip.
        target: what to compile for (``targets()``).
        precision: ``fp32``, ``int8`` or ``bf16``; fp32 where None, and int8 where the model is a quantised ONNX.
        weights: a .safetensors file, or what torch.save wrote, whatever its name.  ema: take averaged weights, where
            it has plain ones too.
        input_size: height and width.  width: a factor on all channels.  batch: images at once.  num_classes: of the
            classifier.  options: what the network has of its own, e.g. ``{"scales": (0.1, 0.1, 0.2)}``.
        seed: of untrained weights and of the random input.
        preprocessing: how a picture becomes the input, where the network does not say or is to have another: a mapping
            with the keys of `Preprocessing`, or a JSON file of them.
        calibration: for int8: a folder of pictures, or an .npz of pictures or of prepared inputs.
        scheme, images: for int8: what the integers mean, and on how many pictures to calibrate.
        max_drop, evaluate: for int8: points of top-1 that may be lost on these labelled pictures; layers go back to
            float until it holds.
        tuned: a database of `tune`; for fp32.
        verified: compare every stage with the one before it, and write nothing where one differs.
        keep_stages: keep what the network was before and between our passes.
        require_int8: how many percent of the multiply-adds must compute in integers; for int8.
        force: replace what stands at `output`.

    Returns:
        ``bundle, model, target, precision, seconds, notes, ok``, and more; ``notes`` are lines that should be read,
        e.g. that the weights are untrained.

    Raises:
        UsageError: an unknown model, target or precision, or an impossible option.
        DeployError: the work could not be done; nothing was written.
    """
    from . import pipeline
    from .quantize.job import Options
    from .quantize.quantise import Recipe

    quantisation = None
    if scheme or calibration or max_drop is not None or evaluate or images:
        quantisation = Options(
            recipe=Recipe(scheme or "float-scale"),
            calibration=_path(calibration),
            images=images,
            max_drop=max_drop,
            evaluate=_path(evaluate),
        )
    return pipeline.export(
        _request(model, weights, ema, input_size, width, batch, num_classes, options, seed, preprocessing),
        Path(output),
        target=target,
        precision=precision,
        quantisation=quantisation,
        tuned=_path(tuned),
        verified=verified,
        keep_stages=keep_stages,
        require_int8=require_int8,
        force=force,
        progress=progress,
    )


@_needs_builder
def tune(
    model: PathLike | torch.nn.Module,
    output: PathLike,
    *,
    trials: int,
    target: str = "cpu",
    weights: PathLike | None = None,
    ema: bool = False,
    input_size: int | tuple[int, int] | None = None,
    width: float | None = None,
    batch: int | None = None,
    num_classes: int | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    preprocessing: Preparing = None,
    resume: bool = False,
    tracker: tuple[str, int] | None = None,
    key: str | None = None,
    threads: int | None = None,
    progress: Progress = NONE,
) -> Document:
    """Search for faster kernels of a network by measuring, into a database that ``export(tuned=...)`` builds from.

    >>> tune("irv2", "irv2.db", trials=64)

    Args:
        model, target, weights ... preprocessing: as for `export`.
        output: the database, a folder that keeps every measurement.
        trials: choices to measure, of all layers together.
        resume: go on with the database that stands at `output`.
        tracker, key: host and port of an RPC tracker of TVM, and the devices' key there; both, or neither.
        threads: that the network will run on.

    Returns:
        ``tasks, trials, records, before_ms, after_ms, database``, and more.

    Raises:
        UsageError, DeployError: as `export`; the database cannot be used; nothing can be measured.
    """
    from .tuning.session import tune as search

    return search(
        _request(model, weights, ema, input_size, width, batch, num_classes, options, seed, preprocessing),
        Path(output),
        target=target,
        trials=trials,
        resume=resume,
        tracker=tracker,
        device_key=key,
        threads=threads,
        progress=progress,
    )


@_needs_builder
def quantize(
    model: PathLike,
    output: PathLike,
    *,
    calibration: PathLike | None = None,
    ranges: PathLike | None = None,
    scheme: str = "float-scale",
    method: str = "mse",
    percentile: float = 99.99,
    images: int | None = None,
    max_drop: float | None = None,
    evaluate: PathLike | None = None,
    concat: Literal["shared", "own"] = "shared",
    add: Literal["aligned", "own"] = "aligned",
    average: Literal["window", "input", "own"] = "window",
    moves: Literal["input", "own"] = "input",
    equalise: bool = False,
    correct_bias: bool = False,
    adaptive_rounding: bool = False,
    preprocessing: Preparing = None,
    force: bool = False,
    threads: int | None = None,
    progress: Progress = NONE,
) -> Document:
    """Turn a float32 ONNX into a QDQ one, which onnxruntime runs as it is and `export` takes like any other.

    >>> quantize("net.onnx", "net.int8.onnx", calibration="photos/")

    Args:
        model: as for `export`.
        output: the .onnx to write.
        calibration: a folder of pictures, or an .npz of pictures or of prepared inputs.
        ranges: a JSON that is read where it exists, in place of calibrating, and written where it does not.
        scheme: what the integers mean: ``float-scale``, ``float-scale-int8``, ``power-of-two`` or
            ``power-of-two-tensor``.
        method, percentile: how ranges are chosen: ``minmax``, ``percentile``, ``entropy`` or ``mse``.
        images: calibrate on the first so many only.
        max_drop, evaluate, preprocessing: as for `export`.
        concat, add, average, moves: how the scales of neighbours relate (`inception_deploy.quantize.scheme.Choices`).
        equalise, correct_bias, adaptive_rounding: repairs of the weights.
        force: replace what stands at `output`.

    Returns:
        ``model, scheme, images, float_nodes, drop_points``, and more.

    Raises:
        UsageError: an unknown model, scheme or method; neither calibration nor ranges.
        DeployError: the work could not be done; nothing was written.
    """
    from .quantize.job import Job
    from .quantize.job import run as quantise
    from .quantize.quantise import Recipe
    from .quantize.repair import Repairs
    from .quantize.scheme import Choices
    from .sources import preparing

    recipe = Recipe(
        scheme,
        method,
        percentile,
        Choices(concat, add, average, moves),
        Repairs(equalise, correct_bias, adaptive_rounding),
    )
    job = Job(
        model=os.fspath(model),
        output=Path(output),
        calibration=_path(calibration),
        recipe=recipe,
        ranges=_path(ranges),
        images=images,
        max_drop=max_drop,
        evaluate=_path(evaluate),
        force=force,
        preprocessing=preparing.said(preprocessing),
        threads=threads or 0,
    )
    return quantise(job, progress)


@_needs_builder
def load(
    bundle: PathLike,
    *,
    runtime: str = "compiled",
    threads: int | None = None,
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
        labels: the names of the classes, or a text file with one a line; the bundle's, or ImageNet's, where None.

    Raises:
        DeployError: (kind ``bundle``) there is none, or it is damaged; (kind ``target``) it cannot run here.
    """
    from .bundles import engines
    from .runtime import bundle as bundles
    from .runtime.model import Model

    with bundles.open(Path(bundle)) as opened:
        if runtime == "compiled":
            library = engines.load_compiled(opened, threads)
            return Model(opened, library.run, labels=labels, close=library.close)
        return Model(opened, engines.make(runtime, opened, threads=threads).run, labels=labels)


@_needs_builder
def run(
    bundle: PathLike,
    given: Given,
    *,
    runtime: str = "compiled",
    top_k: int = 5,
    labels: PathLike | None = None,
    output: PathLike | None = None,
    threads: int | None = None,
    progress: Progress = NONE,
) -> Document:
    """Run a bundle once and say how long it takes; `load` is for programs.

    Args:
        given: pictures or a tensor, see `inception_deploy.runtime.given`.
        runtime, threads, labels: as for `load`.
        top_k: how many classes to name.
        output: write the first output there, float32, as .npy.

    Returns:
        ``runtime, latency_ms, inputs, outputs, top``.

    Raises:
        DeployError, UsageError: as `load`; what was given does not fit, is missing or damaged.
    """
    from .reports.run import run as once
    from .runtime import bundle as bundles

    progress.stage("open")
    with bundles.open(Path(bundle)) as opened:
        return once(
            opened,
            given,
            runtime=runtime,
            top_k=top_k,
            labels=_path(labels),
            output=_path(output),
            threads=threads,
            progress=progress,
        )


@_needs_builder
def verify(bundle: PathLike, *, threads: int | None = None, progress: Progress = NONE) -> Document:
    """Every stage of a bundle against the one before it.

    Returns:
        ``ok, stages, not_run``; of an int8 bundle ``layers`` and ``first_fall`` too.

    Raises:
        DeployError: the bundle is damaged.
    """
    from .reports.check import verify_bundle
    from .runtime import bundle as bundles

    progress.stage("open")
    with bundles.open(Path(bundle)) as opened:
        return verify_bundle(opened, threads=threads, progress=progress)


@_needs_builder
def bench(
    *bundles: PathLike,
    against: Sequence[str] = (),
    runs: int = 30,
    threads: int | None = None,
    progress: Progress = NONE,
) -> list[Document]:
    """Time bundles, and other engines on the same networks, in interleaved rounds of one call each.

    >>> bench("irv2-cpu", "irv2-int8", against=["onnxruntime"])

    Args:
        against: of ``onnxruntime``, ``openvino``, ``torch`` and ``torch-compile``.

    Returns:
        A document a bundle: ``bundle, precision, machine, threads, batch, results, ratio``, and more.

    Raises:
        DeployError, UsageError: an engine is not known, not installed, or cannot run a bundle here.
    """
    from .reports.bench import bench as measure

    return measure([Path(path) for path in bundles], against=against, runs=runs, threads=threads, progress=progress)


@_needs_builder
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
    from .reports.bench import bench_torch as measure

    return measure(
        model,
        backward=backward,
        runs=runs,
        threads=threads,
        batch=batch,
        width=width,
        num_classes=num_classes,
        input_size=_size(input_size),
        progress=progress,
    )


@_needs_builder
def inspect(path: PathLike, *, threads: int | None = None, progress: Progress = NONE) -> Document:
    """A bundle's or an ONNX file's work, branches, memory, placement and time per layer.

    Without the builder's packages a bundle still says what was compiled and how long its steps take; ``nodes``,
    ``branches`` and ``layers`` are None then.

    Raises:
        DeployError: the file or the bundle is damaged.
    """
    from .reports.inspect import inspect as look

    return look(Path(path), threads=threads, progress=progress)


@_needs_builder
def report(bundle: PathLike, output: PathLike, *, threads: int | None = None, progress: Progress = NONE) -> Document:
    """Write a bundle's facts as one self-contained HTML page.

    Raises:
        DeployError: the bundle is damaged, or the page cannot be written.
    """
    from .reports import page

    return page.write(Path(bundle), Path(output), threads=threads, progress=progress)


def _request(
    model: PathLike | torch.nn.Module,
    weights: PathLike | None,
    ema: bool,
    input_size: int | tuple[int, int] | None,
    width: float | None,
    batch: int | None,
    num_classes: int | None,
    options: Mapping[str, Any] | None,
    seed: int,
    preprocessing: Preparing,
) -> Any:
    from .sources import preparing
    from .sources.resolve import Request

    name, module = type(model).__name__, None
    if isinstance(model, (str, os.PathLike)):
        name = os.fspath(model)
    elif callable(getattr(model, "state_dict", None)):
        module = model
    else:
        allowed = "a name, a path, or an nn.Module"
        raise UsageError(f"the model is of type {name}", kind="model", got=name, allowed=allowed)
    return Request(
        model=name,
        module=module,
        weights=_path(weights),
        ema=ema,
        input_size=_size(input_size),
        width=width,
        batch=batch,
        num_classes=num_classes,
        seed=seed,
        options=dict(options or {}),
        preprocessing=preparing.said(preprocessing),
    )


def _size(given: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (given, given) if isinstance(given, int) else given


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given)
