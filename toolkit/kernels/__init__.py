"""Kernel specs and the templates that turn them into TIR."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def sources_digest(without: str | None = None) -> str:
    """A digest of the files that decide a kernel's code, and of TVM's version; `without` a folder of
    another target's.
    """
    from importlib.metadata import version

    digest = hashlib.sha256(version("apache-tvm").encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        if without is None or path.parent.name != without:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
