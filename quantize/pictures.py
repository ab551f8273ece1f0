"""Where calibration and evaluation get their inputs: a folder, an .npz, or Python. One at a time, never all in
memory."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from inception_deploy import arrays, artifact
from inception_deploy.errors import DeployError
from inception_deploy.runtime.preprocessing import Preprocessing, from_dict, load, pictures_below, prepare

Given: TypeAlias = "str | Path | Pictures | Iterable[Any] | Callable[[], Iterable[Any]]"
"""What `pictures` takes: a path, or something in Python that gives arrays (C, H, W) or (N, C, H, W)."""


@dataclass(frozen=True)
class Picture:
    """One input: where it came from, float32 (C, H, W), and its class where the source knows it."""

    name: str
    pixels: NDArray[np.float32]
    label: int | None = None


@dataclass(frozen=True)
class Pictures:
    """A source of inputs that can be read again, from any place.

    Attributes:
        name: for people.
        count: how many there are; None where only reading tells.
        fingerprint: tells this source from another one, so that a calibration resumes on its own pictures only.
        read: gives the pictures from the `start`-th on.
    """

    name: str
    count: int | None
    fingerprint: str
    read: Callable[[int], Iterator[Picture]]

    def __iter__(self) -> Iterator[Picture]:
        return self.read(0)


def pictures(
    given: Given,
    shape: Sequence[int],
    preprocessing: Mapping[str, Any] | None = None,
    *,
    limit: int | None = None,
    labels: Sequence[str] | None = None,
) -> Pictures:
    """Open a source of inputs.

    A folder's pictures, at any depth, in the order of their names; the folder that a file lies in is its class, by name
    or by number. An .npz with an array ``images`` or ``x`` (or only one array), and ``labels`` or ``y``: float32 (N, C,
    H, W) is taken as it is, float16 and float64 as float32, and uint8 (N, H, W) or (N, H, W, C) is pictures and is
    preprocessed. An iterable, or a function that gives one: float arrays, taken as they are.

    Args:
        shape: (C, H, W) of the network's input.
        preprocessing: as in the manifest; needed for pictures.
        limit: take only the first so many.
        labels: the names of the classes, for folders that are named so.

    Raises:
        DeployError: (kind ``calibration``) there is nothing there, or it is of another kind. Each picture is checked
            when it is read: its shape, and that every value is finite.
    """
    if isinstance(given, Pictures):
        source = given
    elif isinstance(given, (str, Path)):
        path = Path(given)
        how = None if preprocessing is None else from_dict(preprocessing)
        if path.is_dir():
            source = _folder(path, _need(how, path), labels)
        elif path.suffix == ".npz":
            source = _npz(path, shape, how)
        else:
            what = "does not exist" if not path.exists() else "is neither a folder nor an .npz"
            raise _wrong(f"{path} {what}", got=str(path), allowed="a folder of pictures, or an .npz")
    else:
        source = _python(given, shape)
    if limit is not None:
        source = _limited(source, limit)
    return _checked(source, tuple(shape))


def _need(how: Preprocessing | None, path: Path) -> Preprocessing:
    if how is None:
        message = f"{path} holds pictures, but the network does not say how to prepare them; give inputs as .npz"
        raise _wrong(message, got=None, allowed="a float32 array (N, C, H, W) in an .npz")
    return how


def _folder(path: Path, how: Preprocessing, labels: Sequence[str] | None) -> Pictures:
    files = pictures_below(path, kind="calibration")
    classes = _classes(path, files, labels)
    sizes = [f"{file.relative_to(path).as_posix()} {file.stat().st_size}" for file in files]

    def read(start: int) -> Iterator[Picture]:
        for file in files[start:]:
            yield Picture(str(file), load([file], how)[0], classes.get(file.parent))

    return Pictures(str(path), len(files), _digest("folder", how, *sizes), read)


def _classes(path: Path, files: Sequence[Path], labels: Sequence[str] | None) -> dict[Path, int]:
    """The class of each folder of pictures: its place in `labels`, its number, or its place among the folders."""
    folders = sorted({file.parent for file in files} - {path})
    names = [folder.name for folder in folders]
    if labels is not None and set(names) <= set(labels):
        return {folder: labels.index(folder.name) for folder in folders}
    if all(name.isascii() and name.isdecimal() for name in names):
        return {folder: int(folder.name) for folder in folders}
    return {folder: index for index, folder in enumerate(folders)}


def _npz(path: Path, shape: Sequence[int], how: Preprocessing | None) -> Pictures:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            name = next((n for n in ("images", "x", *(names if len(names) == 1 else ())) if n in names), None)
            if name is None:
                raise _wrong(f"{path} has arrays {names}", got=names, allowed="one array, or 'images', or 'x'")
            with archive.open(f"{name}.npy") as file:
                sizes, dtype = arrays.header(file)
        labels = _labels(path, names, sizes[0] if sizes else 0)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise _wrong(f"{path} cannot be read: {error}", got=str(error), allowed="an .npz that numpy wrote") from error
    ready: Callable[[NDArray[Any]], NDArray[np.float32]]
    if dtype == np.uint8 and len(sizes) in (3, 4):
        ready = partial(_prepared, how=_need(how, path))
    elif dtype.kind == "f" and len(sizes) == len(shape) + 1:
        ready = partial(np.ascontiguousarray, dtype=np.float32)
    else:
        message = f"{path}: array '{name}' is {dtype} of shape {list(sizes)}"
        allowed = f"floats (N, {', '.join(map(str, shape))}), or uint8 pictures (N, H, W) or (N, H, W, C)"
        raise _wrong(message, got=f"{dtype} {list(sizes)}", allowed=allowed)
    if not sizes[0]:
        raise _wrong(f"{path}: array '{name}' is empty", got=0, allowed="at least one picture")

    def read(start: int) -> Iterator[Picture]:
        for index, row in enumerate(islice(arrays.rows(path, name), start, None), start):
            yield Picture(f"{path}[{index}]", ready(row), None if labels is None else int(labels[index]))

    return Pictures(str(path), sizes[0], _digest("npz", how, sizes, str(dtype), artifact.sha256(path)), read)


def _labels(path: Path, names: Sequence[str], count: int) -> NDArray[Any] | None:
    name = next((name for name in ("labels", "y") if name in names), None)
    if name is None:
        return None
    with np.load(path, allow_pickle=False) as file:
        labels = np.asarray(file[name])
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"array '{name}' is {labels.dtype} of shape {list(labels.shape)}, not one integer a picture")
    return labels


def _prepared(row: NDArray[Any], how: Preprocessing) -> NDArray[np.float32]:
    if row.ndim == 3 and row.shape[-1] not in (1, 3):
        channels = row.shape[-1]
        raise _wrong(f"a picture has {channels} channels", got=channels, allowed="1 or 3, the last axis")
    return prepare(row, how)


def _python(given: Iterable[Any] | Callable[[], Iterable[Any]], shape: Sequence[int]) -> Pictures:
    def read(start: int) -> Iterator[Picture]:
        arrays = given() if callable(given) else given
        return islice(_split(arrays, shape), start, None)

    return Pictures("the Python source", None, _digest("python", tuple(shape)), read)


def _split(arrays: Iterable[Any], shape: Sequence[int]) -> Iterator[Picture]:
    index = 0
    for array in arrays:
        batch = np.asarray(array)
        for row in batch if batch.ndim == len(shape) + 1 else [batch]:
            yield Picture(f"input {index}", np.asarray(row, np.float32))
            index += 1


def _limited(source: Pictures, limit: int) -> Pictures:
    def read(start: int) -> Iterator[Picture]:
        return islice(source.read(start), max(0, limit - start))

    count = None if source.count is None else min(source.count, limit)
    return Pictures(source.name, count, _digest(source.fingerprint, limit), read)


def _checked(source: Pictures, shape: tuple[int, ...]) -> Pictures:
    def read(start: int) -> Iterator[Picture]:
        for picture in source.read(start):
            if picture.pixels.shape != shape:
                raise _wrong(
                    f"{picture.name} has the shape {list(picture.pixels.shape)}; the network takes {list(shape)}",
                    got=list(picture.pixels.shape),
                    allowed=list(shape),
                )
            if not np.isfinite(picture.pixels).all():
                message = f"{picture.name} holds NaN or infinity"
                raise _wrong(message, got="NaN or infinity", allowed="finite numbers")
            yield picture

    return Pictures(source.name, source.count, source.fingerprint, read)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _wrong(message: str, *, got: object, allowed: object) -> DeployError:
    return DeployError(message, kind="calibration", got=got, allowed=allowed)
