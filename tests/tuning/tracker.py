"""TVM's tracker and its servers, as a user starts them, on one machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from inception_deploy.errors import DeployError
from inception_deploy.tuning import devices

HOST = "127.0.0.1"
_TRACKER = (
    "from tvm.rpc.tracker import Tracker\n"
    f"tracker = Tracker(host='{HOST}', port=9190, port_end=9390, silent=True)\n"
    "print(tracker.port, flush=True)\n"
    "input()"
)


@contextmanager
def fleet(key: str, servers: int = 2, **environment: str) -> Iterator[tuple[str, int]]:
    """A tracker, and so many servers that it knows by a key; the tracker's address.

    Args:
        environment: more of the servers'.
    """
    running = [
        subprocess.Popen([sys.executable, "-c", _TRACKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ]
    try:
        assert running[0].stdout is not None
        port = int(running[0].stdout.readline())
        for number in range(servers):
            argv = ["--tracker", f"{HOST}:{port}", "--key", key, "--host", HOST]
            argv += ["--port", str(9400 + 50 * number), "--port-end", str(9450 + 50 * number)]
            command = [sys.executable, "-m", "tvm.exec.rpc_server", *argv]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            running.append(subprocess.Popen(command, env={**os.environ, **environment}, **quiet))
        deadline = time.monotonic() + 120
        while _count(port, key) < servers:
            assert time.monotonic() < deadline, "the servers have not reached the tracker"
            time.sleep(0.2)
        yield HOST, port
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _count(port: int, key: str) -> int:
    try:
        return devices.servers(HOST, port, key)
    except DeployError:
        return 0
