"""The bundle: one folder, or the same as one .zip, with everything a deployed network needs.

    manifest.json   model, target, precision, tensors, preprocessing, tool versions, SHA-256 of every other file
    model.onnx      the optimised fp32 network
    model.int8.onnx the quantized network (QDQ), where the bundle is int8
    verify.json     how each stage compared with the one before it when it was exported
    refusals.json   the operators that took TVM's default, each with its reason
    plan.json       the kernel calls in order, and where every value lives
    ...             the compiled files, as the target names them
    README.md, infer.py, main.c, CMakeLists.txt, preprocessing.json, labels.txt, LICENSE
                    what somebody needs who has nothing but the bundle (`bundles.explain`)

Nothing of a bundle is loaded or run before every hash is checked. The hashes find damage; they are no signature:
whoever can change a file can change the manifest as well, so open bundles from people you would run code of.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from .. import artifact, schema
from ..errors import DeployError
from . import documents

SCHEMA_VERSION = 1
MANIFEST, ONNX, PLAN = "manifest.json", "model.onnx", "plan.json"
INT8_ONNX = "model.int8.onnx"
VERIFY, REFUSALS = "verify.json", "refusals.json"
RAW_ONNX = "stages/simplified.onnx"
"""The network as it was before our graph passes; there only after ``export --keep-stages``."""
ORIGINAL_ONNX = "stages/original.onnx"
"""A user's own file; there only after ``export --keep-stages``."""
LAYERS = "stages/layers-{}.txt"
"""The network's layers after a lowering pass, by its name; there only after ``export --keep-stages``."""

_PYCACHE = "__pycache__"
_MAX_MANIFEST = 64 << 20
_MAX_FILES = 10_000
_MAX_BYTES = 32 << 30
_MAX_RATIO = 200


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files have been checked against their hashes.

    Attributes:
        source: the path the user gave.
        folder: where the files lie; of a zip a temporary folder that goes when `open` ends.
        manifest: the content of manifest.json.
    """

    source: Path
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def onnx(self) -> Path:
        """The ONNX that the compiled library computes: the quantized one, where there is one."""
        quantized = self.folder / INT8_ONNX
        return quantized if quantized.exists() else self.folder / ONNX

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the network's one input, e.g. (N, C, H, W)."""
        return tuple(self.manifest["inputs"][0]["shape"])

    @property
    def batches(self) -> tuple[int, ...]:
        """The numbers of images that its plans compute at once, the smallest first."""
        return (self.input_shape[0], *(plan["batch"] for plan in self.manifest.get("plans", ())))

    def plan(self, number: int) -> Bundle:
        """The bundle as if the plan of that number were its only one: `manifest` is the plan's, ``plan`` its number."""
        if not number:
            return self
        own = self.manifest["plans"][number - 1]
        return replace(self, manifest={**self.manifest, **own, "plan": number, "plans": ()})

    @property
    def plans(self) -> tuple[Bundle, ...]:
        """`plan` of every number."""
        return tuple(self.plan(number) for number in range(len(self.batches)))

    def document(self, name: str) -> Any:
        """One of the bundle's JSON files, e.g. ``"verify.json"``; of ``plan.json`` the part that is of `plan`."""
        content = _json(self.folder / name, self.source)
        _hold(content, name, self.source)
        if name != PLAN:
            return content
        others = content.get("plans", [])
        if number := self.manifest.get("plan"):
            return others[number - 1]
        if len(others) != (told := len(self.manifest.get("plans", ()))):
            message = (
                f"bundle {self.source} {PLAN}: field 'plans' has {len(others)} more plans, and the manifest {told}"
            )
            raise DeployError(message, kind="bundle", got=len(others), allowed=told)
        return content


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `folder`'s manifest.json: `manifest`, the schema version, and the hash of every file that stands there."""
    files = {path.relative_to(folder).as_posix(): artifact.sha256(path) for path in artifact.files_below(folder)}
    artifact.dump_json({**manifest, "schema_version": SCHEMA_VERSION, "files": files}, folder / MANIFEST)


@contextmanager
def open(path: Path) -> Iterator[Bundle]:
    """Open a bundle folder or .zip and check every file of it.

    Raises:
        DeployError: (kind ``bundle``) there is none, it is damaged or hostile, or a newer program wrote it.
    """
    if path.is_dir():
        yield _check(path, path)
    elif path.is_file() and zipfile.is_zipfile(path):
        temporary = Path(tempfile.mkdtemp(prefix="inception-deploy-"))
        with artifact.undoing(lambda: shutil.rmtree(temporary, ignore_errors=True)):
            with artifact.explain_full_disk(temporary):
                _extract(path, temporary)
            yield _check(temporary, path)
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        what = "is neither a folder nor a zip" if path.exists() else "does not exist"
        raise _bad(path, what, allowed="a bundle that `inception-deploy export` wrote")


def _check(folder: Path, source: Path) -> Bundle:
    file = folder / MANIFEST
    if not file.is_file() or file.is_symlink():
        raise _bad(source, f"has no {MANIFEST}", allowed="a bundle that `inception-deploy export` wrote")
    manifest = _json(file, source)
    if not isinstance(manifest, dict):
        raise _bad(source, f"{MANIFEST} is not an object", got=type(manifest).__name__)
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise _bad(source, f"{MANIFEST}: field 'schema_version' is {version!r}", got=version, allowed=SCHEMA_VERSION)
    _hold(manifest, MANIFEST, source)
    _check_files(folder, source, manifest["files"])
    return Bundle(source, folder, manifest)


def _check_files(folder: Path, source: Path, listed: Mapping[str, object]) -> None:
    for name, digest in listed.items():
        if not _is_inside(name) or not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise _bad(source, f"{MANIFEST}: field 'files' has a bad entry {name!r}", got=name)
    present = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    if missing := sorted(set(listed) - present):
        raise _bad(source, f"lacks {', '.join(missing)}", got=missing)
    # Python writes a folder of its own where somebody imports the bundle's infer.py.
    unknown = present - set(listed) - {MANIFEST}
    if extra := sorted(name for name in unknown if PurePosixPath(name).parts[0] != _PYCACHE):
        raise _bad(source, f"holds files that its manifest does not name: {', '.join(extra)}", got=extra)
    if missing := sorted({ONNX} - set(listed)):
        raise _bad(source, f"{MANIFEST}: field 'files' does not name {missing[0]}", got=sorted(listed))
    for name, digest in sorted(listed.items()):
        path = folder / name
        if any(step.is_symlink() for step in (path, *path.parents) if step.is_relative_to(folder) and step != folder):
            raise _bad(source, f"{name} is a symbolic link", got=name, allowed="regular files")
        if not path.is_file():
            raise _bad(source, f"{name} is not a regular file", got=name, allowed="regular files")
        found = artifact.sha256(path)
        if found != digest:
            raise _bad(source, f"is damaged: {name} has not the SHA-256 of its manifest", got=found, allowed=digest)


def _extract(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_entries(path, entries)
            free = shutil.disk_usage(folder).free
            if sum(entry.file_size for entry in entries) > free:
                raise DeployError(f"no room to unpack {path} in {folder.parent}", kind="disk", got=f"{free} bytes free")
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                # ZipFile reads no more than the declared size of an entry and checks its CRC at the end.
                with archive.open(entry) as source, target.open("xb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _bad(path, "has an entry where another has its folder") from error
    # zipfile's own for a damaged archive, an encrypted entry, a size that does not fit, a name that is no text
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _bad(path, f"cannot be unpacked: {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # zipfile seeks to wherever a damaged directory says
            raise
        raise _bad(path, "cannot be unpacked: an entry lies outside the file") from error


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    names = [entry.filename for entry in entries]
    for entry in entries:
        if not _is_inside(entry.filename):
            raise _bad(path, f"has an entry that leaves its folder: {entry.filename!r}", got=entry.filename)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _bad(path, f"has an entry that is packed in an unknown way: {entry.filename!r}")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise _bad(path, f"has an entry that is no regular file: {entry.filename!r}", got=entry.filename)
    if len(set(names)) != len(names):
        raise _bad(path, "names an entry twice")
    size, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if len(names) > _MAX_FILES or size > _MAX_BYTES or (size > 64 << 20 and size > _MAX_RATIO * packed):
        got = f"{len(names)} files, {packed} bytes packed, {size} unpacked"
        allowed = f"{_MAX_FILES} files, {_MAX_BYTES} bytes, {_MAX_RATIO} to 1"
        raise _bad(path, "unpacks to more than a bundle can hold", got=got, allowed=allowed)


def _is_inside(name: str) -> bool:
    """Whether a POSIX name stays below the folder it is resolved against, and is written in the one plain way."""
    parts = PurePosixPath(name).parts
    plain = "/".join(parts) == name and "\\" not in name and "\0" not in name and ":" not in name
    return bool(parts) and plain and ".." not in parts and not name.startswith("/")


def _hold(content: object, name: str, source: Path) -> None:
    """Hold a document to its schema."""
    try:
        schema.check(content, documents.OF[name])
    except schema.Mismatch as error:
        allowed = "what `inception-deploy export` wrote"
        raise _bad(source, f"{name}: {error}", got=str(error), allowed=allowed) from error


def _json(file: Path, source: Path) -> Any:
    if file.stat().st_size > _MAX_MANIFEST:
        raise _bad(
            source, f"{file.name} is too large", got=file.stat().st_size, allowed=f"at most {_MAX_MANIFEST} bytes"
        )
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _bad(source, f"{file.name} is not JSON: {error}") from error


def _bad(path: Path, what: str, *, got: object = None, allowed: object = None) -> DeployError:
    return DeployError(f"bundle {path} {what}", kind="bundle", got=str(path) if got is None else got, allowed=allowed)
