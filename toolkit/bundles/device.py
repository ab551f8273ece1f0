"""A bundle's program on another machine, over ssh: nothing is installed there, and nothing is left behind.

One connection does all: its first command makes a folder, says where, and waits. When this process ends, however that
happens, or the network does, the command's input ends, and it removes the folder. Keys only: there is no terminal for
passwords. The user's own ssh and its configuration are used, so jump hosts and aliases work.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ..errors import DeployError, UsageError
from ..runtime.bundle import Bundle

PROGRAM, WEIGHTS = "run_model", "weights.bin"

ELSEWHERE = "verify and bench run it on its own machine with --device ssh://user@host"
"""What to do with a bundle that does not run here."""

_ALLOWED = "ssh://[user@]host[:port]"
_CONNECT_S = 15
_OPTIONS = ("BatchMode=yes", f"ConnectTimeout={_CONNECT_S}", "ServerAliveInterval=15", "ServerAliveCountMax=4")
_SSH_FAILED = 255
_KEEPER = (
    'set -e; folder=$(mktemp -d "${TMPDIR:-/tmp}/inception-deploy.XXXXXX"); '
    "trap 'rm -rf \"$folder\"' EXIT; trap 'exit 1' HUP INT TERM PIPE; echo \"$folder\"; cat > /dev/null || :"
)
_FACTS = """
echo "machine $(uname -m)"
echo "kernel $(uname -sr)"
echo "board $(tr -d '\\0' < /proc/device-tree/model 2> /dev/null)"
echo "cores $(getconf _NPROCESSORS_ONLN 2> /dev/null || nproc)"
sed -n -e 's/^model name[^:]*: /name /p' -e 's/^CPU implementer[^:]*: /implementer /p' \\
    -e 's/^CPU part[^:]*: /part /p' /proc/cpuinfo 2> /dev/null
for file in /sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq; do echo "khz $(cat "$file" 2> /dev/null)"; done
for file in /sys/class/thermal/thermal_zone*/temp; do echo "millidegrees $(cat "$file" 2> /dev/null)"; done
"""

_ARM_PARTS = {
    "0xc09": "Cortex-A9", "0xd03": "Cortex-A53", "0xd05": "Cortex-A55", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse N1", "0xd40": "Neoverse V1", "0xd41": "Cortex-A78", "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse N2", "0xd4f": "Neoverse V2",
}  # fmt: skip
"""Arm's own numbers of its cores, as /proc/cpuinfo shows them."""


@dataclass(frozen=True)
class Facts:
    """What a device tells of itself; None, or empty, where it does not.

    Attributes:
        machine: as `platform.machine()` spells it.
        cores: kinds of cores, or the processor's name.
        count: processors.
        mhz: the fastest one's clock, at that moment.
        celsius: the hottest sensor, at that moment.
    """

    machine: str
    kernel: str
    board: str
    cores: tuple[str, ...]
    count: int | None
    mhz: float | None
    celsius: float | None

    def describe(self) -> str:
        """In words, like `reports.bench.machine`."""
        name = self.board or ", ".join(self.cores) or self.machine
        kinds = f" ({', '.join(self.cores)})" if self.board and self.cores else ""
        return f"{name}{kinds}, {self.count or '?'} cores, {self.kernel}"


class Device:
    """A folder on another machine with a bundle's program in it; `opened` makes one.

    Attributes:
        url: as the user wrote it.
        name: of an `engines.Engine`.
    """

    name = "compiled"

    def __init__(self, url: str, ssh: Sequence[str], folder: str, threads: int | None) -> None:
        self.url, self._ssh, self.folder, self.threads = url, list(ssh), folder, threads

    def run(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs for one array an input.

        Raises:
            DeployError: (kind ``device``) the program failed, or the device cannot be reached any more.
        """
        for number, array in enumerate(arrays):
            buffer = io.BytesIO()
            np.save(buffer, array)
            self.put(buffer.getvalue(), f"input{number}.npy")
        info = self.program("--info").decode()
        outputs = [f"output{number}.npy" for number in range(info.count("\noutput "))]
        inputs = [f"input{number}.npy" for number in range(len(arrays))]
        self.program(*inputs, *(word for name in outputs for word in ("--output", name)), "--top", "0")
        return [np.load(io.BytesIO(self.shell(f"cat {name}")), allow_pickle=False) for name in outputs]

    def times(self, runs: int, batch: int | None = None) -> dict[str, Any]:
        """The program's document on `runs` runs with random inputs: ``p50_ms``, ``p90_ms``, ..., ``threads``.

        Args:
            batch: the plan for so many images, of a bundle of several; the first where None.
        """
        plan = () if batch is None else ("--batch", str(batch))
        said = self.program("--random", "--repeat", str(runs), "--top", "0", "--json", *plan)
        document: dict[str, Any] = json.loads(said)
        return document

    def facts(self) -> Facts:
        """What it tells of itself now."""
        return _facts(self.shell(_FACTS).decode(errors="replace"))

    def program(self, *arguments: str) -> bytes:
        """What the bundle's program writes, called in its folder."""
        threads = () if self.threads is None or arguments == ("--info",) else ("--threads", str(self.threads))
        return self.shell(shlex.join([f"./{PROGRAM}", *arguments, *threads]))

    def put(self, content: bytes | Path, name: str) -> None:
        """Write a file into the folder."""
        self.shell(f"cat > {name}", content)

    def shell(self, script: str, content: bytes | Path = b"") -> bytes:
        """What a script writes, run in the folder with `content` as its input.

        Raises:
            DeployError: (kind ``device``) it failed; the device's own last line says why.
        """
        command = [*self._ssh, f"cd {shlex.quote(self.folder)} && {{ {script}\n}}"]
        if isinstance(content, Path):
            with content.open("rb") as file:
                done = subprocess.run(command, stdin=file, capture_output=True, check=False)
        else:
            done = subprocess.run(command, input=content, capture_output=True, check=False)
        if done.returncode != 0:
            raise _failed(self.url, done.stderr, done.returncode)
        return done.stdout


@contextmanager
def connected(url: str, *, threads: int | None = None) -> Iterator[Device]:
    """A device with an empty folder, which is removed when the block ends.

    Args:
        url: ``ssh://[user@]host[:port]``.
        threads: to compute with; every processor of the device where None.

    Raises:
        UsageError: the url is none.
        DeployError: (kind ``device``) it cannot be reached, or is full.
    """
    host = _host(url)
    if shutil.which("ssh") is None:
        raise DeployError("there is no ssh here; install OpenSSH's client", kind="device", got="no ssh on PATH")
    with tempfile.TemporaryDirectory(prefix="idp-", dir=_short(tempfile.gettempdir())) as folder:
        shared = (f"ControlPath={folder}/s", "ControlMaster=auto", "ControlPersist=no")
        ssh = ["ssh", *(word for option in (*_OPTIONS, *shared) for word in ("-o", option)), *host]
        with _keeper(url, ssh) as place:
            yield Device(url, ssh, place, threads)


_SOCKET_BYTES = 107
"""Of the path of a socket."""


def _short(folder: str) -> str:
    """A folder for ssh's socket, to whose name ssh adds seventeen bytes: this one, or /tmp where it lies too deep."""
    longest = f"{folder}/idp-12345678/s.0123456789abcdef"
    return folder if len(os.fsencode(longest)) <= _SOCKET_BYTES else "/tmp"


@contextmanager
def opened(url: str, bundle: Bundle, *, threads: int | None = None) -> Iterator[Device]:
    """A device with the program and the weights of a bundle in a folder, which is removed when the block ends.

    Args:
        url: ``ssh://[user@]host[:port]``.
        threads: to compute with; every processor of the device where None.

    Raises:
        UsageError: the url is none.
        DeployError: (kind ``device``) it cannot be reached, is another kind of machine, or is full; the bundle has no
            program.
    """
    _host(url)
    files = [bundle.folder / name for name in (PROGRAM, WEIGHTS)]
    if missing := [file.name for file in files if not file.is_file()]:
        message = f"bundle {bundle.source} has no {missing[0]}; export it again, for a CPU or ARM"
        raise DeployError(message, kind="device", got=bundle.manifest["target"], allowed="a bundle with run_model")
    with connected(url, threads=threads) as device:
        details = bundle.manifest["target_details"]
        what = f"bundle {bundle.source} is for {{}} ({bundle.manifest['target']})"
        refuse_other(device, details.get("machine", ""), what)
        for file in files:
            device.put(file, file.name)
        device.shell(f"chmod 700 {PROGRAM}")
        yield device


@contextmanager
def _keeper(url: str, ssh: Sequence[str]) -> Iterator[str]:
    """The folder on the device, by a command there that removes it when its input ends."""
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen([*ssh, _KEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said) as keeper,
    ):
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            place = keeper.stdout.readline().decode(errors="replace").strip()
            if not place.startswith("/"):
                keeper.stdin.close()
                status = keeper.wait()
                said.seek(0)
                raise _failed(url, said.read(), status)
            yield place
        finally:
            if not keeper.stdin.closed:
                keeper.stdin.close()


def _host(url: str) -> list[str]:
    """ssh's arguments for a url."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = re.fullmatch(r"ssh://(?:[\w.+-]+@)?(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]+)?/?", url)
    if not plain or not parts.hostname or parts.hostname.startswith("-") or (parts.username or "").startswith("-"):
        message = f"--device takes {_ALLOWED}, not '{url}'; passwords are not taken, keys are"
        raise UsageError(message, kind="device", got=url, allowed=_ALLOWED)
    user = ["-l", parts.username] if parts.username else []
    return [*user, *(["-p", str(port)] if port else []), "--", parts.hostname]


def refuse_other(device: Device, wanted: str, what: str) -> None:
    """DeployError where the device is not the kind of machine that something is for; `what` says so of ``{}``."""
    here = device.facts().machine
    if here != wanted and (wanted, here) not in {("armv7l", "armv8l"), ("armv7l", "aarch64")}:
        message = f"{what.format(wanted)}, and {device.url} is {here}"
        raise DeployError(message, kind="device", got=here, allowed=wanted)


def _failed(url: str, said: bytes, status: int) -> DeployError:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit status {status}"
    if status == _SSH_FAILED:
        hint = "; log in once by hand to accept its key" if "Host key verification" in last else ""
        return DeployError(f"{url} cannot be reached: {last}{hint}", kind="device", got=last, allowed="a login by key")
    if status < 0 or status > 128:
        last = f"{last} (ended by signal {-status if status < 0 else status - 128})"
    return DeployError(f"{url}: {last}", kind="device", got=last)


def _facts(text: str) -> Facts:
    """`_FACTS`'s lines."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.strip():
            found.setdefault(key, []).append(value.strip())

    def most(key: str) -> float | None:
        numbers = [int(value) for value in found.get(key, []) if re.fullmatch(r"-?[0-9]{1,9}", value)]
        return max(numbers) / 1000 if numbers else None

    arm = found.get("implementer", [""])[0] == "0x41"
    parts = [_ARM_PARTS.get(part, f"Arm {part}") if arm else part for part in found.get("part", [])]
    count = found.get("cores", [""])[0]
    return Facts(
        machine=found.get("machine", ["an unknown machine"])[0],
        kernel=found.get("kernel", [""])[0],
        board=found.get("board", [""])[0],
        cores=tuple(dict.fromkeys(found.get("name", []) or parts)),
        count=int(count) if count.isdecimal() else None,
        mhz=most("khz"),
        celsius=most("millidegrees"),
    )
