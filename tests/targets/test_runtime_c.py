"""The C sources by themselves: strict compilers, sanitizers, a C program, other machines under an emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_deploy.kernels.isa import ISAS
from inception_deploy.lower.plan import Plan
from inception_deploy.targets import cpu_library, cuda_library, library, link, tables

from ..cases.emulator import emulator
from ..cases.emulator import program as emulated_program
from . import stream

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"]
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
CPU = (*library.RUNTIME, *cpu_library.SOURCES)
SOURCES = [str(link.CSRC / name) for name in CPU]

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
@pytest.mark.parametrize("name", [*CPU, *cuda_library.SOURCES, "measure.c", "measure_main.c"])
def test_the_runtime_is_strict_c11(compiler, name, tmp_path) -> None:
    run(compiler, *STRICT, "-O2", "-Wconversion", "-Wshadow", "-c", link.CSRC / name, "-o", tmp_path / "out.o")


@pytest.mark.parametrize("triple", sorted(link.PLATFORMS))
def test_the_runtime_compiles_for_every_platform(triple) -> None:
    for name in [*CPU, *link.platform(triple).sources]:
        assert link.compile_c((link.CSRC / name).read_text(), name, triple).startswith(b"\x7fELF")


def test_a_big_endian_machine_is_refused(tmp_path) -> None:
    """By the compiler: weights would be read with their bytes the wrong way round."""
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64_be-linux-gnu", "-c", link.CSRC / "api.c"]
    done = subprocess.run([*zig, "-o", tmp_path / "out.o"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.count("error:") == 1
    assert "the runtime is for little-endian machines" in done.stderr


@needs_compiler
@pytest.mark.parametrize("standard", ["c99", "c++11"])
def test_the_header_is_for_c99_and_cpp(standard, tmp_path) -> None:
    compiler = COMPILERS[0] if standard == "c99" else "g++"
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    source = tmp_path / ("use.c" if standard == "c99" else "use.cc")
    source.write_text('#include "inception_deploy.h"\nint main(void) { return id_describe()->abi_version == 0; }\n')
    run(compiler, f"-std={standard}", *STRICT[1:], "-I", link.CSRC, "-fsyntax-only", source)


ABI_1 = """
#include <stddef.h>
#include "inception_deploy.h"
#define SAME(what) _Static_assert(what, #what)
SAME(ID_ABI_VERSION == 1 && ID_MAX_THREADS == 256);
SAME(ID_ERROR_ARGUMENT == 1 && ID_ERROR_CPU == 2 && ID_ERROR_WEIGHTS_OPEN == 3 && ID_ERROR_WEIGHTS_SIZE == 4);
SAME(ID_ERROR_WEIGHTS_TAG == 5 && ID_ERROR_MEMORY == 6 && ID_ERROR_THREADS == 7 && ID_ERROR_KERNEL == 8);
SAME(ID_ERROR_BUSY == 9 && ID_ERROR_FORKED == 10 && ID_ERROR_DEVICE == 11);
SAME(offsetof(id_port, dtype) == 8 && offsetof(id_port, shape) == 16 && offsetof(id_port, axes) == 24);
SAME(offsetof(id_port, bytes) == 32 && sizeof(id_port) == 40);
SAME(offsetof(id_step, op) == 8 && offsetof(id_step, wave) == 16 && offsetof(id_step, macs) == 24 && sizeof(id_step) == 32);
SAME(offsetof(id_info, target) == 8 && offsetof(id_info, features) == 16 && offsetof(id_info, feature_count) == 24);
SAME(offsetof(id_info, arena_bytes) == 32 && offsetof(id_info, weights_bytes) == 40 && offsetof(id_info, weights_tag) == 48);
SAME(offsetof(id_info, input_count) == 56 && offsetof(id_info, wave_count) == 68 && offsetof(id_info, inputs) == 72);
SAME(offsetof(id_info, outputs) == 80 && offsetof(id_info, steps) == 88 && sizeof(id_info) == 96);
const id_info *(*describe)(void) = id_describe;
const char *(*missing)(void) = id_missing_feature, *(*error)(int) = id_error;
int (*at)(const char *, uint64_t, int, id_model **) = id_open_at;
int (*open_)(const char *, int, id_model **) = id_open, (*threads)(const id_model *) = id_threads;
int (*run)(id_model *, const void *const *, void *const *) = id_run, (*step)(const id_model *) = id_failed_step;
int (*profile)(id_model *, const void *const *, void *const *, double *) = id_profile;
void (*close_)(id_model *) = id_close;
"""


def test_the_interface_of_version_1_stays() -> None:
    """A program that was compiled against the header of an older bundle opens the libraries of newer ones, and the other way."""
    link.compile_c(ABI_1, "abi.c", "x86_64-linux-gnu")


def works(compiler: str, sanitizer: str, folder: Path) -> bool:
    """Whether programs with this sanitizer build and start here (its library is a package of its own, and containers
    forbid some of what it does at start)."""
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    build = [compiler, f"-fsanitize={sanitizer}", str(folder / "empty.c"), "-o", str(folder / "empty")]
    return all(
        subprocess.run(command, capture_output=True, check=False).returncode == 0
        for command in (build, [str(folder / "empty")])
    )


def program(tiny: Any, plan: Plan, source: str, folder: Path, *flags: str) -> Path:
    """A C program with the runtime, a plan of gathers and its devices in it; `weights.bin` beside it."""
    parts = [cpu_library.part(plan, tiny.objects())]
    tests = [HERE / "c" / name for name in ("kernels.c", source)]
    if stream.DEVICE in plan.devices:
        parts.append(stream.part(plan, tiny.triple))
        tests.append(HERE / "c" / "stream_device.c")
    (folder / "model.c").write_text(tables.model_c(plan, parts))
    (folder / "weights.bin").write_bytes(plan.weights)
    usual = [*STRICT, "-O1", "-g", "-pthread", "-fno-sanitize-recover=all", "-I", link.CSRC]
    run(COMPILERS[0], *usual, *flags, folder / "model.c", *tests, *SOURCES, "-o", folder / "program")
    return folder / "program"


@needs_compiler
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
@pytest.mark.parametrize("kind", ["parallel", "mixed", "devices"])
def test_the_runtime_under_sanitizers(tiny, sanitizer, kind, tmp_path) -> None:
    if not works(COMPILERS[0], sanitizer, tmp_path):
        pytest.skip(f"{COMPILERS[0]} -fsanitize={sanitizer} does not work here")
    macs = 10_000_000 if kind == "parallel" else 100_000
    plan = stream.chain("hshsshhshhsh") if kind == "devices" else tiny.chain(12, macs=macs)
    stress = program(tiny, plan, "stress.c", tmp_path, f"-fsanitize={sanitizer}")
    for threads in (1, 2, 5):
        run(stress, tmp_path / "weights.bin", str(threads), "10", TSAN_OPTIONS="halt_on_error=1")


WRAPPED = ("calloc", "realloc", "posix_memalign", "mmap", "pthread_create")


@needs_compiler
@pytest.mark.parametrize("devices", ["hhhh", "hssh"])
def test_whatever_is_refused_is_an_error_and_no_leak(tiny, devices, tmp_path) -> None:
    sanitize = ["-fsanitize=address,undefined"] if works(COMPILERS[0], "address,undefined", tmp_path) else []
    plan = tiny.chain(4) if devices == "hhhh" else stream.chain(devices)
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    faults = program(tiny, plan, "faults.c", tmp_path, *sanitize, *wraps)
    for threads in ("1", "3"):
        assert int(run(faults, tmp_path / "weights.bin", threads).stdout.split()[0]) > 10


@needs_compiler
def test_chunks_are_complete_and_even(tmp_path) -> None:
    compiler = COMPILERS[0]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags = sanitize if works(compiler, "address,undefined", tmp_path) else []
    program = tmp_path / "chunks"
    sources = [HERE / "c" / "chunks_test.c", link.CSRC / "chunks.c"]
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


@pytest.mark.slow
@pytest.mark.parametrize(("core", "present"), [("cortex-a72", "asimd"), ("cortex-a9", "neon")])
def test_on_arm_under_an_emulator(tiny, pixels, tmp_path, core, present) -> None:
    isa = next(isa for isa in ISAS if isa.name == core)
    on_core, triple, absent = emulator(isa), isa.triple, "asimddp"
    kernels = link.compile_c((HERE / "c" / "kernels.c").read_text(), "kernels.c", triple)
    plan = tiny.chain(5)
    raw = tmp_path / "input.raw"
    pixels.astype("<f4").tofile(raw)
    for feature in (present, absent):
        folder = tmp_path / feature
        folder.mkdir()
        objects = dict.fromkeys(plan.kernels, kernels)
        parts = [cpu_library.part(plan, objects)]
        library.write_library(plan, parts, folder, triple=triple, features=(feature,))
        example = ROOT / "examples" / "c" / "main.c"
        built = emulated_program(example, isa, folder / "classify", "-I", folder, folder / "model.so")
        command = [*on_core, "-E", f"LD_LIBRARY_PATH={folder}", built, folder / "weights.bin", raw, "2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if feature == present:
            assert done.returncode == 0, done.stderr
            top = [int(line.split()[0]) for line in done.stdout.splitlines()]
            assert top == expected_top(tiny.chained(pixels, 5))
        else:
            assert done.returncode == 1
            assert f"this processor has no {feature}" in done.stderr
