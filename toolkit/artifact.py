"""Files that are either complete or not there, hashes, and zips and JSON that have the same bytes every time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import DeployError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CHUNK = 1 << 20

_UNFINISHED: list[Callable[[], None]] = []
"""How to undo what this process is writing: `abandon` needs it where a signal ends the process."""


def abandon() -> None:
    """Undo everything that is being written, as if it had never been started. The process has to end right after."""
    while _UNFINISHED:
        _UNFINISHED.pop()()


@contextmanager
def undoing(undo: Callable[[], None]) -> Iterator[None]:
    """Call `undo` where the block fails, or where `abandon` is called meanwhile."""
    _UNFINISHED.append(undo)
    try:
        yield
    except BaseException:
        undo()
        raise
    finally:
        with suppress(ValueError):  # `abandon` has taken it
            _UNFINISHED.remove(undo)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def dump_json(value: object, path: Path) -> None:
    """Write `value` as JSON: sorted keys, two spaces, a newline at the end. ValueError on NaN and infinity."""
    text = json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_zip(folder: Path, destination: Path) -> None:
    """Pack every file below `folder` into one zip whose bytes depend on the names and the contents alone."""
    with zipfile.ZipFile(destination, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in files_below(folder):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, _CHUNK)


def files_below(folder: Path) -> list[Path]:
    """Every regular file below `folder`, sorted by its name relative to it."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


@contextmanager
def atomic_folder(destination: Path, *, force: bool = False) -> Iterator[Path]:
    """A fresh folder that becomes `destination` when the block ends well, and disappears when it does not.

    A `destination` that ends in ``.zip`` is packed. What stood there stays untouched until the new one is complete.

    Args:
        destination: where the finished folder or zip shall stand; its parent is made where it is missing.
        force: replace what already stands there.

    Raises:
        DeployError: ``exists``, where `destination` is there without `force`; ``disk``, where the disk is full.
    """
    _refuse_existing(destination, force)
    with _explain_full_disk(destination.parent):
        made = _make_parents(destination.parent)
        _remove_abandoned(destination)
        partial = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent))
        aside = partial / "replaced"

        def undo() -> None:
            if aside.exists() and not os.path.lexists(destination):
                aside.rename(destination)
            shutil.rmtree(partial, ignore_errors=True)
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()

        with undoing(undo):
            lock = os.open(partial, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                content = partial / "content"
                content.mkdir()
                yield content
                if destination.suffix == ".zip":
                    packed = partial / "content.zip"
                    write_zip(content, packed)
                    content = packed
                _refuse_existing(destination, force)
                _put_in_place(content, destination, aside)
            finally:
                os.close(lock)
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def atomic_file(destination: Path) -> Iterator[Path]:
    """A path to write to that becomes `destination` when the block ends well. Devices are written directly."""
    with _explain_full_disk(destination.parent):
        if destination.exists() and not destination.is_file():
            yield destination
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(
                prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent
            ) as temporary,
            undoing(lambda: shutil.rmtree(temporary, ignore_errors=True)),
        ):
            partial = Path(temporary) / destination.name
            yield partial
            partial.replace(destination)


def _refuse_existing(destination: Path, force: bool) -> None:
    if os.path.lexists(destination) and not force:
        raise DeployError(
            f"{destination} already exists; --force replaces it, or choose another --output",
            kind="exists",
            got=str(destination),
            allowed="a path that does not exist yet",
        )


def _put_in_place(content: Path, destination: Path, aside: Path) -> None:
    if not os.path.lexists(destination):
        content.rename(destination)
        return
    destination.rename(aside)
    content.rename(destination)


def _make_parents(folder: Path) -> list[Path]:
    """Make `folder` with its parents; the ones that were missing, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_abandoned(destination: Path) -> None:
    """Remove what a killed export to the same place left; one that still runs holds the lock of its folder."""
    for partial in destination.parent.glob(f".{destination.name}.*.partial"):
        with suppress(OSError):
            lock = os.open(partial, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(partial)
            finally:
                os.close(lock)


@contextmanager
def _explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn the many faces of a full disk into one error: some libraries report it as anything but an OSError."""
    try:
        yield
    except DeployError:
        raise
    except Exception as error:
        if not (isinstance(error, OSError) and error.errno in _FULL) and not _is_full(folder):
            raise
        raise DeployError(
            f"no space left on the disk of {folder}; nothing was written",
            kind="disk",
            got=f"{shutil.disk_usage(_nearest_existing(folder)).free} bytes free",
            allowed="enough free space for the result (an fp32 bundle takes about three times the weights)",
        ) from error


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(_nearest_existing(folder)).free < 1 << 16


def _nearest_existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
