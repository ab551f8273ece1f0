"""Labelled pictures to train on: scikit-learn's handwritten digits, MNIST-style IDX files, or a folder of images a
class.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from inception_deploy.errors import DeployError
from inception_deploy.runtime.preprocessing import Preprocessing, load, prepare

# Every split is a seeded shuffle of the whole, cut: the same pictures are held out in every run and on every machine.
SPLIT_SEED = 2016
HELD_OUT = 0.2
_SUFFIXES = (".png", ".jpg", ".jpeg")
# The four files of MNIST and Fashion-MNIST, each as it is or with .gz.
_IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class Pictures:
    """Pictures and their classes.

    Attributes:
        sources: uint8 arrays (H, W), or the files of the pictures.
        labels: int64 (N,), the class number of each.
        classes: the names of the classes.
        title: what they are, in a few words.
    """

    sources: list[NDArray[np.uint8]] | list[Path]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    title: str

    def take(self, indices: NDArray[np.int64]) -> Pictures:
        """Those at `indices` only."""
        chosen = [self.sources[index] for index in indices]
        return Pictures(chosen, self.labels[indices], self.classes, self.title)  # type: ignore[arg-type]

    def split(self) -> tuple[Pictures, Pictures]:
        """(to train on, held out)."""
        order = np.random.default_rng(SPLIT_SEED).permutation(len(self.labels))
        count = math.ceil(len(order) * HELD_OUT)
        return self.take(order[count:]), self.take(order[:count])


class Prepared(Dataset[tuple[Tensor, int]]):
    """`Pictures` as a network takes them: ``((C, H, W) float32, class number)``, prepared when asked for."""

    def __init__(self, pictures: Pictures, preprocessing: Preprocessing) -> None:
        self.pictures = pictures
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        source = self.pictures.sources[index]
        if isinstance(source, Path):
            prepared = load([source], self.preprocessing)[0]
        else:
            prepared = prepare(source, self.preprocessing)
        return torch.from_numpy(prepared), int(self.pictures.labels[index])


def digits() -> tuple[Pictures, Pictures]:
    """scikit-learn's 1797 real handwritten digits, 8 x 8, white on black: (to train on, held out).

    Raises:
        DeployError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DeployError(
            "the handwritten digits come with scikit-learn, which is not installed: pip install scikit-learn",
            kind="data",
            got=str(error),
        ) from error
    data = load_digits()
    grey = (data.images * (255 / 16)).round().astype(np.uint8)
    names = tuple(map(str, range(10)))
    return Pictures(list(grey), data.target.astype(np.int64), names, "handwritten digits (scikit-learn)").split()


def read(folder: Path) -> tuple[Pictures, Pictures]:
    """The user's pictures: a folder of MNIST's four IDX files, or with one folder of PNG or JPEG files for each class.

    Returns:
        (to train on, held out): the IDX files' own split, or a fifth of the folder's pictures held out.

    Raises:
        DeployError: neither of these, or damaged files.
    """
    if not folder.is_dir():
        raise DeployError(f"{folder} is not a folder", kind="data", got=str(folder), allowed="a folder of pictures")
    if any(_idx_file(folder, name) for name in _IDX["train"]):
        return _read_idx(folder, "train"), _read_idx(folder, "test")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    found = [
        (path, number)
        for number, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in _SUFFIXES
    ]
    if len({number for _, number in found}) < 2:
        raise DeployError(
            f"{folder} has pictures of fewer than two classes",
            kind="data",
            got=f"{len(found)} pictures in {len(classes)} folders",
            allowed="one folder of .png or .jpg files for each class, or MNIST's four IDX files",
        )
    labels = np.array([number for _, number in found], dtype=np.int64)
    return Pictures([path for path, _ in found], labels, tuple(classes), f"pictures of {folder.name}").split()


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_idx(folder: Path, part: str) -> Pictures:
    arrays = []
    for name, dimensions in zip(_IDX[part], (3, 1), strict=True):
        path = _idx_file(folder, name)
        if path is None:
            raise DeployError(f"{folder} lacks {name}", kind="data", got=str(folder), allowed=f"{name} or {name}.gz")
        arrays.append(read_idx(path, dimensions))
    grey, labels = arrays
    if len(grey) != len(labels):
        raise DeployError(f"{folder}: {len(grey)} pictures but {len(labels)} labels", kind="data", got=part)
    classes = tuple(map(str, range(int(labels.max()) + 1)))
    return Pictures(list(grey), labels.astype(np.int64), classes, f"{folder.name} (IDX)")


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """One IDX file of bytes, gzipped or not: two zero bytes, 8 for uint8, the number of dimensions, their sizes as
    big-endian int32, the data.

    Raises:
        DeployError: it is not that, or cut short.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise DeployError(f"{path} cannot be read: {error}", kind="data", got=str(error)) from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise DeployError(
            f"{path} is not an IDX file of bytes in {dimensions} dimension(s)",
            kind="data",
            got=content[:4].hex(),
            allowed=f"00 00 08 0{dimensions}",
        )
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    if math.prod(shape) == 0 or len(content) != header + math.prod(shape):
        raise DeployError(
            f"{path} is cut short or too long for its shape {shape}", kind="data", got=len(content) - header
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
