"""Networks in bfloat16 on matrix tiles, next to onnxruntime in fp32; and what becomes of padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from inception_deploy import targets
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.kernels.elements import WIDE
from inception_deploy.kernels.spec import Conv
from inception_deploy.verify import bound

FEW_LAYERS = bound("bf16-layers")

CompiledBf16 = Callable[[Any], Any]


def ops(compiled: Any) -> Counter[str]:
    return Counter(step.op for step in compiled.plan.steps)


def test_a_chain_writes_its_own_padding(builder: Callable[..., Any], compiled_bf16: CompiledBf16) -> None:
    b = builder(0)
    x = b.input(1, 3, 21, 17)
    y = b.op("Relu", b.conv(x, 3, 40, (3, 3), strides=[2, 2], pads=[1, 1, 1, 1]))
    y = b.op("Relu", b.conv(y, 40, 48, (1, 7), pads=[0, 3, 0, 3]))
    y = b.op("Relu", b.conv(y, 48, 64, (7, 1), pads=[3, 0, 3, 0]))
    made = compiled_bf16(b.model(b.conv(y, 64, 20, (3, 3), pads=[0, 1, 2, 1])))
    made.check(*b.inputs.values(), tolerance=FEW_LAYERS)
    assert ops(made) == {"pack": 1, "conv": 4, "unpack": 1}
    frames = [kernel.spec.frame for kernel in made.plan.kernels.values() if isinstance(kernel.spec, Conv)]
    assert sorted(frames) == [(0, 0, 0, 0), (0, 1, 2, 1), (0, 3, 0, 3), (3, 0, 3, 0)]


def test_what_several_read_is_padded_in_one_copy(builder: Callable[..., Any], compiled_bf16: CompiledBf16) -> None:
    b = builder(1)
    x = b.op("Relu", b.conv(b.input(2, 3, 13, 13), 3, 33, (1, 1)))
    parts = [b.conv(x, 33, out, (3, 3), pads=[1] * 4) for out in (17, 48)]
    pooled = b.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4)
    joined = b.op("Concat", *parts, pooled, b.conv(x, 33, 16, (1, 1)), axis=1)
    y = b.op("Relu", b.conv(joined, 17 + 48 + 33 + 16, 24, (5, 5), pads=[2] * 4, strides=[2, 2]))
    made = compiled_bf16(b.model(y))
    made.check(*b.inputs.values(), tolerance=FEW_LAYERS)
    assert ops(made)["frame"] == 2  # of x, for two; of the concat, which nobody writes alone


def test_residuals_gates_and_depthwise(builder: Callable[..., Any], compiled_bf16: CompiledBf16) -> None:
    b = builder(2)
    x = b.op("Relu", b.conv(b.input(1, 5, 14, 14), 5, 48, (3, 3), pads=[1] * 4))
    y = b.op("Relu", b.conv(x, 48, 48, (3, 3), group=48, pads=[1] * 4))
    y = b.op("Relu", b.op("Add", b.conv(y, 48, 48, (1, 1)), x))
    gate = b.op("Sigmoid", b.conv(b.op("GlobalAveragePool", y), 48, 48, (1, 1)))
    y = b.op("Mul", y, gate)
    y = b.op("MaxPool", b.op("HardSwish", y), kernel_shape=[2, 2], strides=[2, 2])
    y = b.op("Mul", y, b.weight(1, 48, 1, 1))
    made = compiled_bf16(b.model(b.conv(y, 48, 10, (7, 7))))
    made.check(*b.inputs.values(), tolerance=FEW_LAYERS)


def test_groups_shuffles_and_splits(builder: Callable[..., Any], compiled_bf16: CompiledBf16) -> None:
    b = builder(3)
    x = b.op("Relu", b.conv(b.input(1, 3, 9, 9), 3, 64, (3, 3)))
    y = b.op("Relu", b.conv(x, 64, 64, (3, 3), group=8, pads=[1] * 4))
    left, right = b.op("Split", y, num_outputs=2, axis=1, outputs=2)
    y = b.op("Concat", b.conv(left, 32, 32, (1, 1)), b.conv(right, 32, 10, (1, 1)), axis=1)
    y = b.conv(y, 42, 42, (3, 3), group=42)
    y = b.op("LeakyRelu", b.conv(y, 42, 30, (3, 3), group=2))
    compiled_bf16(b.model(y)).check(*b.inputs.values(), tolerance=FEW_LAYERS)


def test_fully_connected_layers_and_what_leaves_them_in_fp32(
    builder: Callable[..., Any], compiled_bf16: CompiledBf16
) -> None:
    b = builder(4)
    x = b.op("Relu", b.conv(b.input(3, 20, 5, 5), 20, 36, (3, 3)))
    flat = b.op("Flatten", x)
    y = b.op("Relu", b.op("Gemm", flat, b.weight(36 * 9, 50), b.weight(50)))
    logits = b.op("Gemm", y, b.weight(50, 7), b.weight(7))
    made = compiled_bf16(b.model(b.op("Softmax", logits), logits))
    made.check(*b.inputs.values(), tolerance=FEW_LAYERS)
    specs = [made.plan.kernels[step.kernel].spec for step in made.plan.steps if step.op == "dense"]
    assert [spec.out_element for spec in specs] == ["bfloat16", WIDE]


def test_an_operator_without_a_kernel_is_computed_in_fp32(
    builder: Callable[..., Any], compiled_bf16: CompiledBf16
) -> None:
    b = builder(5)
    x = b.op("Relu", b.conv(b.input(1, 3, 12, 12), 3, 24, (3, 3)))
    y = b.op("LRN", x, size=5)
    made = compiled_bf16(b.model(b.conv(y, 24, 16, (3, 3), dilations=[2, 2])))
    made.check(*b.inputs.values(), tolerance=FEW_LAYERS)
    assert [refusal.op for refusal in made.plan.refusals] == ["LRN"]


def test_memory_is_halved(builder: Callable[..., Any], compiled_bf16: CompiledBf16) -> None:
    from inception_deploy.lower.lower import lower

    b = builder(6)
    x = b.op("Relu", b.conv(b.input(1, 3, 32, 32), 3, 64, (3, 3)))
    model = b.model(b.op("GlobalAveragePool", b.op("Relu", b.conv(x, 64, 320, (1, 1)))))
    made, wide = compiled_bf16(model), lower(model, targets.parse("cpu:avx512"))
    assert made.plan.arena_bytes < 0.6 * wide.arena_bytes
    assert len(made.plan.weights) < 0.7 * len(wide.weights)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("cpu:avx2", "cpu:avx512-amx does"), ("arm:cortex-a76", "in .bf16.")],
)
def test_targets_that_cannot(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint) as caught:
        targets.parse(name).at("bf16")
    assert caught.value.kind == "precision"


def test_a_machine_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    from inception_deploy.targets import cpu

    have = (cpu.host_features() | set(targets.parse("cpu:avx512-amx").isa.features)) - {"amx_tile", "amx_bf16"}
    monkeypatch.setattr(cpu, "host_features", lambda: have)
    with pytest.raises(DeployError, match="this machine lacks amx_bf16, amx_tile; --target cpu:avx512-amx") as caught:
        targets.parse("cpu").at("bf16")
    assert caught.value.kind == "target"
    assert targets.parse("cpu:avx512-amx").at("bf16").missing() is not None


def test_half_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="does not compute in 'fp16'"):
        targets.parse("cpu").at("fp16")


def test_random_numbers_are_enough_to_tell_a_wrong_kernel(
    builder: Callable[..., Any], compiled_bf16: CompiledBf16
) -> None:
    b = builder(7)
    model = b.model(b.conv(b.input(1, 32, 6, 6), 32, 8, (3, 3)))
    made = compiled_bf16(model)
    broken = [np.roll(x, 1, axis=-1) for x in b.inputs.values()]
    (right,), (wrong,) = made.run(*b.inputs.values()), made.run(*broken)
    assert np.abs(right - wrong).max() > 10 * FEW_LAYERS * np.abs(right).max()
