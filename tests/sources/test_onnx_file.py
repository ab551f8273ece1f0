"""Users' ONNX files: what is taken, and what is refused with which words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inception_deploy.errors import DeployError
from inception_deploy.sources import bounds, onnx_file
from inception_deploy.sources.onnx_file import fix_batch, load
from inception_deploy.verify import compare, require_ok, run_onnx

RNG = np.random.default_rng(0)
Save = Callable[[onnx.ModelProto], Path]


def network(text: str = "c = Conv(x, w)  y = Relu(c)", *, x: str = "1,3,8,8", opset: int = 20) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]> main (float[{x}] x) => (float[n,c,h,w] y) {{ {text} }}'
    )
    model.graph.initializer.append(numpy_helper.from_array(RNG.standard_normal((4, 3, 3, 3)).astype(np.float32), "w"))
    return model


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(model: onnx.ModelProto) -> Path:
        path = tmp_path / "net.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


def refusal(path: str | Path) -> DeployError:
    with pytest.raises(DeployError) as caught:
        load(path)
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 1
    return caught.value


# -- what is taken --------------------------------------------------------------------------------------------------


def test_a_good_file_comes_with_its_shapes(save: Save) -> None:
    model = load(save(network()))
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [1, 4, 6, 6]
    assert {value.name for value in model.graph.value_info} >= {"c"}


def test_initialisers_that_are_listed_as_inputs_are_no_inputs(save: Save) -> None:
    model = network()
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]))
    assert [value.name for value in load(save(model)).graph.input] == ["x"]


def test_nodes_out_of_order_are_put_in_order(save: Save) -> None:
    model = network("a = Relu(x)  c = Conv(a, w)  b = Neg(c)  y = Abs(b)")
    nodes = list(model.graph.node)
    shuffled = [nodes[index] for index in (2, 0, 3, 1)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in shuffled]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    assert [node.op_type for node in load(save(model)).graph.node] == ["Relu", "Conv", "Neg", "Abs"]


def test_the_files_own_order_is_kept(save: Save) -> None:
    model = network("c = Conv(x, w)  a = Neg(c)  b = Relu(c)  d = Abs(a)  y = Add(d, b)")
    assert [node.op_type for node in load(save(model)).graph.node] == ["Conv", "Neg", "Relu", "Abs", "Add"]


def test_local_functions_are_inlined(save: Save) -> None:
    model = network("c = Conv(x, w)  y = own.Twice(c)")
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert [node.op_type for node in load(save(model)).graph.node] == ["Conv", "Add"]


@pytest.mark.parametrize("opset", [9, 11, 13, 17])
def test_an_old_opset_is_converted_and_computes_the_same(save: Save, opset: int) -> None:
    model = network("c = Conv(x, w)  p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c)  y = Relu(p)", opset=opset)
    model.ir_version = 8
    converted = load(save(model))
    assert converted.opset_import[0].version == onnx_file.TARGET_OPSET
    x = RNG.standard_normal((1, 3, 8, 8)).astype(np.float32)
    require_ok(compare(run_onnx(model, {"x": x})[0], run_onnx(converted, {"x": x})[0], "pass"))


# -- what is no model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a model", b"\x00" * 100, b"hello world\n"])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    assert "truncated" in refusal(path).message or "empty" in refusal(path).message


def test_every_truncation_is_refused(save: Save) -> None:
    path = save(network())
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        refusal(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.onnx").message
    assert "folder" in refusal(tmp_path).message


def test_a_file_above_the_limit_is_not_read(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(network())
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 100)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    assert refusal(path).allowed == "at most 100 bytes (one protobuf)"


# -- external data --------------------------------------------------------------------------------------------------


def external(location: str, **entries: str) -> onnx.ModelProto:
    model = network()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return model


WEIGHT = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)


def test_external_data_beside_the_file_is_taken(save: Save, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"12345678" + WEIGHT.tobytes())
    model = load(save(external("sub/w.bin", offset="8", length=str(WEIGHT.nbytes))))
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), WEIGHT)


@pytest.mark.parametrize(
    "location", ["../w.bin", "sub/../../w.bin", "sub/../w.bin", "..\\w.bin", "/etc/passwd", "C:\\w.bin", "\\w.bin", ""]
)
def test_external_data_elsewhere_is_refused_even_where_it_exists(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder):
        (place / "w.bin").write_bytes(WEIGHT.tobytes())
    path = folder / "net.onnx"
    path.write_bytes(external(location).SerializeToString())
    error = refusal(path)
    assert "outside the file's folder" in error.message or "no relative path" in error.message
    assert error.got == location
    assert str(folder) in str(error.allowed)


def test_a_symbolic_link_does_not_lead_outside(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "net.onnx").write_bytes(external("link.bin").SerializeToString())
    assert "outside the file's folder" in refusal(folder / "net.onnx").message


def test_external_data_that_is_missing(save: Save) -> None:
    assert "is missing: w.bin" in refusal(save(external("w.bin"))).message


@pytest.mark.parametrize(
    "entries", [{"length": "431"}, {"offset": "4"}, {"offset": "99999999999999999999"}, {"length": "433"}]
)
def test_external_data_that_does_not_fit(save: Save, tmp_path: Path, entries: dict[str, str]) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    assert "does not fit its external data" in refusal(save(external("w.bin", **entries))).message


@pytest.mark.parametrize("entries", [{"offset": "-4"}, {"length": "abc"}, {"offset": "1e3"}, {"offset": "²"}])
def test_external_data_at_no_number(save: Save, tmp_path: Path, entries: dict[str, str]) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    assert "is not a natural number" in refusal(save(external("w.bin", **entries))).message


def test_external_data_hidden_in_an_attribute_is_refused_too(save: Save) -> None:
    model = network("k = Constant<value = float[1] {1.0}>()  d = Conv(x, w)  y = Mul(d, k)")
    tensor = model.graph.node[0].attribute[0].t
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    assert "no relative path" in refusal(save(model)).message


# -- sizes ----------------------------------------------------------------------------------------------------------


def test_a_weight_of_a_negative_size(save: Save) -> None:
    model = network()
    model.graph.initializer[0].dims[0] = -4
    assert "negative size" in refusal(save(model)).message


def test_a_weight_whose_size_overflows(save: Save) -> None:
    model = network()
    model.graph.initializer[0].dims[:] = [2**32, 2**32, 3, 3]  # 0 in 64 bits
    assert "too big" in refusal(save(model)).message


def test_a_weight_that_holds_fewer_numbers_than_it_says(save: Save) -> None:
    model = network()
    model.graph.initializer[0].dims[0] = 5
    error = refusal(save(model))
    assert (error.got, error.allowed) == (4 * 27 * 4, 5 * 27 * 4)


def test_a_weight_in_typed_fields_is_counted_too(save: Save) -> None:
    model = network()
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 3, 3], WEIGHT.reshape(-1).tolist())
    model.graph.initializer[0].CopyFrom(tensor)
    load(save(model))
    del model.graph.initializer[0].float_data[-1]
    assert "holds 428 bytes" in refusal(save(model)).message


def test_a_weight_of_an_unknown_type(save: Save) -> None:
    model = network()
    model.graph.initializer[0].data_type = 77
    assert "unknown type" in refusal(save(model)).message


def test_an_input_too_big(save: Save) -> None:
    assert "too big" in refusal(save(network(x="1,3,2000000,2000000"))).message


def test_a_negative_size_is_an_open_one(save: Save) -> None:
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = -8
    read = load(save(model))
    assert not read.graph.input[0].type.tensor_type.shape.dim[2].HasField("dim_value")


def test_a_constant_that_would_fill_the_memory(save: Save) -> None:
    model = network("c = Conv(x, w)  b = ConstantOfShape(big)  d = Neg(b)  m = ReduceMax(d)  y = Mul(c, m)")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2**20, 2**20], np.int64), "big"))
    assert "too much to fold" in refusal(save(model)).message


def test_a_convolution_whose_output_would_be_empty(save: Save) -> None:
    error = refusal(save(network(x="1,3,2,2")))
    assert "empty" in error.message or "negative" in error.message


def test_paddings_that_overflow(save: Save) -> None:
    top = 2**62
    model = network(f"c = Conv<pads=[{top},{top},{top},{top}]>(x, w)  y = Relu(c)")
    refusal(save(model))


# -- operators and order --------------------------------------------------------------------------------------------


def test_unknown_operators_are_listed_with_their_nodes(save: Save) -> None:
    model = network("c = Conv(x, w)  a = Fancy(c)  b = com.microsoft.FusedConv(a, w)  y = Fancy(b)")
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node[3].name = "last"
    error = refusal(save(model))
    assert "Fancy (a, last)" in error.message
    assert "com.microsoft.FusedConv (b)" in error.message
    assert error.got == ["Fancy", "com.microsoft.FusedConv"]


def test_an_operator_inside_a_body_counts(save: Save) -> None:
    branch = "{ then_branch = g () => (float[n,c,h,w] t) { t = Fancy(c) }, else_branch = g () => (float[n,c,h,w] t) { t = Neg(c) } }"
    branch = branch.strip("{} ")
    model = network(f"c = Conv(x, w)  k = Constant<value = bool {{1}}>()  y = If<{branch} }}>(k)")
    assert "Fancy (t)" in refusal(save(model)).message


@pytest.mark.parametrize("opset", [0, 99])
def test_an_unknown_opset(save: Save, opset: int) -> None:
    assert "unknown opset" in refusal(save(network(opset=opset))).message


def test_a_cycle_names_its_nodes(save: Save) -> None:
    model = network("c = Conv(x, w)  a = Add(c, b)  b = Relu(a)  y = Neg(b)")
    for node, name in zip(model.graph.node, ("conv", "sum", "relu", "neg"), strict=True):
        node.name = name
    assert "has a cycle: 'relu' -> 'sum' -> 'relu'" in refusal(save(model)).message


def test_a_node_that_reads_itself(save: Save) -> None:
    assert "has a cycle" in refusal(save(network("c = Conv(x, w)  y = Add(c, y)"))).message


def test_a_function_that_calls_itself(save: Save) -> None:
    model = network("c = Conv(x, w)  y = own.A(c)")
    for name, callee in (("A", "B"), ("B", "A")):
        body = [helper.make_node(callee, ["a"], ["b"], domain="own")]
        imports = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", name, ["a"], ["b"], body, imports))
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert "calls itself" in refusal(save(model)).message


def test_a_value_that_nobody_makes_and_one_made_twice(save: Save) -> None:
    assert "reads 'ghost', which nothing makes" in refusal(save(network("c = Conv(ghost, w)  y = Add(c, x)"))).message
    assert "'c' is made twice" in refusal(save(network("c = Conv(x, w)  c = Relu(x)  y = Neg(c)"))).message


def test_an_output_that_nobody_makes(save: Save) -> None:
    model = network()
    model.graph.output[0].name = "ghost"
    assert "output 'ghost' is made by nothing" in refusal(save(model)).message


def test_names_that_are_no_text(save: Save, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(network().SerializeToString().replace(b"Relu", b"Re\xfeu"))
    assert "not UTF-8" in refusal(path).message


def test_no_damaged_byte_ends_in_anything_but_a_refusal(save: Save) -> None:
    path = save(network("c = Conv<pads=[1,1,1,1]>(x, w)  p = MaxPool<kernel_shape=[2,2]>(c)  y = Relu(p)"))
    whole = path.read_bytes()
    graph = whole.index(b"main")
    for position in range(graph - 6, graph + 120):
        for damage in (0x00, 0x7F, 0xFF):
            path.write_bytes(whole[:position] + bytes([damage]) + whole[position + 1 :])
            with contextlib.suppress(DeployError):
                load(path)


def test_what_the_checker_finds(save: Save) -> None:
    assert "checker refuses it" in refusal(save(network("c = Conv<group=2>(x, w, w, w)  y = Relu(c)"))).message


def test_too_many_nodes(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_NODES", 1)
    assert refusal(save(network())).got == 2


# -- the interface --------------------------------------------------------------------------------------------------


def test_several_inputs(save: Save) -> None:
    model = network("c = Conv(x, w)  y = Add(c, z)", x="N,3,8,8")
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4, 1, 1]))
    fixed = fix_batch(load(save(model)), 2)
    assert [value.name for value in fixed.graph.input] == ["x", "z"]
    sizes = [[size.dim_value for size in value.type.tensor_type.shape.dim] for value in fixed.graph.input]
    assert sizes == [[2, 3, 8, 8], [2, 4, 1, 1]]


def test_no_input_and_no_output(save: Save) -> None:
    model = network("y = Neg(w)")
    del model.graph.input[:]
    assert "has no input" in refusal(save(model)).message
    model = network()
    del model.graph.output[:]
    assert "no output" in refusal(save(model)).message


def test_an_input_that_is_no_image(save: Save) -> None:
    model = network()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    assert refusal(save(model)).got == "DOUBLE"
    model = network()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert "has no shape" in refusal(save(model)).message


# -- fix_batch ------------------------------------------------------------------------------------------------------


def shapes(model: onnx.ModelProto) -> tuple[list[int], list[int]]:
    values = (model.graph.input[0], model.graph.output[0])
    first, last = ([dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values)
    return first, last


def test_symbolic_sizes_are_fixed(save: Save) -> None:
    loaded = load(save(network(x="N,3,H,W")))
    fixed = fix_batch(loaded, 2, (10, 12))
    assert shapes(fixed) == ([2, 3, 10, 12], [2, 4, 8, 10])
    assert loaded.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    run_onnx(fixed, {"x": np.zeros((2, 3, 10, 12), np.float32)})


def test_channels_last_is_recognised(save: Save) -> None:
    model = network("t = Transpose<perm=[0,3,1,2]>(x)  y = Conv(t, w)", x="N,H,W,3")
    assert shapes(fix_batch(load(save(model)), 1, (10, 12))) == ([1, 10, 12, 3], [1, 4, 8, 10])


def test_sizes_that_the_file_fixes_may_only_be_confirmed(save: Save) -> None:
    model = load(save(network(x="1,3,8,8")))
    assert shapes(fix_batch(model, 1, (8, 8)))[0] == [1, 3, 8, 8]
    with pytest.raises(DeployError, match="fixes the batch of 'x' to 1"):
        fix_batch(model, 4)
    with pytest.raises(DeployError, match="fixes the height of 'x' to 8") as caught:
        fix_batch(model, 1, (16, 8))
    assert (caught.value.got, caught.value.allowed) == (16, 8)


def test_a_size_left_open_asks_for_it(save: Save) -> None:
    with pytest.raises(DeployError, match=r"leaves sizes open: \[1, 3, '\?', '\?'\]; give --input-size"):
        fix_batch(load(save(network(x="N,3,H,W"))), 1)


@pytest.mark.parametrize(("batch", "size"), [(0, (8, 8)), (1, (0, 8)), (-1, (8, 8)), (1, (2, 2))])
def test_sizes_that_cannot_be(save: Save, batch: int, size: tuple[int, int]) -> None:
    with pytest.raises(DeployError):
        fix_batch(load(save(network(x="N,3,H,W"))), batch, size)
