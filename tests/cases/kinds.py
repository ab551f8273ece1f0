"""The kinds of files, each a function that gives cases with several choices of parameters.

`KINDS` has them all; `fast` of them run in `make test`, the others in `make test-full`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from .build import Case, Net

HALF_PIXEL, ASYMMETRIC, ALIGN = "half_pixel", "asymmetric", "align_corners"


def resize_modes() -> Iterator[Case]:
    """Every way to map coordinates, to fractional sizes, up and down."""
    coordinates = (HALF_PIXEL, ASYMMETRIC, ALIGN, "pytorch_half_pixel", "half_pixel_symmetric")
    for mode, coordinate in product(("linear", "nearest", "cubic"), coordinates):
        net = Net(opset=19, ir_version=9)
        how: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": coordinate}
        if mode == "nearest":
            how["nearest_mode"] = "floor" if coordinate == ASYMMETRIC else "round_prefer_ceil"
        y = net.op("Resize", net.stem(), "", net.constant([1, 1, 2.5, 0.6]), **how)
        yield net.case(f"resize_{mode}_{coordinate}", y)


def resize_sizes() -> Iterator[Case]:
    """Sizes in place of scales, with empty or missing roi and scales."""
    for opset, empty, coordinate in product((11, 13), (True, False), (HALF_PIXEL, ALIGN)):
        net = Net(opset=opset)
        x = net.stem()
        roi, scales = (net.constant([]), net.constant([])) if empty or opset == 11 else ("", "")
        y = net.op(
            "Resize",
            x,
            roi,
            scales,
            net.constant([1, 8, 9, 12], "int64"),
            mode="linear",
            coordinate_transformation_mode=coordinate,
        )
        yield net.case(f"resize_sizes_o{opset}_{'empty' if empty else 'missing'}_{coordinate}", y)


def resize_axes() -> Iterator[Case]:
    """Opset 18: some axes only, an aspect policy, antialias."""
    for mode, axes in product(("nearest", "linear"), ([2, 3], [3, 2], [3], [-1, -2])):
        net = Net(opset=18)
        y = net.op("Resize", net.stem(), "", net.constant([2.0, 1.5][: len(axes)]), mode=mode, axes=axes)
        yield net.case(f"resize_axes_{mode}_{'_'.join(map(str, axes))}", y)
    for policy in ("not_larger", "not_smaller"):
        net = Net(opset=18)
        how: dict[str, Any] = {"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": policy}
        y = net.op("Resize", net.stem(), "", "", net.constant([9, 11], "int64"), **how)
        yield net.case(f"resize_{policy}", y)
    for mode, scale in product(("linear", "cubic"), (0.5, 0.4, 1.7)):
        net = Net(opset=18)
        y = net.op("Resize", net.stem((10, 11)), "", net.constant([1, 1, scale, scale]), mode=mode, antialias=1)
        yield net.case(f"resize_antialias_{mode}_{scale}", y)


def resize_cubic() -> Iterator[Case]:
    """Other cubics, and what lies outside left out."""
    for a, outside, scale in product((-0.75, -0.5), (0, 1), (2.0, 0.7)):
        net = Net(opset=13)
        how: dict[str, Any] = {"mode": "cubic", "cubic_coeff_a": a, "exclude_outside": outside}
        y = net.op("Resize", net.stem(), "", net.constant([1, 1, scale, scale]), **how)
        yield net.case(f"resize_cubic_{a}_{outside}_{scale}", y)


def resize_crop() -> Iterator[Case]:
    """A region of interest, partly outside."""
    for mode, roi in product(
        ("linear", "nearest"), ([0, 0, 0.2, 0.1, 1, 1, 0.8, 0.9], [0, 0, -0.2, 0.1, 1, 1, 0.8, 1.3])
    ):
        net = Net(opset=13)
        how: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize"}
        y = net.op(
            "Resize",
            net.stem(),
            net.constant(roi),
            "",
            net.constant([1, 8, 7, 7], "int64"),
            extrapolation_value=0.5,
            **how,
        )
        yield net.case(f"resize_crop_{mode}_{'outside' if roi[2] < 0 else 'inside'}", y)


def upsample() -> Iterator[Case]:
    """Upsample of opsets 7 to 9 and Resize of opset 10 take coordinates as they are."""
    for opset, mode, scale in product((7, 8, 9, 10), ("linear", "nearest"), (2.0, 1.5)):
        net = Net(opset=opset, ir_version=3 if opset < 9 else 4)
        x = net.stem((4, 6))
        if opset < 9:
            y = net.op("Upsample", x, mode=mode, scales=[1.0, 1.0, scale, 2.0])
        else:
            y = net.op("Resize" if opset == 10 else "Upsample", x, net.constant([1, 1, scale, 2]), mode=mode)
        yield net.case(f"upsample_o{opset}_{mode}_{scale}", y)


def legacy_broadcast() -> Iterator[Case]:
    """Before opset 7 a smaller operand is laid on the axes from `axis` on, or on the last ones."""
    for kind, axis in product(("Add", "Mul", "Sub", "Div"), (1, None)):
        files = []
        for opset in (6, 13):
            net = Net(opset=opset, ir_version=3 if opset == 6 else 8)
            x = net.stem((8, 8))
            numbers = net.random.uniform(0.5, 2, 8 if axis else (8, 8))
            old = opset == 6
            other = net.constant(numbers if old or not axis else numbers[:, None, None])
            y = net.op(kind, x, other, **({"broadcast": 1} if old else {}), **({"axis": axis} if old and axis else {}))
            y = net.op(kind, y, net.constant([0.5]), **({"broadcast": 1} if old else {}))
            files.append(net.case(f"legacy_{kind.lower()}_{axis}", y))
        yield replace(files[0], equal=files[1].model)


def legacy_pads() -> Iterator[Case]:
    """Pad whose numbers are attributes, one of which its mode does not use."""
    for mode in ("constant", "reflect", "edge"):
        net = Net(opset=9, ir_version=4)
        yield net.case(
            f"legacy_pad_{mode}", net.op("Pad", net.stem(), pads=[0, 0, 1, 2, 0, 0, 0, 1], mode=mode, value=0.5)
        )


def pool_ceil() -> Iterator[Case]:
    """Pools whose last window is cut off, or lies in the padding altogether."""
    windows = ((2, 2, 1), (2, 3, 1), (3, 2, 0), (3, 2, 1), (2, 2, 0), (3, 3, 1))
    for kind, (kernel, stride, pad), size in product(("AveragePool", "MaxPool"), windows, ((11, 8), (7, 10))):
        for counted in (0, 1) if kind == "AveragePool" else (0,):
            net = Net(opset=19, ir_version=9)
            how: dict[str, Any] = {"count_include_pad": counted} if counted else {}
            x = net.stem(size)
            y = net.op(kind, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=1, **how)
            yield net.case(f"{kind.lower()}_ceil_{kernel}_{stride}_{pad}_{counted}_{size[0]}", y)


def pool_padded() -> Iterator[Case]:
    """auto_pad, dilation, uneven padding."""
    for kind, mode, stride in product(("AveragePool", "MaxPool"), ("SAME_UPPER", "SAME_LOWER", "VALID"), (1, 2)):
        net = Net(opset=12)
        y = net.op(kind, net.stem(), kernel_shape=[3, 2], strides=[stride] * 2, auto_pad=mode)
        yield net.case(f"{kind.lower()}_{mode.lower()}_{stride}", y)
    for kind, opset in (("MaxPool", 12), ("AveragePool", 19)):
        net = Net(opset=opset)
        y = net.op(kind, net.stem((9, 8)), kernel_shape=[3, 2], dilations=[2, 3], pads=[1, 0, 2, 1])
        yield net.case(f"{kind.lower()}_dilated", y)


def conv_padded() -> Iterator[Case]:
    """auto_pad of convolutions."""
    for mode, stride, dilation, group in product(("SAME_UPPER", "SAME_LOWER", "VALID"), (1, 2), (1, 2), (1, 8)):
        if stride == dilation == 2:
            continue
        net = Net(opset=13)
        x = net.stem((7, 8))
        y = net.op(
            "Conv",
            x,
            net.weight(8, 8 // group, 3, 2),
            auto_pad=mode,
            strides=[stride] * 2,
            dilations=[dilation] * 2,
            group=group,
        )
        yield net.case(f"conv_{mode.lower()}_{stride}_{dilation}_{group}", y)


def conv_transpose() -> Iterator[Case]:
    """Transposed convolutions of every kind."""
    choices: list[tuple[str, int, int, dict[str, Any]]] = [
        ("two", 2, 1, {"strides": [2, 2]}),
        ("outpad", 3, 1, {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]}),
        ("outpad_uneven", 3, 1, {"strides": [3, 2], "pads": [1, 0, 0, 1], "output_padding": [2, 0]}),
        ("outshape", 3, 1, {"strides": [2, 2], "output_shape": [12, 10]}),
        ("outshape_lower", 3, 1, {"strides": [2, 2], "output_shape": [12, 10], "auto_pad": "SAME_LOWER"}),
        ("outshape_more", 3, 1, {"strides": [2, 2], "output_shape": [14, 12]}),
        ("upper", 3, 1, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("lower", 3, 1, {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
        ("valid", 3, 1, {"strides": [2, 1], "auto_pad": "VALID"}),
        ("groups", 3, 4, {"strides": [2, 2], "pads": [1] * 4}),
        ("depthwise", 4, 8, {"strides": [2, 2], "pads": [1] * 4}),
        ("dilated", 3, 1, {"strides": [2, 2], "dilations": [2, 2], "pads": [2, 1, 1, 2]}),
        ("dilated_groups", 2, 2, {"strides": [2, 3], "dilations": [3, 2]}),
        ("one", 3, 1, {"pads": [1] * 4}),
        ("gaps", 2, 1, {"strides": [3, 3]}),
    ]
    for name, kernel, group, how in choices:
        net = Net(opset=13)
        weight, bias = net.weight(8, 6 // group if 6 % group == 0 else 2, kernel, kernel), None
        bias = net.weight((6 // group if 6 % group == 0 else 2) * group)
        y = net.op("Relu", net.op("ConvTranspose", net.stem(), weight, bias, group=group, **how))
        yield net.case(f"convt_{name}", y)


def norms() -> Iterator[Case]:
    """Normalisations that ONNX defines by other operators, or that few have."""
    for opset, groups in product((18, 21), (2, 4)):
        net = Net(opset=opset, ir_version=10)
        count = groups if opset == 18 else 8
        x, scale, bias = net.stem(), net.constant(np.linspace(0.5, 2, count)), net.constant(np.linspace(-1, 1, count))
        yield net.case(
            f"groupnorm_o{opset}_{groups}",
            net.op("Relu", net.op("GroupNormalization", x, scale, bias, num_groups=groups)),
        )
    for p, axis in product((1, 2), (1, -1)):
        net = Net(opset=13)
        yield net.case(f"lpnorm_{p}_{axis}", net.op("LpNormalization", net.stem(), p=p, axis=axis))
    for size in (2, 3, 4, 5):
        net, same = Net(opset=13), Net(opset=13)
        case = net.case(f"lrn_{size}", net.op("LRN", net.stem(), size=size, alpha=0.5, beta=0.6, bias=1.5))
        x = same.stem()
        near = np.subtract.outer(np.arange(8), np.arange(8))
        band = ((near <= (size - 1) // 2) & (near >= -(size // 2))) * 0.5 / size
        squares = same.op("Conv", same.op("Mul", x, x), same.constant(band[:, :, None, None]))
        below = same.op("Pow", same.op("Add", squares, same.constant(1.5)), same.constant(0.6))
        yield replace(case, equal=same.case("lrn", same.op("Div", x, below)).model)
    net = Net(opset=14)
    x, parameters = net.stem(batch=2), [net.constant(net.random.uniform(0.5, 2, 8)) for _ in range(4)]
    yield net.case("batchnorm_training", net.op("BatchNormalization", x, *parameters, training_mode=1, outputs=3)[0])
    net = Net(opset=18)
    yield net.case("mvn", net.op("MeanVarianceNormalization", net.stem()))


def topk() -> Iterator[Case]:
    """The k largest or smallest, equal ones in order."""
    for axis, largest, k in product((1, -1, 2), (1, 0), (1, 3)):
        net = Net(opset=13)
        x = net.op("Round", net.stem())
        values, indices = net.op("TopK", x, net.constant([k], "int64"), axis=axis, largest=largest, outputs=2)
        yield net.case(f"topk_{axis}_{largest}_{k}", values, f"{indices}_int")


def unpool() -> Iterator[Case]:
    """The places of maxima, and values put back there."""
    for kernel, stride, pad, size in ((2, 2, 0, (8, 6)), (3, 2, 1, (8, 7)), (3, 3, 0, (9, 6))):
        net = Net(opset=12)
        shape: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        values, places = net.op("MaxPool", net.stem(size), outputs=2, **shape)
        if stride >= kernel:
            yield net.case(f"unpool_{kernel}", net.op("MaxUnpool", values, places, **shape))
        yield net.case(f"maxpool_places_{kernel}_{stride}", values, f"{places}_int")


def scatter() -> Iterator[Case]:
    """Values put at places that are computed."""
    for reduction in ("none", "add"):
        net = Net(opset=18)
        x = net.stem((4, 4))
        places = net.op("ArgMax", x, axis=1)
        y = net.op(
            "ScatterElements",
            x,
            places,
            net.op("Exp", net.op("ReduceMax", x, net.constant([1], "int64"))),
            axis=1,
            reduction=reduction,
        )
        yield net.case(f"scatter_{reduction}", y)


def col2im() -> Iterator[Case]:
    """Columns summed back to an image."""
    for stride, pad, dilation in ((1, 0, 1), (2, 1, 1), (1, 1, 2)):
        net = Net(opset=18)
        places = [(s + 2 * pad - dilation * 2 - 1) // stride + 1 for s in (7, 8)]
        x = net.op("Relu", net.input(1, 2 * 9, places[0] * places[1]))
        sizes = net.constant([7, 8], "int64"), net.constant([3, 3], "int64")
        y = net.op("Col2Im", x, *sizes, strides=[stride] * 2, pads=[pad] * 4, dilations=[dilation] * 2)
        yield net.case(f"col2im_{stride}_{pad}_{dilation}", y)


def branches() -> Iterator[Case]:
    """If whose branch can be decided, within the graph and as its output."""
    for ends, taken in product((False, True), (0, 1)):
        net = Net(opset=13)
        x = net.op("GlobalAveragePool", net.stem())
        size = net.op("Gather", net.op("Shape", x), net.constant(3, "int64"), axis=0)
        flag = net.op("Equal", size, net.constant(1 if taken else 2, "int64"))
        axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
        then = helper.make_graph(
            [helper.make_node("Squeeze", [x, "axes"], ["sq"])],
            "then",
            [],
            [helper.make_tensor_value_info("sq", 1, None)],
            [axes],
        )
        other = helper.make_graph(
            [helper.make_node("Neg", [x], ["ng"])], "else", [], [helper.make_tensor_value_info("ng", 1, None)]
        )
        y = net.op("If", flag, then_branch=then, else_branch=other)
        yield net.case(f"if_{'output' if ends else 'inner'}_{taken}", y if ends else net.op("Exp", y))


def dynamic() -> Iterator[Case]:
    """Sizes left open: -1, a name, nothing; and what exporters compute from them."""
    for name, declared in (
        ("negative", (-1, 3, -1, -1)),
        ("named", ("N", 3, "h", "w")),
        ("missing", (None, 3, None, None)),
    ):
        net = Net(opset=13)
        x = net.input(1, 3, 8, 6, declared=declared)
        y = net.op("Relu", net.op("Conv", x, net.weight(8, 3, 3, 3), auto_pad="SAME_UPPER"))
        yield net.case(f"open_{name}", y, options={"input_size": (8, 6)})
    net = Net(opset=13)
    x = net.input(1, 8, 8, 3, declared=("N", 8, 8, 3))
    y = net.op("Conv", net.op("Transpose", x, perm=[0, 3, 1, 2]), net.weight(8, 3, 3, 3), auto_pad="SAME_UPPER")
    y = net.op(
        "Transpose", net.op("MaxPool", net.op("Relu", y), kernel_shape=[2, 2], strides=[2, 2]), perm=[0, 2, 3, 1]
    )
    zero, one, rest = net.constant([0], "int64"), net.constant([1], "int64"), net.constant([128], "int32")
    rows = net.op("Slice", net.op("Cast", net.op("Shape", y), to=TensorProto.INT32), zero, one, zero)
    shape = net.op("Cast", net.op("Concat", rows, rest, axis=0), to=TensorProto.INT64)
    y = net.op("Softmax", net.op("MatMul", net.op("Reshape", y, shape), net.weight(128, 4)), axis=1)
    yield net.case("tf_flatten", helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", 4]))
    net = Net(opset=12)
    x = net.op(
        "Relu",
        net.op(
            "Conv", net.input(1, 3, 4, 10, declared=("N", 3, "?", "W")), net.weight(8, 3, 3, 3), auto_pad="SAME_UPPER"
        ),
    )
    y = net.op("Transpose", net.op("ReduceMean", x, axes=[2], keepdims=0), perm=[0, 2, 1])
    y = net.op("Softmax", net.op("MatMul", y, net.weight(8, 5)), axis=2)
    yield net.case(
        "paddle_sequence",
        helper.make_tensor_value_info(y, TensorProto.FLOAT, ["A", "B", 5]),
        options={"input_size": (4, 10)},
    )


def clips() -> Iterator[Case]:
    """Bounds of one axis, which onnxruntime takes; one bound; none."""
    for name, low, high in (("both", [0.0], [0.5]), ("low", [0.1], None), ("high", None, [0.3]), ("scalars", 0.0, 0.5)):
        net = Net(opset=13)
        bounds = ["" if bound is None else net.constant(bound) for bound in (low, high)]
        yield net.case(f"clip_{name}", net.op("Clip", net.stem(), *bounds))


def newer() -> Iterator[Case]:
    """Operators of late opsets."""
    for alpha in (None, 1.7):
        net = Net(opset=24, ir_version=12)
        yield net.case(f"swish_{alpha}", net.op("Swish", net.stem(), **({"alpha": alpha} if alpha else {})))
    net = Net(opset=22, ir_version=10)
    yield net.case("mish_o22", net.op("Mish", net.op("MaxPool", net.stem(), kernel_shape=[2, 2], strides=[2, 2])))


def halves() -> Iterator[Case]:
    """float16 between float32 inputs and outputs; float16 all through."""
    net = Net()
    x = net.op("Cast", net.input(1, 3, 6, 5), to=TensorProto.FLOAT16)
    y = net.op("Relu", net.op("Conv", x, net.weight(8, 3, 3, 3, dtype="float16"), kernel_shape=[3, 3]))
    yield net.case("half_inside", net.op("Cast", y, to=TensorProto.FLOAT), half=True)
    net = Net()
    y = net.op("Conv", net.input(1, 3, 6, 5, dtype="float16"), net.weight(8, 3, 3, 3, dtype="float16"))
    yield net.case(
        "half_input", helper.make_tensor_value_info(y, TensorProto.FLOAT16, None), refused="float16", half=True
    )


def outputs() -> Iterator[Case]:
    """Several, integers, a weight, an inner value."""
    net = Net()
    x = net.stem()
    y = net.op("Flatten", net.op("GlobalAveragePool", x))
    yield net.case("two_outputs", y, x)
    net = Net()
    y = net.op("ArgMax", net.stem(), axis=1, keepdims=0)
    yield net.case("argmax", f"{y}_int")
    net = Net()
    weight = net.weight(4, 8, 1, 1)
    y = net.op("Conv", net.stem(), weight)
    yield net.case("weight_is_output", y, weight)


def inputs() -> Iterator[Case]:
    """Several inputs, and inputs of whole numbers."""
    net = Net()
    x = net.stem()
    other = net.input(1, 8, 1, 1)
    yield net.case("two_inputs", net.op("Mul", x, other))
    net = Net()
    x, index = net.stem(), net.input(3, dtype="int64")
    yield net.case("index_input", net.op("Gather", x, index, axis=1))
    net = Net()
    bytes_ = net.input(1, 8, 6, 3, dtype="uint8")
    x = net.op("Transpose", net.op("Cast", bytes_, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    yield net.case("bytes_input", net.op("Conv", x, net.weight(8, 3, 3, 3)))


KINDS: dict[str, Callable[[], Iterator[Case]]] = {
    kind.__name__: kind
    for kind in (
        resize_modes, resize_sizes, resize_axes, resize_cubic, resize_crop, upsample, legacy_broadcast, legacy_pads, pool_ceil, pool_padded,
        conv_padded, conv_transpose, norms, topk, unpool, scatter, col2im, branches, dynamic, clips, newer, halves, outputs, inputs,
    )
}  # fmt: skip


def cases(*prefixes: str) -> Iterator[Case]:
    """Every case whose name starts with one of `prefixes`; all without any."""
    for kind in KINDS.values():
        yield from (case for case in kind() if not prefixes or case.name.startswith(prefixes))
