"""What int8 costs and gains: the figures of docs/quantization.md, measured here.

    python benchmarks/int8.py                              # top-1 of the committed networks on the held-out digits
    python benchmarks/int8.py trained/*.safetensors        # of networks that examples/train_digits.py trained
    python benchmarks/int8.py --effort normal              # quantized as measuring chooses, not by the defaults
    python benchmarks/int8.py --noise 0.3                  # the same digits in noise, which float32 misreads as well
    python benchmarks/int8.py --switches NETWORK ...       # what each method, switch and repair costs or gains
    python benchmarks/int8.py --vta                        # what a VTA's two choices cost or gain, and on its simulator
    python benchmarks/int8.py --zoo irv2 inception_v4      # full-size, seeded weights: SQNR and agreement on photos
    python benchmarks/int8.py --latency irv2               # onnxruntime on our int8 and on its own default int8

Networks on digits are calibrated on training digits and measured on held-out ones. Powers of two run in the exact
integer network (`inception_deploy.quantize.integer_network`), which rounds as the hardware does; float scales run in
onnxruntime. The exit code is 1 where a network loses more top-1 on the held-out digits than `BARS` allows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from inception_deploy import targets
from inception_deploy.graph import driver
from inception_deploy.lower.lower import lower
from inception_deploy.models import trained
from inception_deploy.quantize.effort import EFFORTS, Effort, choose, split
from inception_deploy.quantize.integer_network import read
from inception_deploy.quantize.pictures import Picture, Pictures
from inception_deploy.quantize.quantizer import QuantizedModel, Quantizer, Recipe
from inception_deploy.quantize.ranges import METHODS
from inception_deploy.quantize.ratio import Ratio
from inception_deploy.quantize.repair import Repairs
from inception_deploy.quantize.runner import Runner
from inception_deploy.quantize.scheme import SCHEMES, Choices
from inception_deploy.runtime import compiled
from inception_deploy.runtime.preprocessing import from_dict, prepare
from inception_deploy.sources import resolve

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "data"
CALIBRATION = 64
PHOTOS = 64
NOISY = 4
"""How many times each digit is measured in noise."""

THEIRS = "onnxruntime.quantization's default"

BARS = {"float-scale": 0.3, "power-of-two": 0.5}
"""Points of top-1 that a scheme may lose against fp32."""
BARS_OF = {"mobilenet_v1": {"float-scale": 1.0, "power-of-two": 1.5}}

Rows = list[dict[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", type=Path, help="trained .safetensors (default: the committed ones)")
    parser.add_argument("--noise", type=float, default=0.0, metavar="SIGMA", help="on pixels from 0 to 1")
    parser.add_argument("--switches", action="store_true", help="every method, switch and repair, on digits")
    parser.add_argument("--vta", action="store_true", help="the choices of target vta, and its simulator, on digits")
    several = "so many tensors of 16 bits, those that 8 hold worst, beside float scales and both repairs, on digits"
    parser.add_argument("--sixteen-bit", nargs="+", type=int, default=[], metavar="N", help=several)
    parser.add_argument("--zoo", nargs="+", default=[], metavar="NAME", help="networks of the zoo, on photos")
    parser.add_argument("--latency", metavar="NAME", help="a network of the zoo in onnxruntime, ours against its own")
    parser.add_argument("--scheme", nargs="+", default=list(BARS), help=f"schemes to measure, of {', '.join(SCHEMES)}")
    parser.add_argument("--effort", default="fast", choices=EFFORTS, help="of the digits' tables (default: fast)")
    parser.add_argument("--threads", type=int, default=0, help="of onnxruntime (default: its own choice)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    options = parser.parse_args(arguments)
    if options.zoo:
        rows = [row for name in options.zoo for row in zoo(name, options.scheme, options.threads)]
    elif options.latency:
        rows = latency(options.latency, options.threads)
    else:
        files = options.networks or sorted(DATA.glob("digits_*.safetensors"))
        rows = [
            row
            for file in files
            for row in (
                switches(file, options.scheme, options.threads, options.noise)
                if options.switches
                else vta(file, options.threads)
                if options.vta
                else [sixteen(file, options.sixteen_bit, options.threads)]
                if options.sixteen_bit
                else digits(file, options.scheme, options.threads, options.noise, options.effort)
            )
        ]
    print(json.dumps(rows, indent=2) if options.json else table(rows))
    missed = [f"{row['network']}: {row['missed']}" for row in rows if "missed" in row]
    for line in missed:
        print(line, file=sys.stderr)
    return int(bool(missed))


def table(rows: Rows) -> str:
    """Markdown."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)] + [[text(row.get(column)) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def text(cell: object) -> str:
    """A number with two decimals, anything else as it is."""
    return f"{cell:.2f}" if isinstance(cell, float) else "" if cell is None else str(cell)


def optimised(model: str) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The optimised float ONNX of what ``--model`` would name, and its preprocessing."""
    source = resolve.resolve(resolve.Request(model=model))
    result, _ = driver.optimise(source.onnx(lambda _: None), verify=False)
    return result, dict(source.preprocessing or {})


# -- digits -----------------------------------------------------------------------------------------------------------


def digits_quantizer(file: Path, threads: int, noise: float) -> tuple[Quantizer, list[Picture]]:
    """A trained network, calibrated on training digits, and the held-out digits, `NOISY` times where there is noise."""
    model, how = optimised(str(file))
    with np.load(DATA / "digits_heldout.npz") as held_out:
        grey, labels = held_out["images"], held_out["labels"]
    if noise:
        grey, labels = np.concatenate([grey] * NOISY), np.concatenate([labels] * NOISY)
        spread = 255 * noise * np.random.default_rng(3).standard_normal(grey.shape)
        grey = np.rint(np.clip(grey + spread, 0, 255)).astype(np.uint8)
    pictures = [Picture("held out", digit(g, how), int(label)) for g, label in zip(grey, labels, strict=True)]
    return Quantizer(model, lambda: training_digits(how), limit=CALIBRATION, threads=threads), pictures


def training_digits(how: dict[str, Any]) -> Iterator[NDArray[np.float32]]:
    """Digits that are not among the held-out ones, prepared."""
    from sklearn.datasets import load_digits

    with np.load(DATA / "digits_heldout.npz") as file:
        held_out = {image.tobytes() for image in file["images"]}
    for levels in load_digits().images:
        grey = np.rint(levels * (255 / 16)).astype(np.uint8)
        if grey.tobytes() not in held_out:
            yield digit(grey, how)


def digit(grey: NDArray[np.uint8], how: dict[str, Any]) -> NDArray[np.float32]:
    """8 x 8 pixels as a network takes them."""
    return prepare(grey, from_dict(how))


def outputs(
    quantizer: Quantizer, source: list[Picture], quantized: QuantizedModel | None, threads: int
) -> NDArray[Any]:
    """The logits for every picture: of the float model, or of an int8 one, exactly as its scheme means it."""
    if quantized is not None and quantized.scheme.power_of_two:
        network = read(quantized.model)
        rows = [network.run({network.inputs[0]: p.pixels[None]})[network.outputs[0]] for p in source]
    else:
        runner = Runner(quantizer.prepared if quantized is None else quantized.model, threads=threads)
        rows = [next(iter(runner.run(p.pixels[None]).values())) for p in source]
    return np.concatenate(rows)


def sixteen(file: Path, counts: list[int], threads: int) -> dict[str, Any]:
    """SQNR with so many tensors of 16 bits, and of how many there are."""
    quantizer, held_out = digits_quantizer(file, threads, 0.0)
    reference = outputs(quantizer, held_out, None, threads)
    recipe = Recipe(repairs=Repairs(rounding=True, bias=True))
    ranked = quantizer.sensitive(recipe)
    row: dict[str, Any] = {"network": file.stem.removeprefix("digits_"), "scales": len(ranked)}
    for count in counts:
        made = quantizer.quantize(replace(recipe, sixteen=frozenset(ranked[:count])))
        row[str(count)] = sqnr(reference, outputs(quantizer, held_out, made, threads))
    return row


def digits(file: Path, schemes: list[str], threads: int, noise: float, effort: Effort = "fast") -> Rows:
    """Top-1 on the held-out digits, what int8 loses of it, and the signal-to-noise ratio at the logits."""
    quantizer, held_out = digits_quantizer(file, threads, noise)
    judged: list[Picture] = []
    if effort != "fast":
        assert quantizer.source is not None
        source, judged = split(quantizer.prepared, quantizer.source)
        quantizer = Quantizer(quantizer.prepared, source, threads=threads)
    labels = np.array([picture.label for picture in held_out])

    def top1(logits: NDArray[Any]) -> float:
        return 100 * float((logits.argmax(axis=1) == labels).mean())

    reference = outputs(quantizer, held_out, None, threads)
    row: dict[str, Any] = {"network": file.stem.removeprefix("digits_"), "fp32": top1(reference)}
    missed = []
    for scheme in schemes:
        made = choose(quantizer, Recipe(scheme), effort, judged, threads=threads).quantized
        got = outputs(quantizer, held_out, made, threads)
        drop = row["fp32"] - top1(got)
        row |= {scheme: top1(got), f"{scheme} drop": drop, f"{scheme} SQNR dB": sqnr(reference, got)}
        allowed = None if noise else bar(file, scheme)
        if allowed is not None and drop > allowed:
            missed.append(f"{scheme} loses {drop:.2f} points of at most {allowed}")
        print(f"{file.stem}: {scheme} {top1(got):.2f}", file=sys.stderr)
    return [row | ({"missed": "; ".join(missed)} if missed else {})]


def bar(file: Path, scheme: str) -> float | None:
    """The points of top-1 that a trained network may lose."""
    return (BARS | BARS_OF.get(trained.read_info(file).name, {})).get(scheme)


def switches(file: Path, schemes: list[str], threads: int, noise: float) -> Rows:
    """SQNR at the logits and top-1 of every choice, one at a time."""
    quantizer, held_out = digits_quantizer(file, threads, noise)
    labels = np.array([picture.label for picture in held_out])
    reference = outputs(quantizer, held_out, None, threads)
    rows = []
    for scheme in schemes:
        for name, recipe in variants(scheme):
            got = outputs(quantizer, held_out, quantizer.quantize(recipe), threads)
            ratio = Ratio()
            ratio.add(reference, got)
            rows.append(
                {
                    "network": file.stem,
                    "scheme": scheme,
                    "variant": name,
                    "SQNR dB": ratio.db,
                    "top-1 %": 100 * float((got.argmax(axis=1) == labels).mean()),
                }
            )
            print(f"{scheme} {name}: {ratio.db:.2f} dB", file=sys.stderr)
    return rows


def variants(scheme: str) -> Iterator[tuple[str, Recipe]]:
    """The default, and every recipe that differs from it in one thing."""
    plain = Recipe(scheme)
    yield "default", plain
    for method in METHODS:
        if method != plain.method:
            yield f"method {method}", replace(plain, method=method)
    changes: tuple[dict[str, Any], ...] = (
        {"concat": "own"}, {"add": "own"}, {"average": "input"}, {"average": "own"}, {"moves": "own"},
    )  # fmt: skip
    if SCHEMES[scheme].power_of_two:
        changes += ({"add": "accumulator"}, {"average": "summed"})
    for change in changes:
        ((name, value),) = change.items()
        yield f"{name} {value}", replace(plain, choices=Choices(**change))
    for name in ("equalise", "bias", "rounding"):
        yield name, replace(plain, repairs=Repairs(**{name: True}))
    yield "equalise, bias, rounding", replace(plain, repairs=Repairs(True, True, True))


def vta(file: Path, threads: int) -> Rows:
    """Top-1 and SQNR before and after the choices of target ``vta``, and top-1 of the streams on its simulator."""
    target = targets.parse("vta:sim").at("int8")
    own = target.choices_by_default()
    quantizer, held_out = digits_quantizer(file, threads, 0.0)
    labels = np.array([picture.label for picture in held_out])
    reference = outputs(quantizer, held_out, None, threads)
    row: dict[str, Any] = {"network": file.stem.removeprefix("digits_")}
    row["fp32"] = 100 * float((reference.argmax(axis=1) == labels).mean())
    made: QuantizedModel | None = None
    for name, choices in (
        ("default", Choices()),
        (f"add {own.add}", Choices(add=own.add)),
        (f"average {own.average}", Choices(average=own.average)),
        ("both", own),
    ):
        made = quantizer.quantize(Recipe(target.scheme_by_default, choices=choices))
        got = outputs(quantizer, held_out, made, threads)
        ratio = Ratio()
        ratio.add(reference, got)
        row |= {name: 100 * float((got.argmax(axis=1) == labels).mean()), f"{name} SQNR dB": ratio.db}
    assert made is not None
    with tempfile.TemporaryDirectory() as folder:
        target.build(lower(made.model, target), Path(folder))
        with compiled.load(Path(folder)) as model:
            got = np.concatenate([model.run(picture.pixels[None])[0] for picture in held_out])
    row["simulated"] = 100 * float((got.argmax(axis=1) == labels).mean())
    drop, allowed = row["fp32"] - row["simulated"], bar(file, target.scheme_by_default)
    print(f"{file.stem}: simulated {row['simulated']:.2f}", file=sys.stderr)
    if allowed is not None and drop > allowed:
        row["missed"] = f"the simulator loses {drop:.2f} points of at most {allowed}"
    return [row]


# -- the zoo ----------------------------------------------------------------------------------------------------------


def photos(how: dict[str, Any], count: int, seed: int) -> Iterator[Picture]:
    """Crops of a photograph at random places and sizes, some mirrored: different inputs with a picture's structure."""
    random = np.random.default_rng(seed)
    preprocessing = from_dict(how)
    with Image.open(DATA / "photo.jpg") as file:
        photo = file.convert("RGB" if len(preprocessing.mean) == 3 else "L")
    for index in range(count):
        side = int(random.integers(160, min(photo.size)))
        left, top = (int(random.integers(0, size - side + 1)) for size in photo.size)
        crop = photo.crop((left, top, left + side, top + side))
        if random.integers(2):
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        yield Picture(f"crop {index}", prepare(crop, preprocessing))


def zoo(name: str, schemes: list[str], threads: int) -> Rows:
    """SQNR at the logits and top-1 agreement with float on photos that calibration did not see."""
    model, how = optimised(name)
    calibration = Pictures("photos", 32, "photos", lambda start: iter(list(photos(how, 32, 1))[start:]))
    measured = list(photos(how, PHOTOS, 2))
    start = time.perf_counter()
    quantizer = Quantizer(model, calibration, threads=threads)
    quantizer.statistics()
    calibrated = time.perf_counter() - start
    reference = outputs(quantizer, measured, None, threads)
    rows = []
    for scheme in schemes:
        start = time.perf_counter()
        quantized = quantizer.quantize(Recipe(scheme))
        seconds = calibrated + time.perf_counter() - start
        got = outputs(quantizer, measured, quantized, threads)
        ratio = Ratio()
        ratio.add(reference - reference.mean(axis=0), got - reference.mean(axis=0))
        rows.append(
            {
                "network": name,
                "scheme": scheme,
                "SQNR dB": sqnr(reference, got),
                "SQNR of what differs between photos, dB": ratio.db,
                "same top-1 %": 100 * float((reference.argmax(1) == got.argmax(1)).mean()),
                "photos": len(measured),
                "quantized in s": seconds,
            }
        )
        print(rows[-1], file=sys.stderr)
    return rows


def sqnr(reference: NDArray[Any], got: NDArray[Any]) -> float:
    """In decibels."""
    ratio = Ratio()
    ratio.add(reference, got)
    return ratio.db


# -- latency ----------------------------------------------------------------------------------------------------------


def latency(name: str, threads: int, rounds: int = 15) -> Rows:
    """onnxruntime on float32, on our int8 and on what onnxruntime.quantization makes by default, interleaved."""
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    model, how = optimised(name)
    crops = [picture.pixels for picture in photos(how, 4, 1)]
    ours = Quantizer(model, crops, threads=threads).quantize(Recipe()).model
    port = model.graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(crops)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            pixels = next(self.left, None)
            return None if pixels is None else {port: pixels[None]}

    with tempfile.TemporaryDirectory() as folder:
        plain, theirs = Path(folder) / "fp32.onnx", Path(folder) / "theirs.onnx"
        onnx.save(model, str(plain))
        quantize_static(str(plain), str(theirs), Reader())
        sessions, floats = {}, {}
        for key, given in {"fp32": plain, "ours, float-scale": ours, THEIRS: theirs}.items():
            options = ort.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 4
            options.optimized_model_filepath = str(Path(folder) / "runs.onnx")
            content = str(given) if isinstance(given, Path) else given.SerializeToString()
            sessions[key] = ort.InferenceSession(content, options)
            floats[key] = float_operators(onnx.load(options.optimized_model_filepath))
    print("measuring", file=sys.stderr, flush=True)
    feed = {port: crops[0][None]}
    seconds: dict[str, list[float]] = {key: [] for key in sessions}
    for _ in range(rounds + 2):
        for key, session in sessions.items():
            seconds[key].append(timed(lambda session=session: session.run(None, feed)))
    medians = {key: 1000 * float(np.median(values[2:])) for key, values in seconds.items()}
    return [
        {
            "network": name,
            "model": key,
            "p50 ms": ms,
            "of its default": ms / medians[THEIRS],
            "gives float": floats[key],
        }
        for key, ms in medians.items()
    ]


def float_operators(model: onnx.ModelProto) -> str:
    """The operators of a graph that onnxruntime optimised whose result is float32, with their number."""
    integers = {t.name for t in model.graph.initializer if t.data_type != onnx.TensorProto.FLOAT}
    found: Counter[str] = Counter()
    for node in model.graph.node:
        made = node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear")
        made |= node.op_type == "QGemm" and len(node.input) == 9  # with the scale of its output
        if made or (node.op_type != "DequantizeLinear" and node.op_type != "QGemm" and node.input[0] in integers):
            integers.update(node.output)
        else:
            found[node.op_type] += 1
    return ", ".join(f"{count} {op}" for op, count in found.most_common()) or "none"


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
