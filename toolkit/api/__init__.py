"""The front door: one function a command, with the command's options. `inception_deploy` hands them out by name.

Each is imported without anything heavy, and imports what it needs when it is called. One that needs the builder's
packages says so where they are not installed. Paths are text or `Path`. What is returned is the document that the
command prints with ``--json``.
"""

from __future__ import annotations

from .build import export, quantize, tune, verify
from .use import bench, bench_torch, compare, evaluate, inspect, load, models, report, run, targets

__all__ = [
    "bench",
    "bench_torch",
    "compare",
    "evaluate",
    "export",
    "inspect",
    "load",
    "models",
    "quantize",
    "report",
    "run",
    "targets",
    "tune",
    "verify",
]
