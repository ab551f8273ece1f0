"""`export --onnx-only`: the ONNX after our passes, for other runtimes, and what the other commands make of such a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from inception_deploy import bench, verify
from inception_deploy.errors import DeployError
from inception_deploy.verify import bound


@pytest.fixture(scope="module")
def argv(branchy: str) -> list[str]:
    return ["export", "--model", branchy, "--input-size", "32", "--batch", "2", "--onnx-only"]


@pytest.fixture
def alone(call, argv: list[str], tmp_path: Path) -> Path:
    done = call(*argv, "-o", tmp_path / "alone", "--json")
    assert done.status == 0, done.err
    assert {"ok": True, "precision": "fp32", "refusals": 0, "onnx_only": True}.items() <= done.document.items()
    assert list(done.document["seconds"]) == ["resolve", "export", "optimise", "write"]
    return tmp_path / "alone"


def test_the_network_is_that_of_a_compiled_bundle(exported: Path, alone: Path) -> None:
    for name in ("model.onnx", "preprocessing.json"):
        assert (alone / name).read_bytes() == (exported / name).read_bytes()
    manifests = [json.loads((path / "manifest.json").read_text()) for path in (alone, exported)]
    for key in ("model", "target", "inputs", "outputs", "preprocessing", "passes", "cost"):
        assert manifests[0][key] == manifests[1][key], key
    names = {path.name for path in alone.iterdir()}
    assert not names & {"model.so", "weights.bin", "inception_deploy.h", "infer.py"}
    text = (alone / "README.md").read_text()
    assert text.startswith("# build as ONNX, fp32\n")
    assert "model.so" not in text


def test_what_the_other_commands_make_of_it(call, exported: Path, alone: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    outputs = []
    for bundle in (alone, exported):
        path = tmp_path / f"{bundle.name}.npy"
        assert (
            call("run", bundle, "--input", tmp_path / "x.npy", "--runtime", "onnxruntime", "--output", path).status == 0
        )
        outputs.append(np.load(path))
    np.testing.assert_array_equal(*outputs)
    refused = call("run", alone, "--input", tmp_path / "x.npy")
    assert refused.status == 1
    assert "was exported with --onnx-only; --runtime onnxruntime runs its ONNX" in refused.err
    verified = call("verify", alone, "--json")
    assert (verified.status, verified.document["not_run"]) == (0, [])
    assert [row["stage"] for row in verified.document["stages"]] == ["onnx", "optimised"]
    inspected = call("inspect", alone, "--json").document
    assert (inspected["steps"], inspected["memory"]["weights_bytes"]) == ([], 0)
    assert call("inspect", alone).status == 0
    compared = call("compare", exported, alone, "--json").document
    assert compared["pairs"][0]["max_rel"] < bound("network")
    assert compared["bundles"][1]["p50_ms"] is None
    with pytest.raises(DeployError, match="--onnx-only"):
        bench(alone)


def test_the_file_alone(call, argv: list[str], alone: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "net.onnx"
    assert call(*argv, "-o", path).status == 0
    assert path.read_bytes() == (alone / "model.onnx").read_bytes()
    assert [entry.name for entry in path.parent.iterdir()] == ["net.onnx"]
    again = call(*argv, "-o", path)
    assert (again.status, "already exists; --force replaces it" in again.err) == (1, True)
    assert call(*argv, "-o", path, "--force").status == 0


def test_the_quantized_file_alone(call, argv: list[str], tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((16, 3, 32, 32), dtype=np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    path = tmp_path / "int8.onnx"
    assert call(*argv, "--precision", "int8", "--calibration", tmp_path / "x.npz", "-o", path).status == 0
    model = onnx.load(path)
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
    assert verify.run_onnx(model, {"input": x[:2]})[0].shape == (2, 7)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--onnx-only", "--precision", "bf16", "-o", "x"], "--onnx-only makes a file for other runtimes"),
        (["--onnx-only", "--tuned", "db", "-o", "x"], "--onnx-only makes a file for other runtimes"),
        (["--onnx-only", "--embed", "-o", "x"], "--onnx-only compiles nothing that --embed could link weights into"),
        (["--embed", "--target", "cuda", "-o", "x"], "--embed is for cpu and arm; for cuda the weights stay a file"),
        (
            ["--embed", "--target", "vta:sim", "-o", "x"],
            "--embed is for cpu and arm; for vta:sim the weights stay a file",
        ),
        (["-o", "x.onnx"], "x.onnx is the name of an ONNX file, and a bundle is a folder or a .zip"),
    ],
)
def test_what_does_not_go_together(
    call, branchy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more, message
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("export", "--model", branchy, "--input-size", 32, "--target", "cpu:avx512-amx", *more)
    assert (done.status, message in done.err) == (2, True), done.err
    assert list(tmp_path.iterdir()) == []
