"""Sources of labelled pictures: folders, tables, archives, as people have them, and as they should not be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_deploy.errors import DeployError
from inception_deploy.reports import labelled
from inception_deploy.runtime.given import Input
from inception_deploy.runtime.preprocessing import Preprocessing, prepare

HOW = Preprocessing((0.5,) * 3, (0.5,) * 3, resize=8, crop=(8, 8))
TAKEN = Input("b", (2, 3, 8, 8), "float32", HOW)
LABELS = ["ant", "bee", "cow"]


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8)


def save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed)).save(path)
    return path


def test_a_folder_a_class_at_any_depth(tmp_path: Path) -> None:
    for index, name in enumerate(["cow/1.png", "ant/deep/2.PNG", "ant/1.png", "bee/x.png"]):
        save(tmp_path / name, index)
    (tmp_path / "ant" / "notes.txt").write_text("no picture")
    data = labelled.read(tmp_path, TAKEN, LABELS)
    assert data.names == ("ant/1.png", "ant/deep/2.PNG", "bee/x.png", "cow/1.png")
    assert data.classes.tolist() == [0, 0, 1, 2]
    assert data.by == "label"
    rows = [prepared() for prepared in data.rows()]
    np.testing.assert_array_equal(rows, [prepare(pixels(seed), HOW) for seed in (2, 1, 3, 0)])
    np.testing.assert_array_equal([prepared() for prepared in data.rows(2)], rows[2:])


def test_some_of_them_are_spread_over_the_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.stack([pixels(i) for i in range(12)]), labels=np.repeat([0, 1, 2], 4))
    data = labelled.read(tmp_path / "x.npz", TAKEN, LABELS)
    few = data.spread(6)
    assert few.classes.tolist() == [0, 0, 1, 1, 2, 2]
    assert few.names == ("[0]", "[2]", "[4]", "[6]", "[8]", "[10]")
    np.testing.assert_array_equal([row() for row in few.rows(4)], [prepare(pixels(i), HOW) for i in (8, 10)])
    assert few.fingerprint != data.fingerprint
    assert data.spread(99) is data.spread(None) is data


@pytest.mark.parametrize(
    "text",
    [
        "filename,label\na.png,cow\nsub/b.png,ant\n",
        "a.png,cow\nsub/b.png,ant\n",
        "a.png;2\nsub/b.png;0\n",
        '\ufeffid\tclass\tpath\r\n7\tcow\ta.png\r\n\r\n8\t" ant"\tsub/b.png\r\n',
    ],
)
def test_a_table(tmp_path: Path, text: str) -> None:
    save(tmp_path / "a.png", 1)
    save(tmp_path / "sub" / "b.png", 2)
    table = tmp_path / "labels.csv"
    table.write_text(text, newline="")
    elsewhere = tmp_path.parent / f"{tmp_path.name}.csv"
    elsewhere.write_text(text, newline="")
    found = [
        labelled.read(tmp_path, TAKEN, LABELS),
        labelled.read(table, TAKEN, LABELS),
        labelled.read(tmp_path, TAKEN, LABELS, table=elsewhere),
    ]
    for data in found:
        assert data.names == ("a.png", "sub/b.png")
        assert data.classes.tolist() == [2, 0]
        np.testing.assert_array_equal([row() for row in data.rows()], [prepare(pixels(i), HOW) for i in (1, 2)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_prepared_inputs_are_taken_as_they_are(tmp_path: Path, dtype) -> None:
    x = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(dtype)
    np.savez_compressed(tmp_path / "x.npz", x=x, y=np.array([0, 1, 2, 1, 0], np.uint8))
    data = labelled.read(tmp_path / "x.npz", TAKEN, LABELS)
    assert (data.classes.tolist(), data.by) == ([0, 1, 2, 1, 0], "labels")
    rows = np.stack([row() for row in data.rows()])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, x.astype(np.float32))


def wrong(path: Path, **options) -> str:
    with pytest.raises(DeployError) as caught:
        data = labelled.read(path, TAKEN, LABELS, **options)
        _ = [row() for row in data.rows()]
    assert caught.value.exit_code == 1
    assert caught.value.allowed is not None
    return caught.value.message


def test_folders_that_are_none(tmp_path: Path) -> None:
    assert wrong(tmp_path / "x") == f"{tmp_path / 'x'} does not exist"
    assert wrong(tmp_path) == f"{tmp_path} holds no picture"
    save(tmp_path / "ant" / "1.png")
    loose = save(tmp_path / "loose.png")
    assert wrong(tmp_path) == f"{loose} lies in no folder of a class, others do"
    loose.unlink()
    (tmp_path / "a.csv").write_text("a.png,cow\n")
    (tmp_path / "b.csv").write_text("")
    assert wrong(tmp_path) == f"{tmp_path} holds several tables, a.csv, b.csv; --csv says which"
    assert wrong(tmp_path / "ant" / "1.png").endswith("is neither a folder nor a .csv nor an .npz")
    no_pictures = Input("b", (2, 5), "float32", None)
    with pytest.raises(DeployError, match="the network takes none"):
        labelled.read(tmp_path, no_pictures, LABELS)


def test_tables_that_are_none(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    table = tmp_path / "t.csv"
    cases = {
        "": "is empty",
        "file,label\n": "names no picture",
        "a.png\n": "line 1 has no class: 'a.png'",
        "file,label\na.png,cow\nb.png,cow\n": f"line 3: there is no picture {tmp_path / 'b.png'}",
        "img,cls\na.png,cow\n": f"line 1: there is no picture {tmp_path / 'img'}; its columns are called img, cls",
        "a.png,horse\n": "the class names say no class of the network: 'horse' is no label",
    }
    for text, message in cases.items():
        table.write_text(text)
        assert message in wrong(table), text
    table.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in wrong(table)


def test_archives_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"PK\x05\x06 not a zip")
    assert "cannot be read" in wrong(path)
    x = np.zeros((4, 3, 8, 8), np.float32)
    cases = [
        ({"a": x, "b": x}, "has arrays ['a', 'b']"),
        ({"x": x, "y": np.zeros(3, np.int64)}, "array 'y' is int64 [3]"),
        ({"x": x, "y": np.zeros(4)}, "array 'y' is float64 [4]"),
        ({"x": x, "y": np.array([0, 1, 3, 0])}, "array 'y' holds 0 to 3, the network has 3 classes"),
        ({"x": x[:, :2], "y": np.zeros(4, np.int64)}, "array 'x' is float32 [4, 2, 8, 8]"),
        ({"x": x[:0], "y": np.zeros(0, np.int64)}, "array 'x' is empty"),
        ({"x": x + np.nan, "y": np.zeros(4, np.int64)}, "array 'x' holds NaN or infinity"),
        ({"images": np.zeros((4, 8, 8, 5), np.uint8)}, "array 'images' is uint8 [4, 8, 8, 5]"),
    ]
    for content, message in cases:
        np.savez(path, **content)
        assert message in wrong(path), message
