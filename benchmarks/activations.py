"""How much memory an engine takes for the activations of one inference, measured in a process of its own.

    python benchmarks/activations.py onnxruntime BUNDLE
    python benchmarks/activations.py compiled BUNDLE

The engine is made and run, so that its code is in memory, and forgotten. It is made anew (its weights read and packed),
the kernel's record of the process's peak memory is reset, three inferences run, and the peak's distance from where it
started is printed, in bytes. Input and output are in it too. onnxruntime's arena is off, and glibc is told to take
large blocks from the system and to give them back at once: what counts is what it holds at a time, the least that it
could do with.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inception_deploy.bundles import engines
from inception_deploy.runtime import bundle


def status(field: str) -> int:
    """A size in /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(field))


def ready(engine: str, opened: bundle.Bundle) -> Callable[[NDArray[np.float32]], Any]:
    """A function that runs the bundle."""
    if engine != "onnxruntime":
        return engines.make(engine, opened).run
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.intra_op_num_threads = engines.default_threads()
    session = onnxruntime.InferenceSession(str(opened.onnx), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})


def measure(engine: str, path: Path) -> int:
    """What this process grows by while `engine` runs the bundle at `path`."""
    with bundle.open(path) as opened:
        x = np.random.default_rng(0).standard_normal(opened.input_shape, dtype=np.float32)
        ready(engine, opened)(x)
        run = ready(engine, opened)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = status("VmRSS")
        for _ in range(3):
            run(x)
        return status("VmHWM") - before


def activations(engine: str, path: Path) -> int:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, engine, str(path)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


if __name__ == "__main__":
    print(measure(sys.argv[1], Path(sys.argv[2])))
