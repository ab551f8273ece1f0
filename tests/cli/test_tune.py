"""`tune` and `export --tuned` as they are typed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

from inception_deploy import artifact
from inception_deploy.runtime import bundle
from inception_deploy.targets import cuda
from inception_deploy.verify import bound


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): artifact.sha256(path) for path in artifact.files_below(folder)}


@pytest.fixture(scope="module")
def database(branchy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight trials of the small network."""
    from inception_deploy import cli

    path = tmp_path_factory.mktemp("databases") / "branchy.db"
    argv = ["tune", "--model", branchy, "--input-size", "32", "--trials", "8", "-o", str(path), "--json"]
    process = subprocess.run(
        [sys.executable, "-m", "inception_deploy", *argv], check=False, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    document = json.loads(process.stdout)
    assert document["trials"] == 8
    assert document["tasks"] == len(document["layers"]) == 6
    assert document["records"] >= 8 + 6
    assert document["database"] == str(path)
    assert document["measured"] == "network"
    assert 0 < document["after_ms"] <= document["before_ms"], "no tuning leaves a network slower"
    assert document["kept"] == sum(row["kept"] for row in document["layers"]) <= document["better"]
    assert sum(row["share"] for row in document["layers"]) == pytest.approx(1, abs=bound("printed"))
    assert cli.PROGRAM
    return path


def test_a_bundle_from_a_database(call, branchy: str, database: Path, tmp_path: Path) -> None:
    """The same database and model give the same bytes, and the manifest says what was taken from it."""
    argv = ["export", "--model", branchy, "--input-size", "32", "--tuned", database]
    for name in ("one", "two"):
        result = call(*argv, "-o", tmp_path / name)
        assert result.status == 0, result.err
        assert "the database" in result.err
    assert content(tmp_path / "one") == content(tmp_path / "two")
    with bundle.open(tmp_path / "one") as opened:
        tuning = opened.manifest["tuning"]
        kernels = {step["kernel"] for step in opened.document(bundle.PLAN)["steps"]}
    assert len(tuning["database_sha256"]) == 64
    assert {row["kernel"] for row in tuning["kernels"]} <= kernels
    assert all(row["ratio"] < 0.98 and row["knobs"] for row in tuning["kernels"])
    assert call("inspect", tmp_path / "one", "--json").document["tuning"] == tuning
    assert f"from the database {tuning['database_sha256'][:12]}" in call("inspect", tmp_path / "one").out


@pytest.mark.slow
def test_integers_are_tuned_for_integers(call, branchy: str, tmp_path: Path) -> None:
    argv = ["--model", branchy, "--input-size", "32"]
    tuned = call("tune", *argv, "--precision", "int8", "--trials", 6, "-o", tmp_path / "db", "--json")
    assert (tuned.status, tuned.document["target"], tuned.document["trials"]) == (0, "cpu", 6)
    pictures = tmp_path / "pictures.npz"
    np.savez(pictures, x=np.random.default_rng(0).standard_normal((16, 3, 32, 32), np.float32))
    export = ["export", *argv, "--tuned", tmp_path / "db", "--calibration", pictures, "-o"]
    wrong = call(*export[:-3], "-o", tmp_path / "wrong", "--json")
    assert "--tuned is for int8, and the export is in fp32" in wrong.error["message"]
    result = call(*export, tmp_path / "bundle", "--precision", "int8", "--json")
    assert result.status == 0, result.err
    with bundle.open(tmp_path / "bundle") as opened:
        assert len(opened.manifest["tuning"]["kernels"]) >= tuned.document["kept"]
    again = call("tune", *argv, "--trials", 7, "--resume", "-o", tmp_path / "db", "--json")
    assert "is of target cpu at int8, not cpu" in again.error["message"]


def test_a_vta_is_tuned_by_its_cycle_model(call, tmp_path: Path) -> None:
    """The bundle takes what was found, says so, and computes every bit as before."""
    argv = ["--model", "lenet5", "--target", "vta:sim"]
    found = call("tune", *argv, "--trials", 20, "-o", tmp_path / "one", "--json")
    assert found.status == 0, found.err
    document = found.document
    assert (document["measured"], document["estimate"], document["trials"]) == ("model", True, 20)
    assert document["bound_cycles"] <= document["after_cycles"] < document["before_cycles"]
    again = call("tune", *argv, "--precision", "int8", "--trials", 20, "-o", tmp_path / "one", "--resume")
    assert f"--target vta:sim --precision int8 --tuned {tmp_path / 'one'} ..." in again.out
    pictures = tmp_path / "pictures.npz"
    np.savez(pictures, x=np.random.default_rng(0).standard_normal((16, 1, 32, 32), np.float32))
    argv += ["--calibration", pictures]
    for name, more in (("plain", []), ("tuned", ["--tuned", tmp_path / "one"])):
        result = call("export", *argv, *more, "-o", tmp_path / name)
        assert result.status == 0, result.err
    estimates, outputs = [], []
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((1, 1, 32, 32), np.float32))
    for name in ("plain", "tuned"):
        estimates.append(call("inspect", tmp_path / name, "--json").document)
        call("run", tmp_path / name, "--input", tmp_path / "x.npy", "--output", tmp_path / f"{name}.npy")
        outputs.append(np.load(tmp_path / f"{name}.npy"))
    assert estimates[1]["vta"]["cycles"] < estimates[0]["vta"]["cycles"]
    assert (estimates[0]["tuning"], estimates[1]["tuning"]["judged"]) == (None, "modelled")
    assert np.array_equal(*outputs)
    assert "kernels from the database" in call("inspect", tmp_path / "tuned").out


def test_resume(call, branchy: str, database: Path) -> None:
    argv = ["tune", "--model", branchy, "--input-size", "32", "-o", database, "--json"]
    before = (database / "database_tuning_record.json").read_text()
    assert call(*argv, "--trials", 9).error["kind"] == "exists"
    result = call(*argv, "--trials", 9, "--resume")
    assert (result.status, result.document["trials"]) == (0, 9)
    assert (database / "database_tuning_record.json").read_text().startswith(before)


@pytest.mark.slow
def test_a_kill_loses_nothing(branchy: str, call, tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    argv = ["tune", "--model", branchy, "--input-size", "32", "-o", str(path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "inception_deploy", *argv, "--trials", "400"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    records = path / "database_tuning_record.json"
    deadline = time.monotonic() + 300
    while not records.exists() or records.read_bytes().count(b"\n") < 10:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = records.read_bytes()
    whole = finished[: finished.rfind(b"\n") + 1]
    count = whole.count(b"\n")
    result = call(*argv, "--trials", count, "--resume", "--json")
    assert result.status == 0, result
    assert result.document["trials"] == count
    assert records.read_bytes().startswith(whole)


# -- wrong use ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "kind", "change"),
    [
        (2, "model", {"--model": "irv3"}),
        (2, "target", {"--target": "cpu:avx3"}),
        (1, "target", {"--target": "cuda"}),
        (2, "usage", {"--target": "cuda", "--threads": "2"}),
        (2, "usage", {"--target": "cuda", "--device": "ssh://board"}),
        (2, "precision", {"--precision": "fp16"}),
        (2, "usage", {"--trials": "0"}),
        (2, "usage", {"--trials": "-3"}),
        (2, "usage", {"--trials": "many"}),
        (2, "usage", {"--tracker": "somewhere", "--key": "k"}),
        (2, "usage", {"--tracker": "host:99999", "--key": "k"}),
        (2, "usage", {"--tracker": "127.0.0.1:9190"}),
        (2, "usage", {"--key": "k"}),
        (2, "usage", {"--target": "vta:pynq", "--threads": "2"}),
        (2, "usage", {"--target": "vta:pynq", "--device": "ssh://board"}),
        (2, "usage", {"--tracker": "127.0.0.1:9190", "--key": "k", "--device": "ssh://board"}),
        (2, "device", {"--device": "board"}),
        (2, "usage", {"--target": "vta", "--tracker": "127.0.0.1:9190", "--key": "k"}),
        (2, "precision", {"--target": "vta:pynq", "--precision": "fp32"}),
        (2, "scheme", {"--target": "vta:pynq", "--scheme": "float-scale"}),
        (1, "target", {"--target": "arm:cortex-a72"}),
        (1, "database", {"--resume": None}),
    ],
)
def test_wrong_use(call, tmp_path: Path, monkeypatch, status: int, kind: str, change: dict) -> None:
    # another test's simulated GPU may still be loaded
    monkeypatch.setattr(cuda, "device_capability", lambda: "no NVIDIA driver (libcuda.so.1) on this machine")
    options = {"--model": "lenet5", "--trials": "4", "-o": str(tmp_path / "new.db")} | change
    argv = [word for pair in options.items() for word in pair if word is not None]
    result = call("tune", *argv, "--json")
    assert (result.status, result.error["kind"]) == (status, kind), result
    assert not (tmp_path / "new.db").exists()


def test_a_gpu_that_is_not_here_is_told_of(call, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cuda.Cuda, "unbuildable", lambda _self: None)
    monkeypatch.setattr(cuda, "device_capability", lambda: "no NVIDIA driver (libcuda.so.1) on this machine")
    result = call("tune", "--model", "lenet5", "--target", "cuda:sm_90", "--trials", 4, "-o", tmp_path / "new.db")
    assert (
        "cuda:sm_90 cannot be measured here (no NVIDIA driver (libcuda.so.1) on this machine); it takes an NVIDIA GPU of "
        "sm_90 and its driver: run tune there, or measure on devices of --tracker with --key"
    ) in result.err


def test_another_machine_needs_a_tracker(call, tmp_path: Path) -> None:
    result = call("tune", "--model", "lenet5", "--target", "arm:cortex-a72", "--trials", 4, "-o", tmp_path / "new.db")
    assert "--tracker and --key" in result.err


def test_no_tracker_answers(call, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = ["--tracker", f"127.0.0.1:{port}", "--key", "k", "-o", tmp_path / "new.db", "--json"]
    result = call("tune", "--model", "lenet5", "--trials", 4, *argv)
    assert (result.status, result.error["kind"]) == (1, "tracker")
    assert f"no RPC tracker of TVM answers at 127.0.0.1:{port}" in result.error["message"]


def test_something_else_answers(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never says anything is given up on."""
    from inception_deploy.tuning import devices

    monkeypatch.setattr(devices, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        argv = ["--tracker", f"127.0.0.1:{server.getsockname()[1]}", "--key", "k", "-o", tmp_path / "new.db", "--json"]
        result = call("tune", "--model", "lenet5", "--trials", 4, *argv)
    assert (result.status, result.error["kind"]) == (1, "tracker")
    assert "timed out" in result.error["message"]


def test_export_refuses_what_is_no_database_of_this(call, branchy: str, database: Path, tmp_path: Path) -> None:
    argv = ["export", "-o", tmp_path / "out", "--json"]
    other = call(*argv, "--model", "lenet5", "--tuned", database)
    assert (other.status, other.error["kind"]) == (1, "database")
    assert "is of model build" in other.error["message"]
    missing = call(*argv, "--model", branchy, "--tuned", tmp_path / "nothing.db")
    assert (missing.status, missing.error["kind"]) == (1, "database")
    target = call(*argv, "--model", branchy, "--target", "arm:cortex-a72", "--tuned", database)
    assert "is of target cpu" in target.error["message"]
    gpu = call(*argv, "--model", branchy, "--target", "cuda", "--tuned", database)
    assert gpu.status == 1
    assert gpu.error["kind"] in ("database", "target"), "there may be no compiler for it"
    precision = call(*argv, "--model", branchy, "--precision", "int8", "--tuned", database)
    assert (precision.status, precision.error["kind"]) == (2, "usage")
    assert not (tmp_path / "out").exists()


def test_a_database_without_a_record_for_the_network(call, branchy: str, database: Path, tmp_path: Path) -> None:
    """The model of the same name at another size has other layers."""
    argv = ["export", "--model", branchy, "--input-size", "48", "--tuned", database, "--no-verify"]
    result = call(*argv, "-o", tmp_path / "out")
    assert result.status == 0, result.err
    assert "the database" in result.err


def test_a_network_without_anything_to_tune(call, tmp_path: Path) -> None:
    """Nothing is left behind, so that the same command works once the model does."""
    source = tmp_path / "plain.py"
    source.write_text("import torch\n\n\ndef build():\n    return torch.nn.Sequential(torch.nn.ReLU())\n")
    argv = ["--model", f"{source}:build", "--input-size", "8", "--trials", 4, "-o", tmp_path / "new.db", "--json"]
    result = call("tune", *argv)
    assert (result.status, result.error["kind"]) == (1, "tune"), result
    assert not (tmp_path / "new.db").exists()


def test_what_is_shipped_for_this_core_is_taken(
    call, branchy: str, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not with --no-shipped-records; the bundle says which."""
    import onnx

    from inception_deploy import targets
    from inception_deploy.lower.lower import layers_for
    from inception_deploy.targets import cores
    from inception_deploy.tuning import shipped
    from inception_deploy.tuning.space import Space
    from inception_deploy.tuning.task import tasks_of
    from inception_deploy.tuning.tuned import Better

    target = targets.parse("cpu").at("fp32")
    tasks = tasks_of(layers_for(onnx.load(str(exported / "model.onnx")), target).layers)
    found = [Better(task, Space(task, target).sample(Random(2), 1)[0], 0.5) for task in tasks]
    (tmp_path / "mine.json").write_text(json.dumps(shipped.document("mine", target, found)))
    monkeypatch.setattr(cores, "here", lambda: "mine")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    argv = ["export", "--model", branchy, "--input-size", "32", "--batch", "2", "-o"]
    result = call(*argv, tmp_path / "known")
    assert result.status == 0, result.err
    tuning = call("inspect", tmp_path / "known", "--json").document["tuning"]
    assert tuning["shipped"] == "mine"
    count = len(tuning["kernels"])
    assert count >= len(found) > 0
    said = f"{count} kernels from the records shipped for mine"
    assert said in call("inspect", tmp_path / "known").out
    assert f"{count} kernels take their schedules from the records shipped for mine" in result.err
    assert call(*argv, tmp_path / "plain", "--no-shipped-records").status == 0
    assert call("inspect", tmp_path / "plain", "--json").document["tuning"] is None
