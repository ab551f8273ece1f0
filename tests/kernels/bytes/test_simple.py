"""Sums and scalings of bytes on AVX2: every product is rounded before it is added to."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from inception_deploy import targets
from inception_deploy.kernels.elements import BLOCK, BYTE, Addition, Rounding, Scaling
from inception_deploy.kernels.spec import Map
from inception_deploy.lower.lower import kernel_of
from inception_deploy.quantize import arith
from inception_deploy.targets.link import link_shared
from inception_deploy.targets.objects import compile_kernel

from ...cases.aligned import aligned

TARGET = targets.parse("cpu:avx2").at("int8")
PAIRS = 256 * 256
FACTORS = (0.11340206, 0.15979381)
"""In 28 of all pairs of bytes the sum is another where one of its products is not rounded."""


def computed(spec: Map, folder: Path, *given: np.ndarray) -> np.ndarray:
    """What a kernel makes of a row of blocks: uint8 `[pixels, BLOCK]`."""
    if reason := TARGET.missing():
        pytest.skip(reason)
    kernel = kernel_of(TARGET, spec)
    made = compile_kernel(kernel, TARGET.tvm_target())
    link_shared([made], [kernel.symbol], folder / "kernel.so", TARGET.isa.triple)
    arrays = [aligned(array) for array in (*given, np.zeros((spec.pixels, BLOCK), np.uint8))]
    args = (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])
    assert getattr(ctypes.CDLL(str(folder / "kernel.so")), kernel.symbol)(args, 0, kernel.units) == 0
    return arrays[-1]


def test_a_sum_of_scales_of_their_own(tmp_path: Path) -> None:
    how = Addition((128, 128), (0, 0), 1.0, Rounding(128, 0, 255), FACTORS)
    spec = Map(
        "add", 1, 1, PAIRS // BLOCK, "tensor", in_element=BYTE, second_element=BYTE, out_element=BYTE, addition=how
    )
    a, b = (part.astype(np.uint8).reshape(-1, BLOCK) for part in np.divmod(np.arange(PAIRS), 256))
    wanted = arith.add_scale(a, b, 128, 128, *FACTORS, 1.0, 128, "uint8")
    np.testing.assert_array_equal(computed(spec, tmp_path, a, b), wanted)


def test_a_scale_and_a_shift_for_each_channel(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).uniform(-1, 1, (2, BLOCK)).astype(np.float32) * np.float32([[1.0], [100.0]])
    numbers[:, 0] = FACTORS[0], 91 * np.float32(FACTORS[1])  # of a byte of 5 it is such a sum
    spec = Map(
        "affine", 1, 1, 256, "scaling", in_element=BYTE, out_element=BYTE, scaling=Scaling(120, Rounding(7, 0, 255))
    )
    q = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, BLOCK)).copy()
    wanted = arith.scale_channels(q, 120, *numbers, 7, "uint8")
    np.testing.assert_array_equal(computed(spec, tmp_path, q, numbers), wanted)
