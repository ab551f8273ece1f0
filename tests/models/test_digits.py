"""The shipped digits network, and the example that made it."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inception_deploy import models
from inception_deploy.errors import DeployError
from inception_deploy.models import trained
from inception_deploy.models.train import accuracy
from inception_deploy.verify import bound

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DATA = EXAMPLES / "data"


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    import pictures

    return pictures


@pytest.fixture
def train_digits(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    import train_digits

    return train_digits


def test_the_shipped_network_reads_digits_it_never_saw(pictures: Any) -> None:
    module, info = models.load_trained(DATA / "digits_irv2.safetensors")
    with np.load(DATA / "digits_heldout.npz", allow_pickle=False) as file:
        held_out = pictures.Pictures(list(file["images"]), file["labels"], info.classes, "held out")
    assert len(held_out.labels) == 360
    assert np.bincount(held_out.labels).min() >= 25
    top1 = accuracy(module, pictures.Prepared(held_out, info.preprocessing))
    assert top1 >= 0.97
    assert top1 == pytest.approx(info.accuracy, abs=bound("accuracy"))


@pytest.mark.parametrize("path", sorted(DATA.glob("digits_*.safetensors")), ids=lambda path: path.stem)
def test_every_shipped_network_reads_digits(pictures: Any, path: Path) -> None:
    module, info = models.load_trained(path)
    with np.load(DATA / "digits_heldout.npz", allow_pickle=False) as file:
        held_out = pictures.Pictures(list(file["images"][:60]), file["labels"][:60], info.classes, "held out")
    assert info.accuracy >= 0.97
    assert accuracy(module, pictures.Prepared(held_out, info.preprocessing)) >= 0.96


def test_the_shipped_data_are_small() -> None:
    assert len(list(DATA.glob("digits_*.safetensors"))) >= 9
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 10_000_000


def test_the_shipped_file_is_small_and_says_what_it_is() -> None:
    path = DATA / "digits_irv2.safetensors"
    assert path.stat().st_size < 3_000_000
    info = trained.read_info(path)
    assert info.name == "inception_resnet_v2"
    assert info.classes == tuple("0123456789")


def test_held_out_digits_are_not_trained_on(pictures: Any) -> None:
    pytest.importorskip("sklearn")
    training, held_out = pictures.digits()
    assert (len(training.labels), len(held_out.labels)) == (1437, 360)
    with np.load(DATA / "digits_heldout.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(np.stack(held_out.sources), file["images"])
        np.testing.assert_array_equal(held_out.labels, file["labels"])


def test_the_example_trains_and_saves(tmp_path: Path, train_digits: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    output, held_out = tmp_path / "net.safetensors", tmp_path / "held.npz"
    wishes = ["--model", "resnet18", "--width", "0.125", "--input-size", "32", "--epochs", "1", "--limit", "64"]
    assert train_digits.main([*wishes, "-o", str(output), "--held-out", str(held_out)]) == 0
    assert "held-out top-1" in capsys.readouterr().out
    module, info = models.load_trained(output)
    assert module.input_shape == (1, 32, 32)
    assert info.accuracy is not None
    assert np.load(held_out)["images"].shape == (360, 8, 8)


def write_idx(path: Path, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    content = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for part, count, suffix in (("train", 24, ".gz"), ("t10k", 6, "")):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", random.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", (np.arange(count) % 3).astype(np.uint8))
    return tmp_path


def test_the_example_is_a_script_that_trains_on_idx_files(idx_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "lenet.safetensors"
    wishes = f"--model lenet5 --data {idx_folder} --epochs 1 --batch 8 -o {output}".split()
    command = [sys.executable, str(EXAMPLES / "train_digits.py"), *wishes]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert models.load_trained(output)[1].classes == ("0", "1", "2")


def test_a_folder_of_pictures(tmp_path: Path, pictures: Any) -> None:
    for name, value in (("dark", 10), ("light", 240)):
        (tmp_path / name).mkdir()
        for index in range(5):
            Image.new("RGB", (20, 10 + index), (value, value, value)).save(tmp_path / name / f"{index}.png")
    training, held_out = pictures.read(tmp_path)
    assert training.classes == ("dark", "light")
    assert (len(training.labels), len(held_out.labels)) == (8, 2)
    prepared = pictures.Prepared(training, models.Preprocessing((0.0,), (1.0,), 8, (8, 8)))
    x, label = prepared[0]
    assert x.shape == (1, 8, 8)
    assert (float(x.mean()) > 0.5) == (label == 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"\0\0\x08\x01" + bytes(4), "is not an IDX file of bytes in 3 dimension"),
        ("train-images-idx3-ubyte", bytes((0, 0, 8, 3)) + b"\0\0\0\x02" * 3 + b"x", "cut short or too long"),
        ("train-images-idx3-ubyte", bytes((0, 0, 8, 3)) + b"\xff" * 12, "cut short or too long"),
        ("train-images-idx3-ubyte.gz", b"not gzip", "cannot be read"),
    ],
)
def test_damaged_idx_files(idx_folder: Path, pictures: Any, name: str, content: bytes, message: str) -> None:
    for existing in idx_folder.glob("train-images-*"):
        existing.unlink()
    (idx_folder / name).write_bytes(content)
    with pytest.raises(DeployError, match=message):
        pictures.read(idx_folder)


def test_folders_without_pictures(tmp_path: Path, pictures: Any) -> None:
    with pytest.raises(DeployError, match="fewer than two classes"):
        pictures.read(tmp_path)
    with pytest.raises(DeployError, match="is not a folder"):
        pictures.read(tmp_path / "absent")


def test_the_example_reports_errors_in_one_line(
    tmp_path: Path, train_digits: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_digits.main(["--data", str(tmp_path / "absent")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'absent'} is not a folder\n"
    assert train_digits.main(["--model", "inception_v9"]) == 2
    assert "did you mean" in capsys.readouterr().err
