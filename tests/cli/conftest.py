"""The command line as a function, and one small bundle that went the whole way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from inception_deploy import cli

BRANCHY = '''
import torch
from torch import nn


class Branchy(nn.Module):
    """Two branches and a residual: what the passes and the placement are made for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        self.left = nn.Sequential(nn.Conv2d(16, 8, 1), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(16, 16, (1, 3), padding=(0, 1)), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1))
        self.up = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 7)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + 0.2 * self.up(torch.cat([self.left(x), self.right(x)], 1)))
        return self.head(x.mean((2, 3)))


def build():
    return Branchy()


def broken():
    return 1 / 0


number = 3
'''


FAKE = """#!/bin/sh
# ssh, with the other machine being this one: after -- come the host and the command.
while [ "$1" != -- ]; do shift; done
host=$2; shift 2
case "$host" in
  gone) echo "ssh: Could not resolve hostname gone: Name or service not known" >&2; exit 255 ;;
  stranger) echo "Host key verification failed." >&2; exit 255 ;;
  locked) echo "Permission denied (publickey)." >&2; exit 255 ;;
  full) case "$*" in *"cat > weights.bin"*) cat > /dev/null; echo "cat: write error: No space left on device" >&2; exit 1 ;; esac ;;
  other) uname() { case "$1" in -m) echo riscv64 ;; *) echo Linux 6 ;; esac; }; ;;
  loses) case "$*" in *./trial*) echo "Connection to loses closed by remote host." >&2; exit 255 ;; esac ;;
  dies) case "$*" in *--random*) kill -9 $$ ;; esac ;;
  pi) uname() { case "$1" in -m) echo aarch64 ;; *) echo Linux 6 ;; esac; }
    set -- "$(printf %s "$*" | sed 's# [.]/# QEMU ./#')" ;;
  noroom) echo "mktemp: failed to create directory: Read-only file system" >&2; exit 1 ;;
esac
TMPDIR=PLACE; export TMPDIR
eval "$*"
"""


class Result(NamedTuple):
    """What a call of the command line gave."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["error"]
        return found


Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cli.TRACEBACK, raising=False)


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    def run(*argv: object) -> Result:
        status = cli.main([str(word) for word in argv])
        return Result(status, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def branchy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A `file.py:callable` of the user's."""
    path = tmp_path_factory.mktemp("user") / "branchy.py"
    path.write_text(BRANCHY)
    return f"{path}:build"


@pytest.fixture(scope="session")
def exported(branchy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `branchy` for this machine, (2, 3, 32, 32) -> (2, 7)."""
    path = tmp_path_factory.mktemp("bundles") / "branchy"
    assert cli.main(["export", "--model", branchy, "--input-size", "32", "--batch", "2", "-o", str(path)]) == 0
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Temporary files of the device."""
    place = tmp_path / "device"
    place.mkdir()
    return place


@pytest.fixture
def fake(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssh` is `FAKE`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    qemu = "qemu-aarch64-static" if shutil.which("qemu-aarch64-static") else "qemu-aarch64"
    (folder / "ssh").write_text(FAKE.replace("PLACE", str(place)).replace("QEMU", f"{qemu} -cpu cortex-a72"))
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
