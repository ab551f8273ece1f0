"""The elementary functions, on every instruction set, against numpy in double precision."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace

import numpy as np
import pytest

from inception_deploy import targets
from inception_deploy.kernels.spec import PARTIAL, Map
from inception_deploy.kernels.vector import simple
from inception_deploy.verify import bound

erf = np.vectorize(math.erf)

REFERENCE = {
    "abs": np.abs,
    "elu": lambda x: np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0))),
    "erf": erf,
    "exp": np.exp,
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "square": np.square,
    "tanh": np.tanh,
    "requantized": lambda x: np.clip(np.rint(x / 0.25), -128, 127) * 0.25,
}
CONSTANTS = {
    "elu": (0.5,),
    "clip": (-1.0, 1.0),
    "affine": (2.0, 1.0),
    "leaky_relu": (0.1,),
    "hard_sigmoid": (0.2, 0.5),
    "selu": (1.6, 1.05),
    "requantized": (0.25, -128, 127),
}


@pytest.fixture(scope="module", params=["avx512", "avx2"])
def evaluate(request, tmp_path_factory):
    """`evaluate(op, x)`: a `Map` kernel run on floats whose number is a multiple of 16."""
    from inception_deploy.lower.lower import kernel_of
    from inception_deploy.targets.link import link_shared
    from inception_deploy.targets.objects import compile_kernel

    target = targets.parse(f"cpu:{request.param}")
    if reason := target.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("math")
    count = 64
    kernels = []
    for op in simple.UNARY:
        spec = Map(op, 1, 1, count // 16, constants=CONSTANTS.get(op, ()))
        kernels.append(replace(kernel_of(target, spec), symbol=f"k_{op}"))
    objects = [compile_kernel(kernel, target.tvm_target()) for kernel in kernels]
    link_shared(objects, [k.symbol for k in kernels], folder / "math.so", target.isa.triple)
    library = ctypes.CDLL(str(folder / "math.so"))

    def run(op, x):
        memory = np.zeros(2 * count + 16, np.float32)
        start = (-memory.ctypes.data % 64) // 4
        given, result = memory[start : start + count], memory[start + count : start + 2 * count]
        out = []
        for part in np.asarray(x, np.float32).reshape(-1, count):
            given[:] = part
            pointers = (ctypes.c_void_p * 2)(given.ctypes.data, result.ctypes.data)
            getattr(library, f"k_{op}")(pointers, 0, 1)
            out.append(result.copy())
        return np.concatenate(out)

    return run


POINTS = np.concatenate(
    [np.linspace(-12, 12, 1920), np.linspace(-86, 86, 512), [0.0, -0.0, 1e-30, -1e-30] * 16]
).astype(np.float32)


@pytest.mark.parametrize("op", REFERENCE)
def test_accuracy(evaluate, op):
    """Relative where the value is large and absolute where it is small."""
    expected = REFERENCE[op](POINTS.astype(np.float64))
    error = np.abs(evaluate(op, POINTS) - expected) / np.maximum(np.abs(expected), 1)
    assert error.max() < bound("elementary"), POINTS[error.argmax()]


def test_exp_is_relatively_exact_over_its_range(evaluate):
    expected = np.exp(POINTS.astype(np.float64))
    assert (np.abs(evaluate("exp", POINTS) - expected) / expected).max() < bound("exp")


@pytest.mark.parametrize("op", sorted(set(simple.UNARY) - PARTIAL))
def test_what_is_finite_stays_finite(evaluate, op):
    """Padding holds anything finite: no operator may make a NaN or an infinity of it that a weight of zero would spread."""
    x = np.concatenate([np.linspace(-1e4, 1e4, 62), [0.0, -0.0]])
    assert np.all(np.isfinite(evaluate(op, x)))
