"""Layers from kernel calls, the graph of layers, and its blocks."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from inception_deploy.reports.page.facts import Facts
from inception_deploy.reports.page.layers import layers_of
from inception_deploy.reports.page.network import label, network_of, title


def step(output: str, *layers: str, op: str = "conv", macs: int = 0, runs: list[float] | None = None) -> dict[str, Any]:
    return {"output": output, "layers": list(layers), "layer": layers[-1] if layers else output, "op": op, "macs": macs,
            "family": f"vector.{op}", "ms": sorted(runs)[len(runs) // 2] if runs else None, "runs_ms": runs, "wave": 0}  # fmt: skip


def test_the_parts_of_a_layer_are_one() -> None:
    steps = [
        step("a:0:data", op="winograd_in", runs=[1.0, 2.0, 3.0]),
        step("a:0:products", "a/conv", "a/relu", macs=7, runs=[10.0, 20.0, 30.0]),
        step("a", op="winograd_out", runs=[100.0, 200.0, 300.0]),
        step("a:1:data", op="winograd_in", runs=[1.0, 1.0, 1.0]),
        step("pool:0", "pool", op="max_pool", runs=[1.0, 1.0, 1.0]),
    ]
    first, second = layers_of(steps)
    assert (first.name, first.macs, first.op, len(first.steps)) == ("a/relu", 7, "conv, Winograd", 4)
    assert first.runs_ms == (112.0, 223.0, 334.0)
    assert first.ms == 223.0
    assert (second.name, second.op) == ("pool", "max pool")  # a name with a colon of its own


def test_layers_that_were_not_timed_say_so() -> None:
    (layer,) = layers_of([step("a", "a")])
    assert (layer.ms, layer.runs_ms) == (None, ())


def model(*nodes: tuple[str, str, list[str]]) -> onnx.ModelProto:
    made = [helper.make_node(op, reads, [name], name=name) for name, op, reads in nodes]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", nodes[-1][0])]
    return helper.make_model(helper.make_graph(made, "g", ports[:1], ports[1:]))


def graph(*nodes: tuple[str, str, list[str]], free: tuple[str, ...] = ()):
    found = model(*nodes)
    costs = [{"layer": name, "parameters": 0, "shape": [1, 4]} for name, *_ in nodes]
    layers = layers_of([step(name, name) for name, op, _ in nodes if op != "Concat" and name not in free])
    return network_of(found, costs, layers)


def test_blocks_lie_between_cuts() -> None:
    network = graph(
        ("stem", "Relu", ["x"]),
        ("b/left", "Relu", ["stem"]),
        ("b/right", "Relu", ["stem"]),
        ("b/join", "Concat", ["b/left", "b/right"]),
        ("b/sum", "Add", ["b/join", "stem"]),
        ("head", "Relu", ["b/sum"]),
    )
    assert [(block.title, len(block.boxes)) for block in network.blocks] == [("stem", 1), ("b", 4), ("head", 1)]
    by_name = {box.name: box for box in network.boxes}
    assert by_name["b/join"].layer is None
    assert [network.boxes[i].name for i in by_name["b/sum"].reads] == ["stem", "b/join"]


def test_nodes_of_no_layer_are_passed_through() -> None:
    network = graph(("a", "Relu", ["x"]), ("flat", "Flatten", ["a"]), ("b", "Relu", ["flat"]), free=("flat",))
    assert [box.name for box in network.boxes] == ["a", "b"]
    assert network.boxes[1].reads == (0,)
    assert network.boxes[0].elements == 8  # the network's input, and its own result
    assert [len(block.boxes) for block in network.blocks] == [2]  # two cuts in a row are one block


def test_a_network_without_a_cut_is_one_block() -> None:
    network = graph(("a", "Relu", ["x"]), ("b", "Relu", ["x"]), ("c", "Add", ["a", "b"]))
    assert [len(block.boxes) for block in network.blocks] == [3]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["block/0/a", "block/0/b"], "block/0"),
        (["stem/0/act", "stem/1/act"], "stem"),
        (["layer1.0.conv", "layer1.0.relu"], "layer1.0"),
        (["a", "b", "c"], "a to c"),
        (["alone"], "alone"),
        (["same", "same"], "same"),
        (["conv1", "conv2"], "conv1 to conv2"),
    ],
)
def test_a_block_is_called_what_its_names_share(names: list[str], wanted: str) -> None:
    assert title(names) == wanted


def test_a_node_in_a_few_letters() -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 7], strides=[2, 2])
    assert label(conv) == "1x7 conv /2"
    assert label(helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], group=4)) == "3x3 group conv"
    assert label(helper.make_node("Softmax", ["x"], ["y"])) == "softmax"


def test_a_bundles_network_has_all_of_its_layers(facts: Facts) -> None:
    assert facts.network is not None
    drawn = [box.layer for box in facts.network.boxes if box.layer]
    assert {layer.name for layer in drawn} == {layer.name for layer in facts.layers if layer.nodes}
    assert sorted(number for block in facts.network.blocks for number in block.boxes) == list(
        range(len(facts.network.boxes))
    )
    assert sum(layer.macs for layer in facts.layers) == facts.inspected["macs"]
    assert sum(box.layer is None for box in facts.network.boxes) == 1  # the concat
