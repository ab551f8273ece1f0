"""What a network may be given: pictures and tensors in every form are told apart, cut into batches and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_deploy.errors import DeployError, UsageError
from inception_deploy.runtime.bundle import Bundle
from inception_deploy.runtime.model import Model
from inception_deploy.runtime.preprocessing import from_dict, prepare
from inception_deploy.verify import bound

from ..conftest import CLASSES, SIZE, tiny_manifest

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (12, 10, 3), np.uint8)
MATRIX = RANDOM.standard_normal((3 * SIZE * SIZE, CLASSES)).astype(np.float32)


def sums(x: np.ndarray) -> list[np.ndarray]:
    """A network: one matrix. Asks for its exact shape, as a compiled library does."""
    assert (x.shape, x.dtype) == ((2, 3, SIZE, SIZE), np.float32)
    return [x.reshape(2, -1) @ MATRIX]


def model(**options) -> Model:
    return Model(Bundle(Path("tiny"), Path("tiny"), tiny_manifest()), sums, **options)


def logits(*pictures: np.ndarray) -> np.ndarray:
    how = from_dict(tiny_manifest()["preprocessing"])
    return np.stack([prepare(picture, how) for picture in pictures]).reshape(len(pictures), -1) @ MATRIX


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def same(given: object, *pictures: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(model()(given)), logits(*pictures), rtol=bound("kernels"))


def test_one_picture_in_every_form(photo: Path) -> None:
    for given in (photo, str(photo), Image.open(photo), PIXELS, Image.fromarray(PIXELS).convert("RGBA")):
        same(given, PIXELS)
        assert [guess.index for guess in model()(given).top(2)] == np.argsort(-logits(PIXELS)[0])[:2].tolist()
    grey = PIXELS[..., 0]
    same(grey, grey)
    same(grey[..., None], grey)


def test_several_pictures_in_every_form(photo: Path, tmp_path: Path) -> None:
    turned = PIXELS[::-1].copy()
    same([photo, Image.fromarray(turned), PIXELS], PIXELS, turned, PIXELS)
    same(np.stack([PIXELS, turned, turned]), PIXELS, turned, turned)
    same(np.stack([PIXELS[..., 0], turned[..., 0]]), PIXELS[..., 0], turned[..., 0])
    Image.fromarray(turned).save(tmp_path / "b.png")
    (tmp_path / "notes.txt").write_text("no picture")
    same(tmp_path, PIXELS, turned)
    result = model()(tmp_path)
    assert result.names == (str(photo), str(tmp_path / "b.png"))
    assert [len(top) for top in result.top(3)] == [3, 3]
    assert [len(top) for top in model()([photo]).top(3)] == [3]  # a list is a list


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_a_tensor_of_any_number_of_rows(rows: int, tmp_path: Path) -> None:
    x = RANDOM.standard_normal((rows, 3, SIZE, SIZE)).astype(np.float32)
    want = x.reshape(rows, -1) @ MATRIX
    np.save(tmp_path / "x.npy", x)
    for given in (x, tmp_path / "x.npy", np.asfortranarray(x)):
        result = model()(given)
        np.testing.assert_allclose(result.outputs["logits"], want, rtol=bound("kernels"))
        assert result.names == tuple(f"row {index}" for index in range(rows))
        assert len(result.top()) == rows


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((1, 3, 8, 8)), "the array is float64 [1, 3, 8, 8], the network takes float32 ['N', 3, 8, 8]"),
        (np.zeros((3, 8, 8), np.float32), "the array is float32 [3, 8, 8], the network takes float32 ['N', 3, 8, 8]"),
        (np.zeros((0, 3, 8, 8), np.float32), "the array is float32 [0, 3, 8, 8]"),
        (np.zeros((2, 3, 8, 8), np.uint8), "the array is uint8 [2, 3, 8, 8]"),
        ([], "there is no picture in the list"),
        ([PIXELS, 3.5], "picture 1 is float"),
        ([np.zeros((8, 8, 3))], "picture 0 is float64 [8, 8, 3]"),
        (None, "picture is NoneType"),
        ("missing.jpg", "image missing.jpg does not exist"),
        ("missing.npy", "input missing.npy does not exist"),
    ],
)
def test_what_does_not_fit(given: object, message: str) -> None:
    with pytest.raises(DeployError) as caught:
        model()(given)
    assert message in caught.value.message
    assert caught.value.kind in ("input", "image")


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="holds no picture") as caught:
        model()(tmp_path)
    assert caught.value.kind == "image"


def test_a_network_that_takes_no_pictures() -> None:
    other = Model(Bundle(Path("t"), Path("t"), tiny_manifest() | {"preprocessing": None}), sums)
    with pytest.raises(
        UsageError, match=r"bundle t does not take pictures: its input .* is none of 1 or 3 channels; give"
    ):
        other(PIXELS)
    assert other(np.zeros((1, 3, SIZE, SIZE), np.float32)).arrays[0].shape == (1, CLASSES)


def test_labels_and_scores(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join("abcdefg"))
    for labels in (tmp_path / "labels.txt", list("abcdefg")):
        top = model(labels=labels)(PIXELS).top(7)
        assert all(guess.label == "abcdefg"[guess.index] for guess in top)
        assert sum(guess.score for guess in top) == pytest.approx(1, abs=bound("kernels"))
    assert model()(PIXELS).top(1)[0].label.isdecimal()
    with pytest.raises(DeployError, match="the list of labels has 2 lines, the network 7 classes"):
        model(labels=["a", "b"])


def test_what_it_says_of_itself() -> None:
    assert repr(model()) == "Model(tiny for cpu in fp32: float32 (2, 3, 8, 8) -> (2, 7))"
    assert repr(model()(PIXELS)) == "Result(logits: float32 (1, 7))"


def test_a_manifest_that_says_another_shape_is_refused() -> None:
    manifest = tiny_manifest()
    wrong = {**manifest, "outputs": [{**manifest["outputs"][0], "shape": [2, CLASSES - 3]}]}
    with pytest.raises(
        DeployError, match=r"the network gives \[\(2, 7\)\], and the bundle's manifest says \[\(2, 4\)\]"
    ) as e:
        Model(Bundle(Path("t"), Path("t"), wrong), sums)(PIXELS)
    assert e.value.kind == "bundle"
