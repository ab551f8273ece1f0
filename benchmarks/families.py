"""How much of the networks of other people stays in float when they are quantized, with the reason for each node.

    pip install --target elsewhere --no-deps timm torchvision huggingface_hub safetensors pyyaml ...
    PYTHONPATH=elsewhere python benchmarks/families.py regnety_002 densenet121 torchvision:shufflenet_v2_x0_5
    PYTHONPATH=elsewhere python benchmarks/families.py --compile

timm and torchvision are not among our requirements; their definitions are taken with random weights (statistics of
batch norms too), exported by torch, and quantized on random pictures: what can be integers depends on neither. With
--compile the outputs of the compiled network are compared with the reference as well; where float nodes stand between
integers, a rounding of theirs may move one of those by one.
Exit status 1 where an export failed or a compiled network differed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table

from inception_deploy import targets
from inception_deploy.errors import DeployError
from inception_deploy.graph.driver import optimise
from inception_deploy.lower.lower import lower
from inception_deploy.quantize import integer_network, quantize
from inception_deploy.quantize.share import share
from inception_deploy.runtime import compiled
from inception_deploy.sources import capture
from inception_deploy.verify import tolerance

FAMILIES = (
    "regnety_002", "ghostnet_050", "densenet121", "hrnet_w18_small", "hgnetv2_b0", "pnasnet5large", "skresnet18",
    "torchvision:shufflenet_v2_x0_5", "mobilenetv3_small_050", "efficientnet_b0", "mixnet_s", "convnext_atto",
)  # fmt: skip

PICTURES = 8


def main() -> int:
    """Measure and print; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=FAMILIES, help="models of timm, or torchvision:NAME")
    parser.add_argument("--size", type=int, default=96, help="height and width of the pictures (default: 96)")
    parser.add_argument("--scheme", default="float-scale", help="of the quantization (default: float-scale)")
    parser.add_argument("--compile", action="store_true", help="compile for --target, and compare every bit")
    parser.add_argument("--target", default="cpu", help="what to compile for (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows = [row(name, options) for name in options.names]
    if options.json:
        print(json.dumps({"size": options.size, "scheme": options.scheme, "results": rows}, indent=2))
    else:
        _show(rows)
    return int(any("error" in entry or entry.get("same") is False for entry in rows))


def row(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One network: its nodes, those that stay float, and the share of the multiply-adds in integers."""
    try:
        module = build(name)
        shape = (1, 3, options.size, options.size)
        model, _ = optimise(capture.to_onnx(module, shape), verify=False)
        pictures = np.random.default_rng(1).standard_normal((PICTURES, *shape[1:])).cumsum(-1).astype(np.float32) / 4
        quantized = quantize(model, list(pictures), scheme=options.scheme).model
        found = share(quantized)
        reasons = Counter(re.sub(r"'.*?'", "a value", f"{one.op}: {one.reason}") for one in found.floats)
        result = {
            "model": name, "nodes": len(model.graph.node), "float": len(found.floats),
            "integer_macs_percent": found.percent, "reasons": dict(reasons.most_common()),
        }  # fmt: skip
        if options.compile:
            result.update(compare(quantized, pictures[:1], options.target))
    except (DeployError, ImportError, RuntimeError) as error:
        return {"model": name, "error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return result


def build(name: str) -> torch.nn.Module:
    """A network in eval mode, whose batch norms have something to fold."""
    torch.manual_seed(0)
    _declare()
    if name.startswith("torchvision:"):
        import torchvision

        module: torch.nn.Module = getattr(torchvision.models, name.partition(":")[2])(weights=None)
    else:
        import timm

        module = timm.create_model(name, pretrained=False, exportable=True)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            torch.nn.init.uniform_(part.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return module.eval()


def _declare() -> None:
    """torchvision's wheel is of a build of torch with CUDA: beside one without, its operators are missing, and it does
    not load. The networks use none of them.
    """
    with contextlib.suppress(RuntimeError):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)


_KEPT: list[torch.library.Library] = []


def compare(model: onnx.ModelProto, picture: np.ndarray, name: str) -> dict[str, Any]:
    """Whether a compiled network gives the reference's outputs: every bit, or what float nodes behind integers may."""
    target = targets.parse(name).at("int8")
    (expected,) = integer_network.reference(model, {model.graph.input[0].name: picture})
    with tempfile.TemporaryDirectory() as folder:
        target.build(lower(model, target), Path(folder))
        with compiled.load(Path(folder)) as network:
            (got,) = network.run(picture)
    error = float(np.abs(got - expected).max() / np.abs(expected).max())
    return {"error": error, "same": error <= tolerance("emulated-int8").max_rel}


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("network", "nodes", "float", "% of MACs in integers", "in float because")
    for entry in rows:
        if "error" in entry and "nodes" not in entry:
            table.add_row(entry["model"], "", "", "", entry["error"])
            continue
        why = "\n".join(f"{count} x {reason}" for reason, count in entry["reasons"].items())
        table.add_row(entry["model"], *(str(entry[key]) for key in ("nodes", "float", "integer_macs_percent")), why)
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main())
