"""The commands of `inception-deploy`, one file each. A new one is a file here and a line in this table."""

from __future__ import annotations

from . import bench, compare, evaluate, export, inspect, models, quantize, report, run, targets, tune, verify, vta
from .base import Command

COMMANDS: tuple[Command, ...] = (
    models.COMMAND,
    targets.COMMAND,
    export.COMMAND,
    tune.COMMAND,
    quantize.COMMAND,
    run.COMMAND,
    verify.COMMAND,
    bench.COMMAND,
    evaluate.COMMAND,
    compare.COMMAND,
    inspect.COMMAND,
    report.COMMAND,
    vta.COMMAND,
)
"""In the order of `--help`. None of their modules imports anything heavy before it is executed."""
