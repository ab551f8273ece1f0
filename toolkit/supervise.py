"""The command line's outer process: it does nothing but wait for the inner one, so that it can always act.

Python runs its signal handlers between two lines of Python, and a compiler or a runtime in C++ may not come back to one
for minutes. So the work is done in a child. Ctrl-C and SIGTERM go on to it; where it has not ended by itself a second
later, it is killed. A library that crashes ends the child, and becomes a line for the user like any other error.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from . import artifact
from .errors import DeployError

STOPPING = (signal.SIGINT, signal.SIGTERM)
_GRACE = 1.0
_PREFIX = "inception-deploy-"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def run(work: Callable[[], int], fail: Callable[[DeployError, int], int]) -> int:
    """Do `work` in a child; the exit status. In the child, too, this returns, with what `work` gives.

    Its temporary files lie in a folder that is removed afterwards, however the child ends; where this process is killed
    as well, the next one removes it.

    Args:
        fail: tells the user of an error, and gives the exit status, which is the second argument.
    """
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return work()
    with _scratch():
        outer = os.getpid()
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        child = os.fork()
        if not child:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != outer:
                os._exit(1)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            return work()
        return _wait(child, fail)


def _wait(child: int, fail: Callable[[DeployError, int], int]) -> int:
    """Until the child has ended; the exit status."""
    got: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        got.append(signum)
        os.kill(child, signum)  # a signal to this process alone; from a terminal, the child has it already
        signal.setitimer(signal.ITIMER_REAL, _GRACE)

    signal.signal(signal.SIGALRM, lambda signum, frame: os.kill(child, signal.SIGKILL))
    for number in STOPPING:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.setitimer(signal.ITIMER_REAL, 0)
    _kill_orphans()
    if status >= 0:
        return status
    artifact.remove_begun(Path(tempfile.gettempdir()))
    if got:
        return fail(interrupted(), 128 + got[0])
    return fail(_crash(signal.Signals(-status)), 1)


def interrupted() -> DeployError:
    """Whatever a signal ended."""
    return DeployError("interrupted", kind="interrupted")


def _crash(number: signal.Signals) -> DeployError:
    if number == signal.SIGKILL:
        return DeployError("killed, most likely by the system for want of memory", kind="memory", got=number.name)
    if number == signal.SIGTERM:
        return interrupted()
    message = f"a library crashed ({number.name}) on this input; nothing was written"
    return DeployError(message, kind="crash", got=number.name)


@contextlib.contextmanager
def _scratch() -> Iterator[None]:
    """A folder for temporary files, this process's and its children's."""
    above = Path(tempfile.gettempdir())
    for left in above.glob(f"{_PREFIX}*{artifact.SCRATCH}"):
        artifact.remove_unlocked(left)
    before = os.environ.get("TMPDIR")
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=artifact.SCRATCH))
    except OSError:  # no room: whoever needs some will say so
        yield
        return
    owner, handle = os.getpid(), artifact.lock(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)
            tempfile.tempdir = None
            del os.environ["TMPDIR"]
            if before is not None:
                os.environ["TMPDIR"] = before
            if handle is not None:
                os.close(handle)


def _kill_orphans() -> None:
    """Kill what the child has left running: compilers, and measuring processes of TVM."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    with contextlib.suppress(OSError):
        while found := children.read_text().split():
            for pid in map(int, found):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)
