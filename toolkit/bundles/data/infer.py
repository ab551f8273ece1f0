"""Run this bundle with numpy, and with Pillow where pictures come; no other package, and nothing is installed.

    python3 infer.py ../photo.jpg ../other.png       # the best classes of each picture
    python3 infer.py ../input.npy -o ../output.npy   # a prepared input; the first output

From a program: `from infer import Network, prepare`, and `Network()(x)` gives the outputs for any number of rows.
SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


class Network:
    """The compiled network; `inputs`, `outputs`: (name, shape, dtype) each; `larger`: its plans for more images."""

    def __init__(self, folder: str | Path = HERE, threads: int = 0, plan: int = 0) -> None:
        manifest = json.loads(Path(folder, "manifest.json").read_text("utf-8"))
        plans = [manifest, *manifest.get("plans", [])]
        sides = [plans[plan][side] for side in ("inputs", "outputs")]
        self.inputs, self.outputs = ([(p["name"], tuple(p["shape"]), p["dtype"]) for p in side] for side in sides)
        self.larger = [] if plan else [Network(folder, threads, number) for number in range(1, len(plans))]
        files = Path(folder, f"model-{platform.machine()}.so"), Path(folder, "model.so")  # a board's simulator first
        file = next(path for path in files if path.exists())
        self._library = library = ctypes.CDLL(str(file.resolve()))
        library.id_error.restype = ctypes.c_char_p
        self._handle = ctypes.c_void_p()
        weights, handle = bytes(Path(folder, "weights.bin")), ctypes.byref(self._handle)
        self._check(library.id_open_plan(plan, weights, ctypes.c_uint64(0), threads, handle))  # threads 0: one a core

    def run(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """One inference: an array an input, of exactly its shape and type."""
        for array, (name, shape, dtype) in zip(arrays, self.inputs, strict=True):
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"input {name} is {dtype} {shape}, not {array.dtype} {array.shape}")
        given = [np.ascontiguousarray(array) for array in arrays]
        results = [np.empty(shape, dtype) for _, shape, dtype in self.outputs]
        ins, outs = ((ctypes.c_void_p * len(side))(*(a.ctypes.data for a in side)) for side in (given, results))
        self._check(self._library.id_run(self._handle, ins, outs))
        return results

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        """The outputs for any number of rows: by the largest plan that they fill; the smallest one is filled up."""
        parts, at, size = [], 0, self.inputs[0][1][0]
        for plan in (*self.larger[::-1], self):
            rows = plan.inputs[0][1][0]
            while at < len(x) and (rows <= len(x) - at or plan is self):
                parts.append(plan.run(x[np.minimum(np.arange(at, at + rows), len(x) - 1)]))
                at += rows
        whole = [np.concatenate([np.atleast_1d(array) for array in arrays]) for arrays in zip(*parts, strict=True)]
        return [y[: len(x)] if port[1][:1] == (size,) else y for y, port in zip(whole, self.outputs, strict=True)]

    def _check(self, code: int) -> None:
        if code:
            raise RuntimeError(self._library.id_error(code).decode())


def prepare(path: str | Path) -> np.ndarray:
    """A picture as a row of the input, by the steps of preprocessing.json."""
    from PIL import Image, ImageOps

    how = json.loads((HERE / "preprocessing.json").read_text("utf-8"))
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
    if picture.mode.startswith("I"):  # 16 bits
        picture = picture.convert("I").point(lambda value: value / 257).convert("L")
    picture = picture.convert("RGB" if len(how["mean"]) == 3 else "L")
    width, height = (max(1, int(side * how["resize"] / min(picture.size))) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling[how["interpolation"].upper()])
    rows, columns = how["crop"]
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    x = np.asarray(picture.crop((left, top, left + columns, top + rows)))
    x = x.reshape(rows, columns, -1)[..., :: -1 if how["color"] == "bgr" else 1]
    if how["dtype"] == "float32":
        above, _, below = how["scale"].partition("/")
        scale = Fraction(above) / Fraction(below or 1)
        x = x.astype(np.float32) * np.float32(scale.numerator) / np.float32(scale.denominator)
        x = (x - np.asarray(how["mean"], np.float32)) / np.asarray(how["std"], np.float32)
    return np.ascontiguousarray(x.transpose(2, 0, 1) if how["layout"] == "nchw" else x)


def main() -> None:
    """Run what the command line names; print the best classes, or write the first output."""
    parser = argparse.ArgumentParser(description="run this bundle")
    parser.add_argument("given", nargs="+", help="pictures, or one .npy of the network's input, already prepared")
    parser.add_argument("-o", "--output", help="write the first output there, as .npy")
    parser.add_argument("--top", type=int, default=5, help="how many classes to name (default: 5)")
    options = parser.parse_args()
    tensor = options.given[0].endswith(".npy")
    if not tensor and not (HERE / "preprocessing.json").exists():
        sys.exit("this network takes no pictures: give a .npy of its input")
    y = Network()(np.load(options.given[0]) if tensor else np.stack([prepare(path) for path in options.given]))[0]
    if options.output:
        np.save(options.output, y.astype(np.float32, copy=False))
    elif y.ndim != 2:
        sys.exit(f"the first output is {y.dtype} {y.shape}, no classes: -o writes it")
    labels = HERE / "labels.txt"
    names = labels.read_text("utf-8").splitlines() if labels.exists() else [str(index) for index in range(y.shape[-1])]
    kind = json.loads((HERE / "manifest.json").read_text("utf-8"))["outputs"][0].get("kind")
    for index, row in enumerate(y.astype(np.float64) if y.ndim == 2 else ()):
        scores = row if kind == "probabilities" else np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        print(f"row {index}" if tensor else options.given[index])
        for best in np.argsort(-row, kind="stable")[: options.top]:
            print(f"  {best:5} {scores[best]:.6f} {names[best]}")


if __name__ == "__main__":
    main()
