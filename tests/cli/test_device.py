"""`bench` and `verify` on another machine: over this machine's own sshd where there is one, and over an ssh that fails in
every way that one can."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..cases.emulator import machine
from .conftest import Result

Cli = Callable[..., Result]


def left(place: Path) -> list[str]:
    """What lies on the device a little later: the folder goes when the connection's other end sees that it has ended."""
    for _ in range(100):
        names = os.listdir(place)
        if not names:
            break
        time.sleep(0.05)
    return names


def test_bench(call: Cli, exported: Path, fake: None, place: Path) -> None:
    document = call(
        "bench", exported, "--device", "ssh://pi@board:22", "--runs", "7", "--threads", "2", "--json"
    ).document
    (row,) = document["results"]
    assert (row["engine"], row["runs"], document["threads"]) == ("compiled", 7, 2)
    assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
    assert document["device"]["url"] == "ssh://pi@board:22"
    assert document["device"]["cores"]
    assert document["peak_kib"] > 100
    shown = call("bench", exported, exported, "--device", "ssh://board").out
    assert "compiled" in shown
    assert left(place) == []


def test_verify(call: Cli, exported: Path, fake: None, place: Path) -> None:
    usual = call("verify", exported, "--json").document
    document = call("verify", exported, "--device", "ssh://board", "--json").document
    assert document["ok"]
    assert [row["stage"] for row in document["stages"]] == [row["stage"] for row in usual["stages"]]
    assert document["stages"][-1]["recorded"] is False
    assert left(place) == []


def test_tune(call: Cli, branchy: str, fake: None, place: Path, tmp_path: Path) -> None:
    """Trials are programs there; the records go into a database like any other, from which an export takes them."""
    argv = ["--model", branchy, "--input-size", "32"]
    tuned = call(
        "tune", *argv, "--trials", 2, "-o", tmp_path / "db", "--device", "ssh://board", "--threads", 1, "--json"
    )
    assert tuned.status == 0, tuned.err
    document = tuned.document
    assert (document["trials"], document["measured"]) == (2, "tasks")
    assert document["records"] >= 2 + document["tasks"]
    assert all(row["default_ms"] > 0 for row in document["layers"])
    assert "measuring on ssh://board" in tuned.err
    assert left(place) == []
    built = call("export", *argv, "--tuned", tmp_path / "db", "-o", tmp_path / "bundle", "--no-verify", "--json")
    assert built.status == 0, built.err


@pytest.mark.slow
def test_a_board_that_is_emulated(call: Cli, branchy: str, fake: None, place: Path, tmp_path: Path) -> None:
    """All of it for ARM: exported here, checked, timed and tuned there."""
    machine("cortex-a72")
    argv = ["--model", branchy, "--input-size", "32", "--target", "rpi4"]
    assert call("export", *argv, "-o", tmp_path / "b").status == 0
    checked = call("verify", tmp_path / "b", "--device", "ssh://pi", "--json")
    assert (checked.status, checked.document["ok"], checked.document["not_run"]) == (0, True, []), checked
    assert checked.document["stages"][-1]["stage"] == "compiled"
    timed = call("bench", tmp_path / "b", "--device", "ssh://pi", "--runs", "2", "--json")
    assert timed.document["results"][0]["runs"] == 2
    tuned = call("tune", *argv, "--trials", 1, "-o", tmp_path / "db", "--device", "ssh://pi", "--threads", 1, "--json")
    assert tuned.status == 0, tuned.err
    assert tuned.document["trials"] == 1
    assert left(place) == []


def test_a_device_that_goes_while_it_tunes(call: Cli, branchy: str, fake: None, place: Path, tmp_path: Path) -> None:
    argv = ["--model", branchy, "--input-size", "32", "--trials", 2, "-o", tmp_path / "db", "--json"]
    result = call("tune", *argv, "--device", "ssh://loses")
    assert (result.status, result.error["kind"]) == (1, "device")
    assert "ssh://loses cannot be reached: Connection to loses closed" in result.error["message"]
    assert left(place) == []
    other = call("tune", *argv, "--device", "ssh://other")
    assert "trials of cpu are for" in other.error["message"]
    assert "ssh://other is riscv64" in other.error["message"]


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("gone", "ssh://gone cannot be reached: ssh: Could not resolve hostname gone: Name or service not known"),
        ("stranger", "ssh://stranger cannot be reached: Host key verification failed.; log in once by hand to accept"),
        ("locked", "ssh://locked cannot be reached: Permission denied (publickey)."),
        ("full", "ssh://full: cat: write error: No space left on device"),
        ("other", f" is for {platform.machine()} (cpu), and ssh://other is riscv64"),
        ("dies", "ssh://dies: exit status -9 (ended by signal 9)"),
        ("noroom", "ssh://noroom: mktemp: failed to create directory: Read-only file system"),
    ],
)
def test_what_can_go_wrong(call: Cli, exported: Path, fake: None, place: Path, host: str, message: str) -> None:
    for command in ("bench", "verify") if host != "dies" else ("bench",):
        result = call(command, exported, "--device", f"ssh://{host}", "--json")
        assert result.status == 1
        assert message in result.error["message"]
        assert result.error["kind"] == "device"
        assert left(place) == []


@pytest.mark.parametrize(
    "url", ["board", "ssh://", "ssh://a:b@board", "ssh://board/x", "ssh://board:99999", "ssh://-oProxyCommand=x", "http://b",
            "ssh://-l@board", "ssh://board;reboot"]
)  # fmt: skip
def test_urls_that_are_none(call: Cli, exported: Path, fake: None, url: str) -> None:
    result = call("bench", exported, "--device", url, "--json")
    assert result.status == 2
    assert result.error["message"].startswith("--device takes ssh://[user@]host[:port], not ")


def test_a_bundle_without_the_program(call: Cli, branchy: str, fake: None, tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    assert call("export", "--model", branchy, "--input-size", "32", "--no-program", "-o", bundle).status == 0
    assert not {"run_model", "run_model.LICENSE", "model.a", "model.c"} & {path.name for path in bundle.iterdir()}
    assert "run_model" not in (bundle / "README.md").read_text()
    assert call("verify", bundle).status == 0
    refused = call("bench", bundle, "--device", "ssh://board", "--json")
    assert refused.status == 1
    assert "has no run_model" in refused.error["message"]


def test_what_does_not_go_together(call: Cli, exported: Path) -> None:
    for more in (["--against", "onnxruntime"], ["--driver", "x.so"]):
        assert call("bench", exported, "--device", "ssh://board", *more, "--json").status == 2
    assert call("bench", "--model", "lenet5", "--framework", "torch", "--device", "ssh://board", "--json").status == 2


# -- a real one --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """An sshd of our own on a free port of the loopback, that takes one key and no password."""
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if server is None or not shutil.which("ssh-keygen"):
        pytest.skip("needs sshd (Debian: apt-get install openssh-server)")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "key.pub", folder / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"SetEnv TMPDIR={folder}/tmp\n"
    )
    (folder / "tmp").mkdir()
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    running = subprocess.Popen([server, "-D", "-e", "-f", folder / "config"], stderr=subprocess.PIPE)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        if running.poll() is not None:
            assert running.stderr is not None
            pytest.skip(f"sshd does not run here: {running.stderr.read().decode().strip().splitlines()[-1]}")
        time.sleep(0.05)
    yield {"folder": folder, "port": port, "user": getpass.getuser()}
    running.terminate()
    running.communicate(timeout=20)


@pytest.fixture
def url(sshd: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its url; `ssh` is the real one with the key at hand."""
    folder, real = sshd["folder"], shutil.which("ssh")
    known = folder / "known"
    known.write_text(f"[127.0.0.1]:{sshd['port']} {(folder / 'host.pub').read_text()}")
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {real} -F none -i {folder}/key -o UserKnownHostsFile={known} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return f"ssh://{sshd['user']}@127.0.0.1:{sshd['port']}"


def test_over_a_real_sshd(call: Cli, exported: Path, sshd: dict[str, Any], url: str) -> None:
    place = sshd["folder"] / "tmp"
    document = call("bench", exported, "--device", url, "--runs", "5", "--json").document
    assert document["results"][0]["runs"] == 5
    assert call("verify", exported, "--device", url, "--json").document["ok"]
    assert left(place) == []
    (sshd["folder"] / "known").write_text("")
    refused = call("bench", exported, "--device", url, "--json")
    assert refused.status == 1
    assert "Host key verification failed" in refused.error["message"]


@pytest.mark.parametrize("deep", [False, True])
def test_the_command_itself(exported: Path, sshd: dict[str, Any], url: str, tmp_path: Path, deep: bool) -> None:
    """Its temporary files lie in a folder of its own, and ssh's socket in there, whose path may have 107 bytes."""
    temporary = tmp_path / ("deep" * 20 if deep else "t")
    temporary.mkdir()
    where = str(temporary) if deep else "/tmp"
    command = [sys.executable, "-m", "inception_deploy", "bench", exported, "--device", url, "--runs", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TMPDIR": where}, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["runs"] == 3
    assert left(sshd["folder"] / "tmp") == []


@pytest.mark.slow
def test_tune_over_a_real_sshd(call: Cli, branchy: str, sshd: dict[str, Any], url: str, tmp_path: Path) -> None:
    argv = ["--model", branchy, "--input-size", "32", "--trials", 2, "-o", tmp_path / "db", "--json"]
    tuned = call("tune", *argv, "--device", url, "--threads", 1)
    assert tuned.status == 0, tuned.err
    assert tuned.document["records"] >= 2 + tuned.document["tasks"]
    assert f"measuring on {url}" in tuned.err
    assert left(sshd["folder"] / "tmp") == []


def test_a_killed_bench_leaves_nothing(exported: Path, sshd: dict[str, Any], url: str) -> None:
    """Not even by SIGKILL: the other end removes its folder when the connection ends."""
    place = sshd["folder"] / "tmp"
    command = [sys.executable, "-c", KILLED, str(exported), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"there\n"
        assert len(os.listdir(place)) == 1
        running.kill()
    assert left(place) == []


KILLED = """
import sys, time
from pathlib import Path
from inception_deploy.bundles import device
from inception_deploy.runtime import bundle
with bundle.open(Path(sys.argv[1])) as opened, device.opened(sys.argv[2], opened):
    print("there", flush=True)
    time.sleep(60)
"""


def test_what_boards_tell() -> None:
    from inception_deploy.bundles.device import _facts

    told = _facts(
        "machine aarch64\nkernel Linux 6.6.20\nboard Raspberry Pi 4 Model B Rev 1.4\ncores 4\nimplementer 0x41\npart 0xd08\n"
        "part 0xd08\nkhz 600000\nkhz 1800000\nmillidegrees 48312\nmillidegrees \n"
    )
    assert told.describe() == "Raspberry Pi 4 Model B Rev 1.4 (Cortex-A72), 4 cores, Linux 6.6.20"
    assert (told.mhz, told.celsius) == (1800.0, 48.312)
    silent = _facts("machine armv7l\nkernel \nboard \ncores \nkhz \n")
    assert (silent.mhz, silent.celsius, silent.count, silent.cores) == (None, None, None, ())
    assert json.dumps(silent.describe())
