"""Pictures become exactly what the manifest says, and bad files become one clear error."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from inception_deploy.errors import DeployError
from inception_deploy.runtime.preprocessing import Preprocessing, as_dict, from_dict, load
from inception_deploy.verify import bound

PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resize=8, crop=(8, 8), interpolation="bilinear")


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def test_values_and_layout(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 1] = (255, 51, 0)
    x = load([save(tmp_path / "a.png", pixels)], PLAIN)
    assert x.shape == (1, 3, 8, 8)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    np.testing.assert_allclose(x[0, :, 0, 1], [1.0, -0.6, -1.0], rtol=bound("rounding"))
    np.testing.assert_allclose(x[0, :, 1, 0], -1.0)


def test_the_short_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    pixels = np.zeros((16, 64, 3), np.uint8)
    pixels[:, 28:36] = 255  # the middle 4 columns after halving
    how = Preprocessing((0.0,) * 3, (1.0,) * 3, resize=8, crop=(4, 4), interpolation="nearest")
    np.testing.assert_array_equal(load([save(tmp_path / "a.png", pixels)], how), 1.0)


def test_it_is_what_torchvisions_recipe_gives(tmp_path: Path) -> None:
    """The same steps written with PIL alone: resize the short side, crop the centre, scale, normalise."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    how = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize=40, crop=(32, 32), interpolation="bicubic")
    got = load([save(tmp_path / "a.png", pixels)], how)[0]
    small = Image.fromarray(pixels).resize((56, 40), Image.Resampling.BICUBIC).crop((12, 4, 44, 36))
    want = (np.asarray(small, np.float64) / 255 - how.mean) / how.std
    np.testing.assert_allclose(got, want.transpose(2, 0, 1), atol=bound("kernels"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_picture_is_read(tmp_path: Path, mode: str, channels: int) -> None:
    white = np.full((8, 8), 65535, np.uint16) if mode == "I;16" else np.full((8, 8, 3), 255, np.uint8)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture = Image.fromarray(white)
    (picture if mode == "I;16" else picture.convert(mode)).save(path)
    np.testing.assert_allclose(load([path], PLAIN.channels(channels)), 1.0, atol=bound("resized"))


def test_a_turned_photo_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    x = load([save(tmp_path / "a.png", pixels, exif=exif)], PLAIN)
    assert x[0, 0, :, -1].min() == 1.0
    assert x[0, 0, :, 0].max() == -1.0


def refused(path: Path) -> str:
    with pytest.raises(DeployError) as caught:
        load([path], PLAIN)
    assert caught.value.kind == "image"
    assert caught.value.message.startswith(f"image {path} ")
    return caught.value.message.removeprefix(f"image {path} ")


def test_what_is_no_picture(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.jpg") == "does not exist"
    assert refused(tmp_path).startswith("cannot be read: ")
    (tmp_path / "a.jpg").write_text("not a picture")
    assert refused(tmp_path / "a.jpg") == "is no picture"
    (tmp_path / "empty.jpg").touch()
    assert refused(tmp_path / "empty.jpg") == "is empty"
    save(tmp_path / "a.gif", np.zeros((8, 8, 3), np.uint8))
    assert refused(tmp_path / "a.gif") == "is a GIF picture, which is not taken"


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp"])
def test_every_format_gives_the_same_pixels(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8)
    options = {"lossless": True} if name.endswith("webp") else {}
    how = Preprocessing((0.0,) * 3, (1.0,) * 3, resize=12, crop=(16, 12), scale="1", layout="nhwc", dtype="uint8")
    np.testing.assert_array_equal(load([save(tmp_path / name, pixels, **options)], how)[0], pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_truncated_picture(tmp_path: Path, name: str, keep: float) -> None:
    path = save(tmp_path / name, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    assert refused(path).startswith(("cannot be read: ", "is no picture"))


def test_a_picture_that_claims_to_be_huge(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1_000_000, 1_000_000, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    assert "pixels" in refused(tmp_path / "a.png")


def test_the_manifest_holds_it_and_gives_it_back() -> None:
    assert from_dict(as_dict(PLAIN)) == PLAIN


@pytest.mark.parametrize(
    "change",
    [{"mean": None}, {"std": [0.0, 1.0, 1.0]}, {"std": [1.0]}, {"crop": [0, 8]}, {"crop": 8}, {"resize": -1}, {"interpolation": "area"},
     {"scale": "0"}, {"scale": "1/0"}, {"scale": "1e999999999"}, {"color": "bgrx"}, {"color": "gray"}, {"layout": "chwn"}, {"dtype": "int8"},
     {"dtype": "uint8"}],
)  # fmt: skip
def test_a_manifest_with_other_fields_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(DeployError, match="preprocessing") as caught:
        from_dict(as_dict(PLAIN) | change)
    assert caught.value.kind == "bundle"


def test_a_manifest_of_an_older_version_means_what_it_meant() -> None:
    old = {name: as_dict(PLAIN)[name] for name in ("mean", "std", "resize", "crop", "interpolation")}
    assert from_dict(old) == PLAIN
    grey = {**old, "mean": [0.5], "std": [0.5]}
    assert from_dict(grey).color == "gray"


HOWS = [
    Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize=40, crop=(32, 32)),
    Preprocessing((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), 36, (30, 34), "bicubic", scale="1", color="bgr"),
    Preprocessing((1.0,) * 3, (1.0,) * 3, 40, (32, 32), "lanczos", scale="1/127.5", layout="nhwc"),
    Preprocessing((0.1307,), (0.3081,), 20, (28, 28), "nearest"),
    Preprocessing((0.0,) * 3, (1.0,) * 3, 32, (32, 32), scale="1", color="bgr", layout="nhwc", dtype="uint8"),
]


def by_the_manifest(path: Path, how: dict[str, Any]) -> np.ndarray:
    """What somebody writes who has the manifest, numpy and Pillow, and nothing of ours."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("L" if how["color"] == "gray" else "RGB")
    short = min(picture.size)
    size = [max(1, side * how["resize"] // short) for side in picture.size]
    picture = picture.resize(size, getattr(Image.Resampling, how["interpolation"].upper()))
    rows, columns = how["crop"]
    left, top = round((size[0] - columns) / 2), round((size[1] - rows) / 2)
    picture = picture.crop((left, top, left + columns, top + rows))
    x = np.asarray(picture).reshape(rows, columns, -1)
    if how["color"] == "bgr":
        x = x[:, :, ::-1]
    if how["dtype"] == "float32":
        above, _, below = how["scale"].partition("/")
        x = x * (float(above) / float(below or 1))
        x = (x - how["mean"]) / how["std"]
    return x.transpose(2, 0, 1) if how["layout"] == "nchw" else x


@pytest.mark.parametrize("how", HOWS, ids=str)
@pytest.mark.parametrize("shape", [(50, 70), (97, 41), (20, 300)])
def test_the_manifest_alone_tells_how_to_make_the_tensor(tmp_path: Path, how: Preprocessing, shape: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", pixels, exif=exif)
    manifest = json.loads(json.dumps(as_dict(how)))
    got, want = load([path], from_dict(manifest))[0], by_the_manifest(path, manifest)
    assert (got.dtype, got.shape) == (np.dtype(how.dtype), want.shape)
    # The reader computed in float64: a few roundings to float32, of numbers as large as the largest.
    np.testing.assert_allclose(got, want, rtol=0, atol=4 * np.spacing(np.float32(np.abs(want).max())))


def test_the_steps_name_every_choice() -> None:
    steps = " ".join(HOWS[1].steps())
    for word in ("EXIF", "B, G, R", "shorter side is 36", "floor", "bicubic", "antialias", "crop 30 rows and 34 columns",
                 "x = pixel;", "(x - mean[c]) / std[c]", "one plane a channel", "b, g, r"):  # fmt: skip
        assert word in steps, word
    assert "pixel * 2 / 255" in " ".join(HOWS[2].steps())
    assert "pixel / 255" in " ".join(HOWS[0].steps())
    assert "grey: (19595 R" in " ".join(HOWS[3].steps())
