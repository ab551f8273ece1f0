"""What a network may be given, and how it becomes rows of its input.

    a path                      `.npy`: the prepared tensor in it; a folder: every picture below it, by name;
                                anything else: a picture
    a PIL image                 a picture, of any mode
    a uint8 array               a picture (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); of any other shape several of them,
                                (N, H, W) or (N, H, W, C)
    an array of the input's     the prepared tensor, with any number of rows: float32 (N, C, H, W) for most networks
    type and shape
    a list or tuple             several pictures, each one of the above
    a mapping, or `.npz`        an array for every input by its name, of its exact shape: for networks of several

Pictures are prepared by the bundle's `Preprocessing`; a tensor is taken as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arrays import BROKEN
from ..errors import DeployError, UsageError
from .plans import cut
from .preprocessing import Preprocessing, load, pictures_below, prepare

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "str | os.PathLike[str] | Image | NDArray[np.uint8]"
"""One picture: a file, a PIL image, or its pixels."""

Given: TypeAlias = "Picture | NDArray[Any] | Sequence[Picture] | Mapping[str, NDArray[Any]]"
"""Everything in the table above."""


@dataclass(frozen=True)
class Rows:
    """Rows of a network's input, prepared one at a time.

    Attributes:
        names: one a row, for people: the path of a picture, or ``row 3``.
        single: one picture was given as such, not in a list, a folder or an array of several.
    """

    names: tuple[str, ...]
    single: bool
    _row: Callable[[int], NDArray[Any]]
    _every: tuple[NDArray[Any], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def batches(self, sizes: Sequence[int]) -> Iterator[tuple[NDArray[Any] | tuple[NDArray[Any], ...], int]]:
        """(so many rows, how many of them count) for each of what `plans.cut` gives: the last batch may be filled up
        with its last row. Of a network of several inputs the one batch that was given, an array an input.
        """
        if self._every:
            yield self._every, len(self)
            return
        start = 0
        for size in cut(len(self), sizes):
            rows = [self._row(index) for index in range(start, min(start + size, len(self)))]
            start += size
            yield np.stack(rows + rows[-1:] * (size - len(rows))), len(rows)


@dataclass(frozen=True)
class Input:
    """What a network's input is.

    Attributes:
        source: the bundle, for messages.
        shape: with the batch first.  dtype: of the prepared tensor.
        preprocessing: None for a network that does not take pictures.
        every: the manifest's rows of all inputs, of which this is the first.
    """

    source: str
    shape: tuple[int, ...]
    dtype: str
    preprocessing: Preprocessing | None
    every: tuple[Mapping[str, Any], ...] = ()

    def rows(self, given: Given) -> Rows:
        """Rows of the input, of anything in the module's table.

        Raises:
            DeployError: (kind ``input`` or ``image``) a file is missing or damaged, or an array does not fit.
            UsageError: (kind ``image``) the network does not take pictures.
        """
        if isinstance(given, Mapping) or _is_archive(given):
            return self._every(given if isinstance(given, Mapping) else _archive(Path(given)))  # type: ignore[arg-type]
        if len(self.every) > 1:
            names = [port["name"] for port in self.every]
            message = f"bundle {self.source} takes {len(names)} inputs ({', '.join(names)})"
            raise DeployError(message, kind="input", got=1, allowed="an array for each by its name, or a .npz of them")
        if isinstance(given, (str, os.PathLike)):
            return self._path(Path(given))
        if isinstance(given, np.ndarray):
            return self._array(given)
        if isinstance(given, (list, tuple)):
            if not given:
                raise DeployError("there is no picture in the list", kind="input", got=0, allowed="at least one")
            all_of_them = [found for one in given for found in (pictures_below(one) if _is_folder(one) else [one])]
            return self._pictures(all_of_them, [_name(one, index) for index, one in enumerate(all_of_them)])
        return self._pictures([given], ["picture"], single=True)

    def _path(self, path: Path) -> Rows:
        if path.suffix.lower() == ".npy":
            return self._tensor(_read(path), f"input {path}")
        if path.is_dir():
            return self.rows([path])
        return self._pictures([path], [str(path)], single=True)

    def _array(self, array: NDArray[Any]) -> Rows:
        picture = array.dtype == np.uint8 and not self._fits(array)
        if picture and (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4))):
            return self._pictures([array], ["picture"], single=True)
        if picture and len(array) and (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] in (1, 3, 4))):
            return self._pictures(list(array), [f"picture {index}" for index in range(len(array))])
        return self._tensor(array, "the array")

    def _every(self, given: Mapping[str, NDArray[Any]]) -> Rows:
        """An array for every input."""
        names = [port["name"] for port in self.every]
        if sorted(given) != sorted(names):
            message = f"the arrays are called {', '.join(sorted(given)) or 'nothing'}, the inputs {', '.join(names)}"
            raise DeployError(message, kind="input", got=sorted(given), allowed=names)
        for port in self.every:
            array = np.asarray(given[port["name"]])
            if array.dtype != port["dtype"] or list(array.shape) != list(port["shape"]):
                got, allowed = f"{array.dtype} {list(array.shape)}", f"{port['dtype']} {list(port['shape'])}"
                message = f"input {port['name']!r} is {got}, the network takes {allowed}"
                raise DeployError(message, kind="input", got=got, allowed=allowed)
        arrays = tuple(np.ascontiguousarray(given[name]) for name in names)
        rows = len(arrays[0]) if arrays[0].ndim else 1
        return Rows(tuple(f"row {index}" for index in range(rows)), False, lambda _: arrays[0], arrays)

    def _fits(self, array: NDArray[Any]) -> bool:
        return array.dtype == self.dtype and array.ndim == len(self.shape) and array.shape[1:] == self.shape[1:]

    def _tensor(self, array: NDArray[Any], subject: str) -> Rows:
        if not self._fits(array) or not len(array):
            got, allowed = f"{array.dtype} {list(array.shape)}", f"{self.dtype} {['N', *self.shape[1:]]}"
            message = f"{subject} is {got}, the network takes {allowed}"
            raise DeployError(message, kind="input", got=got, allowed=allowed)
        return Rows(tuple(f"row {index}" for index in range(len(array))), False, lambda index: array[index])

    def _pictures(self, given: Sequence[Any], names: Sequence[str], *, single: bool = False) -> Rows:
        how = self.preprocessing
        if how is None:
            raise UsageError(
                f"bundle {self.source} does not take pictures: its input {list(self.shape)} is none of 1 or 3 "
                "channels; give the prepared tensor, --input on the command line",
                kind="image",
                got="a picture",
                allowed=f"{self.dtype} {['N', *self.shape[1:]]}",
            )

        def row(index: int) -> NDArray[np.float32]:
            one = given[index]
            if isinstance(one, (str, os.PathLike)):
                return np.asarray(load([Path(one)], how)[0])
            _require_picture(one, names[index])
            return prepare(one, how)

        return Rows(tuple(names), single, row)


def _name(given: object, index: int) -> str:
    return os.fspath(given) if isinstance(given, (str, os.PathLike)) else f"picture {index}"


def _is_folder(given: object) -> bool:
    return isinstance(given, (str, os.PathLike)) and Path(given).is_dir()


def _require_picture(given: object, name: str) -> None:
    from PIL.Image import Image

    if isinstance(given, Image):
        return
    got = type(given).__name__
    if isinstance(given, np.ndarray):
        if given.dtype == np.uint8 and (given.ndim == 2 or (given.ndim == 3 and given.shape[-1] in (1, 3, 4))):
            return
        got = f"{given.dtype} {list(given.shape)}"
    allowed = "a path, a PIL image, or uint8 pixels (H, W) or (H, W, C) of 1, 3 or 4 channels"
    raise DeployError(f"{name} is {got}", kind="input", got=got, allowed=allowed)


def _is_archive(given: object) -> bool:
    return isinstance(given, (str, os.PathLike)) and Path(given).suffix.lower() == ".npz"


def _archive(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz by their names."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise DeployError(f"input {path} does not exist", kind="input", got=str(path), allowed="a .npz file") from error
    except BROKEN as error:
        message = f"input {path} is not an archive of arrays: {error}"
        raise DeployError(message, kind="input", got=str(path), allowed="a .npz file") from error


def _read(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            x: object = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise DeployError(f"input {path} does not exist", kind="input", got=str(path), allowed="a .npy file") from error
    except BROKEN as error:
        raise DeployError(
            f"input {path} is not a .npy array: {error}", kind="input", got=str(path), allowed="a .npy file"
        ) from error
    if not isinstance(x, np.ndarray):
        message = f"input {path} is an archive of arrays"
        raise DeployError(message, kind="input", got=str(path), allowed="one array, as numpy.save writes it")
    return x
