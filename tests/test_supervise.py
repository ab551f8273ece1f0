"""The command line ends when it is told to, whatever library it is inside of, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

NETS = """
import ctypes, os, pathlib, tempfile

def started():
    tempfile.mkdtemp()
    pathlib.Path("started").touch()

def deaf():  # inside of C with Python's lock held: no handler of Python's can run
    started()
    ctypes.PyDLL(None).sleep(60)

def crash():
    started()
    ctypes.string_at(0)

def hungry():
    started()
    os.kill(os.getpid(), 9)

def parent():  # of a process that goes on
    started()
    pathlib.Path("child").write_text(str(os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")))
    ctypes.PyDLL(None).sleep(60)
"""


def begin(folder: Path, name: str, *flags: str) -> subprocess.Popen[str]:
    """An export that is inside of the callable `name` when this returns."""
    (folder / "net.py").write_text(NETS)
    (folder / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "inception_deploy", "export", "--model", f"net.py:{name}", "-o", "out", *flags]
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    end = time.monotonic() + 120
    while not (folder / "started").exists():
        assert time.monotonic() < end, process.communicate()
        time.sleep(0.02)
    return process


def left(folder: Path) -> list[str]:
    """What is in the folder and its folder for temporary files, besides what `begin` made."""
    own = {"net.py", "tmp", "started", "child", "__pycache__"}
    return [path.name for path in (*folder.iterdir(), *(folder / "tmp").iterdir()) if path.name not in own]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_what_is_deaf_in_c(tmp_path: Path, number: signal.Signals, status: int) -> None:
    process = begin(tmp_path, "deaf")
    start = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - start < 5
    assert (process.returncode, out) == (status, "")
    assert err.splitlines()[-1] == "inception-deploy: error: interrupted"
    assert left(tmp_path) == []


def test_what_was_killed_leaves_nothing_after_the_next_start(tmp_path: Path) -> None:
    process = begin(tmp_path, "deaf")
    process.kill()
    process.communicate(timeout=30)
    assert len(left(tmp_path)) == 2  # the half bundle, and the temporary files
    (tmp_path / "started").unlink()
    process = begin(tmp_path, "crash")
    process.communicate(timeout=30)
    assert left(tmp_path) == []


def test_a_crash_of_a_library_is_a_line(tmp_path: Path) -> None:
    out, _ = begin(tmp_path, "crash", "--json").communicate(timeout=30)
    assert '"kind": "crash"' in out
    assert "a library crashed (SIGSEGV) on this input; nothing was written" in out


def test_a_process_that_the_system_kills_is_a_line(tmp_path: Path) -> None:
    process = begin(tmp_path, "hungry")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.splitlines()[-1].endswith("error: killed, most likely by the system for want of memory")


def test_children_of_the_work_end_with_it(tmp_path: Path) -> None:
    process = begin(tmp_path, "parent")
    end = time.monotonic() + 30
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        assert time.monotonic() < end
    process.terminate()
    process.communicate(timeout=30)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "child").read_text()), 0)
