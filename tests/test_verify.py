"""The comparison must fail when it should: each case here breaks one property of a right answer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inception_deploy.errors import DeployError
from inception_deploy.verify import ROUNDING, TOLERANCES, Scores, Tolerance, compare, require_ok, run_onnx, same_top

LOGITS = np.array([[9.0, 7.0, 5.0, 3.0, 1.0, -1.0, -9.0]], np.float32)


def test_equal_outputs_are_ok_and_have_the_documented_keys() -> None:
    row = compare(LOGITS, LOGITS.copy(), "onnx")
    assert row == {
        "stage": "onnx",
        "reference": "torch",
        "max_abs": 0.0,
        "max_rel": 0.0,
        "cosine": pytest.approx(1.0),
        "top5_same": True,
        "tolerance": 1e-4,
        "noise": None,
        "allowed": pytest.approx(1e-4),
        "criterion": "fixed",
        "ok": True,
    }
    assert require_ok(row) is row


@pytest.mark.parametrize("stage", sorted(TOLERANCES))
def test_the_limit_is_relative_to_the_largest_reference_value(stage: str) -> None:
    limit = TOLERANCES[stage].max_rel * 9.0
    inside, outside = LOGITS.astype(np.float64), LOGITS.astype(np.float64)
    inside[0, 3] += 0.99 * limit
    outside[0, 3] += 1.01 * limit
    assert compare(LOGITS, inside, stage)["ok"]
    row = compare(LOGITS, outside, stage)
    assert not row["ok"]
    with pytest.raises(DeployError, match=f"stage '{stage}' differs from"):
        require_ok(row)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["reference", "got"])
def test_a_nan_or_an_infinity_is_never_ok(bad: float, side: str) -> None:
    broken = LOGITS.copy()
    broken[0, 2] = bad
    row = compare(broken, LOGITS, "onnx") if side == "reference" else compare(LOGITS, broken, "onnx")
    assert (row["ok"], row["top5_same"], row["max_abs"]) == (False, False, None)
    json.dumps(row, allow_nan=False)


def test_the_same_infinity_on_both_sides_is_not_ok_either() -> None:
    broken = np.full((1, 6), np.inf, np.float32)
    assert not compare(broken, broken, "onnx")["ok"]


def test_a_nan_or_an_infinity_that_the_reference_has_too_is_right() -> None:
    reference = LOGITS.copy()
    reference[0, 2:5] = np.nan, np.inf, -np.inf
    assert compare(reference, reference.copy(), "onnx")["ok"]
    assert not compare(reference, np.where(np.isposinf(reference), -np.inf, reference), "onnx")["ok"]
    off = reference.copy()
    off[0, 0] += 1
    assert not compare(reference, off, "onnx")["ok"]


def test_measured_noise_allows_a_multiple_of_itself_and_no_more() -> None:
    noise = 1e-3
    inside, outside = LOGITS.astype(np.float64), LOGITS.astype(np.float64)
    inside[0, 3] += 0.99 * ROUNDING * noise * 9
    outside[0, 3] += 1.01 * ROUNDING * noise * 9
    row = compare(LOGITS, inside, "optimised", noise=noise)
    assert (row["ok"], row["criterion"], row["noise"]) == (True, "noise", noise)
    assert row["allowed"] == pytest.approx(ROUNDING * noise)
    assert not compare(LOGITS, outside, "optimised", noise=noise)["ok"]
    assert not compare(LOGITS, inside, "pass", noise=noise)["ok"]  # no allowance for rounding there
    with pytest.raises(DeployError, match=r"rounding alone makes 0\.001, so at most 0\.008 is allowed"):
        require_ok(compare(LOGITS, outside, "optimised", noise=noise))


def test_no_noise_excuses_a_network_that_is_broken() -> None:
    assert not compare(LOGITS, LOGITS * -1, "optimised", noise=1.0)["ok"]


def test_a_known_range_has_a_floor_of_a_few_ulps() -> None:
    reference = np.full((1, 8), 2e-5)
    assert not compare(reference, reference + 1e-7, "compiled")["ok"]
    row = compare(reference, reference + 1e-7, "compiled", span=1.0)
    assert (row["ok"], row["criterion"]) == (True, "range")
    assert not compare(reference, reference + 2e-6, "compiled", span=1.0)["ok"]
    assert compare(np.zeros((1, 8)), np.full((1, 8), 1e-7), "compiled", span=1.0)["ok"]


def test_integers_are_equal_or_not() -> None:
    classes = np.arange(2000).reshape(1, 2000)
    off = classes.copy()
    off[0, 0] = 5000
    row = compare(classes, off, "compiled")  # one in 2000 may be: the tolerance is a share
    assert (row["ok"], row["criterion"], row["max_abs"], row["max_rel"]) == (True, "equal", 1.0, 1 / 2000)
    off[0, :4] += 1
    row = compare(classes, off, "compiled")
    assert not row["ok"]
    with pytest.raises(DeployError, match=r"0\.002 of the class numbers or masks are others"):
        require_ok(row)
    mask = np.ones((1, 10), bool)
    assert not compare(mask, ~mask, "quantized")["ok"]


@pytest.mark.parametrize("whole", [False, True])
def test_class_numbers_may_differ_where_their_scores_are_tied(whole: bool) -> None:
    values = np.array([[1.0, 5.0, 5.0 - 1e-6, 3.0]])
    chosen, other, wrong = (np.full((1, 1) if whole else (1,), k) for k in (1, 2, 3))
    scores = Scores(values, axis=1)
    assert compare(chosen, other, "optimised", scores=scores)["ok"]
    assert not compare(chosen, wrong, "optimised", scores=scores)["ok"]
    assert not compare(chosen, np.full_like(chosen, 4), "optimised", scores=scores)["ok"]
    assert compare(chosen, wrong, "optimised", scores=Scores(values, 1, noise=0.1))["ok"]


def test_kinds_of_dtype_that_differ_are_errors() -> None:
    with pytest.raises(DeployError, match=r"gave an output of float32, its reference 'torch' of int64"):
        compare(np.zeros((1, 3), np.int64), np.zeros((1, 3), np.float32), "onnx")


def test_all_zero_reference() -> None:
    zeros = np.zeros((1, 6), np.float32)
    assert compare(zeros, zeros, "onnx")["ok"]
    assert not compare(zeros, zeros + 1e-9, "onnx")["ok"]


def test_an_order_that_the_reference_tells_apart_may_not_change() -> None:
    swapped = LOGITS[:, [1, 0, 2, 3, 4, 5, 6]]
    assert not compare(LOGITS, swapped, "compiled")["top5_same"]


def test_a_sixth_class_may_enter_only_on_a_tie() -> None:
    reference = np.array([[9.0, 7.0, 5.0, 3.0, 1.0, 1.0, -9.0]])
    assert same_top(reference, reference.copy(), slack=0.0)
    entered = np.array([[9.0, 7.0, 5.0, 3.0, 1.0, 1.0 + 1e-9, -9.0]])
    assert same_top(reference, entered, slack=0.0)
    entered[0, 6] = 10.0
    assert not same_top(reference, entered, slack=0.0)


def test_each_row_of_a_batch_counts() -> None:
    batch = np.concatenate([LOGITS, LOGITS])
    broken = batch.copy()
    broken[1] = broken[1, ::-1]
    assert compare(batch, batch, "onnx")["ok"]
    assert not compare(batch, broken, "onnx")["top5_same"]


def test_shapes_that_differ_and_empty_outputs_are_errors() -> None:
    with pytest.raises(DeployError, match=r"shape \[7, 1\].*\[1, 7\]"):
        compare(LOGITS, LOGITS.T, "onnx")
    with pytest.raises(DeployError):
        compare(np.zeros((1, 0)), np.zeros((1, 0)), "onnx")


def test_unknown_stage_names_the_known_ones() -> None:
    with pytest.raises(DeployError) as caught:
        compare(LOGITS, LOGITS, "onxx")
    assert caught.value.allowed == sorted(TOLERANCES)


@pytest.mark.parametrize("limit", [0.0, -1.0, 1.0, float("nan")])
def test_a_tolerance_that_cannot_fail_cannot_be_written(limit: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Tolerance("torch", limit, "")


finite = hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 12)), elements=st.floats(-1e3, 1e3))


@given(finite, st.floats(-1, 1))
def test_noise_within_the_tolerance_is_ok_and_ten_times_it_is_not(reference: np.ndarray, noise: float) -> None:
    scale, limit = float(np.abs(reference).max()), TOLERANCES["onnx"].max_rel
    if scale < 1e-6:
        return
    assert compare(reference, reference + 0.99 * limit * scale * noise, "onnx")["ok"]
    off = reference.copy()
    off[0, 0] += 10 * limit * scale
    assert not compare(reference, off, "onnx")["ok"]


def test_a_graph_that_onnxruntime_refuses_is_a_deploy_error() -> None:
    import onnx

    with pytest.raises(DeployError, match="onnxruntime cannot run"):
        run_onnx(onnx.ModelProto(), {})
