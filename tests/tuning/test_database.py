"""The database on disk: everything finished is kept, whatever kills the process, and nothing foreign is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from inception_deploy import kernels
from inception_deploy.errors import DeployError
from inception_deploy.kernels.spec import Window, WindowOp
from inception_deploy.kernels.table import VERSIONS, versions_of
from inception_deploy.tuning import database
from inception_deploy.tuning.database import HEADER, RECORDS, WORKLOADS, Identity
from inception_deploy.tuning.space import Space, knobs
from inception_deploy.tuning.task import Task

MACHINE = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v3"}
OWNER = Identity("net", "cpu:avx2", MACHINE, "0.27.0")


@pytest.fixture
def filled(folder, tasks, target) -> Path:
    """Two tasks, three records."""
    with database.create(folder, OWNER) as made:
        for task, seconds in ((tasks[0], 2e-3), (tasks[1], 1e-3), (tasks[0], 1.5e-3)):
            space = Space(task, target)
            choice = space.default if seconds != 1.5e-3 else space.neighbours(space.default)[0]
            made.commit(task, space, knobs(choice), [seconds, seconds * 1.01, seconds * 1.02], target)
    return folder


def test_it_comes_back(filled, tasks, target) -> None:
    found = database.read(filled, OWNER)
    assert {task.key for task in found.tasks()} == {tasks[0].key, tasks[1].key}
    best, default = found.of(tasks[0]).items()
    assert best[1] == pytest.approx([1.5e-3, 1.515e-3, 1.53e-3])
    assert dict(default[0]) == knobs(Space(tasks[0], target).default)
    assert found.times_measured(tasks[0], dict(best[0])) == 1
    assert found.of(tasks[2]) == {}


def test_metaschedule_reads_it(filled, tasks, target) -> None:
    """Without our code: the best record of a workload, and the module that its trace gives."""
    import tvm
    from tvm.s_tir import meta_schedule as ms

    store = ms.database.JSONDatabase(work_dir=str(filled))
    assert len(store) == 3
    goal = tvm.target.Target(target.tvm_target())
    schedule = store.query_schedule(database.workload(tasks[0]), goal, "main")
    block = schedule.get(schedule.get_sblock("kernel"))
    space = Space(tasks[0], target)
    wanted = knobs(space.neighbours(space.default)[0])
    assert {str(k).removeprefix("knob."): int(v) for k, v in block.annotations.items()} == wanted


def test_a_half_written_line_is_dropped(filled, tasks) -> None:
    path = filled / RECORDS
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[0][:77])
    with pytest.raises(DeployError, match=r"half-written line.*tune --resume"):
        database.read(filled, OWNER)
    opened, notes = database.resume(filled, OWNER)
    with opened:
        assert notes == [f"{path} ended in a half-written line, which was dropped"]
        assert path.read_bytes() == whole
        assert len(opened.records) == 3


def test_a_record_that_was_cut_off(filled) -> None:
    """A kill in the middle of the last record costs that record alone."""
    path = filled / RECORDS
    path.write_bytes(path.read_bytes()[:-20])
    opened, notes = database.resume(filled, OWNER)
    with opened:
        assert len(notes) == 1
        assert len(opened.records) == 2


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (RECORDS, lambda data: data.replace(b"SampleCategorical", b"SampleNothing")),
        (RECORDS, lambda data: b"\x00" * 40 + b"\n" + data),
        (RECORDS, lambda data: data.replace(b"[0,[[", b"[7,[[", 1)),
        (WORKLOADS, lambda data: data[:100] + b"\n"),
        (WORKLOADS, lambda data: b""),
        (HEADER, lambda data: b"{"),
        (HEADER, lambda data: b"[]"),
    ],
)
def test_damage_is_one_clear_error(filled, name, change) -> None:
    path = filled / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DeployError, match="is damaged") as caught:
        database.read(filled, OWNER)
    assert caught.value.kind == "database"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"model": "net2"}, "is of model net, not net2; tune again with another --output"),
        ({"target": "cpu:avx512"}, "is of target cpu:avx2, not cpu:avx512; tune again"),
        (
            {"machine": {**MACHINE, "mcpu": "x86-64-v4"}},
            "is of kernels for llvm x86-64-v3 .*, not llvm x86-64-v4 .*; tune",
        ),
        ({"compiler": "0.28.0"}, "is of kernels compiled by TVM 0.27.0, not 0.28.0; tune again"),
    ],
)
def test_another_database_is_refused(filled, other, message) -> None:
    for opened in (database.read, database.resume):
        with pytest.raises(DeployError, match=message):
            opened(filled, replace(OWNER, **other))


def test_another_format_is_refused(filled) -> None:
    """Format 1 knew all kernels by one digest, in a field that is no more."""
    header = {"format": 1, "model": "net", "target": "cpu:avx2", "kernels": "0123456789abcdef x86_64-unknown-linux-gnu"}
    (filled / HEADER).write_text(json.dumps(header))
    for opened in (database.read, database.resume):
        with pytest.raises(DeployError, match="is of format 1, not 2; tune again with another --output"):
            opened(filled, OWNER)


def test_an_edit_of_the_kernels_changes_nothing(filled, tasks, monkeypatch) -> None:
    """Records are of the version that a family states, not of its sources."""
    monkeypatch.setattr(kernels, "sources_digest", lambda: "edited")
    found = database.read(filled, OWNER)
    assert (len(found.records), found.notes()) == (3, [])


@pytest.mark.parametrize(("family", "left"), [("vector.conv", 1), ("vector.winograd_out", 1), ("vector.window", 3)])
def test_a_changed_kernel_voids_its_familys_records_only(filled, tasks, target, monkeypatch, family, left) -> None:
    pool = Task(Window(WindowOp.MAX, 1, 2, 17, 17, 8, 8, (3, 3), (2, 2), (0, 0, 0, 0)), False, 1, ("e",))
    default = knobs(Space(tasks[0], target).default)
    with database.resume(filled, OWNER)[0] as opened:
        space = Space(pool, target)
        opened.commit(pool, space, knobs(space.default), [1e-3], target)
    before = (filled / RECORDS).read_bytes()
    monkeypatch.setitem(VERSIONS, family, VERSIONS[family] + 1)
    said = [f"{4 - left} records of {filled} are of another version of {family} and are passed over"]
    found = database.read(filled, OWNER)
    assert (len(found.records), found.notes()) == (left, said)
    opened, notes = database.resume(filled, OWNER)
    with opened:
        assert notes == said
        space = Space(tasks[0], target)
        opened.commit(tasks[0], space, default, [1e-3], target)
    assert database.read(filled, OWNER).times_measured(tasks[0], default) == (2 if family == "vector.window" else 1)
    assert (filled / RECORDS).read_bytes().startswith(before)


def test_every_family_that_is_tuned_states_a_version(tasks, tiled) -> None:
    for task in (*tasks, *tiled):
        versions = versions_of(task.spec, task.eligible)
        assert ("vector.winograd_in" in versions) == task.eligible
        assert set(versions) <= set(VERSIONS)


def test_one_process_at_a_time(folder) -> None:
    with database.create(folder, OWNER):
        with pytest.raises(DeployError, match="another process tunes"):
            database.resume(folder, OWNER)
        with pytest.raises(DeployError, match="already exists; --resume"):
            database.create(folder, OWNER)
    database.resume(folder, OWNER)[0].close()


def test_what_is_no_database(tmp_path) -> None:
    with pytest.raises(DeployError, match="does not exist"):
        database.resume(tmp_path / "nothing", OWNER)
    with pytest.raises(DeployError, match="is not a tuning database"):
        database.read(tmp_path, OWNER)
    (tmp_path / HEADER).write_text(json.dumps(OWNER.document()))
    with pytest.raises(DeployError, match=f"{WORKLOADS} is missing"):
        database.read(tmp_path, OWNER)


def test_the_digest_is_of_the_content(filled, tmp_path, tasks, target) -> None:
    before = database.read(filled, OWNER).digest()
    assert database.read(filled, OWNER).digest() == before
    opened, _ = database.resume(filled, OWNER)
    with opened:
        space = Space(tasks[2], target)
        opened.commit(tasks[2], space, knobs(space.default), [1e-3], target)
        assert opened.digest() != before
