"""Pictures in: a JPEG or PNG file becomes a network's input, with the preprocessing its manifest holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeployError
from ..models import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_FORMATS = ("JPEG", "PNG")
_MAX_PIXELS = 1 << 28
PHOTO = Path(__file__).with_name("data") / "photo.jpg"
"""The photo that export and verify look at: a real picture has structure that random numbers lack."""


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


def load(paths: Sequence[Path], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Read pictures and prepare them as `Preprocessing` describes.

    Returns:
        float32 (number of pictures, C, H, W).

    Raises:
        DeployError: (kind ``image``) a file is missing, is no JPEG or PNG, is damaged, or is absurdly large.
    """
    import numpy as np

    return np.stack([prepare(_read(path, len(preprocessing.mean)), preprocessing) for path in paths])


def _read(path: Path, channels: int) -> Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path, formats=_FORMATS) as file:
            if file.width * file.height > _MAX_PIXELS:
                raise _wrong(path, f"has {file.width} x {file.height} pixels", allowed=f"at most {_MAX_PIXELS} pixels")
            file.load()
            picture = ImageOps.exif_transpose(file)
    except FileNotFoundError as error:
        raise _wrong(path, "does not exist") from error
    except UnidentifiedImageError as error:
        raise _wrong(path, "is not a JPEG or PNG picture") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _wrong(path, "has too many pixels", allowed=f"at most {_MAX_PIXELS} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for damaged files
        raise _wrong(path, f"cannot be read: {error}") from error
    if picture.mode.startswith("I"):  # 16 bits a pixel: convert("L") would clip instead of scaling
        picture = picture.convert("I").point(lambda value: value / 257).convert("L")
    return picture.convert("RGB" if channels == 3 else "L")


def prepare(picture: Image, how: Preprocessing) -> NDArray[np.float32]:
    """One picture (mode RGB for three channels, L for one), prepared as `Preprocessing` says: float32 (C, H, W)."""
    import numpy as np

    short = min(picture.size)
    width, height = (max(1, int(side * how.resize / short)) for side in picture.size)
    picture = picture.resize((width, height), _filter(how.interpolation))
    rows, columns = how.crop
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    picture = picture.crop((left, top, left + columns, top + rows))
    pixels = np.asarray(picture, dtype=np.float32).reshape(rows, columns, -1) / np.float32(255)
    mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))


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
