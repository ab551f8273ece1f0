"""Pictures with their classes, for accuracy: a folder a class, a table of files, or an .npz. Read one at a time."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .. import arrays, artifact
from ..errors import DeployError
from ..runtime.plans import cut
from ..runtime.preprocessing import load, pictures_below, prepare
from .classes import numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..runtime.given import Input

Prepare: TypeAlias = "Callable[[], NDArray[Any]]"
"""Prepares one row of the network's input when it is called."""

ALLOWED = "a folder with a folder a class (as torchvision's ImageFolder), a .csv, or an .npz of images and labels"
_FILE = ("file", "filename", "file_name", "path", "filepath", "image", "image_path", "image_id", "imageid", "picture")
_CLASS = ("label", "class", "target", "category", "class_id", "class_name", "label_id", "wnid", "synset")


@dataclass(frozen=True)
class Labelled:
    """Pictures, ready to be prepared in any order of threads, and the class of each.

    Attributes:
        source: the path that was given.
        names: one a picture: its path within `source`, or ``[17]``.
        classes: (N,) the class of each; None where the source has none.
        by: the rule of `classes.RULES` by which names became classes, ``labels`` of an .npz, or None.
        unlabelled: why the source has no classes; None where it has.
        fingerprint: differs where the names, the classes, the sizes of files or the bytes of an .npz differ.
    """

    source: Path
    names: tuple[str, ...]
    classes: NDArray[np.int64] | None
    by: str | None
    unlabelled: str | None
    fingerprint: str
    _read: Callable[[NDArray[np.int64]], Iterator[Prepare]]

    def __len__(self) -> int:
        return len(self.names)

    def spread(self, count: int | None) -> Labelled:
        """`count` of them, spread evenly, because a folder has one class after the other; all where None."""
        if count is None or count >= len(self):
            return self
        chosen = np.arange(count, dtype=np.int64) * len(self) // count

        def read(which: NDArray[np.int64]) -> Iterator[Prepare]:
            return self._read(chosen[which])

        classes = None if self.classes is None else self.classes[chosen]
        names = tuple(self.names[index] for index in chosen)
        return Labelled(self.source, names, classes, self.by, self.unlabelled, _digest(self.fingerprint, count), read)

    def rows(self, start: int = 0) -> Iterator[Prepare]:
        """A function for each picture from the `start`-th on, which gives it as a row of the network's input. They may
        be called in any thread; making them reads no picture.
        """
        return self._read(np.arange(start, len(self), dtype=np.int64))


def batches(rows: list[NDArray[Any]], sizes: Sequence[int]) -> list[NDArray[Any]]:
    """Rows of an input in batches, as `plans.cut` cuts them; the last one may be filled up with its last row."""
    found = cut(len(rows), sizes)
    filled = [*rows, *rows[-1:] * (sum(found) - len(rows))]
    return [np.stack(filled[end - size : end]) for size, end in zip(found, accumulate(found), strict=True)]


def read(
    path: Path,
    taken: Input,
    labels: Sequence[str],
    *,
    table: Path | None = None,
    rule: str | None = None,
    must: bool = True,
) -> Labelled:
    """Open a source of pictures.

    A folder: the first folder of a picture's path below it is its class, as torchvision's ImageFolder has it; pictures
    without any folder have none. A folder with one .csv in it, or a .csv itself: a column of files and one of classes,
    found by their heads, else the first two. An .npz: ``images`` or ``x``, or its only array, and ``labels`` or ``y``;
    uint8 (N, H, W) or (N, H, W, C) is pictures, anything else the network's input, prepared.

    Args:
        taken: the network's input.
        labels: of the network, one a class.
        table: the .csv, where it is not in the folder.
        rule: how names become classes (`classes.RULES`).
        must: names that are no classes of the network are an error; else the pictures have no classes.

    Raises:
        DeployError: (kind ``data``) there is nothing there or it is of another kind; (kind ``classes``) a class is none
            of the network's.
    """
    if not path.exists():
        raise _wrong(f"{path} does not exist", got=str(path))
    if path.is_dir():
        if taken.preprocessing is None:
            message = f"{path} holds pictures, and the network takes none; give its inputs as an .npz"
            raise _wrong(message, got=f"input {list(taken.shape)}")
        tables = [table] if table else sorted(path.glob("*.csv"))
        if len(tables) > 1:
            found = ", ".join(one.name for one in tables)
            raise _wrong(f"{path} holds several tables, {found}; --csv says which", got=found)
        files, names, where = _table(path, tables[0]) if tables else _folder(path)
        return _files(path, files, names, _named(names, labels, rule, where, must), taken)
    if path.suffix.lower() == ".csv":
        return read(path.parent, taken, labels, table=path, rule=rule, must=must)
    if path.suffix.lower() == ".npz" and table is None:
        return _npz(path, taken, len(labels))
    raise _wrong(f"{path} is neither a folder nor a .csv nor an .npz", got=str(path))


def crops(photo: Path, taken: Input) -> Labelled:
    """One photo in several crops, for looking at what networks give; nobody knows their classes."""
    from PIL import Image

    how = taken.preprocessing
    assert how is not None
    with Image.open(photo) as file:
        picture = file.convert("RGB")
    width, height = picture.size
    boxes = [
        (int(left * width), int(top * height), int((left + size) * width), int((top + size) * height))
        for size in (1, 0.75, 0.5)
        for left in (0, 0.25, 0.5)
        for top in (0, 0.25, 0.5)
        if max(left, top) + size <= 1
    ]

    def read(which: NDArray[np.int64]) -> Iterator[Prepare]:
        for index in which:
            yield partial(prepare, picture.crop(boxes[index]), how)

    return Labelled(photo, tuple(map(str, boxes)), None, None, "nobody knows their classes", _digest(*boxes), read)


def _folder(path: Path) -> tuple[list[Path], list[str], Path]:
    """The pictures below a folder, the name of each one's class (none where there are no folders), and the folder."""
    files = pictures_below(path, kind="data")
    parts = [file.relative_to(path).parts for file in files]
    inside = [len(part) > 1 for part in parts]
    if any(inside) and not all(inside):
        outside = files[inside.index(False)]
        raise _wrong(f"{outside} lies in no folder of a class, others do", got=str(outside))
    return files, [part[0] for part in parts] if all(inside) else [], path


def _table(folder: Path, table: Path) -> tuple[list[Path], list[str], Path]:
    """The pictures that a table names, the name of each one's class, and the table."""
    rows = _cells(table)
    heads = [cell.strip().lower() for cell in rows[0]]
    file_at = next((heads.index(name) for name in _FILE if name in heads), None)
    class_at = next((heads.index(name) for name in _CLASS if name in heads), None)
    if file_at is not None and class_at is not None:
        first = 2
        rows = rows[1:]
    else:
        file_at, class_at, first = 0, 1, 1
    files, names = [], []
    for number, row in enumerate(rows, first):
        if len(row) <= max(file_at, class_at):
            got = ", ".join(row)
            raise _wrong(f"{table}: line {number} has no class: '{got}'", got=got, allowed="a file and its class")
        file = folder / row[file_at].strip()
        if not file.is_file():
            hint = f"; its columns are called {', '.join(heads)}" if number == 1 else ""
            message = f"{table}: line {number}: there is no picture {file}{hint}"
            allowed = f"a file below {folder}; a head with one of {', '.join(_FILE)} and one of {', '.join(_CLASS)}"
            raise _wrong(message, got=row[file_at], allowed=allowed)
        files.append(file)
        names.append(row[class_at].strip())
    if not files:
        raise _wrong(f"{table} names no picture", got=0, allowed="a line a picture: its file and its class")
    return files, names, table


def _cells(table: Path) -> list[list[str]]:
    try:
        text = table.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = next((sign for sign in ("\t", ";") if sign in head and "," not in head), ",")
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = f"{table} cannot be read: {error}"
        raise _wrong(reason, got=str(table), allowed="a table as .csv, in UTF-8") from error
    if not rows:
        raise _wrong(f"{table} is empty", got=str(table), allowed="a line a picture: its file and its class")
    return rows


def _named(
    names: Sequence[str], labels: Sequence[str], rule: str | None, where: Path, must: bool
) -> tuple[NDArray[np.int64] | None, str | None, str | None]:
    """``classes``, ``by`` and ``unlabelled`` of `Labelled`."""
    if not names:
        return None, None, f"{where} has no folders, whose names would be the classes"
    try:
        numbers, by = numbered(names, labels, rule, where=str(where))
    except DeployError as error:
        if must:
            raise
        return None, None, error.message
    return np.asarray([numbers[name] for name in names], np.int64), by, None


def _files(
    folder: Path,
    files: Sequence[Path],
    words: Sequence[str],
    named: tuple[NDArray[np.int64] | None, str | None, str | None],
    taken: Input,
) -> Labelled:
    how = taken.preprocessing
    assert how is not None

    def read(which: NDArray[np.int64]) -> Iterator[Prepare]:
        for index in which:
            yield partial(lambda file: load([file], how)[0], files[index])

    names = tuple(file.relative_to(folder).as_posix() for file in files)
    sizes = [file.stat().st_size for file in files]
    given = [f"{name} {size}" for name, size in zip(names, sizes, strict=True)]
    return Labelled(folder, names, *named, _digest(*given, *words), read)


def _npz(path: Path, taken: Input, count: int) -> Labelled:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            found = file.files
            name = next((n for n in ("images", "x") if n in found), found[0] if len(found) == 1 else None)
            marked = next((n for n in ("labels", "y") if n in found), None)
            labels = None if marked is None else np.asarray(file[marked])
            if name is not None:
                with file.zip.open(f"{name}.npy") as content:
                    sizes, dtype = arrays.header(content)
    except arrays.BROKEN as error:
        allowed = "an .npz that numpy wrote"
        raise _wrong(f"{path} cannot be read: {error}", got=str(error), allowed=allowed) from error
    if name is None:
        raise _wrong(f"{path} has arrays {found}", got=found, allowed="'images' or 'x', and 'labels' or 'y'")
    ready = _ready(path, name, sizes, dtype, taken)
    if labels is not None:
        if labels.shape != sizes[:1] or labels.dtype.kind not in "iu":
            got = f"{labels.dtype} {list(labels.shape)}"
            raise _wrong(f"{path}: array '{marked}' is {got}", got=got, allowed="one whole number a picture")
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < count:
            got = f"{labels.min()} to {labels.max()}"
            message = f"{path}: array '{marked}' holds {got}, the network has {count} classes"
            raise DeployError(message, kind="classes", got=got, allowed=f"0 to {count - 1}")

    def read(which: NDArray[np.int64]) -> Iterator[Prepare]:
        wanted = iter(which.tolist())
        nearest = next(wanted, None)
        for index, row in enumerate(arrays.rows(path, name)):
            if nearest is None:
                return
            if index == nearest:
                yield partial(ready, row)
                nearest = next(wanted, None)

    names = tuple(f"[{index}]" for index in range(sizes[0]))
    numbers = None if labels is None else labels.astype(np.int64)
    why = None if marked else f"{path} has neither 'labels' nor 'y'"
    return Labelled(path, names, numbers, marked and "labels", why, artifact.sha256(path), read)


def _ready(
    path: Path, name: str, sizes: tuple[int, ...], dtype: np.dtype[Any], taken: Input
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What makes a row of the network's input of a row of an .npz's array."""
    got = f"{dtype} {list(sizes)}"
    floats = f"{taken.dtype} {['N', *taken.shape[1:]]}"
    if not sizes or not sizes[0]:
        raise _wrong(f"{path}: array '{name}' is empty", got=got, allowed="at least one picture")
    fits = sizes[1:] == tuple(taken.shape[1:])
    if fits and (dtype == taken.dtype or (dtype.kind == "f" and taken.dtype == "float32")):

        def ready(row: NDArray[Any]) -> NDArray[Any]:
            if dtype.kind == "f" and not np.isfinite(row).all():
                message = f"{path}: array '{name}' holds NaN or infinity"
                raise DeployError(message, kind="data", got="NaN or infinity", allowed="finite numbers")
            return row.astype(taken.dtype)

        return ready
    how = taken.preprocessing
    if how is not None and dtype == np.uint8 and (len(sizes) == 3 or (len(sizes) == 4 and sizes[3] in (1, 3, 4))):
        return lambda row: prepare(row, how)
    allowed = f"{floats}{', or uint8 pictures (N, H, W) or (N, H, W, C)' if how is not None else ''}"
    raise _wrong(f"{path}: array '{name}' is {got}", got=got, allowed=allowed)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def _wrong(message: str, *, got: object, allowed: object = ALLOWED) -> DeployError:
    return DeployError(message, kind="data", got=got, allowed=allowed)
