"""`run` on pictures and tensors, with onnxruntime on a tiny bundle: batches, labels, files, and everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_deploy import cli, verify
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.reports.run import run
from inception_deploy.runtime import bundle
from inception_deploy.verify import bound


@pytest.fixture
def opened(tiny_bundle: Path):
    with bundle.open(tiny_bundle) as opened:
        yield opened


def reference(opened: bundle.Bundle, x: np.ndarray) -> np.ndarray:
    import onnx

    return verify.run_onnx(onnx.load(str(opened.onnx)), {"input": x})[0]


def pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (12, 10, 3), np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_any_number_of_rows_goes_through_a_batch_of_two(opened: bundle.Bundle, tmp_path: Path, rows: int) -> None:
    x = np.random.default_rng(1).standard_normal((rows, 3, 8, 8), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    document = run(opened, tmp_path / "x.npy", runtime="onnxruntime", top_k=3, output=tmp_path / "y.npy")
    got = np.load(tmp_path / "y.npy")
    padded = np.concatenate([x] * 6)[:6]
    want = np.concatenate([reference(opened, padded[i : i + 2]) for i in (0, 2, 4)])[:rows]
    np.testing.assert_allclose(got, want, rtol=bound("kernels"), atol=bound("rounding"))
    assert got.dtype == np.float32
    assert document["outputs"] == [{"name": "logits", "shape": [rows, 7], "dtype": "float32"}]
    assert document["runtime"] == "onnxruntime"
    assert document["latency_ms"] > 0
    tops = [document["top"]] if rows == 1 else document["top"]
    assert [[entry["index"] for entry in top] for top in tops] == np.argsort(-want, axis=1)[:, :3].tolist()


def test_scores_are_probabilities(opened: bundle.Bundle, tmp_path: Path) -> None:
    document = run(opened, pictures(tmp_path, 1), runtime="onnxruntime", top_k=7)
    assert sum(entry["score"] for entry in document["top"]) == pytest.approx(1, abs=bound("kernels"))
    assert [entry["score"] for entry in document["top"]] == sorted((e["score"] for e in document["top"]), reverse=True)
    assert [entry["label"] for entry in document["top"]] == [str(entry["index"]) for entry in document["top"]]


def test_labels_of_the_user(opened: bundle.Bundle, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join("abcdefg") + "\n")
    top = run(opened, pictures(tmp_path, 1), runtime="onnxruntime", labels=tmp_path / "labels.txt")["top"]
    assert all(entry["label"] == "abcdefg"[entry["index"]] for entry in top)
    assert len(top) == 5


def test_the_command_prints_one_document_and_a_list_a_picture(tiny_bundle: Path, tmp_path: Path, capfd) -> None:
    paths = [str(path) for path in pictures(tmp_path, 3)]
    assert cli.main(["run", str(tiny_bundle), "--image", *paths, "--runtime", "onnxruntime", "--json", "-q"]) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert err == ""
    assert [len(top) for top in document["top"]] == [5, 5, 5]
    assert cli.main(["run", str(tiny_bundle), "--image", *paths, "--runtime", "onnxruntime"]) == 0
    shown = capfd.readouterr().out
    assert all(path in shown for path in paths)


def wrong(opened: bundle.Bundle, given, **arguments) -> str:
    with pytest.raises(DeployError) as caught:
        run(opened, given, runtime="onnxruntime", **arguments)
    return caught.value.message


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (np.zeros((2, 3, 8, 9), np.float32), "float32 [2, 3, 8, 9]"),
        (np.zeros((2, 3, 8, 8), np.float64), "float64 [2, 3, 8, 8]"),
        (np.zeros((2, 3, 8, 8), np.uint8), "uint8 [2, 3, 8, 8]"),
        (np.zeros((3, 8, 8), np.float32), "float32 [3, 8, 8]"),
        (np.zeros((0, 3, 8, 8), np.float32), "float32 [0, 3, 8, 8]"),
        (np.float32(1), "float32 []"),
    ],
)
def test_a_tensor_that_does_not_fit(opened: bundle.Bundle, tmp_path: Path, x: np.ndarray, got: str) -> None:
    path = tmp_path / "x.npy"
    np.save(path, x)
    assert wrong(opened, path) == f"input {path} is {got}, the network takes float32 ['N', 3, 8, 8]"


def test_a_file_that_is_no_tensor(opened: bundle.Bundle, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    assert wrong(opened, path) == f"input {path} does not exist"
    path.write_text("hello")
    assert wrong(opened, path).startswith(f"input {path} is not a .npy array")
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert wrong(opened, path).startswith(f"input {path} is not a .npy array: Object arrays cannot be loaded")
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(1))
    assert wrong(opened, path) == f"input {path} is an archive of arrays"
    np.save(path, np.zeros((2, 3, 8, 8), np.float32))
    path.write_bytes(path.read_bytes()[:-8])
    assert wrong(opened, path).startswith(f"input {path} is not a .npy array")


def test_labels_that_do_not_fit(opened: bundle.Bundle, tmp_path: Path) -> None:
    image, path = pictures(tmp_path, 1), tmp_path / "labels.txt"
    assert wrong(opened, image, labels=path) == f"labels {path} does not exist"
    path.write_text("a\nb\n")
    assert wrong(opened, image, labels=path) == f"labels {path} has 2 lines, the network 7 classes"
    path.write_bytes(b"\xff\xfe")
    assert wrong(opened, image, labels=path).startswith(f"labels {path} cannot be read")


def test_an_output_that_cannot_be_written(opened: bundle.Bundle, tmp_path: Path) -> None:
    image = pictures(tmp_path, 1)
    assert wrong(opened, image, output=Path("/dev/full")).startswith("no space left on the disk of /dev")


def test_a_network_that_takes_no_pictures(opened: bundle.Bundle, tmp_path: Path) -> None:
    other = bundle.Bundle(opened.source, opened.folder, {**opened.manifest, "preprocessing": None})
    with pytest.raises(UsageError, match="does not take pictures"):
        run(other, pictures(tmp_path, 1), runtime="onnxruntime")


def test_a_folder_is_a_line_a_picture(tiny_bundle: Path, tmp_path: Path, capfd) -> None:
    paths = pictures(tmp_path, 5)
    argv = ["run", str(tiny_bundle), "--image", str(tmp_path), "--runtime", "onnxruntime"]
    assert cli.main([*argv, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["inputs"] == [str(path) for path in paths]
    assert [len(top) for top in document["top"]] == [5] * 5
    assert document["outputs"][0]["shape"] == [5, 7]
    assert cli.main(argv) == 0
    lines = capfd.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith(str(tmp_path))]
    assert [row.split()[0] for row in rows] == document["inputs"]
    assert [int(row.split()[1]) for row in rows] == [top[0]["index"] for top in document["top"]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused_unless_allowed(
    opened: bundle.Bundle, tmp_path: Path, bad: float
) -> None:
    x = np.zeros((3, 3, 8, 8), np.float32)
    x[2, 1, 4, 4] = bad
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DeployError, match="row 2 holds NaN or infinity; --allow-nan computes with them"):
        run(opened, tmp_path / "x.npy", runtime="onnxruntime")
    assert run(opened, tmp_path / "x.npy", runtime="onnxruntime", allow_nan=True)["outputs"][0]["shape"] == [3, 7]
