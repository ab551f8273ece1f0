"""From a user's Python file to a bundle that runs, with every command as it is typed; small enough for a few seconds each."""

from __future__ import annotations

import json
import os
import platform
import pty
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from inception_deploy import artifact, cache, verify
from inception_deploy.verify import bound

PHOTO = Path(__file__).resolve().parents[2] / "examples" / "data" / "photo.jpg"
STAGES = ["onnx", "optimised", "compiled"]


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): artifact.sha256(path) for path in artifact.files_below(folder)}


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_what_is_in_a_bundle(exported: Path) -> None:
    manifest = read(exported / "manifest.json")
    assert manifest["schema_version"] == 1
    assert (manifest["model"], manifest["target"], manifest["precision"]) == ("build", "cpu", "fp32")
    assert manifest["inputs"] == [{"name": "input", "shape": [2, 3, 32, 32], "dtype": "float32"}]
    assert manifest["outputs"] == [{"name": "logits", "shape": [2, 7], "dtype": "float32", "kind": "logits"}]
    assert manifest["preprocessing"]["crop"] == [32, 32]
    assert manifest["tools"]["apache-tvm-ffi"] == "0.1.14.post1"
    assert manifest["files"] == {name: digest for name, digest in content(exported).items() if name != "manifest.json"}
    assert {"model.onnx", "model.so", "weights.bin", "verify.json", "refusals.json", "plan.json"} <= set(
        manifest["files"]
    )
    assert [row["stage"] for row in read(exported / "verify.json")["stages"]] == STAGES
    assert read(exported / "refusals.json") == []
    assert not list(exported.parent.glob(".*"))


def test_the_same_inputs_give_the_same_bytes(
    call, branchy: str, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kernel is compiled again; not the C library of `run_model`, which is zig's and takes a minute."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "zig").symlink_to(cache.directory() / "zig")
    monkeypatch.setenv("INCEPTION_DEPLOY_CACHE", str(tmp_path / "cache"))
    argv = ["export", "--model", branchy, "--input-size", "32", "--batch", "2", "--json"]
    result = call(*argv, "-o", tmp_path / "b.zip")
    assert result.status == 0
    assert {k: result.document[k] for k in ("bundle", "model", "target", "precision", "ok")} == {
        "bundle": str(tmp_path / "b.zip"), "model": "build", "target": "cpu", "precision": "fp32", "ok": True,
    }  # fmt: skip
    assert list(result.document["seconds"]) == ["resolve", "export", "optimise", "lower", "build", "verify", "write"]
    zipfile.ZipFile(tmp_path / "b.zip").extractall(tmp_path / "b")
    assert content(tmp_path / "b") == content(exported)
    artifact.write_zip(exported, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_both_runtimes_give_the_networks_numbers(call, branchy: str, exported: Path, tmp_path: Path) -> None:
    from inception_deploy.sources import capture

    x = np.random.default_rng(0).standard_normal((5, 3, 32, 32), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    want = capture.run_torch(capture.load_callable(branchy), x)
    for runtime in ("compiled", "onnxruntime"):
        argv = [
            "run",
            exported,
            "--input",
            tmp_path / "x.npy",
            "--output",
            tmp_path / "y.npy",
            "--json",
            "--quiet",
            "--threads",
            1,
        ]
        result = call(*argv, "--runtime", runtime)
        assert (result.status, result.err) == (0, "")
        assert result.document["runtime"] == runtime
        assert result.document["outputs"] == [{"name": "logits", "shape": [5, 7], "dtype": "float32"}]
        assert [len(top) for top in result.document["top"]] == [5] * 5
        got = np.load(tmp_path / "y.npy")
        assert got.dtype == np.float32
        assert verify.compare(want, got, "compiled")["ok"]


def test_pictures(call, exported: Path) -> None:
    tops = []
    for runtime in ("compiled", "onnxruntime"):
        result = call("run", exported, "--image", PHOTO, "--runtime", runtime, "--top-k", 3, "--json")
        assert result.status == 0
        tops.append(result.document["top"])
    assert [entry["index"] for entry in tops[0]] == [entry["index"] for entry in tops[1]]
    assert [entry["score"] for entry in tops[0]] == pytest.approx(
        [entry["score"] for entry in tops[1]], abs=bound("scores")
    )
    assert len(tops[0]) == 3


def test_verify_runs_the_compiled_library_again(call, exported: Path) -> None:
    result = call("verify", exported, "--json")
    assert result.status == 0
    assert result.document["ok"] is True
    rows = {row["stage"]: row for row in result.document["stages"]}
    assert list(rows) == STAGES
    keys = {"stage", "reference", "max_abs", "max_rel", "cosine", "top5_same", "tolerance", "ok"}
    assert all(keys <= set(row) for row in rows.values())
    assert [rows[name]["recorded"] for name in STAGES] == [True, True, False]
    assert rows["compiled"]["max_rel"] <= rows["compiled"]["tolerance"]
    assert all(stage in call("verify", exported).out for stage in STAGES)


def test_verify_fails_on_a_library_that_computes_something_else(
    call, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inception_deploy.runtime import compiled as runtime

    run = runtime.CompiledModel.run
    monkeypatch.setattr(runtime.CompiledModel, "run", lambda self, *x: [1.01 * y for y in run(self, *x)])
    result = call("verify", exported, "--json")
    assert result.status == 1
    assert result.document["ok"] is False
    assert [row["ok"] for row in result.document["stages"]] == [True, True, False]


def test_an_export_that_computes_something_else_writes_nothing(
    call, branchy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inception_deploy.runtime import compiled as runtime

    run = runtime.CompiledModel.run
    monkeypatch.setattr(runtime.CompiledModel, "run", lambda self, *x: [1.01 * y for y in run(self, *x)])
    argv = ["export", "--model", branchy, "--input-size", 32, "-o", tmp_path / "b", "--json"]
    result = call(*argv)
    assert result.status == 1
    assert result.error["kind"] == "verify"
    assert "stage 'compiled' differs from 'optimised'" in result.error["message"]
    assert list(tmp_path.iterdir()) == []
    result = call(*argv, "--no-verify")
    assert (result.status, result.document["verified"]) == (0, [])
    assert read(tmp_path / "b" / "verify.json")["stages"] == []


def test_kept_stages_are_checked_again(call, branchy: str, tmp_path: Path) -> None:
    argv = ["export", "--model", branchy, "--input-size", 32, "-o", tmp_path / "b", "--keep-stages"]
    assert call(*argv).status == 0
    rows = {row["stage"]: row for row in call("verify", tmp_path / "b", "--json").document["stages"]}
    assert [rows[name]["recorded"] for name in STAGES] == [True, False, False]
    kept = sorted(path.relative_to(tmp_path / "b").as_posix() for path in (tmp_path / "b" / "stages").iterdir())
    assert kept[0] == "stages/layers-00-read.txt"
    assert kept[-1] == "stages/simplified.onnx"
    assert set(kept) <= set(read(tmp_path / "b" / "manifest.json")["files"])


def test_bench(call, exported: Path) -> None:
    result = call("bench", exported, "--against", "onnxruntime", "--runs", 3, "--threads", 1, "--json")
    assert result.status == 0
    document = result.document
    assert [row["engine"] for row in document["results"]] == ["compiled", "onnxruntime"]
    keys = {"engine", "p50_ms", "p90_ms", "p99_ms", "mean_ms", "sd_ms", "runs"}
    assert all(keys <= set(row) and row["runs"] == 3 for row in document["results"])
    ours, theirs = (row["p50_ms"] for row in document["results"])
    assert document["ratio"]["onnxruntime"] == pytest.approx(ours / theirs, rel=bound("printed"))
    assert (document["threads"], document["batch"]) == (1, 2)
    assert "ours / theirs" in call("bench", exported, "--runs", 1).out


def test_inspect_a_bundle_and_its_onnx(call, exported: Path) -> None:
    result = call("inspect", exported, "--json")
    assert result.status == 0
    document = result.document
    assert document["kind"] == "bundle"
    assert [step["layer"] for step in document["steps"]]
    assert sum(step["share"] for step in document["steps"]) == pytest.approx(1, abs=bound("printed"))
    conv = next(step for step in document["steps"] if step["op"] == "conv")
    assert conv["family"] == "vector.conv"
    assert conv["refused"]["bytes.conv"] == "it multiplies float32, not quantized numbers"
    assert "it multiplies float32, not quantized numbers" in call("inspect", exported).out
    assert document["memory"]["arena_bytes"] > 0
    assert {join["op"] for join in document["branches"]} >= {"Concat"}
    waiting = result.document["waiting"]
    if len(os.sched_getaffinity(0)) > 1:
        assert waiting["phases"] > 0
        assert all(0 <= share <= 1 for share in waiting["idle"])
        assert waiting["worst"][0]["idle_ms"] >= waiting["worst"][-1]["idle_ms"]
        assert "threads wait" in call("inspect", exported).out
    else:
        assert waiting is None
    plain = call("inspect", exported / "model.onnx", "--json").document
    assert plain["kind"] == "onnx"
    assert plain["parameters"] == document["parameters"]
    assert plain["macs"] == document["macs"]
    shown = call("inspect", exported).out
    assert "slowest steps" in shown
    assert "every operator has a kernel of ours" in shown


def test_an_onnx_file_goes_the_same_way(call, exported: Path, tmp_path: Path) -> None:
    result = call("export", "--model", exported / "model.onnx", "-o", tmp_path / "b", "--json")
    assert result.status == 0
    assert (result.document["model"], result.document["verified"]) == ("model", ["onnx", "optimised", "compiled"])
    assert "ImageNet's is assumed" not in result.err  # a bundle's ONNX says how its pictures are prepared


def test_a_zoo_network_at_a_small_width(call, tmp_path: Path) -> None:
    argv = ["export", "--model", "InceptionResNetV2", "--width", "0.125", "--input-size", "75", "--num-classes", "5"]
    result = call(*argv, "--option", "blocks=(1,1,1)", "-o", tmp_path / "b", "--json")
    assert result.status == 0
    assert result.document["model"] == "inception_resnet_v2"
    assert "the weights are untrained (random, seed 0)" in result.err
    manifest = read(tmp_path / "b" / "manifest.json")
    assert manifest["zoo"]["options"] == {"blocks": [1, 1, 1]}
    assert manifest["outputs"][0]["shape"] == [1, 5]
    ratio = call("bench", tmp_path / "b", "--against", "torch", "--runs", 1, "--json").document["ratio"]
    assert set(ratio) == {"torch"}


def test_an_operator_without_a_kernel_of_ours_is_listed_with_its_share(call, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(3, 16, 3)\n"
        "    def forward(self, x):\n        return torch.flip(self.conv(x), (2,)).mean((2, 3))\n"
    )
    argv = ["export", "--model", f"{tmp_path / 'net.py'}:Net", "--input-size", 16, "-o", tmp_path / "b", "--json"]
    assert call(*argv).document["refusals"] == 1
    (row,) = read(tmp_path / "b" / "refusals.json")
    assert row["op"] == "Slice"
    assert row["reason"]
    assert 0 < row["share"] < 1
    document = call("inspect", tmp_path / "b", "--json").document
    (measured,) = document["refusals"]
    assert 0 < measured["share"] < 1
    assert measured["ms"] == pytest.approx(
        sum(s["ms"] for s in document["steps"] if row["node"] in s["layers"]), abs=bound("printed-ms")
    )
    assert row["reason"] in call("inspect", tmp_path / "b").out


def test_a_bundle_for_another_machine(call, branchy: str, tmp_path: Path) -> None:
    argv = [
        "export",
        "--model",
        branchy,
        "--input-size",
        32,
        "--target",
        "arm:cortex-a72",
        "-o",
        tmp_path / "b",
        "--json",
    ]
    exported = call(*argv)
    document, there = exported.document, "verify and bench run it on its own machine with --device ssh://user@host"
    assert (
        f"what was compiled was not checked: this machine ({platform.machine()}) lacks aarch64; {there}" in exported.err
    )
    assert (document["ok"], document["verified"]) == (True, ["onnx", "optimised"])
    (not_run,) = document["not_run"]
    assert not_run["stage"] == "compiled"
    assert "aarch64" in not_run["reason"]
    assert read(tmp_path / "b" / "verify.json")["not_run"] == [not_run]
    assert read(tmp_path / "b" / "manifest.json")["not_run"] == [not_run]
    result = call("verify", tmp_path / "b", "--json")
    assert (result.status, result.document["ok"]) == (1, False)
    assert [row["stage"] for row in result.document["not_run"]] == ["compiled"]
    result = call("run", tmp_path / "b", "--image", PHOTO, "--json")
    assert (result.status, result.error["kind"]) == (1, "target")
    assert result.error["message"].endswith(f"{there}; --runtime onnxruntime runs its ONNX")
    readme = (tmp_path / "b" / "README.md").read_text()
    (copied,) = re.findall(r"^scp (.+) user@device:network/$", readme, re.M)
    assert {"run_model", "weights.bin", "manifest.json"} <= set(copied.split())
    assert all((tmp_path / "b" / name).is_file() for name in copied.split())
    assert "`compiled` was not: the machine that exported this cannot run it" in readme
    assert call("run", tmp_path / "b", "--image", PHOTO, "--runtime", "onnxruntime").status == 0
    assert call("report", tmp_path / "b", "-o", tmp_path / "page.html").status == 0
    assert "lacks aarch64" in (tmp_path / "page.html").read_text()


def test_a_person_sees_a_bar_and_a_program_does_not(exported: Path) -> None:
    """On a terminal stderr has a bar and stdout is still one document; without one there is no bar."""
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "inception_deploy", "verify", str(exported), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, env={**os.environ, "TERM": "xterm"})
    os.close(terminal)
    shown = os.read(controller, 100_000)
    os.close(controller)
    assert json.loads(done.stdout)["ok"] is True
    assert b"\x1b[" in shown
    assert b"compiled" in shown
    lines = subprocess.run(command, capture_output=True, text=True).stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["open", "optimised", "compiled"]
    assert all(re.fullmatch(r"\w+: \d+\.\d\d s", line) for line in lines)
    assert subprocess.run([*command, "-q"], capture_output=True).stderr == b""


def test_models_and_targets_have_their_documented_shape(call) -> None:
    networks = call("models", "--json").document
    assert all({"name", "aliases", "input", "parameters", "macs"} <= set(row) for row in networks)
    assert next(row for row in networks if "irv2" in row["aliases"])["input"] == [3, 299, 299]
    rows = call("targets", "--json").document
    assert all({"name", "builds", "runs", "reason"} <= set(row) for row in rows)
    cpu = next(row for row in rows if row["name"] == "cpu")
    assert (cpu["builds"], cpu["runs"], cpu["reason"]) == (True, True, None)
    assert all(row["name"] in call("targets").out for row in rows)
