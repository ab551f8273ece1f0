"""Pictures in C are those of Pillow and numpy, to the last bit; damaged ones are refused."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inception_deploy.runtime.preprocessing import INTERPOLATIONS, Preprocessing, as_dict, prepare
from inception_deploy.targets import link

from .test_runtime_c import COMPILERS, HERE, STRICT, needs_compiler, run, works

pytestmark = needs_compiler

Prepare = Callable[[Any, Sequence[Path]], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepare")
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags = sanitize if works(COMPILERS[0], "address,undefined", folder) else []
    sources = [HERE / "c" / "prepare.c", link.CSRC / "picture.c", link.CSRC / "json.c"]
    run(COMPILERS[0], *STRICT, "-O1", "-g", *flags, "-I", link.CSRC, *sources, "-lm", "-o", folder / "prepare")
    return folder / "prepare"


@pytest.fixture
def prepared(program: Path, tmp_path: Path) -> Prepare:
    """Run the program with a manifest (a document, or a text); its output is `out`."""

    def call(manifest: Any, pictures: Sequence[Path]) -> subprocess.CompletedProcess[str]:
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        (tmp_path / "manifest.json").write_text(text)
        command = [program, tmp_path / "manifest.json", tmp_path / "out", *pictures]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode in (0, 1), done.stderr
        assert not done.stderr
        return done

    return call


def how(size: tuple[int, int] = (9, 12), **changes: Any) -> Preprocessing:
    usual: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "resize": 14, "crop": size}
    return Preprocessing(**usual | changes)


WAYS = [
    *(how(interpolation=name) for name in INTERPOLATIONS),
    *(how(interpolation=name, resize=90, crop=(120, 31)) for name in INTERPOLATIONS),
    how(scale="1/127.5", mean=(1.0, 1.0, 1.0), std=(1.0, 1.0, 1.0), color="bgr", layout="nhwc"),
    how(scale="0.0078125", color="bgr"),
    how(scale="1", mean=(0.0,) * 3, std=(1.0,) * 3, dtype="uint8", layout="nhwc"),
    how(mean=(0.5,), std=(0.25,), resize=20, crop=(31, 17)),
]

SIZES = [(20, 14), (14, 20), (64, 41), (37, 200), (1, 3), (300, 299)]


@pytest.mark.parametrize("way", WAYS, ids=range(len(WAYS)))
def test_every_bit_is_pillows(way: Preprocessing, prepared: Prepare, tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    pictures, expected = [], []
    for number, (width, height) in enumerate(SIZES):
        for channels in (1, 3):
            pixels = draw.integers(0, 256, (height, width, channels)).astype(np.uint8)
            picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
            path = tmp_path / f"{number}.{'pgm' if channels == 1 else 'ppm'}"
            picture.save(path)
            pictures.append(path)
            expected.append(prepare(picture, way))
    done = prepared({"preprocessing": as_dict(way)}, pictures)
    assert set(done.stdout.split("\n")) == {"good", ""}
    got = np.fromfile(tmp_path / "out", expected[0].dtype).reshape(len(pictures), *expected[0].shape)
    np.testing.assert_array_equal(got, np.stack(expected))


def test_damaged_pictures_are_refused(prepared: Prepare, tmp_path: Path) -> None:
    wrong = {
        b"P6\n2 2\n255\n" + bytes(11): "is cut short",
        b"P6\n2 2\n65535\n" + bytes(24): "does not have 8 bits a channel",
        b"P6\n99999 99999\n255\n": "has no pixels, or too many",
        b"P6\n0 5\n255\n": "has no pixels, or too many",
        b"P5\n-1 5\n255\n": "has a damaged header",
        b"P5\n5": "has a damaged header",
        b"P3\n1 1\n255\n0": "is no picture",
        b"": "is no picture",
        b"P5 # by hand\n# twice\n1 1 255\n7": "good",
    }
    paths = []
    for number, content in enumerate(wrong):
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(content)
    said = prepared({"preprocessing": as_dict(how())}, paths).stdout.splitlines()
    for text, expected in zip(said, wrong.values(), strict=True):
        assert text.startswith(expected)


def test_pictures_and_manifests_changed_at_random(prepared: Prepare, tmp_path: Path) -> None:
    """Each is prepared or refused; the sanitizers see the rest."""
    draw = random.Random(5)
    good = b"P6\n6 5\n255\n" + bytes(range(90))
    paths = []
    for number in range(200):
        content = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(14 if draw.random() < 0.8 else len(content))] = draw.randrange(256)
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(
            bytes(content[: draw.randint(0, len(content))]) if draw.random() < 0.3 else bytes(content)
        )
    document = {"preprocessing": as_dict(how())}
    assert len(prepared(document, paths).stdout.splitlines()) == len(paths)
    whole = json.dumps(document)
    for _ in range(60):
        text = list(whole)
        for _ in range(draw.randint(1, 3)):
            text[draw.randrange(len(text))] = draw.choice('"{}[],:\\0123456789-.eE x')
        prepared("".join(text)[: draw.choice((len(text), draw.randrange(len(text))))], paths[:2])
    for text in (
        "",
        "[" * 100_000,
        '{"preprocessing": ' * 3,
        '{"preprocessing": 1}',
        '{"a": "\\',
        '{"a": "b',
        "nul",
        "-",
    ):
        assert prepared(text, paths[:1]).returncode == 1
