"""What tuning found, on disk: MetaSchedule's JSON database, and a header that says what it is of.

A database is a folder. `database_workload.json` holds a module for every task: its arguments and, in an attribute,
its spec. `database_tuning_record.json` holds a line for every measurement: a trace that samples each knob and
annotates the module's block with it, and the seconds measured. Lines are appended as measurements finish, so a killed
process loses at most the one in work; a line that it left half-written is dropped when the database is opened again.
`tuning.json` is the header.

A workload also states the versions of the kernel families that its choices are made of (`kernels.family`). Records of
another version stay in the files and are passed over.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from .. import artifact
from ..errors import DeployError
from ..kernels.spec import decode
from ..lower.plan import GPU
from ..targets.base import Target
from .space import Space
from .task import Task

FORMAT = 2
HEADER, WORKLOADS, RECORDS = "tuning.json", "database_workload.json", "database_tuning_record.json"
FAILED = 1e10
"""Seconds of a choice that could not be built or run: MetaSchedule's own convention."""

_SPEC, _BLOCK = "inception_deploy.spec", "kernel"


@dataclass(frozen=True)
class Identity:
    """What a database is of.

    Attributes:
        model: the network's name.
        target: as the user writes it.
        machine: what its times hold for (`Target.judge`): `cpu` means another one on another CPU.
        compiler: TVM's version.
    """

    model: str
    target: str
    machine: Mapping[str, Any]
    compiler: str

    def document(self) -> dict[str, Any]:
        """The header."""
        return {
            "format": FORMAT,
            "model": self.model,
            "target": self.target,
            "machine": dict(self.machine),
            "compiler": self.compiler,
        }


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        task: the key of its task.
        knobs: of the choice (`space.knobs`).
        seconds: what it took, each as if the default had taken its first record's median at that moment.
    """

    task: str
    knobs: tuple[tuple[str, int], ...]
    seconds: tuple[float, ...]


class Database:
    """An open database. One process at a time may write to it.

    Attributes:
        records: the measurements that hold for the kernels of today.
        outdated: how many records there are of other versions of a kernel family, by the family's name.
    """

    def __init__(self, folder: Path, identity: Identity, *, lock: int | None = None) -> None:
        from tvm.s_tir import meta_schedule as ms

        self.folder, self.identity, self._lock = folder, identity, lock
        try:
            self._store = ms.database.JSONDatabase(str(folder / WORKLOADS), str(folder / RECORDS), allow_missing=False)
            self._tasks: dict[str, Task] = {}
            self.outdated: Counter[str] = Counter()
            found = [self._read(record) for record in self._store.get_all_tuning_records()]
            self.records = [record for record in found if record is not None]
        except Exception as error:  # TVM's own, of many kinds
            reason = str(error).strip().splitlines()[-1]
            raise _corrupt(folder, reason) from error

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write to it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def removed_if_empty(self) -> Iterator[None]:
        """Remove it again where the block fails before anything was measured."""
        try:
            yield
        except BaseException:
            if not self.records:
                shutil.rmtree(self.folder)
            raise

    def tasks(self) -> list[Task]:
        """Every task that there is a record of, in the order of their keys."""
        return [task for _, task in sorted(self._tasks.items())]

    def commit(
        self, task: Task, space: Space, values: Mapping[str, int], seconds: Sequence[float], target: Target
    ) -> None:
        """Append a measurement. When this returns it is with the operating system, and a kill cannot lose it."""
        import tvm
        from tvm.s_tir import meta_schedule as ms

        module = workload(task, gpu=target.device == GPU)
        schedule = scheduled(module, values, space.domains())
        entry = self._store.commit_workload(module)
        arguments = ms.arg_info.ArgInfo.from_entry_func(module, False)
        goal = tvm.target.Target(target.tvm_target())
        self._store.commit_tuning_record(
            ms.database.TuningRecord(schedule.trace, entry, list(seconds), goal, arguments)
        )
        self._tasks[task.key] = task
        self.records.append(Record(task.key, tuple(sorted(values.items())), tuple(seconds)))

    def notes(self) -> list[str]:
        """What a user should know about it."""
        return [
            f"{number} records of {self.folder} are of another version of {family} and are passed over"
            for family, number in sorted(self.outdated.items())
        ]

    def _read(self, record: Any) -> Record | None:
        """The measurement; None where it is of other kernels than today's."""
        from tvm import s_tir

        module = record.workload.mod
        changed = outdated(module)
        if changed:
            self.outdated.update(changed)
            return None
        schedule = s_tir.Schedule(module)
        record.trace.apply_to_schedule(schedule, remove_postproc=False)
        task = task_of(module)
        self._tasks[task.key] = task
        values = tuple(sorted(knobs_of(schedule).items()))
        return Record(task.key, values, tuple(float(value) for value in record.run_secs))

    def digest(self) -> str:
        """SHA-256 of its workloads and records."""
        found = hashlib.sha256()
        for name in (WORKLOADS, RECORDS):
            found.update((self.folder / name).read_bytes())
        return found.hexdigest()

    def of(self, task: Task) -> dict[tuple[tuple[str, int], ...], list[float]]:
        """The task's choices and all seconds measured of each, best median first."""
        pooled: dict[tuple[tuple[str, int], ...], list[float]] = {}
        for record in self.records:
            if record.task == task.key:
                pooled.setdefault(record.knobs, []).extend(record.seconds)
        return dict(sorted(pooled.items(), key=lambda item: (median(item[1]), item[0])))

    def times_measured(self, task: Task, values: Mapping[str, int]) -> int:
        """How many records of a choice there are."""
        wanted = tuple(sorted(values.items()))
        return sum(record.task == task.key and record.knobs == wanted for record in self.records)


def create(folder: Path, identity: Identity) -> Database:
    """A new, empty database.

    Raises:
        DeployError: ``exists``, where something stands there.
    """
    if os.path.lexists(folder):
        raise DeployError(
            f"{folder} already exists; --resume goes on with it, or choose another --output",
            kind="exists", got=str(folder), allowed="a path that does not exist yet, or --resume",
        )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / WORKLOADS).touch()
    (folder / RECORDS).touch()
    with artifact.atomic_file(folder / HEADER) as path:
        artifact.dump_json(identity.document(), path)
    return Database(folder, identity, lock=_lock(folder))


def resume(folder: Path, identity: Identity) -> tuple[Database, list[str]]:
    """An existing database to go on with, and notes about what was repaired and what is passed over.

    Raises:
        DeployError: ``database``: it does not exist, is of something else, is damaged, or another process writes to it.
    """
    _check(folder, identity)
    lock = _lock(folder)
    try:
        notes = [note for name in (WORKLOADS, RECORDS) if (note := _repair(folder / name))]
        opened = Database(folder, identity, lock=lock)
        return opened, [*notes, *opened.notes()]
    except BaseException:
        os.close(lock)
        raise


def read(folder: Path, identity: Identity) -> Database:
    """An existing database to read from. DeployError ``database`` as in `resume`; nothing is changed on disk."""
    _check(folder, identity)
    for name in (WORKLOADS, RECORDS):
        if _torn(folder / name) is not None:
            raise DeployError(
                f"{folder} ends in a half-written line: its tuning was killed; `tune --resume` repairs it",
                kind="database", got=name, allowed="a database whose tuning ended, or was resumed",
            )  # fmt: skip
    return Database(folder, identity)


def header_target(folder: Path) -> str:
    """The target that a database says it is of; "" where it says nothing that can be read."""
    try:
        return str(json.loads((folder / HEADER).read_text(encoding="utf-8"))["target"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _check(folder: Path, identity: Identity) -> None:
    if not folder.is_dir() or not (folder / HEADER).is_file():
        what = "is not a tuning database" if os.path.lexists(folder) else "does not exist"
        allowed = "the folder that `tune -o` wrote"
        raise DeployError(f"{folder} {what}", kind="database", got=str(folder), allowed=allowed)
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        # the format first: another one's header may have other fields
        found = {name: header[name] for name in (identity.document() if header["format"] == FORMAT else ["format"])}
    except (ValueError, TypeError, KeyError) as error:
        raise _corrupt(folder, f"{HEADER} is no header") from error
    for name, wanted in identity.document().items():
        if found[name] != wanted:
            raise DeployError(
                f"{folder} is of {_OTHER.get(name, name)} {_words(found[name])}, not {_words(wanted)}; "
                "tune again with another --output",
                kind="database", got=found[name], allowed=wanted,
            )  # fmt: skip
    for name in (WORKLOADS, RECORDS):
        if not (folder / name).is_file():
            raise _corrupt(folder, f"{name} is missing")


_OTHER = {"machine": "kernels for", "compiler": "kernels compiled by TVM"}


def _words(value: Any) -> str:
    """A field of the header for a message."""
    return " ".join(str(value[name]) for name in sorted(value)) if isinstance(value, dict) else str(value)


def _lock(folder: Path) -> int:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise DeployError(f"another process tunes into {folder}", kind="database", got=str(folder)) from error
    return handle


def _torn(path: Path) -> int | None:
    """Where the complete lines end, if there is something behind them that a killed process left."""
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    return end if end < len(data) else None


def _repair(path: Path) -> str | None:
    """Drop a half-written last line; a note where there was one."""
    end = _torn(path)
    if end is None:
        return None
    with path.open("r+b") as file:
        file.truncate(end)
    return f"{path} ended in a half-written line, which was dropped"


def _corrupt(folder: Path, reason: str) -> DeployError:
    return DeployError(f"{folder} is damaged: {reason}", kind="database", got=reason, allowed="what `tune -o` wrote")


# -- a task as a module of TVM, a choice as a trace ------------------------------------------------------------------
def workload(task: Task, *, gpu: bool = False) -> Any:
    """The task as an IRModule: the kernel's arguments, what it computes as an attribute, and a block for the knobs.

    Args:
        gpu: it is computed on one.
    """
    import tvm
    from tvm import te

    found = {operand.name: operand for operand in task.spec.operands}
    reads = [te.placeholder((o.size,), o.dtype, name=name) for name, o in found.items() if name != "dst"]

    def element(i: Any) -> Any:
        # stands for the kernel, which the template writes: each argument takes part
        total = reads[0][i % int(reads[0].shape[0])].astype("float32")
        for tensor in reads[1:]:
            total = total + tensor[i % int(tensor.shape[0])].astype("float32")
        return total.astype(found["dst"].dtype)

    result = te.compute((found["dst"].size,), element, name=_BLOCK)
    from ..kernels.table import versions_of

    stated = {"eligible": task.eligible, "versions": versions_of(task.spec, task.eligible, gpu=gpu)}
    document = json.dumps({**task.spec.encode(), **stated}, sort_keys=True)
    function = te.create_prim_func([*reads, result]).with_attr({"global_symbol": "main", _SPEC: document})
    return tvm.IRModule({"main": function})


def task_of(module: Any) -> Task:
    """The task that `workload` made a module of."""
    document = json.loads(str(module["main"].attrs[_SPEC]))
    eligible = document.pop("eligible")
    document.pop("versions")
    return Task(decode(document), bool(eligible), 1, ())


def outdated(module: Any) -> list[str]:
    """The kernel families that have another version today than in a workload's module, or are no more."""
    from ..kernels.table import VERSIONS

    stated = json.loads(str(module["main"].attrs[_SPEC]))["versions"]
    return [family for family, version in stated.items() if VERSIONS.get(family) != version]


def scheduled(module: Any, values: Mapping[str, int], domains: Mapping[str, list[int]]) -> Any:
    """A schedule of the module whose trace samples every knob, with these values as its decisions."""
    from tvm import s_tir

    schedule = s_tir.Schedule(module)
    block = schedule.get_sblock(_BLOCK)
    for name, value in sorted(values.items()):
        options = domains[name]
        chances = [1.0 / len(options)] * len(options)
        sampled = schedule.sample_categorical(options, chances, decision=options.index(value))
        schedule.annotate(block, f"knob.{name}", sampled)
    return schedule


def knobs_of(schedule: Any) -> dict[str, int]:
    """The knobs that a schedule's block is annotated with."""
    annotations = schedule.get(schedule.get_sblock(_BLOCK)).annotations
    return {
        str(name).removeprefix("knob."): int(value)
        for name, value in annotations.items()
        if str(name).startswith("knob.")
    }
