"""Every instruction that a row of `dots` names does what the row says: run where this machine has it, or an emulator."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_deploy.kernels.dots import BFMMLA, DOTS, TDPBF16PS, Dot
from inception_deploy.kernels.elements import bfloat16
from inception_deploy.kernels.isa import ISAS, Isa
from inception_deploy.targets.cpu import Cpu, host_features

from ..cases.emulator import emulator, run_kernel

ATTRIBUTES = {"avx512_vnni": ["+avx512vnni"], "avx_vnni": ["+avxvnni"], "avx2": []}
"""LLVM's names of features, on top of their level."""

ENCODINGS = {"avx_vnni": ("avx512_vnni", ["+avx512vnni", "+avx512vl"])}
"""Another feature that the same instruction has an encoding for."""


def operands(dot: Dot) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Random numbers; the extremes, whose products would saturate a sum of 16 bits; an accumulator at its end. Weights
    of `Dot.pairs` are the largest that fit.
    """
    random, count = np.random.default_rng(0), dot.count
    first, second = np.iinfo(dot.first), np.iinfo(dot.second)
    low, high = int(second.min), int(second.max)
    if dot.pairs:
        low, high = (-64, 64) if dot.first == "uint8" else (low + 1, high)
    some = (
        random.integers(first.min, first.max, count, dot.first, endpoint=True),
        random.integers(low, high, count, dot.second, endpoint=True),
    )
    total = random.integers(-(2**30), 2**30, dot.lanes, np.int32)
    most = np.full(count, first.max, dot.first), np.full(count, low, dot.second)
    largest = np.full(count, first.max, dot.first), np.full(count, high, dot.second)
    zeros = np.zeros(dot.lanes, np.int32)
    least = np.full(count, first.min, dot.first), np.full(count, low, dot.second)
    return [
        (total, *some),
        (zeros, *least),
        (zeros, *most),
        (zeros, *largest),
        (np.full(dot.lanes, 2**31 - 1, np.int32), *largest),
    ]


ARM = [(isa, dot) for isa in ISAS if isa.kind == "arm" for dot in isa.dots]


def kernel(dot: Dot) -> Any:
    """One use of the instruction, as TIR."""
    from inception_deploy.kernels.bytes.math import dot as call
    from inception_deploy.kernels.emit import Emitter, load

    wide = dot.count
    em = Emitter("k", [("total", "int32"), ("first", dot.word), ("second", dot.second), ("dst", "int32")])
    with em.units():
        total, first = (load(em.buffers[name], 0, dot.lanes) for name in ("total", "first"))
        em.store(em.buffers["dst"], 0, call(em, dot, total, first, load(em.buffers["second"], 0, wide)))
    return em.finish()


@pytest.mark.parametrize(("isa", "dot"), ARM, ids=lambda row: row.name)
def test_arm_does_what_the_row_says(isa: Isa, dot: Dot, tmp_path: Path) -> None:
    from inception_deploy.targets.objects import compile_tir

    emulator(isa)
    given = [np.stack(arrays) for arrays in zip(*operands(dot), strict=True)]
    calls = len(given[0])
    compiled = compile_tir(kernel(dot), Cpu(f"arm:{isa.name}", isa).tvm_target())
    found = run_kernel(compiled, isa, tmp_path, [*given, np.empty((calls, dot.lanes), np.int32)], calls)
    for got, arrays in zip(found, zip(*given, strict=True), strict=True):
        assert np.array_equal(got, dot.meaning(*arrays))


def test_the_emulator_refuses_what_a_core_lacks(tmp_path: Path) -> None:
    """So a bundle that runs there has no such instruction."""
    from inception_deploy.targets.objects import compile_tir

    isas = {isa.name: isa for isa, _ in ARM}
    newer, older = isas["cortex-a76"], isas["cortex-a72"]
    emulator(older)
    compiled = compile_tir(kernel(newer.dots[0]), Cpu("arm:cortex-a76", newer).tvm_target())
    given = [np.stack(arrays) for arrays in zip(*operands(newer.dots[0])[:1], strict=True)]
    with pytest.raises(AssertionError, match="Illegal instruction"):
        run_kernel(compiled, older, tmp_path, [*given, np.empty((1, 4), np.int32)], 1)


X86 = [dot for dot in DOTS.values() if dot not in [row for _, row in ARM]]


@pytest.mark.parametrize("dot", X86, ids=lambda dot: dot.name)
def test_the_instruction_does_what_the_row_says(dot: Dot, tmp_path: Path) -> None:
    (feature,), here = dot.features, host_features()
    attributes = ATTRIBUTES[feature]
    if feature not in here and feature in ENCODINGS:
        feature, attributes = ENCODINGS[feature]
    if feature not in here:
        pytest.skip(f"this machine lacks {feature}")
    from inception_deploy.targets.link import link_shared
    from inception_deploy.targets.objects import compile_tir

    level = "v4" if feature == "avx512_vnni" else "v3"
    goal = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": f"x86-64-{level}", "mattr": attributes}
    link_shared([compile_tir(kernel(dot), goal)], ["k"], tmp_path / "k.so", "x86_64-linux-gnu")
    function = ctypes.CDLL(str(tmp_path / "k.so")).k
    for given in operands(dot):
        found = np.empty(dot.lanes, np.int32)
        arrays = [np.ascontiguousarray(array) for array in (*given, found)]
        pointers = (ctypes.c_void_p * 4)(*(array.ctypes.data for array in arrays))
        assert function(pointers, 0, 1) == 0
        assert np.array_equal(arrays[-1], dot.meaning(*given)), dot.name


@pytest.mark.parametrize("dot", DOTS.values(), ids=DOTS)
def test_the_meaning_is_a_sum_of_products(dot: Dot) -> None:
    """Next to Python's whole numbers, which have no end."""
    for total, first, second in operands(dot):
        got = dot.meaning(total, first, second)
        for lane in range(dot.lanes):
            run = dot.run or dot.depth
            at = (
                []
                if dot.rows > 1
                else [part * dot.lanes * run + lane * run + i for part in range(dot.depth // run) for i in range(run)]
            )
            pairs = [(i, i) for i in at]
            if dot.rows > 1:
                row, column = divmod(lane, dot.lanes // dot.rows)
                pairs = [(row * dot.depth + i, column * dot.depth + i) for i in range(dot.depth)]
            exact = int(total[lane]) + sum(int(first[i]) * int(second[j]) for i, j in pairs)
            ends = (-(2**31), 2**31 - 1)
            want = min(max(exact, ends[0]), ends[1]) if dot.saturates else (exact + 2**31) % 2**32 - 2**31
            assert got[lane] == want


def test_the_meaning_of_a_tile_is_a_product_of_matrices() -> None:
    """Whether the instruction does so is held by tests/kernels/matrix/test_conv.py, where there is one."""
    random = np.random.default_rng(1)
    first, weight = random.integers(-8, 8, (16, 32)), random.integers(-8, 8, (32, 16))
    pairs = weight.reshape(16, 2, 16).transpose(0, 2, 1)
    got = TDPBF16PS.meaning(np.ones((16, 16), np.float32), first, pairs)
    assert np.array_equal(got, 1 + np.einsum("pd,do->po", first, weight))


SQUARES = [isa for isa in ISAS if BFMMLA in isa.tiles]


@pytest.mark.parametrize("isa", SQUARES, ids=lambda isa: isa.name)
def test_squares_do_what_the_row_says(isa: Isa, tmp_path: Path) -> None:
    """To a unit of the last place of the largest product: its sums are rounded to odd numbers."""
    from inception_deploy.kernels.arm import BRAIN
    from inception_deploy.kernels.emit import Emitter, load
    from inception_deploy.targets.objects import compile_tir

    em = Emitter("k", [("total", "float32"), ("first", "uint16"), ("second", "uint16"), ("dst", "float32")])
    with em.units():
        given = [load(em.buffers[name], 0, lanes) for name, lanes in (("total", 4), ("first", 8), ("second", 8))]
        em.store(em.buffers["dst"], 0, em.inline(BRAIN, BFMMLA.name, "float32x4", *given))
    random = np.random.default_rng(0)
    total = random.standard_normal((5, 2, 2)).astype(np.float32)
    numbers = random.standard_normal((2, 5, 2, 4)).astype(np.float32)
    numbers[:, -1] = 1e-39  # below 2^-126, and for the instruction 0
    halves = bfloat16(numbers)
    emulator(isa)
    compiled = compile_tir(em.finish(), Cpu(f"arm:{isa.name}", isa).tvm_target())
    found = run_kernel(compiled, isa, tmp_path, [total, *halves, np.empty_like(total)], 5)
    first, second = (halves.astype(np.uint32) << 16).view(np.float32)
    for got, *arrays in zip(found, total, first, second, strict=True):
        wanted = BFMMLA.meaning(arrays[0], arrays[1], arrays[2][None])
        assert np.abs(got - wanted).max() <= 4 * 2.0**-23 * np.abs(wanted).max()
    assert np.array_equal(found[-1], total[-1])


def test_a_row_that_fills_no_lane() -> None:
    with pytest.raises(ValueError, match="2 of uint8 and of int8 fill no lane of 32 bits"):
        Dot("half", "llvm.half", (), "uint8", "int8", 8, 2)
