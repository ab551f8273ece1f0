"""What ``--model`` names: a zoo name, a trained file, an ONNX file, a Python callable. All become one ONNX."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import inception_deploy.models as models

from .. import feeds
from ..errors import DeployError, UsageError
from . import capture, hub, metadata, original, pixels, preparing

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch
    from numpy.typing import NDArray
    from onnx import ModelProto

    from ..models.base import Network

_DEFAULT_SIZE = 224


@dataclass(frozen=True)
class Request:
    """What the user asked for about the network; None means the network's own. Where there is a `module` already,
    `model` is its name.
    """

    model: str
    weights: Path | None = None
    ema: bool = False
    input_size: tuple[int, int] | None = None
    width: float | None = None
    batch: int | None = None
    num_classes: int | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: preparing.Said = field(default_factory=preparing.Said)
    module: torch.nn.Module | None = None
    uint8_input: bool = False


@dataclass(frozen=True)
class Source:
    """A network, ready to become ONNX.

    Attributes:
        name: for the manifest.
        preprocessing: as in the manifest; None for a network that does not take pictures.
        zoo: what rebuilds the network of the zoo without its weights; None for a user's network.
        labels: the names of the classes; None where the network does not say (1000 classes are ImageNet's).
        notes: lines the user should read.
        onnx: gives the simplified ONNX; takes a function that is told what is being done.
        reference: the outputs for an input of what the network came from.
        origin: what that is: the PyTorch module, or the user's file as it was before anything of ours touched it.
        file: the user's ONNX.
        rounded: the user's file, where it holds floats of 16 bits: it rounds as those do, and its ONNX here does not.
    """

    name: str
    preprocessing: Mapping[str, Any] | None
    zoo: Mapping[str, Any] | None
    labels: tuple[str, ...] | None
    notes: tuple[str, ...]
    onnx: Callable[[Callable[[str], None]], onnx.ModelProto]
    reference: Callable[[NDArray[np.float32]], Sequence[NDArray[Any]]]
    origin: str = "torch"
    rounded: ModelProto | None = None
    file: Path | None = None


def resolve(request: Request) -> Source:
    """Find and build what `request` names.

    Raises:
        UsageError: there is no such model, or an option that it cannot have.
        DeployError: a file cannot be read, or the user's code fails.
    """
    source = _found(request)
    return pixels.taking(source) if request.uint8_input else source


def _found(request: Request) -> Source:
    text = request.model
    if request.module is not None:
        return _from_callable(request)
    if request.ema and request.weights is None:
        raise UsageError("--ema chooses weights of a file", kind="usage", got="--ema", allowed="--weights FILE --ema")
    if text.lower().endswith(".onnx"):
        return _from_onnx(request)
    if text.endswith(".safetensors"):
        return _from_trained(request)
    if hub.is_folder(Path(text)):
        return _from_folder(request, Path(text))
    if request.weights is not None and hub.is_folder(request.weights):
        return _from_folder(request, request.weights)
    if ":" in text or text.endswith(".py"):
        return _from_callable(request)
    return _from_zoo(request)


def _from_folder(request: Request, path: Path) -> Source:
    """A folder of the Hugging Face hub, as --model or, for a network of the zoo, as --weights."""
    folder = hub.read(path)
    if request.weights is None:
        request = replace(request, model=folder.name)
    elif request.weights != path:
        message = f"--weights does not go with {path}: it holds its own"
        raise UsageError(message, kind="usage", got=str(request.weights), allowed="one of both")
    elif models.resolve(request.model) != folder.name:
        message = f"{path} holds {folder.name}, not {request.model}"
        raise DeployError(message, kind="weights", got=folder.name, allowed=models.resolve(request.model))
    classes = folder.classes if request.num_classes is None else request.num_classes
    return _from_zoo(replace(request, weights=folder.weights, num_classes=classes), folder)


def _from_zoo(request: Request, folder: hub.Folder | None = None) -> Source:
    name = models.resolve(request.model)
    spec = models.spec(name)
    width = 1.0 if request.width is None else request.width
    module = models.build(
        name,
        num_classes=request.num_classes,
        width=width,
        input_size=request.input_size,
        seed=request.seed,
        weights=request.weights,
        ema=request.ema,
        **request.options,
    )
    untrained = f"{name}: the weights are untrained (random, seed {request.seed}); --weights FILE loads trained ones"
    classes = spec.num_classes if request.num_classes is None else request.num_classes
    notes = module.notes if module.trained else (untrained,)
    labels = None
    if folder is not None:
        module.preprocessing, labels = folder.preprocessing, folder.labels
    return _from_network(module, request, classes, width, request.options, labels, notes)


def _from_trained(request: Request) -> Source:
    """A file that `models.trained.save` wrote: it says itself which network it is and how it was built."""
    shaping = {"--weights": request.weights, "--input-size": request.input_size}
    _refuse_zoo_options(request, "a trained network", shaping)
    module, info = models.load_trained(request.model)
    return _from_network(module, request, len(info.classes), info.width, info.options, tuple(info.classes), ())


def _from_network(
    module: Network,
    request: Request,
    classes: int,
    width: float,
    options: Mapping[str, Any],
    labels: tuple[str, ...] | None,
    notes: tuple[str, ...],
) -> Source:
    zoo = {
        "num_classes": classes,
        "width": width,
        "input": list(module.input_shape),
        "options": {key: list(v) if isinstance(v, tuple) else v for key, v in options.items()},
        "trained": module.trained,
    }
    name, shape = module.spec.name, (request.batch or 1, *module.input_shape)
    preprocessing, told = preparing.settled(module.preprocessing, request.preprocessing, shape, name)
    return _from_module(name, module, shape, preprocessing, zoo, labels, (*notes, *told))


def _from_callable(request: Request) -> Source:
    import torch

    _refuse_zoo_options(request, "a callable")
    torch.manual_seed(request.seed)
    # A copy of a module that is the caller's: it is made float32, and weights are loaded into it.
    given = request.module and copy.deepcopy(request.module).eval()
    module = capture.load_callable(request.model) if given is None else given
    notes = [f"{request.model}: {note}" for note in capture.as_float32(module)]
    if request.weights is not None:
        from ..models import checkpoint

        notes += checkpoint.load(module, request.weights, ema=request.ema).notes
    size = request.input_size
    if size is None:
        size = (_DEFAULT_SIZE, _DEFAULT_SIZE)
        notes.append(
            f"{request.model}: the input size is not known; taken as {size[0]}x{size[1]}, --input-size changes it"
        )
    shape = (request.batch or 1, _input_channels(module, size), *size)
    preprocessing, assumed = preparing.settled(None, request.preprocessing, shape, request.model)
    name = request.model.rpartition(":")[2]
    return _from_module(name, module, shape, preprocessing, None, None, (*notes, *assumed))


def _from_onnx(request: Request) -> Source:
    _refuse_zoo_options(request, "an ONNX file")
    if request.weights is not None:
        raise UsageError(
            "--weights does not go with an ONNX file: it holds its own", kind="usage", got=str(request.weights)
        )
    told: list[str] = []
    path = Path(request.model)
    model = capture.load_onnx(path, batch=request.batch, input_size=request.input_size, static=True, tell=told.append)
    ports = feeds.ports(model)
    file = original.described(path)
    own, labels = metadata.preprocessing(file, request.model), metadata.labels(file, request.model)
    shape, dtype = ports[0]["shape"] if ports[0]["dtype"] in ("float32", "uint8") else (), ports[0]["dtype"]
    preprocessing, notes = preparing.settled(own, request.preprocessing, shape, request.model, dtype=dtype)

    def reference(x: NDArray[np.float32]) -> Sequence[NDArray[Any]]:
        return original.run_file(path, feeds.feed(ports, x))

    return Source(
        path.stem,
        preprocessing,
        None,
        labels,
        (*told, *notes),
        lambda say: model,
        reference,
        "original file",
        original.in_halves(path),
        path,
    )


def _from_module(
    name: str,
    module: torch.nn.Module,
    shape: Sequence[int],
    preprocessing: Mapping[str, Any] | None,
    zoo: Mapping[str, Any] | None,
    labels: tuple[str, ...] | None,
    notes: Sequence[str],
) -> Source:
    def to_onnx(say: Callable[[str], None]) -> onnx.ModelProto:
        return capture.to_onnx(module, shape, progress=say)

    def reference(x: NDArray[np.float32]) -> Sequence[NDArray[Any]]:
        return [capture.run_torch(module, x)]

    return Source(name, preprocessing, zoo, labels, tuple(notes), to_onnx, reference)


def _refuse_zoo_options(request: Request, what: str, also: Mapping[str, object] | None = None) -> None:
    given: dict[str, object] = {
        **(also or {}),
        "--width": request.width,
        "--num-classes": request.num_classes,
        "--option": request.options or None,
    }
    for flag, value in given.items():
        if value is not None:
            raise UsageError(
                f"{flag} shapes networks of the zoo; {request.model} is {what}",
                kind="usage",
                got=flag,
                allowed=models.names(),
            )


def _input_channels(module: torch.nn.Module, size: tuple[int, int]) -> int:
    """What the first convolution takes; 3 where there is none. Where that is no picture's number, the module may have
    made it from a picture (TResNet and YOLO move pixels into channels): the first that it runs on.
    """
    import torch

    convolutions = (layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d))
    first = next((layer.in_channels for layer in convolutions), 3)
    for channels in () if first in (1, 3) else (first, 3, 1):
        with contextlib.suppress(Exception), torch.no_grad():  # whatever the module raises of a wrong input
            module(torch.zeros(1, channels, *size))
            return channels
    return first
