"""`compare` with onnxruntime on tiny bundles whose differences are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from inception_deploy import artifact, cli, compare, verify
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.runtime import bundle
from inception_deploy.verify import bound
from tests.conftest import CLASSES, tiny_manifest


def changed(source: Path, folder: Path, change=lambda weights: weights, **manifest) -> Path:
    """The tiny bundle for a target that never runs here, so that onnxruntime computes it; with another last layer."""
    folder.mkdir()
    for name in (bundle.VERIFY, bundle.REFUSALS):
        (folder / name).write_bytes((source / name).read_bytes())
    model = onnx.load(str(source / bundle.ONNX))
    for tensor in model.graph.initializer:
        if tensor.name == "fc":
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), "fc"))
    onnx.save(model, str(folder / bundle.ONNX))
    details = {"target": "vta", "target_details": {"kind": "arm", "variant": "cortex-a9"}}
    bundle.seal(folder, {**tiny_manifest(), **details, **manifest})
    return folder


@pytest.fixture
def trio(tiny_bundle: Path, tmp_path: Path) -> list[Path]:
    """The tiny bundle; the same with outputs half as large again; and with its classes turned by one."""
    return [
        changed(tiny_bundle, tmp_path / "a"),
        changed(tiny_bundle, tmp_path / "b", lambda fc: fc * np.float32(1.5)),
        changed(tiny_bundle, tmp_path / "c", lambda fc: np.roll(fc, 1, axis=1)),
    ]


def test_outputs_of_the_same_inputs(trio: list[Path], tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((101, 3, 8, 8), dtype=np.float32)
    padded = np.concatenate([x, x[-1:]])
    model = onnx.load(str(trio[0] / bundle.ONNX))
    logits = np.concatenate([verify.run_onnx(model, {"input": padded[i : i + 2]})[0] for i in range(0, 102, 2)])[:101]
    np.savez(tmp_path / "x.npz", x=x, y=logits.argmax(1))
    document = compare(*trio, data=tmp_path / "x.npz")
    assert [(row["a"], row["b"]) for row in document["pairs"]] == [
        (str(trio[0]), str(trio[1])), (str(trio[0]), str(trio[2])), (str(trio[1]), str(trio[2])),
    ]  # fmt: skip
    scaled, turned, _ = document["pairs"]
    assert scaled["max_rel"] == pytest.approx(0.5, rel=bound("kernels"))
    assert scaled["max_abs"] == pytest.approx(np.abs(logits).max() / 2, rel=bound("kernels"))
    assert scaled["cosine"] == pytest.approx(1, abs=bound("kernels"))
    assert (scaled["same_top1"], scaled["drop_points"]) == (1, 0)
    other = np.roll(logits, 1, axis=1)
    length = np.linalg.norm(logits) ** 2
    assert turned["cosine"] == pytest.approx((logits * other).sum() / length, rel=bound("kernels"))
    assert turned["max_abs"] == pytest.approx(np.abs(logits - other).max(), rel=bound("kernels"))
    assert (turned["same_top1"], turned["drop_points"]) == (0, 100)
    assert [row["top1"] for row in document["bundles"]] == [100, 100, 0]
    assert document["inputs"] == {"source": str(tmp_path / "x.npz"), "count": 101, "labelled": True, "unlabelled": None}
    for row, path in zip(document["bundles"], trio, strict=True):
        assert row["bytes"] == sum(file.stat().st_size for file in artifact.files_below(path))
        assert (row["engine"], row["p50_ms"]) == ("onnxruntime", None)
        assert row["not_run"]
    assert scaled["ratio_p50"] is None
    assert scaled["ratio_bytes"] == 1


def test_without_data_it_is_crops_of_a_photo(trio: list[Path], capfd) -> None:
    assert cli.main(["compare", *map(str, trio[:2]), "--json", "-q"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["inputs"]["count"] == 14
    assert document["pairs"][0]["max_rel"] == pytest.approx(0.5, rel=bound("kernels"))
    assert [row["top1"] for row in document["bundles"]] == [None, None]
    assert cli.main(["compare", *map(str, trio[:2])]) == 0
    assert f"{trio[1]} is not timed, its outputs are onnxruntime's" in capfd.readouterr().out


def test_each_bundle_prepares_pictures_in_its_own_way(tiny_bundle: Path, trio: list[Path], tmp_path: Path) -> None:
    """One that takes 0..1 and one that takes -1..1 see the same pictures, and not the same numbers."""
    how = {**tiny_manifest()["preprocessing"], "mean": [0.0] * 3, "std": [1.0] * 3}
    plain = changed(tiny_bundle, tmp_path / "plain", preprocessing=how)
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(tmp_path / "white.png")
    document = compare(trio[0], plain, data=tmp_path)
    assert document["inputs"]["count"] == 1
    assert document["pairs"][0]["max_rel"] == 0  # white is 1 in both
    Image.fromarray(np.full((8, 8, 3), 128, np.uint8)).save(tmp_path / "white.png")
    assert compare(trio[0], plain, data=tmp_path)["pairs"][0]["max_rel"] > 0


def test_conditions_fail_it(trio: list[Path], capfd) -> None:
    argv = ["compare", *map(str, trio), "--fail-if", "max_rel > 0.6", "--fail-if", "same_top1 < 0.5 and size <= 1"]
    assert cli.main([*argv, "--json", "-q"]) == 1
    document = json.loads(capfd.readouterr().out)
    assert document["ok"] is False
    assert {row["bundle"] for row in document["failed"]} == {str(trio[2])}
    assert {row["expression"] for row in document["failed"]} >= {"same_top1 < 0.5 and size <= 1"}
    assert cli.main(argv) == 1
    assert f"failed: same_top1 < 0.5 and size <= 1 for {trio[2]} (same_top1 0, size 1)" in capfd.readouterr().out
    assert cli.main(["compare", *map(str, trio), "--fail-if", "max_rel > 99"]) == 0
    assert cli.main(["compare", *map(str, trio), "--fail-if", "latency > 1.05"]) == 1
    assert "--fail-if 'latency > 1.05': latency is not known here" in capfd.readouterr().err
    assert cli.main(["compare", *map(str, trio), "--fail-if", "latency >"]) == 2


def test_outputs_that_cannot_be_compared(tiny_bundle: Path, trio: list[Path], tmp_path: Path) -> None:
    few = changed(tiny_bundle, tmp_path / "few", lambda fc: fc[:, :4].copy(),
                  outputs=[{"name": "logits", "shape": [2, 4], "dtype": "float32"}])  # fmt: skip
    document = compare(trio[0], few)
    (row,) = document["pairs"]
    assert row["not_compared"] == f"the outputs are ['N', {CLASSES}] and ['N', 4]"
    assert (row["max_rel"], row["cosine"], row["same_top1"]) == (None, None, None)
    broken = changed(tiny_bundle, tmp_path / "broken", lambda fc: fc * np.float32("nan"))
    assert compare(trio[0], broken)["pairs"][0]["not_compared"] == "the outputs hold NaN or infinity"


def test_folders_that_are_no_classes_are_pictures_all_the_same(trio: list[Path], tmp_path: Path) -> None:
    for name in ("holiday/1.png", "work/2.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)).save(path)
    seen = compare(*trio, data=tmp_path / "photos")["inputs"]
    assert (seen["count"], seen["labelled"]) == (2, False)
    assert "'holiday' is no label" in seen["unlabelled"]
    with pytest.raises(DeployError, match="'holiday' is no label"):
        compare(*trio, data=tmp_path / "photos", classes="label")


def test_networks_that_take_no_pictures_get_the_same_numbers(
    tiny_bundle: Path, trio: list[Path], tmp_path: Path
) -> None:
    one, other = (
        changed(tiny_bundle, tmp_path / f"{factor}", lambda fc, f=factor: fc * np.float32(f), preprocessing=None)
        for factor in (1, 2)
    )
    document = compare(one, other)
    assert document["pairs"][0]["max_rel"] == pytest.approx(1, rel=bound("kernels"))
    assert document["inputs"]["source"] == "random numbers"


def test_one_bundle_is_not_enough(trio: list[Path]) -> None:
    with pytest.raises(UsageError, match="compare takes two bundles or more"):
        compare(trio[0])


def test_classes_that_one_network_knows_and_another_does_not(
    tiny_bundle: Path, trio: list[Path], tmp_path: Path, capfd
) -> None:
    named = changed(tiny_bundle, tmp_path / "named", labels=["cat", "dog", *"cdefg"])
    for index, name in enumerate(("cat", "dog")):
        path = tmp_path / "pets" / name / "1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (12, 10, 3), np.uint8)).save(path)
    for bundles in ([named, trio[0]], [trio[0], named]):
        document = compare(*bundles, data=tmp_path / "pets")
        known = {row["bundle"]: row["top1"] is not None for row in document["bundles"]}
        assert known == {str(named): True, str(trio[0]): False}
        assert document["pairs"][0]["drop_points"] is None
        assert (document["inputs"]["labelled"], "'cat' is no label" in document["inputs"]["unlabelled"]) == (
            False,
            True,
        )
        assert cli.main(["compare", *map(str, bundles), "--data", str(tmp_path / "pets")]) == 0
        assert "no accuracy: " in capfd.readouterr().out
