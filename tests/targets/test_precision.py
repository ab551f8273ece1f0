"""What a network is compiled for is settled once: by the precision's rows, the target, and what the network is."""

from __future__ import annotations

import pytest

from inception_deploy import targets
from inception_deploy.errors import UsageError
from inception_deploy.kernels.elements import HALF, PAIR, PAIRS, TF32
from inception_deploy.targets import cpu
from inception_deploy.targets.precision import PRECISIONS, Precision, names, of, rows, settle
from inception_deploy.verify import TOLERANCES


def test_every_row_has_a_tolerance_and_every_name_a_way_or_a_need() -> None:
    assert names() == ["fp32", "fp32-exact", "tf32", "int8", "bf16", "fp16"]
    assert all(row.stage in TOLERANCES for row in PRECISIONS)
    with pytest.raises(ValueError, match="no tolerance for stage 'compiled-fp8'"):
        Precision(name="fp8", arithmetic="", stage="compiled-fp8")


@pytest.mark.parametrize(
    ("target", "wanted", "quantized", "row", "exact"),
    [
        ("cpu:avx2", None, False, ("fp32", "float32", False), None),
        ("cpu:avx512-amx", None, False, ("fp32", PAIR, False), "fp32 multiply-adds"),
        ("cpu:avx512-amx", "fp32", True, ("fp32", "float32", False), None),  # next to a tie every bit counts
        ("cpu:avx512-amx", "bf16", False, ("bf16", "bfloat16", False), None),
        ("cpu:avx512-vnni", None, True, ("int8", "float32", True), None),
        ("cpu:avx512-vnni", "int8", False, ("int8", "float32", True), None),
        ("cpu:avx2", None, True, ("int8", "float32", True), None),
        ("arm:cortex-a72", "int8", False, ("int8", "float32", True), None),
        ("arm:cortex-a76", "fp16", False, ("fp16", "half", False), None),
        ("arm:neoverse-v1", "bf16", False, ("bf16", "brain", False), None),
        ("cpu:avx512", "int8", False, ("int8", "float32", False), None),
        ("cuda:sm_90", None, False, ("fp32", "float32", False), "fp32 multiply-adds"),
        ("cuda:sm_75", None, False, ("fp32", "float32", False), None),
        ("cuda:sm_90", "fp32", True, ("fp32", "float32", False), None),
        ("cuda:sm_90", "fp32-exact", False, ("fp32-exact", "float32", False), None),
        ("cuda:sm_75", "fp32-exact", False, ("fp32-exact", "float32", False), None),
        ("cuda:sm_75", "fp16", False, ("fp16", HALF, False), None),
        ("cuda:sm_75", "int8", False, ("int8", "float32", True), None),
        ("cuda", "tf32", False, ("tf32", "float32", False), None),
    ],
)
def test_what_is_settled(
    target: str, wanted: str | None, quantized: bool, row: tuple[str, str, bool], exact: str | None
) -> None:
    found = settle(targets.parse(target), wanted, quantized=quantized)
    computed = found.target.precision
    assert (computed.name, computed.element, computed.integers) == row
    assert (found.exact and found.exact.precision.arithmetic) == exact
    assert found.target.name == target


def test_how_tensor_cores_take_fp32() -> None:
    """It is the same in memory: the kernels' machine says it."""
    goal = targets.parse("cuda:sm_75,sm_90")
    assert goal.precisions == ["fp32", "fp32-exact", "int8", "fp16"]
    goal = targets.parse("cuda:sm_90")
    assert [goal.at(name).isa.floats for name in ("fp32", "fp32-exact", "tf32", "fp16")] == [PAIRS, "", TF32, ""]
    assert settle(goal, "fp32", quantized=True).target.isa.floats == ""
    with pytest.raises(UsageError, match="target cpu:avx2 does not compute in 'tf32'"):
        targets.parse("cpu:avx2").at("tf32")


def test_a_quantized_network_in_bf16_is_refused() -> None:
    with pytest.raises(UsageError, match="the ONNX is quantized, and bf16 cannot hold its numbers"):
        settle(targets.parse("cpu:avx512-amx"), "bf16", quantized=True)


def test_this_machine_takes_the_instruction_set_that_a_precision_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    isas = {isa.name: isa for isa in cpu.ISAS}
    everything = frozenset(isas["avx512-vnni"].features + isas["avx512-amx"].features)
    monkeypatch.setattr(cpu, "host_features", lambda: everything)
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    here = targets.parse("cpu")
    chosen = {name: here.at(name).describe()["variant"] for name in here.precisions}
    assert chosen == {"fp32": "avx512-amx", "int8": "avx512-vnni", "bf16": "avx512-amx"}
    exact = settle(here, "fp32", quantized=False).exact
    assert exact is not None
    assert exact.describe()["variant"] == "avx512"


@pytest.mark.parametrize(
    ("features", "chosen"),
    [
        ((), {"fp32": "avx2", "int8": "avx2"}),
        (("avx_vnni",), {"fp32": "avx2", "int8": "avx-vnni"}),
        (("avx_vnni", *cpu.ISAS[0].features), {"fp32": "avx512", "int8": "avx-vnni"}),
    ],
)
def test_integers_take_the_widest_instruction(
    monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...], chosen: dict[str, str]
) -> None:
    """And fp32 asks no more of a machine than it did."""
    isas = {isa.name: isa for isa in cpu.ISAS}
    monkeypatch.setattr(cpu, "host_features", lambda: frozenset((*isas["avx2"].features, *features)))
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    here = targets.parse("cpu")
    assert {name: here.at(name).describe()["variant"] for name in chosen} == chosen


def test_a_bundle_tells_its_row() -> None:
    for row in PRECISIONS:
        assert of({"precision": row.name, "integers": row.integers, "arithmetic": row.arithmetic}) is row
    assert of({"precision": "fp32"}).stage == "compiled"  # of an older bundle
    assert rows("fp8") == []
    with pytest.raises(UsageError, match="'fp8' is not known to this version"):
        of({"precision": "fp8"})


def test_fp16_needs_a_core_that_multiplies_it() -> None:
    with pytest.raises(UsageError, match="target arm:cortex-a72 does not compute in 'fp16'; arm:cortex-a55 does"):
        targets.parse("arm:cortex-a72").at("fp16")


@pytest.mark.parametrize("name", ["arm:cortex-a76", "arm"])
def test_bf16_needs_a_core_with_bfmmla(name: str) -> None:
    with pytest.raises(UsageError, match=f"target {name} does not compute in 'bf16'; arm:neoverse-n2 does") as caught:
        targets.parse(name).at("bf16")
    assert caught.value.allowed == ["arm:neoverse-n2", "arm:neoverse-v1", "arm:neoverse-v2"]
