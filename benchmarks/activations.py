"""How much memory an engine takes for the activations of one inference, measured in a process of its own.

    python benchmarks/activations.py onnxruntime BUNDLE
    python benchmarks/activations.py compiled BUNDLE

The engine is made (its weights read and packed), the kernel's record of the process's peak memory is reset, three
inferences run, and the peak's distance from where it started is printed, in bytes. Input and output are in it too.
Pages that were never touched do not count, so an arena's reserve is not held against an engine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from inception_deploy import bundle, engines


def status(field: str) -> int:
    """A size in /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(field))


def measure(engine: str, path: Path) -> int:
    """What this process grows by while `engine` runs the bundle at `path`."""
    with bundle.open(path) as opened:
        ready = engines.make(engine, opened)
        x = np.random.default_rng(0).standard_normal(opened.input_shape, dtype=np.float32)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = status("VmRSS")
        for _ in range(3):
            ready.run(x)
        return status("VmHWM") - before


def activations(engine: str, path: Path) -> int:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, engine, str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    print(measure(sys.argv[1], Path(sys.argv[2])))
