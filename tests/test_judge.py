"""A difference that rounding explains passes, and one that it does not explain is refused, on the inputs that can tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from inception_deploy import judge
from inception_deploy.errors import DeployError
from inception_deploy.rounding import Rounding, moved_feeds, natures, perturbed
from inception_deploy.verify import LOUDEST, ROUNDING, TOLERANCES, require_ok, run_onnx

SHAPE = (2, 8)


def network(nodes: list[Any], weights: dict[str, np.ndarray], out: int = TensorProto.FLOAT) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", out, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def sensitive(factor: float) -> Any:
    """x * w, from which (x * w) rounded to 1 / factor is taken: what is left is rounding, times `factor`."""
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((8, 8)).astype(np.float32), "f": np.full((1, 8), factor, np.float32)}
    weights["v"] = weights["w"] + np.float32(1e-3) * random.standard_normal((8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["x", "v"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["d"]),
        helper.make_node("Mul", ["d", "f"], ["y"]),
    ]
    return network(nodes, weights)


def feeds(**arrays: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    return {name: {"x": array.astype(np.float32)} for name, array in arrays.items()}


NORMAL = np.random.default_rng(1).standard_normal(SHAPE)


def test_noise_is_measured_only_where_the_fixed_tolerance_is_not_met() -> None:
    model, given = sensitive(1.0), feeds(random=NORMAL)
    runs = []

    def run(model: Any, feeds: Any) -> Any:
        runs.append(model)
        return run_onnx(model, feeds)

    y = run_onnx(model, given["random"])
    assert judge.row("optimised", {"random": y}, {"random": y}, Rounding(model, given, run=run))["criterion"] == "fixed"
    assert not runs
    rounding = Rounding(model, given, run=run)
    noise = rounding.noise("random")[0]
    assert TOLERANCES["optimised"].max_rel < ROUNDING * noise < LOUDEST  # a network that the fixed tolerance refuses
    off = [y[0] + np.float32(0.9 * ROUNDING * noise * np.abs(y[0]).max())]
    row = judge.row("optimised", {"random": y}, {"random": off}, rounding)
    assert (row["ok"], row["criterion"], row["quiet"]) == (True, "noise", True)
    assert not judge.row("optimised", {"random": y}, {"random": off}, rounding, allowance=False)["ok"]
    assert not judge.row("optimised", {"random": y}, {"random": off}, None)["ok"]
    off = [y[0] + np.float32(1.2 * ROUNDING * noise * np.abs(y[0]).max())]
    assert not judge.row("optimised", {"random": y}, {"random": off}, rounding)["ok"]


def test_the_same_draws_give_the_same_noise() -> None:
    model, given = sensitive(1.0), feeds(random=NORMAL)
    assert Rounding(model, given).noise("random") == Rounding(model, given).noise("random")


def test_weights_move_by_half_an_ulp_of_their_own_type() -> None:
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((8, 8)).astype(np.float32),
        "h": random.standard_normal((8, 8)).astype(np.float16),
        "z": np.zeros((8, 8), np.float32),
        "s": np.float32([3.0]),
        "i": np.arange(4),
    }
    moved = {t.name: numpy_helper.to_array(t) for t in perturbed(network([], weights), 0).graph.initializer}
    for name in ("w", "h"):
        ulps = np.abs(moved[name].astype(np.float64) - weights[name]) / np.spacing(np.abs(weights[name]))
        assert set(np.round(ulps, 3).ravel()) <= {0.0, 0.5, 1.0}  # half of one just below a power of two
        assert 0.3 < (ulps > 0).mean() < 0.7
    for name in ("z", "s", "i"):
        assert np.array_equal(moved[name], weights[name])
    numbers = np.arange(5)
    assert moved_feeds({"n": numbers}, 0)["n"] is numbers


def loud_and_quiet() -> tuple[Any, dict[str, dict[str, np.ndarray]]]:
    """On `loud` the two products cancel down to rounding; on `quiet` they do not."""
    model = sensitive(1.0)
    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    direction = np.linalg.svd((weights["w"] - weights["v"]).T)[2][-1]  # the difference is smallest along it
    tiny = np.stack([direction, direction]) * 1e3
    return model, feeds(loud=tiny, quiet=NORMAL)


def test_a_loud_input_is_set_aside_and_named() -> None:
    model, given = loud_and_quiet()
    rounding = Rounding(model, given)
    assert ROUNDING * rounding.noise("loud")[0] > LOUDEST > ROUNDING * rounding.noise("quiet")[0]
    expected = {name: run_onnx(model, x) for name, x in given.items()}
    got = {"loud": [expected["loud"][0] * 3], "quiet": expected["quiet"]}
    row = judge.row("optimised", expected, got, rounding)
    assert (row["ok"], row["inputs"], list(row["set_aside"])) == (True, ["quiet"], ["loud"])
    assert judge.note(row) is not None
    assert "'loud' by" in str(judge.note(row))
    wrong = {"loud": expected["loud"], "quiet": [expected["quiet"][0] * 1.5]}
    assert not judge.row("optimised", expected, wrong, rounding)["ok"]


def test_where_no_input_is_quiet_the_row_says_so() -> None:
    model, given = loud_and_quiet()
    del given["quiet"]
    expected = {name: run_onnx(model, x) for name, x in given.items()}
    row = judge.row("optimised", expected, {"loud": [expected["loud"][0] * 1.1]}, Rounding(model, given))
    assert not row["quiet"]
    assert "stage 'optimised' says little" in str(judge.note(row))
    assert not judge.row("optimised", expected, {"loud": [expected["loud"][0] * -1]}, Rounding(model, given))["ok"]


def test_class_numbers_are_excused_by_a_tie_and_by_nothing_else() -> None:
    tied = np.eye(8, dtype=np.float32)
    tied[:, 3] = tied[:, 2]
    model = network(
        [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("ArgMax", ["s"], ["y"], axis=1, keepdims=0)],
        {"w": tied},
        TensorProto.INT64,
    )
    x = np.zeros(SHAPE)
    x[:, 2] = 1
    given = feeds(random=x)
    expected = {"random": run_onnx(model, given["random"])}
    assert expected["random"][0].tolist() == [2, 2]
    rounding = Rounding(model, given)
    assert judge.row("optimised", expected, {"random": [np.array([3, 2])]}, rounding)["ok"]
    row = judge.row("optimised", expected, {"random": [np.array([4, 2])]}, rounding)
    assert (row["ok"], row["max_abs"], row["criterion"]) == (False, 1.0, "equal")


@pytest.mark.parametrize(
    ("ops", "span"),
    [(["Sigmoid"], 1.0), (["Softmax", "Transpose"], 1.0), (["Tanh", "Flatten"], 2.0), (["Relu"], None),
     (["Sigmoid", "Exp"], None)],
)  # fmt: skip
def test_an_output_whose_range_is_known(ops: list[str], span: float | None) -> None:
    names = ["x", *(f"t{i}" for i in range(len(ops) - 1)), "y"]
    nodes = [helper.make_node(op, [a], [b]) for op, a, b in zip(ops, names, names[1:], strict=False)]
    assert natures(network(nodes, {}))[0].span == span


def test_a_map_of_probabilities_that_are_all_nearly_zero_has_no_scale_of_its_own() -> None:
    weights = {
        "w": np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32),
        "b": np.full(8, -13, np.float32),
    }
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["s"]), helper.make_node("Sigmoid", ["s"], ["y"])]
    model, given = network(nodes, weights), feeds(random=NORMAL)
    expected = {"random": run_onnx(model, given["random"])}
    off = {"random": [expected["random"][0] * np.float32(1 + 7e-3)]}
    row = judge.row("optimised", expected, off, Rounding(model, given))
    assert (row["ok"], row["criterion"]) == (True, "range")


def test_outputs_that_are_missing_are_an_error() -> None:
    with pytest.raises(DeployError, match="stage 'onnx' has 1 outputs"):
        judge.row("onnx", {"random": [NORMAL, NORMAL]}, {"random": [NORMAL]})


def test_a_nan_is_refused_before_any_noise_is_measured() -> None:
    model, given = sensitive(1.0), feeds(random=NORMAL)
    expected = {"random": run_onnx(model, given["random"])}
    row = judge.row(
        "optimised", expected, {"random": [expected["random"][0] * np.float32(np.nan)]}, Rounding(model, given)
    )
    assert (row["ok"], row["max_rel"], row["noise"]) == (False, None, None)
    with pytest.raises(DeployError, match="a NaN or an infinity"):
        require_ok(row)
