"""From `pip install` to a verified bundle of one's own ONNX and its report: two commands, and the seconds of each step.

    python examples/five_minutes.py [--onnx net.onnx] [--output build/five-minutes]

Everything is new: a virtual environment, the install from this checkout with constraints.txt, and nothing in the caches
of compiled kernels. Without --onnx, torch exports a network in that environment that this package knows nothing of, a
ResNet of 11 million parameters in plain torch; that step is not counted, since a user has the file.
Exit 0 when both commands worked within five minutes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300.0

NETWORK = """
import sys, warnings
import torch
from torch import nn
from torch.nn.functional import relu

class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.a, self.b = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        shorter = nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o)
        self.skip = nn.Identity() if i == o else nn.Sequential(*shorter)
    def forward(self, x):
        return relu(self.skip(x) + self.nb(self.b(relu(self.na(self.a(x))))))

torch.manual_seed(0)
sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2),
         (512, 512, 1)]
stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 100)]
net = nn.Sequential(*stem, *(Block(*s) for s in sizes), *head).eval()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.onnx.export(net, (torch.randn(1, 3, 224, 224),), sys.argv[1], dynamo=True, external_data=False, verbose=False)
"""


def main() -> int:
    """Go the way, and say what each step took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, help="your network (default: one that torch exports on the way)")
    parser.add_argument("--output", type=Path, default=Path("build/five-minutes"), help="a folder that is made anew")
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    output = options.output.resolve()
    env = {**os.environ, "INCEPTION_DEPLOY_CACHE": str(output / "cache")}
    env.pop("PYTHONPATH", None)
    binaries = output / "venv" / "bin"
    command = binaries / "inception-deploy"

    def step(what: str, *argv: object) -> float:
        start = time.monotonic()
        subprocess.run([str(word) for word in argv], check=True, env=env, cwd=output, stdout=sys.stderr)
        seconds = time.monotonic() - start
        print(f"{seconds:7.1f} s  {what}", flush=True)
        return seconds

    pip = (binaries / "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt")
    total = step("python -m venv venv", sys.executable, "-m", "venv", output / "venv")
    total += step("pip install '.[build]'", *pip, f"{ROOT}[build]")
    network = options.onnx.resolve() if options.onnx else output / "net.onnx"
    if not options.onnx:
        step("(a user's torch.onnx.export, not counted)", binaries / "python", "-c", NETWORK, network)
    bundle, page = output / "net-cpu", output / "net.html"
    total += step(
        "inception-deploy export --model net.onnx -o net-cpu", command, "export", "--model", network, "-o", bundle
    )
    total += step("inception-deploy report net-cpu -o net.html", command, "report", bundle, "-o", page)
    print(f"{total:7.1f} s  in all, on {len(os.sched_getaffinity(0))} cores; the bundle is {bundle}, the report {page}")
    return 0 if total < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
