"""Small files that ask for much: refused before anything is made, quickly and in little memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from inception_deploy.errors import DeployError
from inception_deploy.sources import capture


def model(nodes: list[NodeProto], *, functions: list[FunctionProto] | None = None, **numbers: object) -> ModelProto:
    """x (1, 3, 8, 8) -> y, with int64 constants by name."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in numbers.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions or [])


def call(name: str, source: str, result: str) -> NodeProto:
    return helper.make_node(name, [source], [result], domain="own")


def function(name: str, nodes: list[NodeProto]) -> FunctionProto:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["x"], ["y"], nodes, opsets)


def doubling(times: int) -> ModelProto:
    functions = [function(f"F{n}", [call(f"F{n + 1}", "x", "t"), call(f"F{n + 1}", "t", "y")]) for n in range(times)]
    return model(
        [call("F0", "x", "y")], functions=[*functions, function(f"F{times}", [helper.make_node("Relu", ["x"], ["y"])])]
    )


def branching(then: NodeProto) -> list[NodeProto]:
    """An If whose one branch is `then`, and the other a Relu."""

    def body(inner: NodeProto) -> GraphProto:
        return helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("y", 1, None)])

    flag = helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(np.array(True)))
    other = body(helper.make_node("Relu", ["x"], ["y"]))
    return [flag, helper.make_node("If", ["t"], ["y"], then_branch=body(then), else_branch=other)]


def nested(depth: int) -> ModelProto:
    """Functions that branch, and call the next one in the branch: deeper than one file can nest bodies."""
    functions = [function(f"F{n}", branching(call(f"F{n + 1}", "x", "y"))) for n in range(depth)]
    last = function(f"F{depth}", [helper.make_node("Relu", ["x"], ["y"])])
    return model([call("F0", "x", "y")], functions=[*functions, last])


def recursive_in_a_body() -> ModelProto:
    return model([call("F", "x", "y")], functions=[function("F", branching(call("F", "x", "y")))])


def filled(*nodes: NodeProto, **numbers: object) -> Callable[[], ModelProto]:
    return lambda: model([*nodes, *ADD], **numbers)


node = helper.make_node
FLAT = node("ReduceSum", ["big"], ["sum"], keepdims=0)
ADD = [node("Cast", ["sum"], ["c"], to=TensorProto.FLOAT), node("Add", ["x", "c"], ["y"])]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: doubling(40), "has too many nodes, once its functions are expanded"),
        (lambda: nested(45), "nests bodies of If, Loop or Scan 45 deep"),
        (recursive_in_a_body, "function 'F' calls itself"),
        (filled(node("ConstantOfShape", ["s"], ["big"]), FLAT, s=[20000, 20000]), "fills a constant of shape"),
        (filled(node("Expand", ["s", "s"], ["big"]), FLAT, s=[30000, 30000]), "Expand"),
        (filled(node("Tile", ["s", "r"], ["big"]), FLAT, s=[1, 2], r=[10**9]), r"Tile\) fills a constant of shape"),
        (filled(node("Range", ["a", "b", "d"], ["big"]), FLAT, a=0, b=10**9, d=1), r"Range\) fills a constant"),
        (
            filled(
                node("Mul", ["s", "s"], ["t"]), node("Concat", ["t", "t"], ["u"], axis=0),
                node("ConstantOfShape", ["u"], ["big"]), FLAT, s=[200],
            ),
            r"fills a constant of shape \[40000, 40000\]",
        ),
        (
            filled(
                node("Shape", ["x"], ["t"]), node("Mul", ["t", "s"], ["u"]), node("ConstantOfShape", ["u"], ["big"]),
                FLAT, s=[100, 100, 10, 10],
            ),
            "fills a constant of shape",
        ),
        (
            filled(*[node("Concat", [f"t{n}", f"t{n}"], [f"t{n + 1}"], axis=0) for n in range(40)],
                   node("ReduceSum", ["t40"], ["sum"], keepdims=0), t0=[1, 2]),
            r"Concat\) fills a constant",
        ),
        (
            filled(node("Range", ["a", "b", "d"], ["row"]), node("Unsqueeze", ["row", "d1"], ["column"]),
                   node("Mul", ["row", "column"], ["big"]), FLAT, a=0, b=9000, d=1, d1=[1]),
            r"Mul\) fills a constant",
        ),
        (
            filled(node("Range", ["a", "b", "d"], ["row"]), node("ReduceSum", ["row"], ["n"], keepdims=1),
                   node("ConstantOfShape", ["n"], ["big"]), FLAT, a=0, b=9000, d=1),
            "makes a constant whose size cannot be told",
        ),
        (
            filled(node("ConstantOfShape", ["s"], ["big"]), FLAT, s=[1] * 70),
            "has 70 axes",
        ),
    ],
    ids=["functions", "bodies", "recursion", "fill", "expand", "tile", "range", "computed", "shape", "concat", "outer",
         "untold", "rank"],
)  # fmt: skip
def test_what_would_grow_is_refused_before_it_does(tmp_path: Path, make: Callable[[], ModelProto], says: str) -> None:
    (tmp_path / "net.onnx").write_bytes(make().SerializeToString())
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DeployError, match=says) as caught:
        capture.load_onnx(tmp_path / "net.onnx")
    assert caught.value.kind == "onnx"
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


@pytest.mark.parametrize(
    "make",
    [
        lambda: doubling(6),
        lambda: nested(8),
        filled(node("ConstantOfShape", ["s"], ["big"]), FLAT, s=[100, 100]),
        filled(node("Range", ["a", "b", "d"], ["big"]), FLAT, a=0, b=10, d=3),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of the libraries that fold
def test_what_stays_small_goes_through(tmp_path: Path, make: Callable[[], ModelProto]) -> None:
    (tmp_path / "net.onnx").write_bytes(make().SerializeToString())
    loaded = capture.load_onnx(tmp_path / "net.onnx")
    onnx.checker.check_model(loaded)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99), "is not float32"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 0), "tensor 's' has no type"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 99), "tensor 's' has an unknown type"),
        (lambda m: setattr(m.opset_import[0], "version", 99), "has an unknown opset"),
        (lambda m: m.graph.node[0].input.__setitem__(0, "nobody"), "reads 'nobody', which nothing makes"),
        (lambda m: m.graph.node.append(m.graph.node[0]), "is made twice"),
    ],
)
def test_a_file_that_is_not_what_it_says(tmp_path: Path, spoil: Callable[[ModelProto], None], says: str) -> None:
    proto = filled(node("ConstantOfShape", ["s"], ["big"]), FLAT, s=[4])()
    spoil(proto)
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(DeployError, match=says):
        capture.load_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize("field", ["location", "name"])
def test_text_that_is_none(tmp_path: Path, field: str) -> None:
    proto = filled(node("ConstantOfShape", ["s"], ["big"]), FLAT, s=[4])()
    tensor = proto.graph.initializer[0]
    if field == "location":
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        tensor.external_data.add(key="location", value="QQQQ")
    else:
        proto.graph.node[0].name = "QQQQ"
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString().replace(b"QQQQ", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(DeployError, match="has text that is not UTF-8 in "):
        capture.load_onnx(tmp_path / "net.onnx")
