"""How a picture becomes a network's input. Said once, here: a network of the zoo has a `Preprocessing`, the manifest of
a bundle holds it, and whoever feeds a network (run, verify, calibration, your program) prepares pictures by it.

    how = from_dict(manifest["preprocessing"])
    x = load([Path("photo.jpg")], how)      # files -> float32 (1, C, H, W)
    x = prepare(picture, how)               # a PIL image or uint8 pixels -> float32 (C, H, W)

numpy and Pillow are imported when the first picture comes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact import files_below
from ..errors import DeployError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_FORMATS = ("JPEG", "PNG")
_SUFFIXES = (".jpg", ".jpeg", ".png")
_MAX_PIXELS = 1 << 28


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input, in this order.

    The picture is converted to as many colour channels as `mean` has (3: RGB, 1: grey), resized with `interpolation` so
    that its short side is `resize`, cropped at its centre to `crop` (height, width), scaled to 0..1, and normalised as
    ``(x - mean) / std``. The result is float32, (C, H, W).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int
    crop: tuple[int, int]
    interpolation: str = "bilinear"

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
        return replace(self, mean=(round(mean, 4),) * count, std=(round(std, 4),) * count)


def as_dict(preprocessing: Preprocessing) -> dict[str, Any]:
    """What the manifest holds: the fields of `Preprocessing` by name, tuples as lists."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(preprocessing).items()}


def from_dict(fields: Mapping[str, Any]) -> Preprocessing:
    """The inverse of `as_dict`.

    Raises:
        DeployError: (kind ``bundle``) a field is missing, unknown or out of range.
    """
    try:
        height, width = fields["crop"]
        result = Preprocessing(
            mean=tuple(float(x) for x in fields["mean"]),
            std=tuple(float(x) for x in fields["std"]),
            resize=int(fields["resize"]),
            crop=(int(height), int(width)),
            interpolation=str(fields["interpolation"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        message = f"manifest.json: field 'preprocessing' cannot be read: {error!r}"
        raise DeployError(
            message, kind="bundle", got=str(fields), allowed=list(Preprocessing.__dataclass_fields__)
        ) from error
    sizes = (result.resize, height, width)
    if len(result.mean) not in (1, 3) or len(result.std) != len(result.mean) or min(sizes) < 1 or 0 in result.std:
        raise DeployError("manifest.json: field 'preprocessing' is out of range", kind="bundle", got=str(fields))
    _filter(result.interpolation)
    return result


def pictures_below(folder: str | os.PathLike[str], *, kind: str = "image") -> list[Path]:
    """Every picture file below a folder, by its name relative to it.

    Raises:
        DeployError: (of this kind) there is none.
    """
    found = [path for path in files_below(Path(folder)) if path.suffix.lower() in _SUFFIXES]
    if not found:
        raise DeployError(f"{folder} holds no picture", kind=kind, got=0, allowed="JPEG and PNG files")
    return found


def load(paths: Sequence[Path], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Read pictures and prepare them as `Preprocessing` describes.

    Returns:
        float32 (number of pictures, C, H, W).

    Raises:
        DeployError: (kind ``image``) a file is missing, is no JPEG or PNG, is damaged, or is absurdly large.
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
        raise _wrong(path, "is not a JPEG or PNG picture") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _wrong(path, "has too many pixels", allowed=f"at most {_MAX_PIXELS} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for damaged files
        raise _wrong(path, f"cannot be read: {error}") from error


def prepare(picture: Image | NDArray[np.uint8], how: Preprocessing) -> NDArray[np.float32]:
    """One picture, prepared as `how` says: float32 (C, H, W), C-contiguous.

    Args:
        picture: a PIL image of any mode, or its pixels, uint8 (H, W), (H, W, 1), (H, W, 3) or, with alpha, (H, W, 4).
    """
    import numpy as np

    picture = _colours(picture, len(how.mean))
    short = min(picture.size)
    width, height = (max(1, int(side * how.resize / short)) for side in picture.size)
    picture = picture.resize((width, height), _filter(how.interpolation))
    rows, columns = how.crop
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    picture = picture.crop((left, top, left + columns, top + rows))
    pixels = np.asarray(picture, dtype=np.float32).reshape(rows, columns, -1) / np.float32(255)
    mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))


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

    known = {"nearest": Resampling.NEAREST, "bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}
    if name not in known:
        raise DeployError(
            f"preprocessing: there is no interpolation '{name}'", kind="bundle", got=name, allowed=sorted(known)
        )
    return known[name]


def _wrong(path: Path, what: str, *, allowed: str = "a JPEG or PNG file") -> DeployError:
    return DeployError(f"image {path} {what}", kind="image", got=str(path), allowed=allowed)
