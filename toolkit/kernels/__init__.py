"""Kernel specs and the templates that turn them into TIR."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def sources_digest(without: str | None = None) -> str:
    """A digest of the files that decide a kernel's code, and of TVM's version; `without` files of another target, by
    their prefix.
    """
    from importlib.metadata import version

    digest = hashlib.sha256(version("apache-tvm").encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if without is None or not path.name.startswith(without):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
