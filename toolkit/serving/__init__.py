"""What makes of a bundle something that a server of others takes: one table, a file for each kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..runtime.bundle import MANIFEST

KINDS: Mapping[str, str] = {"triton": "NVIDIA Triton Inference Server: a model repository"}
"""Who can be written for. Each is a module here with

    TARGETS                            the kinds of target whose bundles such a server can load
    place(name)                        where in the repository the bundle of a model of that name goes
    write(repository, bundle, manifest)  everything else around the sealed bundle there -> the names of the models
"""


def check(name: str, target: str, destination: Path, *, onnx_only: bool) -> None:
    """Whether a kind of server can be given what will be exported.

    Args:
        name: of `KINDS`.
        target: the kind of target.

    Raises:
        UsageError: it cannot.
    """
    if name not in KINDS:
        message = f"there is no --serve {name}"
        raise UsageError(message, kind="serve", got=name, allowed=sorted(KINDS))
    known: Sequence[str] = _module(name).TARGETS
    if target not in known:
        message = f"--serve {name} is for bundles that such a server can load, and one for {target} is none"
        raise UsageError(message, kind="serve", got=target, allowed=list(known))
    if onnx_only:
        message = f"--serve {name} serves the compiled network beside its ONNX, and --onnx-only compiles none"
        raise UsageError(message, kind="serve", got="--onnx-only", allowed="one of the two")
    if destination.suffix == ".zip":
        message = f"--serve {name} writes a folder, and {destination} is the name of a zip"
        raise UsageError(message, kind="serve", got=str(destination), allowed="the name of a folder")


def write(name: str, repository: Path, bundle: Path) -> dict[str, Any]:
    """Move a sealed bundle to its place in the repository, a folder above it, and write everything around it.

    Returns:
        ``kind``, ``models``: their names in the repository, and ``bundle``: where in it that is now.
    """
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    module = _module(name)
    place = repository / module.place(manifest["model"])
    place.parent.mkdir(parents=True)
    bundle.rename(place)
    models = module.write(repository, place, manifest)
    return {"kind": name, "models": models, "bundle": place.relative_to(repository).as_posix()}


def _module(name: str) -> Any:
    return import_module(f".{name}", __package__)
