"""The functions that make something: bundles, int8 networks, databases of tuning. They need the builder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UsageError
from ..progress import NONE, Progress
from .common import Document, PathLike, Preparing, needs_builder, path_of, size_of

if TYPE_CHECKING:
    import torch

    from ..quantize.scheme import Choices
    from ..sources.resolve import Request
    from ..targets.base import Target


@needs_builder
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
    batch: int | Sequence[int] | None = None,
    num_classes: int | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    preprocessing: Preparing = None,
    uint8_input: bool = False,
    calibration: PathLike | None = None,
    scheme: str | None = None,
    effort: str | None = None,
    sixteen_bit: int | None = None,
    images: int | None = None,
    max_drop: float | None = None,
    evaluate: PathLike | None = None,
    tuned: PathLike | None = None,
    shipped_records: bool = True,
    verified: bool = True,
    keep_stages: bool = False,
    keep_fp32: Sequence[str] = (),
    require_int8: float | None = None,
    onnx_only: bool = False,
    embed: bool = False,
    program: bool = True,
    serve: str | None = None,
    config: Mapping[str, Any] | None = None,
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
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; where None fp32, and int8 for a quantized ONNX or a
            target that computes in nothing else.
        weights: a .safetensors file, or what torch.save wrote, whatever its name.  ema: take averaged weights, where
            it has plain ones too.
        input_size: height and width.  width: a factor on all channels.  batch: images at once, or several numbers of
            them, for each of which the bundle gets a plan, all on one copy of the weights.  num_classes: of the
            classifier.  options: what the network has of its own, e.g. ``{"scales": (0.1, 0.1, 0.2)}``.
        seed: of untrained weights and of the random input.
        preprocessing: how a picture becomes the input, where the network does not say or is to have another: a mapping
            with the keys of `Preprocessing`, or a JSON file of them.
        calibration: for int8: a folder of pictures, or an .npz of pictures or of prepared inputs.
        scheme, images: for int8: what the integers mean, where not what suits the target, and on how many pictures to
            calibrate.
        effort: for int8: ``normal`` (default) finds how to quantize by measuring on pictures held back, ``fast`` does
            not, ``best`` reconstructs layer by layer besides.
        sixteen_bit: for int8: so many tensors, those that 8 bits hold worst, have 16; None for what `effort` finds.
        max_drop, evaluate: for int8: points of top-1 that may be lost on these labelled pictures; tensors of the worst
            layers get 16 bits, then layers go back to float, until it holds.
        tuned: a database of `tune`, of the precision of the export.
        shipped_records: without `tuned` and for ``cpu``, take what the package knows of this machine's core.
        verified: compare every stage with the one before it, and write nothing where one differs.
        keep_stages: keep what the network was before and between our passes.
        keep_fp32: nodes, as the bundle's ONNX names them, that fp16, or bf16 of cuda and arm, computes in fp32.
        require_int8: how many percent of the multiply-adds must compute in integers; for int8.
        onnx_only: compile nothing: the bundle holds the ONNX after our passes, in int8 the quantized one, for other
            runtimes; an `output` that ends in .onnx is that file alone.
        embed: the library, the archive and the program of a bundle for cpu or arm hold the weights themselves too.
        program: build ``run_model`` and ``model.a`` for cpu, arm and vta; the first on a machine takes a minute.
        serve: ``triton`` makes `output` a model repository of NVIDIA's Triton Inference Server, with the bundle inside.
        config: kept in the manifest as it is: where the other arguments come from.
        force: replace what stands at `output`.

    Returns:
        ``bundle, model, target, precision, seconds, notes, ok``, and more; ``notes`` are lines that should be read,
        e.g. that the weights are untrained.

    Raises:
        UsageError: an unknown model, target or precision, or an impossible option.
        DeployError: the work could not be done; nothing was written.
    """
    from .. import pipeline
    from ..quantize.effort import check
    from ..quantize.job import Options
    from ..quantize.quantizer import Recipe
    from ..quantize.scheme import Choices
    from ..targets import parse

    goal = parse(target)
    if scheme is not None:
        goal.check_scheme(scheme)
    quantization = None
    if scheme or calibration or max_drop is not None or evaluate or images or effort or sixteen_bit is not None:
        choices = _choices(goal, scheme)
        quantization = Options(
            effort=check(effort or "normal"),
            recipe=Recipe(scheme or goal.scheme_by_default, choices=choices),
            # What a target asks for, it is built for; what it has no kernels for, nobody looks for.
            fixed=frozenset(
                (
                    *(choices.as_dict() if choices != Choices() else ()),
                    *(("sixteen",) if goal.only_bytes else ()),
                    *(("scheme",) if scheme else ()),
                )
            ),
            sixteen=sixteen_bit,
            calibration=path_of(calibration),
            images=images,
            max_drop=max_drop,
            evaluate=path_of(evaluate),
        )
    first, others = _batches(batch)
    return pipeline.export(
        _request(model, weights, ema, input_size, width, first, num_classes, options, seed, preprocessing, uint8_input),
        Path(output),
        target=target,
        precision=precision,
        quantization=quantization,
        tuned=path_of(tuned),
        shipped=shipped_records,
        verified=verified,
        keep_stages=keep_stages,
        keep_fp32=keep_fp32,
        require_int8=require_int8,
        onnx_only=onnx_only,
        embed=embed,
        program=program,
        serve=serve,
        config=config,
        force=force,
        batches=others,
        progress=progress,
    )


def _batches(batch: int | Sequence[int] | None) -> tuple[int | None, list[int]]:
    """The smallest number of images, None for the network's own, and the others, ascending."""
    if batch is None or isinstance(batch, int):
        return batch, []
    if not batch or min(batch) < 1:
        raise UsageError(f"the batches are {list(batch)}", kind="batch", got=list(batch), allowed="numbers from 1 on")
    first, *others = sorted(set(batch))
    return first, others


def _choices(goal: Target, scheme: str | None) -> Choices:
    """The target's switches, as far as a scheme has them."""
    from ..quantize.scheme import SCHEMES, Choices

    power_of_two = scheme is None or (scheme in SCHEMES and SCHEMES[scheme].power_of_two)
    return goal.choices_by_default() if power_of_two else Choices()


@needs_builder
def tune(
    model: PathLike | torch.nn.Module,
    output: PathLike,
    *,
    trials: int,
    target: str = "cpu",
    precision: str | None = None,
    scheme: str | None = None,
    weights: PathLike | None = None,
    ema: bool = False,
    input_size: int | tuple[int, int] | None = None,
    width: float | None = None,
    batch: int | None = None,
    num_classes: int | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    preprocessing: Preparing = None,
    uint8_input: bool = False,
    resume: bool = False,
    tracker: tuple[str, int] | None = None,
    key: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: Progress = NONE,
) -> Document:
    """Search for faster kernels of a network, into a database that ``export(tuned=...)`` builds from.

    >>> tune("irv2", "irv2.db", trials=64)

    Args:
        model, target, weights ... preprocessing: as for `export`.
        output: the database, a folder that keeps every result.
        precision: one that the target computes in; None for int8 where the model is a quantized ONNX or the target a
            VTA, and fp32 otherwise. For int8 a float network is quantized on random pictures: what its scales are makes
            no difference to its kernels.
        scheme: how it is quantized; None for the target's own.
        trials: choices to judge, of all layers together: by measuring, on a VTA by its cycle model.
        resume: go on with the database that stands at `output`.
        tracker, key: host and port of an RPC tracker of TVM, and the devices' key there; both, or neither.
        device: another machine to measure on, ``ssh://[user@]host[:port]``.
        threads: that the network will run on.

    Returns:
        ``tasks, trials, records, before_ms, after_ms, database``, and more.

    Raises:
        UsageError, DeployError: as `export`; the database cannot be used; nothing can be measured.
    """
    from ..tuning.session import tune as search

    return search(
        _request(model, weights, ema, input_size, width, batch, num_classes, options, seed, preprocessing, uint8_input),
        Path(output),
        target=target,
        precision=precision,
        scheme=scheme,
        trials=trials,
        resume=resume,
        tracker=tracker,
        device_key=key,
        device=device,
        threads=threads,
        progress=progress,
    )


@needs_builder
def quantize(
    model: PathLike,
    output: PathLike,
    *,
    calibration: PathLike | None = None,
    ranges: PathLike | None = None,
    scheme: str = "float-scale",
    effort: str = "normal",
    sixteen_bit: int | None = None,
    method: str | None = None,
    percentile: float = 99.99,
    images: int | None = None,
    max_drop: float | None = None,
    evaluate: PathLike | None = None,
    concat: Literal["shared", "own"] | None = None,
    add: Literal["aligned", "own", "accumulator"] | None = None,
    average: Literal["window", "input", "own", "summed", "alike"] | None = None,
    moves: Literal["input", "own"] | None = None,
    equalise: bool | None = None,
    correct_bias: bool | None = None,
    adaptive_rounding: bool | None = None,
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
        effort: ``normal`` finds what is None below by measuring on pictures held back; ``fast`` does not, ``best``
            reconstructs layer by layer besides.
        sixteen_bit: as for `export`.
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
    from ..quantize.effort import check
    from ..quantize.job import Job, run
    from ..quantize.quantizer import DEFAULT_METHOD, Recipe
    from ..quantize.repair import Repairs
    from ..quantize.scheme import Choices
    from ..sources import preparing

    said = {
        "method": method, "concat": concat, "add": add, "average": average, "moves": moves,
        "equalise": equalise, "bias": correct_bias, "rounding": adaptive_rounding,
    }  # fmt: skip
    recipe = Recipe(
        scheme,
        method or DEFAULT_METHOD,
        percentile,
        Choices(concat or "shared", add or "aligned", average or "window", moves or "input"),
        Repairs(bool(equalise), bool(correct_bias), bool(adaptive_rounding)),
    )
    job = Job(
        model=os.fspath(model),
        output=Path(output),
        calibration=path_of(calibration),
        recipe=recipe,
        effort=check(effort),
        sixteen=sixteen_bit,
        fixed=frozenset(name for name, value in said.items() if value is not None) | {"scheme"},
        ranges=path_of(ranges),
        images=images,
        max_drop=max_drop,
        evaluate=path_of(evaluate),
        force=force,
        preprocessing=preparing.said(preprocessing),
        threads=threads or 0,
    )
    return run(job, progress)


@needs_builder
def verify(
    bundle: PathLike,
    *,
    threads: int | None = None,
    driver: PathLike | None = None,
    device: str | None = None,
    progress: Progress = NONE,
) -> Document:
    """Every stage of a bundle against the one before it; `driver` as for `load`.

    Args:
        device: another machine, ``ssh://[user@]host[:port]``, where the bundle's program runs the compiled stage with
            so many `threads`; it needs nothing installed, and nothing is left there.

    Returns:
        ``ok, stages, not_run``; of an int8 bundle ``layers`` and ``first_fall`` too.

    Raises:
        DeployError: the bundle is damaged; the device cannot be reached, or cannot run it.
    """
    from ..bundles import device as devices
    from ..reports.check import verify_bundle
    from ..runtime import bundle as bundles

    progress.stage("open")
    with bundles.open(Path(bundle)) as opened:
        if device is None:
            return verify_bundle(opened, threads=threads, driver=path_of(driver), progress=progress)
        if driver is not None:
            raise UsageError("--driver is for this machine", kind="usage", got="--device", allowed="one of the two")
        with devices.opened(device, opened, threads=threads) as there:
            return verify_bundle(opened, compiled=there, progress=progress)


def _request(
    model: PathLike | torch.nn.Module,
    weights: PathLike | None,
    ema: bool,
    input_size: int | tuple[int, int] | None,
    width: float | None,
    batch: int | Sequence[int] | None,
    num_classes: int | None,
    options: Mapping[str, Any] | None,
    seed: int,
    preprocessing: Preparing,
    uint8_input: bool,
) -> Request:
    from ..sources import preparing
    from ..sources.resolve import Request

    name, module = type(model).__name__, None
    if isinstance(model, (str, os.PathLike)):
        name = os.fspath(model)
    elif callable(getattr(model, "state_dict", None)):
        module = model
    else:
        allowed = "a name, a path, or an nn.Module"
        raise UsageError(f"the model is of type {name}", kind="model", got=name, allowed=allowed)
    if batch is not None and not isinstance(batch, int):
        message = "tuning is of one number of images; export takes its choices for all plans that have such layers"
        raise UsageError(message, kind="batch", got=list(batch), allowed="--batch N")
    return Request(
        model=name,
        module=module,
        weights=path_of(weights),
        ema=ema,
        input_size=size_of(input_size),
        width=width,
        batch=batch,
        num_classes=num_classes,
        seed=seed,
        options=dict(options or {}),
        preprocessing=preparing.said(preprocessing),
        uint8_input=uint8_input,
    )
