"""Islands of channels-last are computed on the map: the numbers stay, TVM's default is not needed, and nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import inception_deploy as idp
from inception_deploy import verify
from inception_deploy.graph import driver
from inception_deploy.lower.lower import lower
from inception_deploy.runtime import compiled
from inception_deploy.targets import parse
from inception_deploy.verify import bound

CHANNELS = 32


class Network:
    """An ONNX, node by node."""

    def __init__(self, channels: int = CHANNELS, size: tuple[int, int] = (6, 5)) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.shape = [2, channels, *size]
        self.x = self.op("Conv", "x", self.weight(channels, channels, 1, 1))

    def weight(self, *shape: int) -> str:
        array = self.random.standard_normal(shape).astype(np.float32) / np.sqrt(max(1, shape[0]))
        self.tensors.append(numpy_helper.from_array(array.astype(np.float32), f"w{len(self.tensors)}"))
        return self.tensors[-1].name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], f"{kind}_{len(self.nodes)}", **attributes))
        return name

    def into(self, name: str) -> str:
        return self.op("Transpose", name, perm=[0, 2, 3, 1])

    def back(self, name: str) -> str:
        return self.op("Transpose", name, perm=[0, 3, 1, 2])

    def model(self, out: str) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info("x", 1, self.shape)], [helper.make_tensor_value_info(out, 1, None)]
        graph = helper.make_graph(self.nodes, "g", *ends, self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model)


def block(net: Network, channels: int = CHANNELS) -> str:
    """ConvNeXt's: a depthwise convolution, an island of two products, a scale, and the shortcut."""
    x = net.op("Conv", net.x, net.weight(channels, 1, 3, 3), group=channels, pads=[1] * 4)
    x = net.op("LayerNormalization", net.into(x), net.weight(channels), net.weight(channels), axis=-1, epsilon=1e-6)
    x = net.op("Add", net.op("MatMul", x, net.weight(channels, 64)), net.weight(64))
    x = net.op("Gelu", x)
    x = net.op("Add", net.weight(channels), net.op("MatMul", x, net.weight(64, channels)))
    x = net.op("Mul", net.back(x), net.weight(channels, 1, 1))
    return net.op("Add", x, net.x)


def check(model: onnx.ModelProto, tmp_path, target: str = "cpu"):
    """Compile it, hold it against onnxruntime, and give the Plan."""
    optimised, _ = driver.optimise(model, target="cpu")
    parsed = parse(target)
    plan = lower(optimised, parsed)
    parsed.build(plan, tmp_path)
    x = np.random.default_rng(1).standard_normal(plan.inputs[0].shape).astype(np.float32)
    (wanted,) = verify.run_onnx(model, {"x": x})
    with compiled.load(tmp_path) as ours:
        (found,) = ours.run(x)
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, atol=bound("kernels") * np.abs(wanted).max())
    return plan


@pytest.mark.parametrize("target", ["cpu", "cpu:avx2"])
def test_a_block_of_convnext_needs_no_default(tmp_path, target) -> None:
    net = Network()
    plan = check(net.model(block(net)), tmp_path, target)
    assert plan.refusals == ()
    assert [step.op for step in plan.steps if step.op not in ("pack", "unpack")] == [
        *("conv", "depthwise", "layernorm", "conv", "gelu", "conv"),
    ]


def test_what_is_multiplied_and_added_goes_into_the_weights(tmp_path) -> None:
    net = Network()
    x = net.op(
        "Mul", net.op("Add", net.op("MatMul", net.into(net.x), net.weight(32, 48)), net.weight(48)), net.weight(48)
    )
    plan = check(net.model(net.back(net.op("Relu", x))), tmp_path)
    assert [step.op for step in plan.steps if "pack" not in step.op] == ["conv", "conv"]


def test_constants_of_a_channel_and_numbers(tmp_path) -> None:
    net = Network()
    x = net.op("Mul", net.into(net.x), net.weight(CHANNELS))
    x = net.op("Sub", x, net.weight(1, 1, 1, CHANNELS))
    plan = check(net.model(net.back(net.op("Div", x, net.weight(1)))), tmp_path)
    assert plan.refusals == ()


def test_what_is_no_island_is_transposed_as_before(tmp_path) -> None:
    """A reader that wants the axes as they are called, beside one that does not."""
    net = Network()
    inside = net.op("Relu", net.into(net.x))
    softmax = net.op("Softmax", inside, axis=-1)
    plan = check(net.model(net.op("Add", net.back(softmax), net.back(inside))), tmp_path)
    assert {refusal.op for refusal in plan.refusals} <= {"Transpose"}


def test_an_island_that_leaves_the_network(tmp_path) -> None:
    net = Network()
    check(net.model(net.op("Sigmoid", net.into(net.x))), tmp_path)


def test_a_constant_for_each_pixel_is_not_one_for_each_channel(tmp_path) -> None:
    net = Network()
    check(net.model(net.back(net.op("Add", net.into(net.x), net.weight(6, 5, 1)))), tmp_path)


def test_two_values_of_an_island(tmp_path) -> None:
    net = Network()
    inside = net.into(net.x)
    x = net.op("Mul", net.op("Sigmoid", inside), net.op("Add", inside, net.weight(CHANNELS)))
    plan = check(net.model(net.back(x)), tmp_path)
    assert plan.refusals == ()


def test_a_norm_of_channels_that_do_not_fill_their_blocks_leaves_the_padding_out(tmp_path) -> None:
    """The padding of a sum with a number is not zero: it would count."""
    net = Network(channels=20)
    x = net.op("Add", net.op("Sigmoid", net.into(net.x)), net.weight(1))
    x = net.op("LayerNormalization", x, net.weight(20), net.weight(20), axis=-1)
    plan = check(net.model(net.back(x)), tmp_path)
    assert plan.refusals == ()


def test_a_batch_and_more_pixels_than_a_unit(tmp_path) -> None:
    net = Network(channels=64, size=(7, 9))
    x = net.op("LayerNormalization", net.into(net.x), net.weight(64), axis=3)
    plan = check(net.model(net.back(x)), tmp_path)
    assert plan.refusals == ()


@pytest.mark.parametrize("rank", [3, 4])
def test_a_quantized_network_with_axes_turned_is_compiled_in_integers(tmp_path, rank) -> None:
    """Channels last between quantizations, and a norm over three axes: what integers read has its own name."""
    net = Network()
    if rank == 4:
        out = net.back(net.op("Relu", net.into(net.x)))
    else:
        net.tensors.append(numpy_helper.from_array(np.array([2, 4, -1], np.int64), "groups"))
        net.tensors.append(numpy_helper.from_array(np.array(net.shape, np.int64), "whole"))
        flat = net.op("InstanceNormalization", net.op("Reshape", net.x, "groups"), net.weight(4), net.weight(4))
        out = net.op("Reshape", flat, "whole")
    onnx.save(net.model(net.op("Conv", out, net.weight(8, CHANNELS, 1, 1))), str(tmp_path / "net.onnx"))
    pictures = np.random.default_rng(2).standard_normal((4, *net.shape[1:])).astype(np.float32)
    np.savez(tmp_path / "pictures.npz", inputs=pictures)
    done = idp.export(
        tmp_path / "net.onnx", tmp_path / "out", precision="int8", calibration=tmp_path / "pictures.npz", effort="fast"
    )
    assert done["ok"]


@pytest.mark.parametrize("channels", [20, 32])
@pytest.mark.parametrize("rank", [3, 4])
def test_plain_rows_are_put_into_blocks_for_products_and_norms(tmp_path, channels, rank) -> None:
    """A network's own input whose channels come last, its shortcut, and what leaves as it came."""
    net = Network(channels)
    net.nodes.clear()
    net.shape = [*(2, 6, 5)[: rank - 1], channels]
    x = net.op("LayerNormalization", "x", net.weight(channels), net.weight(channels), axis=-1)
    x = net.op("Gelu", net.op("Add", net.op("MatMul", x, net.weight(channels, 40)), net.weight(40)))
    x = net.op("Mul", net.op("MatMul", x, net.weight(40, channels)), net.weight(channels))
    plan = check(net.model(net.op("Add", "x", x)), tmp_path)
    assert plan.refusals == ()
    assert [step.op for step in plan.steps] == ["pack", "layernorm", "conv", "gelu", "conv", "unpack"]


def test_a_flattened_map_turned_and_turned_back_moves_nothing(tmp_path) -> None:
    """What attention does around its products: (N, C, H, W) to (N, H W, C) and back."""
    net = Network()
    for name, shape in (("rows", [2, CHANNELS, -1]), ("maps", net.shape)):
        net.tensors.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    x = net.op("Transpose", net.op("Reshape", net.x, "rows"), perm=[0, 2, 1])
    x = net.op("MatMul", net.op("Mul", x, net.weight(CHANNELS)), net.weight(CHANNELS, CHANNELS))
    x = net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 1]), "maps")
    plan = check(net.model(net.op("Conv", x, net.weight(CHANNELS, 1, 3, 3), group=CHANNELS)), tmp_path)
    assert plan.refusals == ()
    assert [step.op for step in plan.steps] == ["pack", "conv", "mul", "conv", "depthwise", "unpack"]


@pytest.mark.parametrize("rank", [3, 4])
def test_channels_with_gaps_between_them_come_out_in_order(tmp_path, rank) -> None:
    """A concat of 20 and 12 channels lies in blocks of its parts."""
    net = Network()
    x = net.op("Concat", net.op("Conv", net.x, net.weight(20, CHANNELS, 1, 1)), net.op("Relu", "b"), axis=1)
    net.nodes.insert(1, helper.make_node("Conv", [net.x, net.weight(12, CHANNELS, 1, 1)], ["b"], "second"))
    net.tensors.append(numpy_helper.from_array(np.array([2, CHANNELS, -1], np.int64), "rows"))
    out = net.into(x) if rank == 4 else net.op("Transpose", net.op("Reshape", x, "rows"), perm=[0, 2, 1])
    plan = check(net.model(net.op("Sigmoid", out)), tmp_path)
    assert plan.refusals == ()


def test_channels_that_are_cut_and_joined(tmp_path) -> None:
    """A gate of MambaOut: two parts of a product's channels beside each other, one of which goes through a convolution."""
    net = Network()
    net.tensors.append(numpy_helper.from_array(np.array([16, 24, 20], np.int64), "sizes"))
    x = net.op("MatMul", net.into(net.x), net.weight(CHANNELS, 60))
    net.nodes.append(helper.make_node("Split", [x, "sizes"], ["a", "b", "c"], "split", axis=3))
    y = net.op("Conv", net.back("c"), net.weight(20, 1, 3, 3), group=20, pads=[1] * 4)
    y = net.op("Concat", "b", net.into(y), net.op("Gelu", "a"), axis=-1)
    plan = check(net.model(net.back(net.op("MatMul", y, net.weight(60, 8)))), tmp_path)
    assert plan.refusals == ()


@pytest.mark.parametrize("last", [True, False])
def test_global_response_norm(tmp_path, last) -> None:
    """GRN of ConvNeXt V2: only what is one number a channel is left to TVM's default."""
    net = Network(channels=20)
    axes = {"pixels": [1, 2] if last else [2, 3], "channels": [-1] if last else [1]}
    for name, value in axes.items():
        net.tensors.append(numpy_helper.from_array(np.array(value, np.int64), name))
    x = net.into(net.x) if last else net.x
    norm = net.op("ReduceL2", x, "pixels")
    mean = net.op("Add", net.op("ReduceMean", norm, "channels"), net.weight(1))
    y = net.op("Mul", x, net.op("Div", norm, mean))
    y = net.op("Add", net.op("Mul", y, net.weight(20) if last else net.weight(20, 1, 1)), x)
    plan = check(net.model(net.back(y) if last else y), tmp_path)
    assert {refusal.op for refusal in plan.refusals} <= {"ReduceMean", "Add", "Div"}
