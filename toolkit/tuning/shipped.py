"""What tuning found on common CPUs, shipped with the package: defaults for the machine that an export is for.

A file a core (`data/CORE.json`), made by `benchmarks/ship_records.py` from databases of `tune`. A record says of which
layer it is (the spec that a task is keyed by), the versions of the kernel families that it was measured with, the
knobs and their time over the default's. Records of other versions, or for other code than is generated today, are
passed over. They are for `cpu`, which stands for this machine: a target that names its instruction set gives the same
bundle on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..kernels.spec import decode
from ..kernels.table import VERSIONS, versions_of
from ..targets import cores
from ..targets.base import Target
from ..targets.cpu import Cpu
from .space import choice_of, knobs
from .task import Task
from .tuned import Better, Tuned, with_choices

FORMAT = 1
FOLDER = Path(__file__).parent / "data"


def document(core: str, target: Target, found: Iterable[Better]) -> dict[str, Any]:
    """A file's content: of each layer the record that gains most."""
    best: dict[str, Better] = {}
    for one in sorted(found, key=lambda one: one.ratio):
        best.setdefault(one.task.key, one)
    records = [
        {
            "layer": str(one.task),
            "spec": one.task.spec.encode(),
            "eligible": one.task.eligible,
            "versions": versions_of(one.task.spec, one.task.eligible),
            "knobs": knobs(one.choice),
            "ratio": round(one.ratio, 4),
        }
        for _, one in sorted(best.items())
    ]
    return {"format": FORMAT, "core": core, "machine": target.judge(), "records": records}


def choices(content: Mapping[str, Any], target: Target) -> dict[str, Better]:
    """What of a file's records holds for the kernels of today, by the task's key."""
    if content["format"] != FORMAT or content["machine"] != target.judge():
        return {}
    found = {}
    for record in content["records"]:
        if all(VERSIONS.get(family) == version for family, version in record["versions"].items()):
            task = Task(decode(record["spec"]), record["eligible"], 1, ())
            found[task.key] = Better(task, choice_of(record["knobs"], task, target), record["ratio"])
    return found


def for_this_machine(target: Target, folder: Path | None = None, core: str | None = None) -> Tuned | None:
    """The target with what was measured on this machine's core.

    Args:
        folder: of the files, where it is not the package's.
        core: its name, where it is not to be asked for.

    Returns:
        None where the target does not stand for this machine, or nothing is shipped for it.
    """
    core = core or cores.here()
    if not isinstance(target, Cpu) or isinstance(target, Tuned) or target.name != "cpu" or core is None:
        return None
    try:
        data = ((folder or FOLDER) / f"{core}.json").read_bytes()
    except FileNotFoundError:
        return None
    found = choices(json.loads(data), target)
    if not found:
        return None
    return replace(with_choices(target, found, hashlib.sha256(data).hexdigest()), shipped=core)
