"""torch's checkpoints, read without running anything of theirs.

`torch.load` with `weights_only` calls nothing but what rebuilds tensors, and the few harmless classes of `_harmless`.
Before it, the pickle's steps are counted, and how large and how deep what they build would be: a pickle of a few
kilobytes can ask for a structure that nobody finishes to hash or to walk.
"""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from inception_deploy.errors import DeployError

MAX_STEPS = 1_000_000
MAX_OBJECTS = 100_000_000
MAX_DEPTH = 200
MAX_BYTES = 32 << 20
"""Of the pickle alone; the numbers lie beside it."""

SAVE = "torch.save(model.state_dict(), 'weights.pth')"
_MAX_RATIO = 100
_LEGACY_PICKLES = 5
"""Of a file from before torch 1.6: a magic number, the version, the machine, the object, the names of the storages."""

Wrong = Callable[..., DeployError]
"""Makes the error of a message, with ``got`` and ``allowed``."""


def load(file: Path, wrong: Wrong) -> object:
    """What `torch.save` wrote into `file`, its tensors on the CPU.

    Raises:
        DeployError: it is damaged, a trap, a TorchScript archive, or holds classes that are not known to be harmless.
    """
    import torch

    with file.open("rb") as source:
        zipped = source.read(4) == b"PK\3\4"
    classes = _scan_zip(file, wrong) if zipped else _scan_legacy(file, wrong)
    if any(name.endswith(".bytearray") for name in classes):  # of any length, which the file need not hold
        raise _no_checkpoint(file, "bytearray", wrong)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # about the pickle protocol: the file is read whole or refused below
            content: object = torch.load(file, map_location="cpu", weights_only=True)
            return content
    except MemoryError:
        raise
    except Exception as error:  # the unpickler fails on foreign bytes with almost any exception there is
        modules = sorted(name for name in classes if name.startswith("torch.nn.modules."))
        if modules:
            message = f"{file} holds a whole pickled module (with {modules[0]}), which is code, not weights"
            raise wrong(message, got=modules[:12], allowed=f"its state dict, saved where it runs: {SAVE}") from error
        # Only what was found: torch's text goes on to recommend loading it unsafely.
        patterns = (r"Unsupported (?:global|class): \w+ \S+", r"(?<=WeightsUnpickler error: )[^\n]*")
        found = next(filter(None, (re.search(pattern, str(error)) for pattern in patterns)), None)
        raise _no_checkpoint(file, found.group() if found else type(error).__name__, wrong) from error


def _no_checkpoint(file: Path, reason: str, wrong: Wrong) -> DeployError:
    message = f"{file} is not a checkpoint of plain tensors (pickles that hold anything else are refused): {reason}"
    return wrong(message, got=reason, allowed=f"tensors and plain values: {SAVE}")


def _too_large(file: Path, got: str, allowed: str, wrong: Wrong) -> DeployError:
    return wrong(f"{file} unpacks to more than a checkpoint can hold: {got}", got=got, allowed=allowed)


def _harmless() -> list[Any]:
    """What people keep beside their weights: classes that hold values, and run nothing of the file when rebuilt."""
    import argparse
    import collections
    import datetime
    import pathlib
    import types

    import numpy as np

    plain = [
        argparse.Namespace, types.SimpleNamespace, collections.deque, frozenset, set, list,
        dict, tuple, int, float, bool, str, np.ndarray, np.dtype,
        datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone,
    ]  # fmt: skip
    scalar, rebuild = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
    named = [
        (value, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name, value in (("scalar", scalar), ("_reconstruct", rebuild))
    ]
    # A path of another system is a name here, no path; Python 3.13 calls the module pathlib._local.
    paths = {
        "PosixPath": pathlib.PurePosixPath,
        "PurePosixPath": pathlib.PurePosixPath,
        "WindowsPath": pathlib.PureWindowsPath,
        "PureWindowsPath": pathlib.PureWindowsPath,
    }
    named += [(cls, f"{module}.{name}") for module in ("pathlib", "pathlib._local") for name, cls in paths.items()]
    named.append((_empty, "collections.defaultdict"))  # torch fills no other kind of dict than its own three
    kinds = [cls for name, cls in vars(np.dtypes).items() if name.endswith("DType")]
    scalars = [kind for kind in set(np.sctypeDict.values()) if not issubclass(kind, (np.object_, np.void))]
    return [*plain, *named, *kinds, *scalars]


def _empty(*factory: object) -> dict[object, object]:
    """A dict that a pickle then fills."""
    return {}


# -- counting first -------------------------------------------------------------------------------------------------


def _scan_zip(file: Path, wrong: Wrong) -> set[str]:
    """The classes that the pickle of an archive names, once it is known to be small enough to be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename.partition("/")[2] for entry in entries]
            if "constants.pkl" in names or any(name.startswith("code/") for name in names):
                message = f"{file} is a TorchScript archive, which is code, not weights"
                allowed = f"its state dict: model = torch.jit.load('{file.name}'); {SAVE}"
                raise wrong(message, got="TorchScript", allowed=allowed)
            if "data.pkl" not in names:
                raise wrong(f"{file} is a zip without torch's data.pkl", got=sorted(names)[:12])
            size, packed = sum(entry.file_size for entry in entries), file.stat().st_size
            pickle = entries[names.index("data.pkl")]
            if size > _MAX_RATIO * packed or pickle.file_size > MAX_BYTES:
                got = f"{packed} bytes packed, {size} unpacked, the pickle {pickle.file_size}"
                allowed = f"at most {_MAX_RATIO} to 1, and {MAX_BYTES} bytes of pickle"
                raise _too_large(file, got, allowed, wrong)
            with archive.open(pickle) as source:
                return _scan(source, 1, file, wrong)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise _no_checkpoint(file, f"{type(error).__name__}", wrong) from error


def _scan_legacy(file: Path, wrong: Wrong) -> set[str]:
    with file.open("rb") as source:
        return _scan(source, _LEGACY_PICKLES, file, wrong)


class _Object:
    """What a pickle would build, for its size only."""

    __slots__ = ("depth", "size", "text")

    def __init__(self, parts: list[_Object], text: str = "") -> None:
        self.size, self.depth, self.text = 1, 0, text
        self.take(parts)

    def take(self, parts: list[_Object]) -> None:
        self.size += sum(part.size for part in parts)
        self.depth = max([self.depth, *(part.depth + 1 for part in parts)])


_FILLS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
"""Steps that put what is above into an object that is there already."""


def _scan(source: BinaryIO | Any, pickles: int, file: Path, wrong: Wrong) -> set[str]:
    """The classes that `pickles` pickles in a row name.

    Raises:
        DeployError: they are no pickles, or what they build would be too large.
    """
    classes: set[str] = set()
    steps = 0
    for _ in range(pickles):
        stack: list[_Object | None] = []  # None is a mark
        memo: dict[int, _Object] = {}
        try:
            for code, argument, _position in pickletools.genops(source):
                steps += 1
                made = _step(code, argument, stack, memo)
                if code.name in ("GLOBAL", "STACK_GLOBAL") and made is not None:
                    classes.add(made.text)
                if steps > MAX_STEPS or (made is not None and (made.size > MAX_OBJECTS or made.depth > MAX_DEPTH)):
                    allowed = f"{MAX_STEPS} steps, {MAX_OBJECTS} objects, {MAX_DEPTH} deep"
                    raise wrong(
                        f"{file} unpacks to more than a checkpoint can hold", got=f"step {steps}", allowed=allowed
                    )
        except (ValueError, IndexError, KeyError, AttributeError, MemoryError) as error:  # a length is any number
            if classes:  # torch says more of a pickle that begins well
                return classes
            raise _no_checkpoint(file, "no pickle", wrong) from error
    return classes


def _step(code: Any, argument: object, stack: list[_Object | None], memo: dict[int, _Object]) -> _Object | None:
    """Do one step of a pickle; gives the object that it makes or fills.

    Raises:
        IndexError, KeyError, AttributeError: the step needs what is not there.
    """
    name = code.name
    if name == "MARK":
        stack.append(None)
        return None
    if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if name == "MEMOIZE" else int(str(argument))] = _there(stack[-1])
        return None
    if "GET" in name:
        stack.append(memo[int(str(argument))])
        return None
    parts: list[_Object] = []
    for expected in reversed(code.stack_before):
        if expected is pickletools.stackslice:
            while (part := stack.pop()) is not None:
                parts.append(part)
        elif expected is not pickletools.markobject:
            parts.append(_there(stack.pop()))
    if name in _FILLS:
        target = parts.pop()
        target.take(parts)
        stack.append(target)
        return target
    made = None
    for _ in code.stack_after:
        text = argument if isinstance(argument, str) else ""
        if name == "STACK_GLOBAL":
            text = f"{parts[1].text}.{parts[0].text}"
        made = _Object(parts, text.replace(" ", ".", 1) if name == "GLOBAL" else text)
        stack.append(made)
    return made


def _there(part: _Object | None) -> _Object:
    if part is None:
        raise IndexError("a mark where an object should be")
    return part
