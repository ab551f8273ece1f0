"""Tuning on devices that a tracker knows: here a tracker, two servers and the tuner on one machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from inception_deploy.errors import DeployError
from inception_deploy.tuning import devices

from .tracker import fleet

KEY = "bench"


@pytest.fixture(scope="module")
def tracker() -> Iterator[tuple[str, int]]:
    with fleet(KEY) as address:
        yield address


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
