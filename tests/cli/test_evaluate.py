"""`evaluate`, `compare` and `bench --streams` as they are typed, on a compiled bundle: both engines, a folder a class, workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_deploy import load
from inception_deploy.verify import bound


def test_the_compiled_library_and_onnxruntime_on_a_folder(call, exported: Path, tmp_path: Path) -> None:
    for index in range(21):
        path = tmp_path / "val" / str(index % 7) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    argv = ["evaluate", exported, tmp_path / "val", "--workers", 3, "--threads", 1, "-o", tmp_path / "x.jsonl"]
    done = call(*argv, "--json")
    assert done.status == 0, done.err
    document = done.document
    files = sorted((tmp_path / "val").rglob("*.png"))
    with load(exported) as net:
        guessed = [top[0].index for top in net(files).tops(1)]
    right = [guess == int(file.parent.name) for guess, file in zip(guessed, files, strict=True)]
    assert [row["engine"] for row in document["engines"]] == ["compiled", "onnxruntime"]
    assert document["engines"][0]["top1"] == pytest.approx(100 * np.mean(right))
    assert document["engines"][1]["same_top1"] == 1
    assert (document["images"], document["classes_by"], document["not_run"]) == (21, "label", [])
    assert [row["images"] for row in document["per_class"]] == [3] * 7
    again = call(*argv, "--resume")
    assert again.status == 0
    assert again.out.splitlines()[0] == "build in fp32, 21 pictures of 7 classes (by label)"
    assert call(*argv).status == 1


def test_an_error_is_one_line(call, exported: Path, tmp_path: Path) -> None:
    done = call("evaluate", exported, tmp_path / "nothing")
    assert (done.status, done.out) == (1, "")
    assert f"{tmp_path / 'nothing'} does not exist; allowed: a folder with a folder a class" in done.err
    assert call("evaluate", exported, tmp_path, "--workers", "0").status == 2
    assert call("evaluate", exported, tmp_path, "--runtime", "tvm").status == 2


def test_a_bundle_compared_with_itself(call, exported: Path, tmp_path: Path) -> None:
    done = call("compare", exported, exported, "--runs", 5, "--json", "--fail-if", "max_rel > 0 or cosine < 1")
    assert done.status == 0, done.err
    (pair,) = done.document["pairs"]
    assert (pair["max_rel"], pair["cosine"], pair["same_top1"], pair["ratio_bytes"]) == (0, 1, 1, 1)
    one, other = done.document["bundles"]
    assert pair["ratio_p50"] == pytest.approx(other["p50_ms"] / one["p50_ms"], rel=bound("printed"))
    assert one["engine"] == "compiled"
    assert call("compare", exported, exported, "--runs", 5, "--fail-if", "latency>0").status == 1


def test_streams_of_a_compiled_bundle(call, exported: Path) -> None:
    done = call("bench", exported, "--streams", 2, "--threads", 1, "--against", "onnxruntime", "--runs", 3, "--json")
    assert done.status == 0, done.err
    rows = done.document["throughput"]
    assert [(row["engine"], row["streams"], row["threads"]) for row in rows] == [
        ("compiled", 2, 1),
        ("onnxruntime", 2, 1),
    ]
    assert all(row["images_per_second"] > 0 for row in rows)
    assert len(done.document["results"]) == 2
    assert "throughput" not in call("bench", exported, "--runs", 3, "--json").document
