"""Windows whose padding is a rule: it becomes numbers, and the numbers of the network stay."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from inception_deploy.graph.windows import Window, ceil_pads, explicit_windows, same_pads


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("window", ["", ", strides=[2,3]", ", strides=[3,2]"])
def test_automatic_padding_is_written_out(check_pass, build, mode, window) -> None:
    conv = f'Conv<auto_pad="{mode}"{window}>(x, w)'
    pool = f'MaxPool<kernel_shape=[3,2], auto_pad="{mode}"{window}>(c)'
    text = f"(float[2,3,12,13] x, float[4,3,3,2] w) => (float[n,c,h,v] y) {{ c = {conv}  y = {pool} }}"
    result = check_pass.fires(explicit_windows, build(text), count=2)
    assert not [a for node in result.graph.node for a in node.attribute if a.name == "auto_pad"]


@pytest.mark.parametrize(("mode", "pads"), [("SAME_UPPER", [2, 0, 2, 1]), ("SAME_LOWER", [2, 1, 2, 0])])
def test_a_dilated_window_pads_what_it_reaches(build, mode, pads) -> None:
    """onnxruntime has no kernel for it."""
    text = f'y = Conv<auto_pad="{mode}", dilations=[2,1]>(x, w)'
    model = ir.from_proto(build(f"(float[2,3,12,13] x, float[4,3,3,2] w) => (float[n,c,h,v] y) {{ {text} }}"))
    assert explicit_windows(model) == 1
    assert list(model.graph[0].attributes["pads"].as_ints()) == pads


def test_an_average_does_not_count_its_automatic_padding(check_pass, build) -> None:
    pool = 'AveragePool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER", ceil_mode=1>(x)'
    check_pass.fires(explicit_windows, build(f"(float[2,3,8,8] x) => (float[n,c,h,w] y) {{ y = {pool} }}"))


def test_automatic_padding_of_a_map_of_unknown_size_stays(check_pass, build) -> None:
    text = '(float[2,3,h,v] x, float[4,3,3,3] k) => (float[n,c,i,j] y) { y = Conv<auto_pad="SAME_UPPER">(x, k) }'
    check_pass.silent(explicit_windows, build(text))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "count"),
    [(11, 2, 2, 1, 6), (11, 2, 3, 1, 4), (10, 3, 2, 0, 5), (10, 3, 2, 1, 6), (9, 3, 2, 0, 4)],
)
def test_ceil_mode_counts_the_windows_that_start_inside(
    size: int, kernel: int, stride: int, pad: int, count: int
) -> None:
    added = ceil_pads([Window(size, stride, kernel)], [pad, pad])[0]
    assert (size + 2 * pad + added - kernel) // stride + 1 == count


def test_same_pads_of_an_even_total_are_halved() -> None:
    assert same_pads("SAME_LOWER", [Window(7, 1, 3), Window(8, 2, 5)]) == [1, 2, 1, 1]
    assert same_pads("SAME_UPPER", [Window(7, 1, 3), Window(8, 2, 5)]) == [1, 1, 1, 2]


def test_a_pool_behind_another_sees_its_final_size(build) -> None:
    """onnx's own inference counts a window of the first that lies in the padding: 7 rows, where there are 6."""
    pool = "kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], ceil_mode=1"
    text = f"(float[1,3,11,11] x) => (float[n,c,h,w] y) {{ p = MaxPool<{pool}>(x)  y = AveragePool<{pool}>(p) }}"
    model = ir.from_proto(build(text))
    assert explicit_windows(model) == 2
    assert [tuple(node.outputs[0].shape.numpy()) for node in model.graph] == [(1, 3, 6, 6), (1, 3, 4, 4)]


@pytest.mark.parametrize("counted", [0, 1])
def test_what_ceil_mode_adds_is_not_counted(check_pass, build, counted) -> None:
    pool = (
        f"AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1, count_include_pad={counted}>(x)"
    )
    result = check_pass.fires(explicit_windows, build(f"(float[2,3,8,8] x) => (float[n,c,h,w] y) {{ y = {pool} }}"))
    assert [node.op_type for node in result.graph.node] == ["Pad", "AveragePool"] if counted else ["AveragePool"]


def test_a_wanted_size_of_a_transposed_convolution(check_pass, build) -> None:
    text = "(float[2,4,6,5] x, float[4,3,3,3] w) => (float[n,c,h,v] y) { y = ConvTranspose<strides=[2,2], output_shape=[12,10]>(x, w) }"
    result = check_pass.fires(explicit_windows, build(text))
    attributes = {a.name: list(a.ints) for a in result.graph.node[0].attribute}
    assert attributes["pads"] == [1, 1, 0, 0]
    assert "output_shape" not in attributes
