"""Tuning on devices that a tracker knows: here a tracker, two servers and the tuner on one machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from inception_deploy.errors import DeployError
from inception_deploy.tuning import devices

KEY = "bench"


@pytest.fixture(scope="module")
def tracker() -> Iterator[tuple[str, int]]:
    """TVM's own programs, as a user starts them."""
    script = (
        "from tvm.rpc.tracker import Tracker\n"
        "tracker = Tracker(host='127.0.0.1', port=9190, port_end=9390, silent=True)\n"
        "print(tracker.port, flush=True)\n"
        "input()"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ]
    try:
        assert running[0].stdout is not None
        port = int(running[0].stdout.readline())
        for number in range(2):
            argv = ["--tracker", f"127.0.0.1:{port}", "--key", KEY, "--host", "127.0.0.1"]
            argv += ["--port", str(9400 + 50 * number), "--port-end", str(9450 + 50 * number)]
            command = [sys.executable, "-m", "tvm.exec.rpc_server", *argv]
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        deadline = time.monotonic() + 120
        while _count(port) < 2:
            assert time.monotonic() < deadline, "the servers have not reached the tracker"
            time.sleep(0.2)
        yield "127.0.0.1", port
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _count(port: int) -> int:
    try:
        return devices.servers("127.0.0.1", port, KEY)
    except DeployError:
        return 0


@pytest.mark.slow
def test_a_key_that_no_device_has(tracker) -> None:
    with pytest.raises(DeployError, match="no device with the key 'pi4'; it has bench"):
        devices.servers(*tracker, "pi4")


@pytest.mark.slow
def test_tuning_through_a_tracker(tracker, tmp_path) -> None:
    import json

    path = tmp_path / "far.db"
    argv = ["tune", "--model", "lenet5", "--trials", "6", "-o", str(path), "--json"]
    argv += ["--tracker", f"{tracker[0]}:{tracker[1]}", "--key", KEY]
    command = [sys.executable, "-m", "inception_deploy", *argv]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "measuring on 2 devices" in done.stderr
    assert document["trials"] == 6
    assert document["records"] >= 6 + document["tasks"]
    assert document["measured"] == "tasks"
    assert 0 < document["after_ms"] <= document["before_ms"]
