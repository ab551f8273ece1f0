"""Interleaving and statistics, with functions whose time is known; engines, on a tiny bundle."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from inception_deploy import cli, verify
from inception_deploy.bundles import engines
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.reports import bench
from inception_deploy.runtime import bundle
from inception_deploy.verify import bound


def test_rounds_are_interleaved_and_the_order_rotates() -> None:
    calls: list[str] = []
    rows = bench.interleave({name: (lambda name=name: calls.append(name)) for name in "abc"}, runs=3)
    assert "".join(calls) == "aaabbbccc" + "abc" + "bca" + "cab"
    assert {name: row["runs"] for name, row in rows.items()} == {"a": 3, "b": 3, "c": 3}


def test_statistics() -> None:
    figures = bench.statistics_of([0.001, 0.002, 0.003, 0.004, 0.005])
    assert figures == {"p50_ms": 3.0, "p90_ms": 4.6, "p99_ms": 4.96, "mean_ms": 3.0, "sd_ms": 1.5811, "runs": 5}
    assert bench.statistics_of([0.001])["sd_ms"] == 0


def test_the_machine_is_named() -> None:
    name = bench.machine()
    assert name.endswith(f", {engines.default_threads()} cores, Linux")
    assert not name.startswith(",")


def test_an_unknown_engine(tiny_bundle: Path) -> None:
    with bundle.open(tiny_bundle) as opened, pytest.raises(UsageError, match="there is no engine 'onnx'"):
        engines.make("onnx", opened)
    with pytest.raises(UsageError, match="there is no engine 'compiled'"):
        engines.check_peer("compiled")


def test_openvino_missing_says_what_to_install(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with bundle.open(tiny_bundle) as opened, pytest.raises(DeployError) as caught:
        engines.make("openvino", opened)
    assert caught.value.message == "openvino is not installed; pip install 'inception-deploy[bench]'"
    assert caught.value.kind == "engine"


def test_torch_wants_a_network_of_the_zoo(tiny_bundle: Path) -> None:
    with bundle.open(tiny_bundle) as opened, pytest.raises(DeployError, match="not exported from a network of the zoo"):
        engines.make("torch", opened)


def test_onnxruntime_runs_the_bundles_onnx(tiny_bundle: Path) -> None:
    with bundle.open(tiny_bundle) as opened:
        (y,) = engines.make("onnxruntime", opened, threads=1).run(np.zeros((2, 3, 8, 8), np.float32))
    assert y.shape == (2, 7)
    assert np.isfinite(y).all()


def test_torch_forward_and_backward(capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["bench", "--model", "resnet18", "--framework", "torch", "--backward", "--width", "0.125"]
    assert cli.main([*argv, "--input-size", "32", "--runs", "2", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert [row["engine"] for row in document["results"]] == ["forward", "forward-backward"]
    assert all(row["p50_ms"] > 0 and row["runs"] == 2 for row in document["results"])
    assert document["model"] == "resnet18"
    assert set(document) >= {"machine", "threads", "batch", "results", "ratio"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor imports what torch itself has deprecated
def test_torch_compile_without_a_compiler(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torch._inductor import config

    monkeypatch.setattr(engines, "_zoo_module", lambda bundle, engine: torch.nn.Conv2d(3, 4, 3).eval())
    lost = config.patch({"cpp.cxx": (None, "no-such-compiler")})
    with lost, bundle.open(tiny_bundle) as opened, pytest.raises(DeployError, match="no-such-compiler") as caught:
        engines.make("torch-compile", opened)
    assert caught.value.kind == "engine"
    assert "apt install g++" in caught.value.message


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor imports what torch itself has deprecated
def test_torch_compile_gives_the_same_answer(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        pytest.skip("no C++ compiler here")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    monkeypatch.setattr(engines, "_zoo_module", lambda bundle, engine: module)
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)
    with bundle.open(tiny_bundle) as opened:
        (got,) = engines.make("torch-compile", opened, threads=1).run(x)
        (expected,) = engines.make("torch", opened, threads=1).run(x)
    assert verify.compare(expected, got, "onnx")["ok"]


def test_torch_engines_get_time_to_calm_down() -> None:
    assert bench.pause_s(["compiled", "torch-compile"]) > 0.02 > bench.pause_s(["compiled", "onnxruntime"])


def test_bundles_take_turns_and_are_shown_in_one_table(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_bundle, other)
    calls: list[str] = []

    def loaded(bundle: bundle.Bundle, threads: int, driver: Path | None):
        return SimpleNamespace(run=lambda x: calls.append(bundle.source.name) or [])

    monkeypatch.setattr(engines, "load_compiled", loaded)
    argv = ["bench", str(tiny_bundle), str(other), "--against", "onnxruntime", "--runs", "2"]
    assert cli.main([*argv, "--json"]) == 0
    documents = json.loads(capfd.readouterr().out)
    assert calls[-4:] in (["bundle", "other"] * 2, ["bundle", "other", "other", "bundle"])
    for path, document in zip((tiny_bundle, other), documents, strict=True):
        assert (document["bundle"], document["precision"], document["batch"]) == (str(path), "fp32", 2)
        ours, theirs = document["results"]
        assert "onnx" not in ours
        assert (theirs["engine"], theirs["onnx"]) == ("onnxruntime", "model.onnx")
        assert document["ratio"]["onnxruntime"] == pytest.approx(
            ours["p50_ms"] / theirs["p50_ms"], abs=bound("printed-ms")
        )
        assert document["ratio_to_first"] > 0
    assert documents[0]["ratio_to_first"] == 1
    assert cli.main(argv) == 0
    shown = capfd.readouterr().out
    assert f"{other} in fp32" in shown
    assert "onnxruntime on model.onnx" in shown
    assert "to the first" in shown
