"""What was built once and need not be built again: small files, found by what they were made of.

An entry carries a hash of its own content, so a damaged one is made again rather than used. Entries appear whole (a
rename), so any number of processes may share the folder; deleting it, or anything in it, at any time costs time only.
An entry's time of modification is when it was last used, to the day: what has not been used for long can be told, and
removed (``find ... -mtime +14 -delete``).
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_VARIABLE = "INCEPTION_DEPLOY_CACHE"
_DAY = 24 * 60 * 60
_DIGEST = hashlib.sha256().digest_size


def directory() -> Path:
    """``$INCEPTION_DEPLOY_CACHE``, else ``inception-deploy`` in ``$XDG_CACHE_HOME`` or ``~/.cache``; `private` for who
    has no home.
    """
    own = os.environ.get(_VARIABLE)
    if own:
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification says that a relative path is to be ignored.
    try:
        base = Path(shared) if shared and Path(shared).is_absolute() else Path("~/.cache").expanduser()
    except RuntimeError:  # neither HOME nor an entry of the user
        base = private()
    return base / "inception-deploy"


@lru_cache(maxsize=1)
def private() -> Path:
    """A folder of this process, removed at its end: for what cannot do without a cache where there is none.

    Raises:
        OSError: there is no room for temporary files.
    """
    made = Path(tempfile.mkdtemp(prefix="inception-deploy-cache-"))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(made, ignore_errors=True) if os.getpid() == owner else None)
    return made


def is_writable(folder: Path) -> bool:
    """Whether files can be written into a folder, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
    except OSError:
        return False
    return True


def key(*material: str | bytes) -> str:
    """A hex key for the sequence `material`; where one part ends and the next begins counts."""
    digest = hashlib.sha256()
    for part in material:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def fetch(material: str | bytes, suffix: str, make: Callable[[], bytes]) -> bytes:
    """The bytes that `make` returned the last time for the same `material`, or that it returns now.

    Args:
        material: everything that decides the result: source text, options, versions of the tools.
        suffix: what kind of thing it is, e.g. ``".o"``; a part of the entry's name and of its key.
        make: builds the bytes. What it raises passes through, and nothing is stored.
    """
    path = _path(material, suffix)
    stored = _read(path)
    if stored is not None:
        _used(path)
        return stored
    data = make()
    # A cache that cannot be written (read-only home, full disk) makes the next call slower, not this one wrong.
    with suppress(OSError):
        _write(path, data)
    return data


def has(material: str | bytes, suffix: str) -> bool:
    """Whether `fetch` makes nothing."""
    return _read(_path(material, suffix)) is not None


def _path(material: str | bytes, suffix: str) -> Path:
    name = key(suffix, material)
    return directory() / "objects" / name[:2] / (name + suffix)


def _read(path: Path) -> bytes | None:
    """The entry's content; None where it is missing, unreadable or damaged."""
    try:
        entry = path.read_bytes()
    except OSError:
        return None
    digest, data = entry[:_DIGEST], entry[_DIGEST:]
    return data if hashlib.sha256(data).digest() == digest else None


def _used(path: Path) -> None:
    """Note that an entry is in use. Once a day is enough, and spares what reads a cache the writing."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _DAY:
            os.utime(path)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(data).digest())
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise
