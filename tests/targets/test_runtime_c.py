"""The C sources by themselves: strict compilers, sanitizers, a C program, other machines under an emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inception_deploy.targets import library, link

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"]
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
SOURCES = [str(link.CSRC / name) for name in library.RUNTIME]

needs_compiler = pytest.mark.skipif(not COMPILERS, reason="neither gcc nor clang is installed")


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.parametrize("compiler", COMPILERS or [pytest.param("", marks=needs_compiler)])
@pytest.mark.parametrize("name", library.RUNTIME)
def test_the_runtime_is_strict_c11(compiler, name, tmp_path) -> None:
    run(compiler, *STRICT, "-O2", "-Wconversion", "-Wshadow", "-c", link.CSRC / name, "-o", tmp_path / "out.o")


@pytest.mark.parametrize("triple", sorted(link.PLATFORMS))
def test_the_runtime_compiles_for_every_platform(triple) -> None:
    for name in [*library.RUNTIME, *link.platform(triple).sources]:
        assert link.compile_c((link.CSRC / name).read_text(), name, triple).startswith(b"\x7fELF")


@needs_compiler
@pytest.mark.parametrize("standard", ["c99", "c++11"])
def test_the_header_is_for_c99_and_cpp(standard, tmp_path) -> None:
    compiler = COMPILERS[0] if standard == "c99" else "g++"
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    source = tmp_path / ("use.c" if standard == "c99" else "use.cc")
    source.write_text('#include "inception_deploy.h"\nint main(void) { return id_describe()->abi_version == 0; }\n')
    run(compiler, f"-std={standard}", *STRICT[1:], "-I", link.CSRC, "-fsyntax-only", source)


def works(compiler: str, sanitizer: str, folder: Path) -> bool:
    """Whether programs with this sanitizer build and start here (its library is a package of its own, and containers
    forbid some of what it does at start)."""
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    build = [compiler, f"-fsanitize={sanitizer}", str(folder / "empty.c"), "-o", str(folder / "empty")]
    return all(
        subprocess.run(command, capture_output=True, check=False).returncode == 0
        for command in (build, [str(folder / "empty")])
    )


@needs_compiler
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
@pytest.mark.parametrize("macs", [10_000_000, 100_000], ids=["parallel", "mixed"])
def test_the_runtime_under_sanitizers(tiny, sanitizer, macs, tmp_path) -> None:
    compiler = COMPILERS[0]
    if not works(compiler, sanitizer, tmp_path):
        pytest.skip(f"{compiler} -fsanitize={sanitizer} does not work here")
    plan = tiny.chain(12, macs=macs)
    (tmp_path / "model.c").write_text(library.model_c(plan))
    (tmp_path / "weights.bin").write_bytes(plan.weights)
    program = tmp_path / "stress"
    flags = [*STRICT, "-O1", "-g", "-pthread", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-I", link.CSRC]
    tests = [HERE / "c" / "kernels.c", HERE / "c" / "stress.c"]
    run(compiler, *flags, tmp_path / "model.c", *tests, *SOURCES, "-o", program)
    for threads in (1, 2, 5):
        run(program, tmp_path / "weights.bin", str(threads), "10", TSAN_OPTIONS="halt_on_error=1")


@needs_compiler
def test_schedules_are_complete_and_even(tmp_path) -> None:
    compiler = COMPILERS[0]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags = sanitize if works(compiler, "address,undefined", tmp_path) else []
    program = tmp_path / "schedule"
    sources = [HERE / "c" / "schedule_test.c", link.CSRC / "schedule.c"]
    run(compiler, *STRICT, "-O1", "-g", *flags, "-I", link.CSRC, *sources, "-o", program)
    run(program)


def expected_top(values: np.ndarray) -> list[int]:
    return [int(i) for i in np.argsort(-values, kind="stable")[:5]]


@needs_compiler
def test_a_c_program_runs_a_bundle(tiny, build, pixels, tmp_path) -> None:
    folder = build(tiny.chain(5))
    program, raw = tmp_path / "classify", tmp_path / "input.raw"
    pixels.astype("<f4").tofile(raw)
    source = ROOT / "examples" / "c" / "main.c"
    run(COMPILERS[0], *STRICT, "-O2", "-I", folder, source, folder / "model.so", f"-Wl,-rpath,{folder}", "-o", program)
    for threads in ("0", "1", "2"):
        done = run(program, folder / "weights.bin", raw, threads)
        top = [int(line.split()[0]) for line in done.stdout.splitlines()]
        assert top == expected_top(tiny.chained(pixels, 5))
        assert done.stderr.startswith("5 steps, ")
    for arguments, message in [
        ([tmp_path / "none", raw], "none: the weights file cannot be opened or read"),
        ([raw, raw], "the weights file is damaged, or belongs to another model"),
        ([folder / "weights.bin", program], "the input has 16384 bytes"),
    ]:
        failed = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert failed.returncode == 1
        assert message in failed.stderr


EMULATED = {
    "aarch64-linux-gnu": ("qemu-aarch64", "cortex-a72", "/usr/aarch64-linux-gnu", "asimd", "asimddp"),
    "arm-linux-gnueabihf": ("qemu-arm", "cortex-a9", "/usr/arm-linux-gnueabihf", "neon", "asimddp"),
}


@pytest.mark.slow
@pytest.mark.parametrize("triple", sorted(EMULATED))
def test_on_arm_under_an_emulator(tiny, pixels, tmp_path, triple) -> None:
    emulator, cpu, root, present, absent = EMULATED[triple]
    qemu = shutil.which(emulator) or shutil.which(f"{emulator}-static")
    if not qemu or not Path(root).is_dir():
        pytest.skip(f"needs {emulator} and a C library in {root}")
    kernels = link.compile_c((HERE / "c" / "kernels.c").read_text(), "kernels.c", triple)
    plan = tiny.chain(5)
    raw = tmp_path / "input.raw"
    pixels.astype("<f4").tofile(raw)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", link.platform(triple).zig, "-O2"]
    for feature in (present, absent):
        folder = tmp_path / feature
        folder.mkdir()
        objects = dict.fromkeys(plan.kernels, kernels)
        library.write_library(plan, objects, folder, triple=triple, features=(feature,))
        program = folder / "classify"
        run(*zig, "-I", folder, ROOT / "examples" / "c" / "main.c", folder / "model.so", "-o", program)
        command = [
            qemu,
            "-cpu",
            cpu,
            "-L",
            root,
            "-E",
            f"LD_LIBRARY_PATH={folder}",
            program,
            folder / "weights.bin",
            raw,
            "2",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if feature == present:
            assert done.returncode == 0, done.stderr
            top = [int(line.split()[0]) for line in done.stdout.splitlines()]
            assert top == expected_top(tiny.chained(pixels, 5))
        else:
            assert done.returncode == 1
            assert f"this processor has no {feature}" in done.stderr
