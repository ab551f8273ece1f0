"""How a picture becomes a network's input. Said once, here: a network of the zoo has a `Preprocessing`, the manifest of
a bundle holds it, and whoever feeds a network (run, verify, calibration, your program) prepares pictures by it.

    how = from_dict(manifest["preprocessing"])
    x = load([Path("photo.jpg")], how)      # files -> float32 (1, C, H, W)
    x = prepare(picture, how)               # a PIL image or uint8 pixels -> float32 (C, H, W)

numpy and Pillow are imported when the first picture comes.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact import files_below
from ..errors import DeployError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_MAX_PIXELS = 1 << 28

_ALLOWED = "a JPEG, PNG, WebP, BMP or TIFF file"

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
COLORS = ("rgb", "bgr", "gray")
LAYOUTS = ("nchw", "nhwc")
DTYPES = ("float32", "uint8")


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input, in this order.

    The picture is turned upright (EXIF), converted to 8-bit RGB (alpha is dropped) or grey, resized with
    `interpolation` so that its shorter side is `resize`, and cropped at its centre to `crop` (height, width), black
    where it ends. A pixel is multiplied with `scale`, and normalised as ``(x - mean) / std``. `steps` says the same
    with every rounding.

    Attributes:
        mean, std: one for each channel, in the order of the channels of `color`, of pixels that are scaled already.
        resize: the shorter side, in pixels.
        crop: the network's input size.
        interpolation: of `INTERPOLATIONS`, as Pillow does it.
        scale: a fraction in text, ``"a/b"`` or ``"a"``: a pixel is multiplied with a and divided by b.
        color: the order of the channels: ``rgb``, ``bgr`` or, for one channel, ``gray``.
        layout: of the tensor without its batch: ``nchw`` is (C, H, W), ``nhwc`` (H, W, C).
        dtype: of the tensor. ``uint8`` takes the pixels as they are: scale 1, mean 0, std 1.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int
    crop: tuple[int, int]
    interpolation: str = "bilinear"
    scale: str = "1/255"
    color: str = ""
    layout: str = "nchw"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.color:
            object.__setattr__(self, "color", "gray" if len(self.mean) == 1 else "rgb")
        channels = 1 if self.color == "gray" else 3
        for name, known in (
            ("interpolation", INTERPOLATIONS),
            ("color", COLORS),
            ("layout", LAYOUTS),
            ("dtype", DTYPES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is '{getattr(self, name)}', not one of {', '.join(known)}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != channels or not all(map(math.isfinite, values)):
                raise ValueError(
                    f"{name} is {list(values)}, not {channels} finite numbers, as {self.color} pictures need"
                )
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}, not above 0")
        if not 1 <= self.resize <= _MOST or not all(1 <= side <= _MOST for side in self.crop):
            raise ValueError(f"resize {self.resize} or crop {list(self.crop)} is not from 1 to {_MOST}")
        factor = self.factor
        if self.dtype == "uint8" and (factor != 1 or set(self.mean) != {0.0} or set(self.std) != {1.0}):
            raise ValueError("a uint8 input takes the pixels as they are: scale 1, mean 0, std 1")

    @property
    def factor(self) -> Fraction:
        """`scale` as a number."""
        return fraction(self.scale)

    def at(self, height: int, width: int) -> Preprocessing:
        """The same for another input size; the ratio of resize to crop is kept."""
        ratio = self.resize / min(self.crop)
        return replace(self, resize=round(max(height, width) * ratio), crop=(height, width))

    def channels(self, count: int) -> Preprocessing:
        """The same for another number of input channels (1: the mean and deviation of grey are those of the colours,
        averaged).
        """
        if count == len(self.mean):
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        color = "gray" if count == 1 else "rgb"
        return replace(self, mean=(round(mean, 4),) * count, std=(round(std, 4),) * count, color=color)

    def steps(self) -> list[str]:
        """All of it in words, for somebody who writes it again."""
        colour = {
            "rgb": "8-bit RGB",
            "bgr": "8-bit RGB, and reverse the channels to B, G, R",
            "gray": "8-bit grey: (19595 R + 38470 G + 7471 B + 32768) >> 16",
        }[self.color]
        rows, columns = self.crop
        factor = self.factor
        times = "" if factor.numerator == 1 else f" * {factor.numerator}"
        over = "" if factor.denominator == 1 else f" / {factor.denominator}"
        channels = ", ".join(self.color) if self.color != "gray" else "grey"
        plane = (
            "(C, H, W), one plane a channel" if self.layout == "nchw" else "(H, W, C), the channels of a pixel together"
        )
        value = "the pixel"
        if self.dtype == "float32":
            value = f"float32: x = pixel{times}{over}; x = (x - mean[c]) / std[c], each operation rounded to float32"
        blurred = "" if self.interpolation == "nearest" else (
            ", with antialias: when shrinking, the filter is as much wider as the picture gets smaller; the rows "
            "first, rounded to 8 bits, then the columns, rounded to 8 bits"
        )  # fmt: skip
        return [
            f"decode, turn upright by the EXIF orientation, drop alpha, convert to {colour}",
            f"resize so that the shorter side is {self.resize}: each side s becomes max(1, floor(s * {self.resize} / "
            f"shorter side)); {self.interpolation} as Pillow does it{blurred}",
            f"crop {rows} rows and {columns} columns at the centre: top = round((height - {rows}) / 2), "
            f"left = round((width - {columns}) / 2), halves to the even number; 0 where the picture ends",
            f"value: {value}",
            f"tensor: {self.dtype} {plane}, channels {channels}",
        ]


_MOST = 1 << 15
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{0,20})?(e[+-]?[0-9]{1,2})?", re.ASCII | re.IGNORECASE)


def fraction(text: str) -> Fraction:
    """``"1/255"``, ``"1/127.5"`` or ``"0.5"`` as a number above 0.

    Raises:
        ValueError: it is none.
    """
    parts = [part.strip() for part in text.split("/")]
    value = Fraction(0)
    if len(parts) <= 2 and all(map(_NUMBER.fullmatch, parts)):
        above, below = (Fraction(part) for part in (*parts, "1")[:2])
        value = above / below if below else value
    if not 0 < value < 1 << 32:
        raise ValueError(f"scale is '{text}', not a number above 0, or a fraction such as 1/255")
    return value


def as_dict(preprocessing: Preprocessing) -> dict[str, Any]:
    """What the manifest holds: the fields of `Preprocessing` by name, tuples as lists, and `steps` in words."""
    fields = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(preprocessing).items()}
    return fields | {"steps": preprocessing.steps()}


def from_dict(fields: Mapping[str, Any], where: str = "manifest.json: field 'preprocessing'") -> Preprocessing:
    """The inverse of `as_dict`; what a document of an older version lacks is as it was then.

    Args:
        where: what the fields come from, for the error.

    Raises:
        DeployError: (kind ``bundle``) a field is missing or out of range.
    """
    try:
        height, width = fields["crop"]
        return Preprocessing(
            mean=tuple(float(x) for x in fields["mean"]),
            std=tuple(float(x) for x in fields["std"]),
            resize=int(fields["resize"]),
            crop=(int(height), int(width)),
            interpolation=str(fields["interpolation"]),
            scale=str(fields.get("scale", "1/255")),
            color=str(fields.get("color", "")),
            layout=str(fields.get("layout", "nchw")),
            dtype=str(fields.get("dtype", "float32")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        message = f"{where} cannot be read: {reason}"
        allowed = list(Preprocessing.__dataclass_fields__)
        raise DeployError(message, kind="bundle", got=str(fields), allowed=allowed) from error


def pictures_below(folder: str | os.PathLike[str], *, kind: str = "image") -> list[Path]:
    """Every picture file below a folder, by its name relative to it.

    Raises:
        DeployError: (of this kind) there is none.
    """
    found = [path for path in files_below(Path(folder)) if path.suffix.lower() in _SUFFIXES]
    if not found:
        raise DeployError(f"{folder} holds no picture", kind=kind, got=0, allowed=f"files named {', '.join(_SUFFIXES)}")
    return found


def load(paths: Sequence[Path], preprocessing: Preprocessing) -> NDArray[Any]:
    """Read pictures and prepare them as `Preprocessing` describes.

    Returns:
        (number of pictures, C, H, W) or (..., H, W, C), of the dtype and layout that `preprocessing` says.

    Raises:
        DeployError: (kind ``image``) a file is missing, is no picture of `_FORMATS`, is damaged, or is absurdly large.
    """
    import numpy as np

    return np.stack([prepare(_read(path), preprocessing) for path in paths])


def _read(path: Path) -> Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path, formats=_FORMATS) as file:
            if file.width * file.height > _MAX_PIXELS:
                raise _wrong(path, f"has {file.width} x {file.height} pixels", allowed=f"at most {_MAX_PIXELS} pixels")
            file.load()
            return ImageOps.exif_transpose(file)
    except FileNotFoundError as error:
        raise _wrong(path, "does not exist") from error
    except UnidentifiedImageError as error:
        raise _wrong(path, f"is {_kind(path)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _wrong(path, "has too many pixels", allowed=f"at most {_MAX_PIXELS} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for damaged files
        raise _wrong(path, f"cannot be read: {error}") from error


def _kind(path: Path) -> str:
    """What a file is that is no picture we take, for people: Pillow knows some others."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            return f"a {file.format} picture, which is not taken"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "empty" if not path.stat().st_size else "no picture"


def prepare(picture: Image | NDArray[np.uint8], how: Preprocessing) -> NDArray[Any]:
    """One picture, prepared as `how` says: its dtype and layout, C-contiguous.

    Args:
        picture: a PIL image of any mode, or its pixels, uint8 (H, W), (H, W, 1), (H, W, 3) or, with alpha, (H, W, 4).
    """
    import numpy as np

    picture = _colours(picture, len(how.mean))
    short = min(picture.size)
    width, height = (max(1, int(side * how.resize / short)) for side in picture.size)
    # One after the other: Pillow 13 begins with the columns of tall pictures, older ones never do.
    for size in ((width, picture.height), (width, height)):
        picture = picture.resize(size, _filter(how.interpolation))
    rows, columns = how.crop
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    picture = picture.crop((left, top, left + columns, top + rows))
    return normalised(np.asarray(picture).reshape(rows, columns, -1), how)


def normalised(pixels: NDArray[np.uint8], how: Preprocessing) -> NDArray[Any]:
    """Pixels of the network's size, (H, W, C), RGB or grey, as its input: the last steps of `prepare`."""
    import numpy as np

    if how.color == "bgr":
        pixels = pixels[..., ::-1]
    x: NDArray[Any] = pixels
    if how.dtype == "float32":
        x = pixels.astype(np.float32)
        factor = how.factor
        if factor.numerator != 1:
            x = x * np.float32(factor.numerator)
        if factor.denominator != 1:
            x = x / np.float32(factor.denominator)
        x = (x - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
    return np.ascontiguousarray(x.transpose(2, 0, 1) if how.layout == "nchw" else x)


def _colours(picture: Image | NDArray[np.uint8], channels: int) -> Image:
    """RGB for three channels, L for one."""
    import numpy as np
    from PIL import Image

    if isinstance(picture, np.ndarray):
        grey = picture.ndim == 3 and picture.shape[-1] == 1
        picture = Image.fromarray(np.ascontiguousarray(picture[..., 0] if grey else picture))
    if picture.mode.startswith("I"):  # 16 bits a pixel: convert("L") would clip instead of scaling
        picture = picture.convert("I").point(lambda value: value / 257).convert("L")
    return picture.convert("RGB" if channels == 3 else "L")


def _filter(name: str) -> Any:
    from PIL.Image import Resampling

    return Resampling[name.upper()]


def _wrong(path: Path, what: str, *, allowed: str = _ALLOWED) -> DeployError:
    return DeployError(f"image {path} {what}", kind="image", got=str(path), allowed=allowed)
