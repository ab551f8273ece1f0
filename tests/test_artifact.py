"""Complete or not there, and the same bytes every time."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from inception_deploy import artifact
from inception_deploy.errors import DeployError


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with artifact.atomic_folder(tmp_path / "deep" / "out") as folder:
        (folder / "a").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "a").read_text() == "x"
    assert names(tmp_path / "deep") == ["out"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, SystemExit])
def test_a_failure_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), artifact.atomic_folder(tmp_path / "deep" / "out") as folder:
        (folder / "a").write_text("x")
        raise failure
    assert names(tmp_path) == []


def test_what_exists_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with (
        pytest.raises(DeployError, match=r"out already exists; --force replaces it") as caught,
        artifact.atomic_folder(out),
    ):
        pytest.fail("the block must not run")
    assert caught.value.kind == "exists"
    assert names(tmp_path) == ["out"]
    assert names(out) == ["mine"]


def test_force_replaces_only_when_the_new_one_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("x")
    with pytest.raises(KeyboardInterrupt), artifact.atomic_folder(out, force=True):
        raise KeyboardInterrupt
    assert names(out) == ["old"]
    with artifact.atomic_folder(out, force=True) as folder:
        (folder / "new").write_text("y")
        assert names(out) == ["old"]
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


def test_what_a_killed_export_left_is_removed_and_what_a_running_one_holds_is_not(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".out.aaaa.partial", tmp_path / ".out.bbbb.partial"
    dead.mkdir()
    alive.mkdir()
    lock = os.open(alive, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with artifact.atomic_folder(tmp_path / "out"):
            pass
    finally:
        os.close(lock)
    assert names(tmp_path) == [".out.bbbb.partial", "out"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(DeployError, match="no space left on the disk") as caught,
        artifact.atomic_folder(tmp_path / "out"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.kind == "disk"
    assert names(tmp_path) == []


def test_a_full_disk_is_seen_behind_another_librarys_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "_is_full", lambda folder: True)
    with pytest.raises(DeployError, match="no space left"), artifact.atomic_folder(tmp_path / "out"):
        raise RuntimeError("linker failed")


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "f.npy"
    target.write_text("old")
    with pytest.raises(ValueError, match="broken"), artifact.atomic_file(target) as partial:
        partial.write_text("half")
        raise ValueError("broken")
    assert target.read_text() == "old"
    with artifact.atomic_file(target) as partial:
        partial.write_text("new")
    assert target.read_text() == "new"
    assert names(tmp_path) == ["f.npy"]


def test_what_is_no_path_of_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for target, wrong in (
        (tmp_path, f"{tmp_path} is a folder"),
        (tmp_path / "file/x", f"{tmp_path / 'file'} is no folder"),
    ):
        with pytest.raises(DeployError) as caught:
            artifact.require_file(target)
        assert caught.value.message == f"{target} cannot be written: {wrong}"
        with pytest.raises(DeployError, match="cannot be written"), artifact.atomic_file(target):
            pytest.fail("the block was entered")
    artifact.require_file(tmp_path / "file")
    artifact.require_file(tmp_path / "new/folder/file")
    artifact.require_file(Path("/dev/null"))
    assert names(tmp_path) == ["file"]


def test_a_device_is_written_directly() -> None:
    with pytest.raises(DeployError, match="no space left"), artifact.atomic_file(Path("/dev/full")) as partial:
        partial.write_text("x")


def test_zips_have_the_same_bytes_whatever_the_clock_and_the_order(tmp_path: Path) -> None:
    for run, order in enumerate(["ab", "ba"]):
        folder = tmp_path / str(run)
        (folder / "sub").mkdir(parents=True)
        for name in order:
            (folder / "sub" / name).write_text(name * 1000)
            os.utime(folder / "sub" / name, (run * 1e9, run * 1e9))
        artifact.write_zip(folder, tmp_path / f"{run}.zip")
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "1.zip").read_bytes()
    assert zipfile.ZipFile(tmp_path / "0.zip").namelist() == ["sub/a", "sub/b"]


def test_json_is_sorted_and_has_no_nan(tmp_path: Path) -> None:
    artifact.dump_json({"b": 1, "a": [0.5]}, tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text() == '{\n  "a": [\n    0.5\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifact.dump_json(float("nan"), tmp_path / "x.json")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert artifact.sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("how", ["exchange", "rename"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_one(tmp_path: Path, kind: str, how: str) -> None:
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, kind, how], capture_output=True, text=True, check=True, timeout=120
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    afters, laters, lefts = ([line[column] for line in lines] for column in (1, 2, 3))
    gone = {"nothing"} if (kind, how) == ("folder", "rename") else set()
    assert len(lines) > 40
    assert set(afters) == {"old", "new"} | gone
    assert laters == sorted(laters, reverse=True), "first old, then new, and nothing else"
    assert set(laters) == {"old", "new"}
    assert set(lefts) == {"net.zip" if kind == "zip" else "net"}, "nothing is left beside it"


def test_what_was_put_aside_comes_back_even_without_force(tmp_path: Path) -> None:
    aside = tmp_path / ".out.aaaa.partial" / "replaced"
    aside.mkdir(parents=True)
    (aside / "mine").write_text("x")
    with pytest.raises(DeployError, match="already exists"), artifact.atomic_folder(tmp_path / "out"):
        pytest.fail("the block must not run")
    assert (tmp_path / "out" / "mine").read_text() == "x"
    assert names(tmp_path) == ["out"]


def test_a_file_that_was_killed_leaves_nothing_after_the_next_start(tmp_path: Path) -> None:
    (tmp_path / ".f.npy.aaaa.partial").mkdir()
    with artifact.atomic_file(tmp_path / "f.npy") as partial:
        partial.write_text("new")
    assert names(tmp_path) == ["f.npy"]
