"""Where a network's preprocessing comes from: the network itself, what its file says, and what the user says on top.

The keys are those of `Preprocessing` everywhere: as options (``--mean 0.5,0.5,0.5``), in the JSON file of
``--preprocessing``, in a bundle's manifest, and in the metadata of its ONNX (`metadata`), by which an ONNX that was
exported once and is exported again keeps its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import DeployError, UsageError
from ..runtime.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, as_dict, fraction

USUAL = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, resize=256, crop=(224, 224))
"""ImageNet's, as torchvision has it: what is assumed of a network that does not say."""


@dataclass(frozen=True)
class Said:
    """What the user says of the preprocessing, in the fields of `Preprocessing`; None means the network's own."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: str | None = None
    color: str | None = None
    resize: int | None = None
    crop: tuple[int, int] | None = None
    interpolation: str | None = None
    layout: str | None = None

    def given(self) -> dict[str, Any]:
        """What was said, by the field's name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


_TOLD = {"steps", "inputs", "outputs"}
"""What a bundle's files say beside: the steps in words, and the tensors."""


def said(given: str | os.PathLike[str] | Mapping[str, Any] | None) -> Said:
    """What the user says, as a mapping of values or of text, or a JSON file of them. In a mapping, ``file`` names a
    file that its other keys go over.

    Raises:
        UsageError: (kind ``preprocessing``) a key is not known or a value cannot be read; it names them.
        DeployError: (kind ``preprocessing``) the file cannot be read.
    """
    if not isinstance(given, Mapping):
        given = {"file": given}
    values: dict[str, Any] = {}
    file = given.get("file")
    if file is not None:
        for key, value in _document(Path(file)).items():
            if key not in _TOLD and value is not None and not (key == "dtype" and value == "float32"):
                values[key] = _parsed(key, value, f"{file}: '{key}'")
    for key, value in given.items():
        if key != "file" and value is not None:
            values[key] = _parsed(key, value, f"--{key}")
    return Said(**values)


def _document(file: Path) -> dict[str, Any]:
    allowed = "a JSON object with the keys of a manifest's preprocessing"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"--preprocessing {file} does not exist"
        raise DeployError(message, kind="preprocessing", got=str(file), allowed=allowed) from error
    except (OSError, ValueError, RecursionError) as error:
        message = f"--preprocessing {file} cannot be read: {error}"
        raise DeployError(message, kind="preprocessing", got=str(file), allowed=allowed) from error
    if not isinstance(document, dict):
        message = f"--preprocessing {file} is no JSON object"
        raise DeployError(message, kind="preprocessing", got=type(document).__name__, allowed=allowed)
    return document


def _numbers(value: Any) -> tuple[float, ...]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    return tuple(float(part) for part in parts)


def _whole(value: Any) -> int:
    if isinstance(value, (bool, float)) or not str(value).isdecimal():
        raise ValueError(value)
    return int(value)


def _sides(value: Any) -> tuple[int, int]:
    parts = (
        value.lower().split("x") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    )
    if len(parts) not in (1, 2):
        raise ValueError(value)
    return _whole(parts[0]), _whole(parts[-1])


def _scale(value: Any) -> str:
    fraction(str(value))
    return str(value)


_READERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "mean": (_numbers, "one number, or one a channel, e.g. 0.485,0.456,0.406"),
    "std": (_numbers, "one number, or one a channel, e.g. 0.229,0.224,0.225"),
    "scale": (_scale, "a number or a fraction above 0, e.g. 1/255, 1, 1/127.5"),
    "color": (str, "rgb, bgr or gray"),
    "resize": (_whole, "the length of the shorter side in pixels, e.g. 256"),
    "crop": (_sides, "N or HxW, the network's input size"),
    "interpolation": (str, "nearest, bilinear, bicubic or lanczos"),
    "layout": (str, "nchw or nhwc"),
}


def _parsed(key: str, value: Any, where: str) -> Any:
    if key not in _READERS:
        raise UsageError(f"{where} is no key of a preprocessing", kind="preprocessing", got=key, allowed=list(_READERS))
    read, allowed = _READERS[key]
    try:
        return read(value)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where} is '{value}'", kind="preprocessing", got=str(value), allowed=allowed) from error


def settled(
    own: Preprocessing | None, wanted: Said, shape: Sequence[int], name: str, *, dtype: str = "float32"
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The preprocessing of a network, as in the manifest, and lines that say what was assumed.

    What the user says goes over the network's own. Of a network that does not say, ImageNet's is assumed, unless the
    user speaks of scale, mean or std: then what is left out of these is 1/255, 0 and 1.

    Args:
        own: what the network or its file says.
        shape: of the network's input, the batch first.
        dtype: of the network's input.

    Returns:
        None where the input is no picture of 1 or 3 channels.

    Raises:
        UsageError: (kind ``preprocessing``) what was said does not fit the network.
    """
    given = wanted.given()
    layout = wanted.layout or (own.layout if own is not None else _layout(shape))
    channels = shape[{"nchw": 1, "nhwc": 3}.get(layout or "", 1)] if len(shape) == 4 else 0
    if layout is None or channels not in (1, 3):
        if given:
            message = f"{name}: --{next(iter(given))} speaks of pictures, and the input {list(shape)} takes none"
            allowed = "an input with 1 or 3 channels"
            raise UsageError(message, kind="preprocessing", got=list(shape), allowed=allowed)
        return None, ()
    height, width = (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])
    speaks = bool({"mean", "std", "scale"} & set(given))
    notes: tuple[str, ...] = ()
    base = own.at(height, width) if own is not None and own.crop != (height, width) else own
    if base is None:
        base = USUAL.at(height, width).channels(channels)
        if speaks or dtype == "uint8":
            scale = "1" if dtype == "uint8" else "1/255"
            base = replace(base, mean=(0.0,) * channels, std=(1.0,) * channels, scale=scale, dtype=dtype)
        if not speaks and dtype != "uint8":
            notes = (
                f"{name}: its preprocessing is not known, ImageNet's is assumed; --mean, --std and the like say "
                "another, and run --input passes by it",
            )
    if given.get("crop", (height, width)) != (height, width):
        message = f"--crop is {_size(given['crop'])}, but the network's input is {_size((height, width))}"
        raise UsageError(message, kind="preprocessing", got=_size(given["crop"]), allowed=_size((height, width)))
    for key in ("mean", "std"):
        if len(given.get(key, ())) == 1:
            given[key] *= channels
    try:
        how = replace(base, **{**given, "crop": (height, width), "layout": layout})
        if len(how.mean) != channels:
            raise ValueError(f"color is {how.color}, and the network's input has {channels} channels")
        if how.resize < min(height, width) and "resize" in given:
            raise ValueError(f"resize is {how.resize}, less than the crop of {_size((height, width))}")
    except ValueError as error:
        raise UsageError(f"{name}: preprocessing: {error}", kind="preprocessing", got=given) from error
    return as_dict(how), notes


def _layout(shape: Sequence[int]) -> str | None:
    """What a four-dimensional shape looks like; None for none of both."""
    if len(shape) == 4:
        return "nchw" if shape[1] in (1, 3) else "nhwc" if shape[3] in (1, 3) else None
    return None


def _size(sides: tuple[int, int]) -> str:
    return f"{sides[0]}x{sides[1]}"


def of_timm(config: Mapping[str, Any], where: str) -> Preprocessing:
    """What timm's description of pretrained weights (``pretrained_cfg``) says.

    Raises:
        DeployError: (kind ``preprocessing``) a key is missing or out of range.
    """
    try:
        channels, height, width = map(int, config["input_size"])
        mean, std = ([float(value) for value in config[key]] for key in ("mean", "std"))
        if len(mean) == 1:
            mean, std = mean * channels, std * channels
        resize = int(min(height, width) / float(config.get("crop_pct") or 0.875))
        interpolation = str(config.get("interpolation") or "bilinear")
        if config.get("crop_mode", "center") not in ("center", None):
            raise ValueError(f"crop_mode is '{config['crop_mode']}', and only 'center' is known")
        return Preprocessing(tuple(mean), tuple(std), resize, (height, width), interpolation)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        reason = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        message = f"{where}: its preprocessing cannot be read: {reason}"
        allowed = "input_size, mean, std, crop_pct and interpolation, as timm writes them"
        raise DeployError(message, kind="preprocessing", got=str(dict(config))[:200], allowed=allowed) from error
