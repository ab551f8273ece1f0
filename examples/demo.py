"""The whole way, twice: a large network from PyTorch to a compiled bundle, and a small trained one that reads digits.

    python examples/demo.py            # or: make demo

Part one exports Inception-ResNet v2 for this machine's CPU, shows it a photo, and times it next to onnxruntime. No
weights are shipped for it, so its answers mean nothing; the two runtimes must agree on them. Part two exports the small
Inception-ResNet that examples/train_digits.py trained, and classifies the digits it never saw.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import inception_deploy as idp
from inception_deploy import progress

DATA = Path(__file__).resolve().parent / "data"
RUNS = 20


def main() -> int:
    """Run the demo; 0 when everything agreed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="irv2", help="the large network (default: irv2)")
    parser.add_argument(
        "--width", type=float, default=1.0, help="factor on its channels; a small one makes a quick demo"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("build/demo"), help="where the bundles go (default: build/demo)"
    )
    options = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=100)
    try:
        photo(console, options.model, options.width, options.output / f"{options.model}-cpu")
        digits(console, options.output / "digits-cpu")
    except idp.DeployError as error:
        console.print(f"error: {error.message}", markup=False)
        return error.exit_code
    return 0


def photo(console: Console, model: str, width: float, destination: Path) -> None:
    """Export, look at a photo, race onnxruntime."""
    console.rule(f"{model}: from PyTorch to a compiled bundle")
    export(console, destination, model, width=width)
    picture = DATA / "photo.jpg"
    seen = {name: idp.run(destination, picture, runtime=name) for name in ("compiled", "onnxruntime")}
    with progress.terminal() as bar:
        (times,) = idp.bench(destination, against=["onnxruntime"], runs=RUNS, progress=bar)
    table = Table(
        "class", "label", "compiled", "onnxruntime", title=f"top 5 of {DATA.name}/photo.jpg", title_justify="left"
    )
    theirs = {entry["index"]: entry["score"] for entry in seen["onnxruntime"]["top"]}
    for entry in seen["compiled"]["top"]:
        table.add_row(
            str(entry["index"]), entry["label"], f"{entry['score']:.4f}", f"{theirs.get(entry['index'], 0):.4f}"
        )
    console.print(table)
    ours, peer = (row["p50_ms"] for row in times["results"])
    console.print(f"latency, median of {RUNS} interleaved runs, {times['threads']} threads, {times['machine']}:")
    console.print(
        f"  compiled {ours:.1f} ms    onnxruntime {peer:.1f} ms    ratio {times['ratio']['onnxruntime']:.2f}\n"
    )


def digits(console: Console, destination: Path) -> None:
    """Export the trained network and classify the held-out digits with the compiled bundle."""
    console.rule("handwritten digits: a trained network")
    export(console, destination, DATA / "digits_irv2.safetensors", batch=8)
    with np.load(DATA / "digits_heldout.npz", allow_pickle=False) as held_out:
        pictures, labels = held_out["images"], held_out["labels"]
    with idp.load(destination) as net:
        logits = np.asarray(net(pictures))
    right = int((logits.argmax(axis=1) == labels).sum())
    console.print(f"accuracy on {len(labels)} held-out digits: {right / len(labels):.2%} ({right} right)")


def export(console: Console, destination: Path, model: str | Path, **options: Any) -> None:
    """One export, with what it checked."""
    with progress.terminal() as bar:
        document = idp.export(model, destination, force=True, progress=bar, **options)
    checked = json.loads((destination / "verify.json").read_text())["stages"]
    console.print(f"wrote {destination} in {sum(document['seconds'].values()):.1f} s", highlight=False)
    for row in checked:
        console.print(
            f"  {row['stage']:>9} against {row['reference']:<9} max relative error {row['max_rel']:.1e} "
            f"(allowed {row['tolerance']:.0e})",
            highlight=False,
        )


if __name__ == "__main__":
    sys.exit(main())
