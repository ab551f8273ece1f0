"""`export --batch 1,2,5`: one bundle for several numbers of images, on one copy of the weights; every command knows it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inception_deploy
from inception_deploy import artifact, cli
from inception_deploy.runtime import bundle
from inception_deploy.verify import tolerance

BATCHES = [1, 2, 5]


def exported_as(path: Path, *argv: object) -> Path:
    assert cli.main(["export", *map(str, argv), "--input-size", "32", "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def several(branchy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `branchy` for 1, 2 and 5 images."""
    return exported_as(tmp_path_factory.mktemp("plans") / "several", "--model", branchy, "--batch", "5,1,2")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 prepared inputs."""
    path = tmp_path_factory.mktemp("rows") / "x.npy"
    np.save(path, np.random.default_rng(1).standard_normal((13, 3, 32, 32), dtype=np.float32))
    return path


def same(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(
        got, expected, rtol=0, atol=tolerance("compiled").max_rel * float(np.abs(expected).max())
    )


def test_the_manifest_says_what_there_is(several: Path, exported: Path) -> None:
    manifest = json.loads((several / "manifest.json").read_text())
    assert manifest["inputs"][0]["shape"] == [1, 3, 32, 32]
    assert [plan["batch"] for plan in manifest["plans"]] == BATCHES[1:]
    assert [plan["inputs"][0]["shape"][0] for plan in manifest["plans"]] == BATCHES[1:]
    assert [plan["outputs"][0]["shape"] for plan in manifest["plans"]] == [[2, 7], [5, 7]]
    arenas = [part["memory"]["arena_bytes"] for part in (manifest, *manifest["plans"])]
    assert arenas == sorted(set(arenas))
    memory = manifest["memory"]
    assert memory["weights_bytes"] == (several / "weights.bin").stat().st_size
    assert memory["shared_bytes"] > 0.98 * memory["weights_bytes"]
    one = json.loads((exported / "manifest.json").read_text())["memory"]["weights_bytes"]
    assert memory["weights_bytes"] < 1.02 * one
    assert {"model.c", "model_1.c", "model_2.c"} <= set(manifest["files"])
    verified = json.loads((several / "verify.json").read_text())["stages"]
    assert [(row["stage"], row.get("batch")) for row in verified][-3:] == [
        ("compiled", None), ("compiled", 2), ("compiled", 5),
    ]  # fmt: skip
    assert (
        "a plan for each of 1, 2, 5 images at once, on one copy of the weights" in (several / "README.md").read_text()
    )


@pytest.mark.parametrize("runtime", ["compiled", "onnxruntime"])
def test_run_cuts_rows_for_the_plans(call, several: Path, exported: Path, rows: Path, tmp_path: Path, runtime) -> None:
    argv = ["--input", rows, "--runtime", runtime, "--output"]
    result = call("run", several, *argv, tmp_path / "y.npy", "--json")
    assert result.document["batches"] == [5, 5, 2, 1]
    assert result.document["outputs"][0]["shape"] == [13, 7]
    call("run", exported, *argv, tmp_path / "expected.npy")
    same(np.load(tmp_path / "y.npy"), np.load(tmp_path / "expected.npy"))


def test_python_and_a_zip_of_it(several: Path, rows: Path, tmp_path: Path) -> None:
    artifact.write_zip(several, tmp_path / "several.zip")
    x = np.load(rows)
    with inception_deploy.load(several) as model, inception_deploy.load(tmp_path / "several.zip") as packed:
        assert model.batches == (1, 2, 5)
        one = np.concatenate([np.asarray(model(x[index : index + 1])) for index in range(13)])
        for net in (model, packed):
            same(np.asarray(net(x)), one)


def test_infer_alone(several: Path, rows: Path, tmp_path: Path) -> None:
    shutil.copytree(several, tmp_path / "bundle")
    spec = importlib.util.spec_from_file_location("infer_of_plans", tmp_path / "bundle" / "infer.py")
    infer: Any = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    spec.loader.exec_module(infer)  # type: ignore[union-attr]
    sys.dont_write_bytecode = before
    x = np.load(rows)
    network = infer.Network()
    (got,) = network(x)
    assert got.shape == (13, 7)
    with inception_deploy.load(several) as model:
        np.testing.assert_array_equal(got, np.asarray(model(x)))
    assert [len(plan.inputs[0][1]) and plan.inputs[0][1][0] for plan in network.larger] == [2, 5]


def test_verify_checks_every_plan(call, several: Path, tmp_path: Path) -> None:
    document = call("verify", several, "--json").document
    assert document["ok"]
    assert [(row.get("batch"), row["recorded"]) for row in document["stages"]][-2:] == [(2, False), (5, False)]
    assert "compiled, batch 5" in call("verify", several).out
    broken = tmp_path / "broken"  # the plan for five images gives the outputs of something else
    shutil.copytree(several, broken)
    manifest = json.loads((broken / "manifest.json").read_text())
    manifest["plans"][1]["outputs"][0]["shape"] = [5, 8]
    (broken / "manifest.json").write_text(json.dumps(manifest))
    found = call("run", broken, "--input", _five(tmp_path), "--json")
    assert found.status == 1
    assert "the bundle's manifest says" in found.error["message"]


def _five(folder: Path) -> Path:
    np.save(folder / "five.npy", np.zeros((5, 3, 32, 32), np.float32))
    return folder / "five.npy"


def test_bench_times_every_plan(call, several: Path) -> None:
    argv = ["--against", "onnxruntime", "--runs", "2", "--threads", "1", "--json"]
    document = call("bench", several, *argv).document
    assert [document["batch"], *(plan["batch"] for plan in document["plans"])] == BATCHES
    for plan in (document, *document["plans"]):
        assert [row["engine"] for row in plan["results"]] == ["compiled", "onnxruntime"]
        assert plan["ratio"]["onnxruntime"] > 0
    chosen = call("bench", several, "--batch", "2,5", *argv).document
    assert [chosen["batch"], chosen["plans"][0]["batch"]] == [2, 5]
    wrong = call("bench", several, "--batch", "3", *argv)
    assert (wrong.status, wrong.error["allowed"]) == (2, BATCHES)


def test_bench_times_every_plan_on_a_device(call, several: Path, fake: None) -> None:
    argv = ["--device", "ssh://board", "--runs", "2", "--threads", "1", "--json"]
    document = call("bench", several, *argv).document
    assert [document["batch"], *(plan["batch"] for plan in document["plans"])] == BATCHES
    assert all(plan["results"][0]["p50_ms"] > 0 for plan in (document, *document["plans"]))
    chosen = call("bench", several, "--batch", "5", *argv).document
    assert (chosen["batch"], "plans" in chosen) == (5, False)
    wrong = call("bench", several, "--batch", "3", *argv)
    assert (wrong.status, wrong.error["allowed"]) == (2, BATCHES)


def test_inspect_and_the_page(call, several: Path, tmp_path: Path) -> None:
    document = call("inspect", several, "--json").document
    assert [plan["batch"] for plan in document["plans"]] == BATCHES[1:]
    shown = call("inspect", several).out
    assert "weights that all plans share" in shown
    assert "arena of the plan for 5 images" in shown
    page = tmp_path / "page.html"
    assert call("report", several, "-o", page, "--runs", "2", "--against", "onnxruntime").status == 0
    text = page.read_text()
    assert "The bundle holds 3 plans, each for another number of images at once" in text
    assert "compiled, batch 5" in text
    assert "Latency of one inference of 5 images" in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--target", "vta:sim"], "a bundle for vta:sim holds one plan, not 2"),
        (["--onnx-only"], "--onnx-only compiles nothing, and so has no plans for several numbers of images"),
    ],
)
def test_who_takes_one_plan_says_so(call, branchy: str, tmp_path: Path, argv, message) -> None:
    result = call("export", "--model", branchy, "--batch", "1,8", *argv, "-o", tmp_path / "b", "--json")
    assert (result.status, result.error["message"]) == (2, message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("batch", ["1,", "0,8", "1;8", "x"])
def test_a_batch_is_a_number_or_several(call, tmp_path: Path, batch: str) -> None:
    result = call("export", "--model", "irv2", "--batch", batch, "-o", tmp_path / "b", "--json")
    assert (result.status, result.error["allowed"]) == (2, "a whole number from 1 to 4096")


MIXING = """
import torch
from torch import nn


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        y = self.conv(x).mean((2, 3))
        return y - y.mean(0, keepdim=True) + y.mean()


def build():
    return Mixing()
"""


def test_a_network_that_mixes_its_rows_is_refused(call, tmp_path: Path) -> None:
    (tmp_path / "mixing.py").write_text(MIXING)
    argv = ["--model", f"{tmp_path / 'mixing.py'}:build", "--input-size", "16", "--batch", "1,2"]
    result = call("export", *argv, "-o", tmp_path / "b", "--json")
    assert result.status == 1
    assert result.error["kind"] == "verify"
    assert "with 2 images at once, which a network that mixes its rows does" in result.error["message"]
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu", "arm:cortex-a72"])
def test_int8(call, branchy: str, rows: Path, tmp_path: Path, target: str) -> None:
    calibration = tmp_path / "calibration.npz"
    np.savez(calibration, images=np.random.default_rng(2).integers(0, 256, (20, 32, 32, 3), np.uint8))
    how = ["--precision", "int8", "--calibration", calibration, "--effort", "fast", "--target", target]
    one, several = tmp_path / "one", tmp_path / "several"
    for path, batch in ((one, "1"), (several, "1,2,5")):
        argv = ["--model", branchy, "--input-size", "32", "--batch", batch, *how]
        assert call("export", *argv, "-o", path).status == 0
    assert (several / "weights.bin").stat().st_size < 1.02 * (one / "weights.bin").stat().st_size
    if target != "cpu":
        return
    assert call("verify", several, "--json").document["ok"]
    x = np.load(rows)
    with inception_deploy.load(one) as single, inception_deploy.load(several) as model:
        np.testing.assert_array_equal(np.asarray(model(x)), np.asarray(single(x)))


def test_a_plan_seen_alone(several: Path) -> None:
    with bundle.open(several) as opened:
        assert opened.batches == (1, 2, 5)
        assert [plan.input_shape[0] for plan in opened.plans] == BATCHES
        assert [plan.batches for plan in opened.plans[1:]] == [(2,), (5,)]
        plans = [plan.document(bundle.PLAN) for plan in opened.plans]
        assert plans[1:] == plans[0]["plans"]
