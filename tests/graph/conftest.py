"""One shared check for every pass: it fires and the numbers stay, or it must not fire and nothing changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from inception_deploy.graph.driver import random_feeds
from inception_deploy.graph.skeleton import check
from inception_deploy.verify import compare, run_onnx

GraphPass = Callable[[ir.Model], int]


def build(text: str, *, seed: int = 0, opset: int = 20, **values: np.ndarray) -> onnx.ModelProto:
    """A model from ONNX's text form: ``(float[1,8,6,6] x, float[4,8,1,1] w) => (float[n,c,h,w] y) { y = Conv(x, w) }``.

    Every input after the first becomes an initialiser: `values` where given, else random numbers; those whose names
    start with "var" are positive.
    """
    header = f'<ir_version: 10, opset_import: ["" : {opset}]> main '
    model = onnx.parser.parse_model(header + text)
    generator = np.random.default_rng(seed)
    for value in list(model.graph.input)[1:]:
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = generator.standard_normal(sizes).astype(np.float32)
        if value.name.startswith("var"):
            array = np.abs(array) + np.float32(0.5)
        array = np.asarray(values.get(value.name, array))
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        model.graph.input.remove(value)
    ready = ir.from_proto(model)
    check(ready)
    return ir.to_proto(ready)


class PassCheck:
    """The two ways a pass is checked."""

    def fires(self, run: GraphPass, model: onnx.ModelProto, *, count: int = 1) -> onnx.ModelProto:
        """`run` fires `count` times on `model`, leaves a valid graph of the same interface, and the same numbers."""
        changed = ir.from_proto(model)
        assert run(changed) == count
        check(changed)
        result = ir.to_proto(changed)
        assert [value.name for value in result.graph.output] == [value.name for value in model.graph.output]
        feeds = random_feeds(model)
        for before, after in zip(run_onnx(model, feeds), run_onnx(result, feeds), strict=True):
            row = compare(before, after, "pass")
            assert row["ok"], row
        assert run(ir.from_proto(result)) == 0, "a second run must find nothing left to do"
        return result

    def silent(self, run: GraphPass, model: onnx.ModelProto) -> None:
        """`run` does not fire on `model`, and leaves it exactly as it was."""
        changed = ir.from_proto(model)
        before = ir.to_proto(changed).SerializeToString()
        assert run(changed) == 0
        assert ir.to_proto(changed).SerializeToString() == before


@pytest.fixture(scope="session")
def check_pass() -> PassCheck:
    return PassCheck()


@pytest.fixture(scope="session", name="build")
def build_fixture() -> Callable[..., onnx.ModelProto]:
    return build


@pytest.fixture(scope="session")
def operators() -> Callable[[onnx.ModelProto], list[str]]:
    return lambda model: [node.op_type for node in model.graph.node]
