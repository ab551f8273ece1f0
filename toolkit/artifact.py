"""Files that are either complete or not there, hashes, and zips and JSON that have the same bytes every time."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import cache
from .errors import DeployError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CHUNK = 1 << 20
_REPLACED = "replaced"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h

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
    """Pack every file below `folder` into one zip whose bytes depend on the names, the contents and what is a
    program alone.
    """
    with zipfile.ZipFile(destination, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in files_below(folder):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if path.stat().st_mode & 0o100 else 0o644) << 16
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, _CHUNK)


def files_below(folder: Path) -> list[Path]:
    """Every regular file below `folder`, sorted by its name relative to it."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


@contextmanager
def atomic_folder(destination: Path, *, force: bool = False) -> Iterator[Path]:
    """A fresh folder that becomes `destination` when the block ends well, and disappears when it does not.

    A `destination` that ends in ``.zip`` is packed. What stood there stays until the new one is complete, and whenever
    the process is killed, either the old or the new one stands there, whole. (Where the file system cannot exchange two
    names, it may be gone until the next call, which puts it back.)

    Args:
        destination: where the finished folder or zip shall stand; its parent is made where it is missing.
        force: replace what already stands there.

    Raises:
        DeployError: ``exists``, where `destination` is there without `force`; ``disk``, where the disk is full.
    """
    remove_abandoned(destination)
    _refuse_existing(destination, force)
    with explain_full_disk(destination.parent):
        made = _make_parents(destination.parent)

        def undo() -> None:
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()

        with undoing(undo), _workplace(destination) as place:
            content = place / "content"
            content.mkdir()
            yield content
            if destination.suffix == ".zip":
                packed = place / "content.zip"
                write_zip(content, packed)
                content = packed
            _refuse_existing(destination, force)
            _put_in_place(content, destination, place / _REPLACED)


@contextmanager
def atomic_file(destination: Path) -> Iterator[Path]:
    """A path to write to that becomes `destination` when the block ends well. Devices are written directly.

    Raises:
        DeployError: (kind ``exists``) as `require_file`.
    """
    require_file(destination)
    with explain_full_disk(destination.parent):
        if destination.exists() and not destination.is_file():
            yield destination
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(destination)
        with _workplace(destination) as place:
            partial = place / destination.name
            yield partial
            partial.replace(destination)


def require_file(destination: Path) -> None:
    """Refuse what no file can be written to; what takes long asks before it begins.

    Raises:
        DeployError: (kind ``exists``) it is a folder, or what should be a folder above it is none.
    """
    above = _nearest_existing(destination.parent)
    wrong = destination if destination.is_dir() else above if not above.is_dir() else None
    if wrong is not None:
        message = f"{destination} cannot be written: {wrong} is {'a folder' if wrong.is_dir() else 'no folder'}"
        raise DeployError(message, kind="exists", got=str(destination), allowed="a path of a file")


def remove_abandoned(destination: Path) -> None:
    """Put back and remove what a process that was killed left beside `destination`.

    One that still runs holds the lock of its folder, which is left alone.
    """
    for place in destination.parent.glob(f".{glob.escape(destination.name)}.*.partial"):
        handle = lock(place, fcntl.LOCK_NB)
        if handle is not None:
            _clear(place, destination)
            os.close(handle)


SCRATCH = ".scratch"
"""How the folder for temporary files is called of a process that another one watches (`supervise`)."""

BEGUN = "begun"
"""A file there: what the process has begun to write, a path a line."""


def remove_begun(temporary: Path) -> None:
    """Clear up after a process that was killed, whose temporary files are in `temporary`."""
    with suppress(OSError, UnicodeDecodeError):
        for line in dict.fromkeys((temporary / BEGUN).read_text(encoding="utf-8").splitlines()):
            remove_abandoned(Path(line))


def _tell(destination: Path) -> None:
    """Write down what is begun, where somebody wants to know."""
    temporary = Path(tempfile.gettempdir())
    if temporary.suffix == SCRATCH:
        with suppress(OSError), (temporary / BEGUN).open("a", encoding="utf-8") as told:
            told.write(f"{destination.absolute()}\n")


@contextmanager
def _workplace(destination: Path) -> Iterator[Path]:
    """A hidden folder beside `destination`, locked for the time of the block, and removed after it however it ends."""
    _tell(destination)
    handle = None
    while handle is None:  # another process may take it for an abandoned one before it is locked
        place = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent))
        handle = lock(place)
    try:
        with undoing(lambda: _clear(place, destination)):
            yield place
        _clear(place, destination)
    finally:
        os.close(handle)


def lock(folder: Path, flag: int = 0) -> int | None:
    """A handle that holds the lock of `folder` until it is closed; None where the folder has gone, or cannot be locked.

    Args:
        flag: ``fcntl.LOCK_NB`` for not waiting where another process holds it.
    """
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | flag)
        if os.path.samestat(os.fstat(handle), os.stat(folder)):
            return handle
    except OSError:
        pass
    if handle is not None:
        os.close(handle)
    return None


def remove_unlocked(folder: Path) -> None:
    """Remove a folder whose lock nobody holds; what cannot be removed stays."""
    handle = lock(folder, fcntl.LOCK_NB)
    if handle is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _clear(place: Path, destination: Path) -> None:
    """Remove a workplace; what `_put_in_place` was about to replace goes back to `destination` first."""
    aside = place / _REPLACED
    with suppress(OSError):
        if os.path.lexists(aside) and not os.path.lexists(destination):
            os.rename(aside, destination)
    if not os.path.lexists(aside) or os.path.lexists(destination):
        shutil.rmtree(place, ignore_errors=True)


def _refuse_existing(destination: Path, force: bool) -> None:
    if os.path.lexists(destination) and not force:
        raise DeployError(
            f"{destination} already exists; --force replaces it, or choose another --output",
            kind="exists",
            got=str(destination),
            allowed="a path that does not exist yet",
        )


def _put_in_place(content: Path, destination: Path, aside: Path) -> None:
    """Let `content` stand at `destination`; what stood there goes to where `content` was, or to `aside`."""
    if not os.path.lexists(destination):
        os.rename(content, destination)
    elif not content.is_dir() and not (destination.is_dir() and not destination.is_symlink()):
        os.replace(content, destination)
    elif not _exchange(content, destination):
        os.rename(destination, aside)
        os.rename(content, destination)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names of one file system change places, at once; False where it cannot (an old kernel, NFS, FAT)."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # musl before 1.2.4
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0


def _make_parents(folder: Path) -> list[Path]:
    """Make `folder` with its parents; the ones that were missing, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder for files of a moment. DeployError ``disk`` names a disk that is full, whatever it was that failed."""
    try:
        above = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise DeployError(f"{error.strerror}; {_TMPDIR}", kind="disk", got=str(error), allowed=_TMPDIR) from error
    try:
        with tempfile.TemporaryDirectory(prefix="inception-deploy-", dir=above) as name:
            yield Path(name)
    except Exception as error:
        full = _for_want_of_space(error, above) or not cache.is_writable(above)
        if not full or getattr(error, "kind", "") == "disk":
            raise
        raise _full_disk(above, f"of the temporary files; {_TMPDIR}", _TMPDIR) from error


_TMPDIR = "set TMPDIR to a folder that has room"


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn the many faces of a full disk into one error: some libraries report it as anything but an OSError."""
    try:
        yield
    except DeployError:
        raise
    except Exception as error:
        if not _for_want_of_space(error, folder):
            raise
        allowed = "enough free space for the result (an fp32 bundle takes about three times the weights)"
        raise _full_disk(folder, "; nothing was written", allowed) from error


def _for_want_of_space(error: Exception, folder: Path) -> bool:
    return (isinstance(error, OSError) and error.errno in _FULL) or _is_full(folder)


def _full_disk(folder: Path, rest: str, allowed: str) -> DeployError:
    free = shutil.disk_usage(_nearest_existing(folder)).free
    space = "" if rest.startswith(";") else ", that "
    message = f"no space left on the disk of {folder}{space}{rest}"
    return DeployError(message, kind="disk", got=f"{free} bytes free", allowed=allowed)


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(_nearest_existing(folder)).free < 1 << 16


def _nearest_existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
