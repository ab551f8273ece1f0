"""What cannot be opened or run is refused with a reason, before anything of it is executed."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception_deploy.errors import DeployError
from inception_deploy.runtime import compiled
from inception_deploy.targets import library

X86 = platform.machine() == "x86_64"


def refused(folder: Path, kind: str, *words: str, threads: int | None = 1) -> DeployError:
    with pytest.raises(DeployError) as caught:
        compiled.load(folder, threads=threads)
    assert caught.value.kind == kind
    for word in words:
        assert word in caught.value.message
    return caught.value


@pytest.mark.parametrize("position", [0, 1, 4095, 8192, 16383])
def test_weights_with_a_changed_bit(tiny, build, position) -> None:
    folder = build(tiny.chain(1))
    data = bytearray((folder / "weights.bin").read_bytes())
    data[position] ^= 0x80
    (folder / "weights.bin").write_bytes(data)
    refused(folder, "weights", "weights.bin", "damaged, or belongs to another model")


def test_weights_in_another_order(tiny, build) -> None:
    folder = build(tiny.chain(1))
    data = (folder / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(data[8:16] + data[:8] + data[16:])
    refused(folder, "weights", "damaged")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_weights_of_another_size(tiny, build, change) -> None:
    folder = build(tiny.chain(1))
    (folder / "weights.bin").write_bytes(change((folder / "weights.bin").read_bytes()))
    refused(folder, "weights", "wrong size", "weights.bin")


def test_weights_that_are_missing(tiny, build) -> None:
    folder = build(tiny.chain(1))
    (folder / "weights.bin").unlink()
    refused(folder, "weights", "cannot be opened")
    (folder / "weights.bin").mkdir()
    refused(folder, "weights")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4093, (8 << 20) + 5])
def test_the_tag_is_the_same_in_python_and_c(tiny, build, size) -> None:
    weights = np.random.default_rng(size).bytes(size)
    step = tiny.step("t_copy", 0, tiny.input, tiny.output)
    compiled.load(build(tiny.plan(step, weights=weights)), threads=1).close()


def test_a_feature_that_this_processor_lacks(tiny, build) -> None:
    foreign = "asimd" if X86 else "avx2"
    error = refused(build(tiny.chain(1), (foreign,)), "cpu", foreign, "export it for this machine")
    assert error.got == f"no {foreign}"


def test_features_agree_with_the_kernels_own_list(tiny, build) -> None:
    """Every feature we can check for is present exactly where Linux says so."""
    line = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features"))
    )
    has = set(line.partition(":")[2].split())
    for feature in sorted(library.CPU_FEATURES & has):
        compiled.load(build(tiny.chain(1), (feature,)), threads=1).close()
    lacking = sorted(library.CPU_FEATURES - has)
    refused(build(tiny.chain(1), tuple(lacking[:1])), "cpu", lacking[0])


def test_a_feature_that_nobody_can_check(tiny, build) -> None:
    with pytest.raises(DeployError, match="cannot check for the CPU feature quantum"):
        build(tiny.chain(1), ("quantum",))


def test_every_feature_is_in_the_c_table() -> None:
    source = (Path(library.__file__).parent / "csrc" / "cpu_features.c").read_text()
    assert [name for name in sorted(library.CPU_FEATURES) if f'{{"{name}", ' not in source] == []


def test_every_export_is_in_the_header() -> None:
    header = (Path(library.__file__).parent / "csrc" / "inception_deploy.h").read_text()
    declared = {
        line.split("(")[0].split()[-1].lstrip("*") for line in header.splitlines() if line.startswith("ID_API ")
    }
    assert declared == set(library.EXPORTS)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"not a library at all", b"\x7fELF" + bytes(60)])
def test_a_file_that_is_not_a_library(tiny, build, content) -> None:
    folder = build(tiny.chain(1))
    (folder / "model.so").write_bytes(content)
    refused(folder, "library", "model.so")


@pytest.mark.parametrize("size", [64, 1000, 3000, 8192, -1])
def test_a_library_cut_short(tiny, build, size) -> None:
    folder = build(tiny.chain(1))
    (folder / "model.so").write_bytes((folder / "model.so").read_bytes()[:size])
    refused(folder, "library", "model.so", "is cut short")


def test_a_library_for_another_machine(tiny, build) -> None:
    folder = build(tiny.chain(1))
    data = bytearray((folder / "model.so").read_bytes())
    data[18:20] = (183 if X86 else 62).to_bytes(2, "little")
    (folder / "model.so").write_bytes(data)
    other = "aarch64" if X86 else "x86_64"
    refused(folder, "library", f"was compiled for {other} and this is {platform.machine()}")


def test_a_library_that_is_no_model(tmp_path) -> None:
    own = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so" in line)
    (tmp_path / "model.so").symlink_to(own)
    refused(tmp_path, "library", "is not a compiled model")


def test_a_folder_without_a_model(tmp_path) -> None:
    refused(tmp_path, "library", "model.so", "cannot be read")


@pytest.mark.parametrize("threads", [0, -1, 257])
def test_a_number_of_threads_that_makes_no_sense(tiny, build, threads) -> None:
    refused(build(tiny.chain(1)), "threads", "1 to 256", threads=threads)


def test_arguments_that_do_not_fit(tiny, build, pixels) -> None:
    with compiled.load(build(tiny.chain(1)), threads=1) as model:
        for bad, got in [
            (pixels[0], "float32 [4096]"),
            (pixels.astype(np.float64), "float64 [1, 4096]"),
            (pixels[:, :10], "float32 [1, 10]"),
        ]:
            with pytest.raises(DeployError) as caught:
                model.run(bad)
            assert caught.value.kind == "input"
            assert caught.value.message == f"input pixels is float32 [1, 4096], not {got}"
        with pytest.raises(DeployError, match=r"takes 1 inputs \(pixels\)"):
            model.run(pixels, pixels)
        with pytest.raises(DeployError, match=r"takes 1 inputs"):
            model.profile()


def test_the_c_interface_survives_nulls(tiny, build) -> None:
    folder = build(tiny.chain(1))
    with compiled.load(folder, threads=1) as model:
        c = model._library
        none = (ctypes.c_void_p * 1)(None)
        handle = ctypes.c_void_p(1)
        weights = os.fsencode(folder / "weights.bin")
        assert c.id_open(None, 1, ctypes.byref(handle)) == 1
        assert handle.value is None
        assert c.id_open(weights, 1, None) == 1
        assert c.id_open(weights, -1, ctypes.byref(handle)) == 1
        assert c.id_run(None, none, none) == 1
        assert c.id_run(model._handle, none, none) == 1
        assert c.id_run(model._handle, None, None) == 1
        assert c.id_profile(model._handle, none, none, None) == 1
        assert c.id_failed_step(None) == -1
        assert c.id_threads(None) == 0
        c.id_close(None)
        texts = [c.id_error(code).decode() for code in range(12)]
        assert len(set(texts)) == 12
        assert all(text and not text.endswith(".") for text in texts)
        assert c.id_error(99) == b"unknown error code"


def test_plans_that_contradict_themselves(tiny, build) -> None:
    ok = tiny.step("t_copy", 0, tiny.input, tiny.output)
    wrong = {
        "is not in the plan": tiny.step("t_none", 0, tiny.input, tiny.output),
        "1 arguments for 2 pointers": tiny.step("t_copy", 0, tiny.input),
        "comes after wave 0": tiny.step("t_copy", -1, tiny.input, tiny.output),
        "lies outside of its memory": tiny.step("t_copy", 0, tiny.input, tiny.at(3)),
        "output:1": tiny.step("t_copy", 0, tiny.input, replace(tiny.output, memory="output:1")),
        "offset=-4": tiny.step("t_copy", 0, replace(tiny.weight, offset=-4), tiny.output),
    }
    for why, step in wrong.items():
        with pytest.raises(DeployError, match="the plan contradicts itself at step") as caught:
            build(tiny.plan(ok, step))
        assert why in caught.value.message
        assert caught.value.kind == "plan"
