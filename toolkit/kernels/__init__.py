"""Kernel specs and the templates that turn them into TIR."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def sources_digest(folder: Path = Path(__file__).parent) -> str:
    """A digest of every file of this package and of TVM's version: while it stays, equal specs and schedules give
    equal code. It saves emitting a kernel only to see that it is known; what a kernel is known by is its code.
    """
    from importlib.metadata import version

    digest = hashlib.sha256(version("apache-tvm").encode())
    for path in sorted(folder.rglob("*.py")):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(folder)} {len(data)} ".encode())
        digest.update(data)
    return digest.hexdigest()
