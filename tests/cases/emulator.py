"""Other machines under qemu's user mode: what is compiled for ARM is run, not only compiled."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from inception_deploy.kernels.isa import ISAS, Isa
from inception_deploy.targets.link import CSRC, platform

INSTALL = "Debian: apt-get install qemu-user-static libc6-arm64-cross libc6-armhf-cross"

EMULATORS = {
    "aarch64-linux-gnu": ("qemu-aarch64", "/usr/aarch64-linux-gnu"),
    "arm-linux-gnueabihf": ("qemu-arm", "/usr/arm-linux-gnueabihf"),
}
"""By triple: the emulator, and where the machine's C library lies."""

STAND_INS = {
    **dict.fromkeys(("cortex-a55", "cortex-a78", "apple-m1"), "cortex-a76"),
    **dict.fromkeys(("neoverse-n2", "neoverse-v1", "neoverse-v2"), "max,sve=off"),
}
"""Cores that qemu 7.2 does not have: one whose instructions they all have, or everything but SVE."""

HERE = Path(__file__).parent


def emulator(isa: Isa) -> list[str]:
    """The command before a program that runs it as on that core, which has no instructions but its own. Skips the test
    where the emulator is not installed.
    """
    name, root = EMULATORS[isa.triple]
    qemu = shutil.which(name) or shutil.which(f"{name}-static")
    if not qemu or not Path(root).is_dir():
        pytest.skip(f"needs {name} and a C library in {root} ({INSTALL})")
    return [qemu, "-cpu", STAND_INS.get(isa.name, isa.name), "-L", root]


def machine(core: str) -> tuple[list[str], str]:
    """`emulator` of a core by its name, and its triple."""
    isa = next(isa for isa in ISAS if isa.name == core)
    return emulator(isa), isa.triple


def program(source: Path, isa: Isa, destination: Path, *more: Path | str) -> Path:
    """A C program for that machine."""
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", platform(isa.triple).zig, "-O1"]
    run(*zig, source, *more, "-o", destination)
    return destination


def run(*command: Path | str) -> None:
    """A command that succeeds."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=540)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"


def run_kernel(
    compiled: bytes, isa: Isa, folder: Path, arrays: Sequence[np.ndarray], calls: int, units: int = 1
) -> list[np.ndarray]:
    """What `calls` calls of the kernel `k`, on a row of each array, write into rows of the last array's kind.

    Args:
        compiled: its object file.
        arrays: the pointers' `[calls, ...]`; the last one is written.
        units: of the kernel, all of them.
    """
    command = emulator(isa)
    (folder / "k.o").write_bytes(compiled)
    files = [folder / f"{number}.bin" for number in range(len(arrays))]
    for file, array in zip(files, arrays, strict=True):
        array.tofile(file)
    built = program(HERE / "kernel.c", isa, folder / "kernel", folder / "k.o")
    run(*command, built, str(calls), str(units), *files)
    return list(np.fromfile(files[-1], arrays[-1].dtype).reshape(arrays[-1].shape))


def run_library(isa: Isa, folder: Path, x: np.ndarray, size: int) -> np.ndarray:
    """The first output, `size` of float32, of the library `model.so` in a folder, on two threads."""
    command = emulator(isa)
    built = program(HERE / "library.c", isa, folder / "program", "-I", CSRC, folder / "model.so")
    x.tofile(folder / "x.bin")
    environment = ["-E", f"LD_LIBRARY_PATH={folder}"]
    run(*command, *environment, built, folder / "weights.bin", folder / "x.bin", folder / "y.bin")
    return np.fromfile(folder / "y.bin", np.float32, size)
