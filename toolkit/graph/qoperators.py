"""Operators on integers in the form of QuantizeLinear and DequantizeLinear around operators on real numbers.

Quantized networks are written in two ways. QDQ keeps ONNX's own operators and says with Q and DQ what is kept in
integers. The other way has operators of its own: QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger, and
onnxruntime's QLinearAdd, QGemm and so on. They are rewritten to the first way here, where a file comes in, so that
everything behind reads one language. With ``DQ(q, s, z) = (q - z) * s`` and ``Q`` its rounding inverse:

    QLinearConv(x, sx, zx, w, sw, zw, sy, zy, b)   Q(Conv(DQ(x, sx, zx), DQ(w, sw, zw), DQ(b, sx * sw)), sy, zy)
    QLinearMatMul, QGemm, QLinearAdd, QLinearMul, QLinearSigmoid, QLinearLeakyRelu, QLinearSoftmax, QLinearConcat,
    QLinearAveragePool, QLinearGlobalAveragePool, QLinearReduceMean               the same with their operator
    ConvInteger(x, w, zx, zw)                 Cast(Conv(DQ(x, 1, zx), DQ(w, 1, zw)), int32): a scale of 1
    MaxPool, Reshape, Clip, ... of integers   Q(op(DQ(q, s, z)), s, z) with the numbers that q was made with
    DynamicQuantizeLinear                     the real numbers that it stands for: its scale is known at run time only

The first rows are what the operators are defined to compute, up to the rounding of float32. The last but one moves or
compares integers, and ``Q(DQ(q))`` is ``q``: exact. After the last one ConvInteger and MatMulInteger compute with
``q - z`` as float32, exact up to sums of 2^24.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

MICROSOFT = "com.microsoft"

OPSET_OF_SIXTEEN = 21
"""The opset from which on QuantizeLinear makes numbers of 16 bits."""

_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")

_MOVES = frozenset({
    "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Concat", "Pad",
    "Clip", "Max", "Min", "Relu", "Identity", "Dropout", "DepthToSpace", "SpaceToDepth", "Expand", "Tile",
    "GlobalMaxPool", "ReduceMax", "ReduceMin",
})  # fmt: skip
"""What gives some of the integers that it was given."""

_READS = frozenset({"ArgMax", "ArgMin", "Shape", "Size"})
"""What depends on the order or on the number of integers alone."""

_DATA = {"Concat": None, "Max": None, "Min": None, "Clip": 3, "Pad": 1}
"""How many of an operator's first inputs are data; None for all of them. 1 where nothing is said."""


@dataclass(frozen=True)
class _Numbers:
    """The scale and the zero point of a quantized value, as values of the graph."""

    scale: ir.Value
    zero: ir.Value | None


def knows(domain: str, op_type: str) -> bool:
    """Whether `to_qdq` rewrites an operator that is none of ONNX's own."""
    return domain == MICROSOFT and (op_type in _CONVERSIONS or op_type in _RULES)


def has_sixteen(model: ir.Model) -> bool:
    """Whether there are onnxruntime's own QuantizeLinear and DequantizeLinear of 16 bits: ONNX's have such from
    `OPSET_OF_SIXTEEN` on.
    """
    theirs = (node for node in model.graph if node.domain == MICROSOFT and node.op_type in _CONVERSIONS)
    return any((zero := _array(_input(node, 2))) is not None and zero.dtype.itemsize == 2 for node in theirs)


def to_qdq(model: ir.Model) -> int:
    """Rewrite every operator on integers of the top graph that has a rule; gives how many.

    Given: a graph in order. Result: a graph of the same inputs and outputs, of opset 13 or newer where it was 10 or
    newer. An operator whose layout is channels last stays as it is, and all where an older opset cannot be raised.
    """
    if not any(node.op_type in _INTEGER or node.domain == MICROSOFT for node in model.graph) or not _raise(model):
        return 0
    rewriter = _Rewriter(model.graph, model.opset_imports[""])
    fired = 0
    for node in list(model.graph):
        if node.domain not in ("", "ai.onnx", MICROSOFT):
            continue
        rule = _RULES.get(node.op_type)
        if rule is not None and (node.domain == MICROSOFT) == (node.op_type not in _ONNX):
            fired += bool(rule(rewriter, node))
        elif node.op_type in _CONVERSIONS:
            fired += rewriter.convert(node)
        else:
            fired += rewriter.around(node)
    for node in rewriter.idle:
        rewriter.drop(node)
    fired += rewriter.integers_out()
    if not any(node.domain == MICROSOFT for node in model.graph):
        model.opset_imports.pop(MICROSOFT, None)
    return fired


def _raise(model: ir.Model) -> bool:
    """See to it that the opset is 13 or newer, which has a scale for each channel; False where that cannot be."""
    version = model.opset_imports[""]
    if version < 13:
        plain = [node for node in model.graph if not node.domain]
        changed = (*_CHANGED, "Resize") if version < 11 else _CHANGED
        if version < 10 or any(node.op_type in changed for node in plain):
            return False
        if version < 12:
            for node in plain:
                _operands_of_attributes(model.graph, node)
        model.opset_imports[""] = 13
    return True


def _operands_of_attributes(graph: ir.Graph, node: ir.Node) -> None:
    """What opset 10 writes as attributes of a Clip, a Pad or a Dropout, as newer ones do: in operands."""
    from inception_deploy.graph.rewrite import add_constant, ints, number

    def moved(index: int, name: str, array: np.ndarray) -> None:
        node.resize_inputs(max(index + 1, len(node.inputs)))
        node.replace_input_with(index, add_constant(graph, f"{node.name or node.op_type}/{name}", array))

    if node.op_type == "Clip":
        for index, name in enumerate(("min", "max"), 1):
            if name in node.attributes:
                moved(index, name, np.array(number(node, name, 0.0), np.float32))
    elif node.op_type == "Pad" and "pads" in node.attributes:
        moved(1, "pads", np.array(ints(node, "pads"), np.int64))
        if number(node, "value", 0.0):
            moved(2, "value", np.array(number(node, "value", 0.0), np.float32))
    for name in _WERE_ATTRIBUTES.get(node.op_type, ()):
        node.attributes.pop(name, None)


def _array(value: ir.Value | None) -> np.ndarray | None:
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    maker = value.producer()
    if maker is not None and maker.op_type == "Constant" and "value" in maker.attributes:
        return maker.attributes["value"].as_tensor().numpy()
    return None


class _Rewriter:
    """The graph while it is rewritten.

    Attributes:
        numbers: of every quantized value that was seen.
        reals: for the integers of a DynamicQuantizeLinear, the real values of these less their zero point.
        idle: nodes that nothing reads when all is rewritten.
    """

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self.graph, self.opset = graph, opset
        self.numbers: dict[ir.Value, _Numbers] = {}
        self.reals: dict[ir.Value, ir.Value] = {}
        self.idle: list[ir.Node] = []
        self._count = 0

    # -- what rules are written in -------------------------------------------------------------------------------------
    def constant(self, array: Any, near: ir.Node, what: str) -> ir.Value:
        """A new initialiser."""
        import onnx_ir as ir

        name = self._name(near, what)
        value = ir.val(name, const_value=ir.tensor(np.asarray(array), name=name))
        self.graph.register_initializer(value)
        return value

    def emit(
        self, near: ir.Node, op: str, inputs: Sequence[ir.Value | None], *, outputs: int = 1, **attributes: Any
    ) -> list[ir.Value]:
        """A new node before `near`."""
        import onnx_ir as ir

        made = [ir.Value(name=self._name(near, op)) for _ in range(outputs)]
        node = ir.node(op, list(inputs), attributes=attributes, outputs=made, name=made[0].name)
        self.graph.insert_before(near, node)
        return made

    def dequantize(
        self, near: ir.Node, q: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None, axis: int = 0
    ) -> ir.Value:
        """``DQ(q, scale, zero)``; per channel of `axis` where the scale has several values."""
        sizes = _array(scale)
        if sizes is not None and sizes.size > 1:
            zeros = _array(zero)
            if zeros is not None and zeros.size == 1:  # both of one shape
                zero = self.constant(np.broadcast_to(zeros.reshape(()), sizes.shape).copy(), near, "zero")
            return self.emit(near, "DequantizeLinear", [q, scale, zero], axis=axis)[0]
        return self.emit(near, "DequantizeLinear", [q, self.scalar(scale, near), self.scalar(zero, near)])[0]

    def scalar(self, value: ir.Value | None, near: ir.Node) -> ir.Value | None:
        """A vector of one number, as a number."""
        array = _array(value)
        return value if array is None or not array.ndim else self.constant(array.reshape(()), near, "scalar")

    def give(self, node: ir.Node, real: ir.Value, scale: ir.Value | None, zero: ir.Value | None) -> bool:
        """``Q(real, scale, zero)`` takes the place of the node's result."""
        import onnx_ir as ir

        scale, zero = self.scalar(scale, node), self.scalar(zero, node)
        source = node.inputs[0]
        if zero is None and source is not None and source.dtype == ir.DataType.INT8:  # without one it would be uint8
            zero = self.constant(np.int8(0), node, "zero")
        (q,) = self.emit(node, "QuantizeLinear", [real, scale, zero])
        assert scale is not None
        self.replace(node, 0, q)
        self.numbers[q] = _Numbers(scale, zero)
        return self.drop(node)

    def replace(self, node: ir.Node, index: int, value: ir.Value) -> None:
        """All that reads a result of `node` reads `value`, which takes its name and type."""
        import onnx_ir as ir

        old = node.outputs[index]
        name, value.type, value.shape = old.name, old.type, old.shape
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        old.name, value.name = None, name

    def drop(self, node: ir.Node) -> bool:
        self.graph.remove(node, safe=True)
        return True

    def _name(self, near: ir.Node, what: str) -> str:
        self._count += 1
        return f"{near.name or near.outputs[0].name}/{what}_{self._count}"

    # -- quantized values that an operator of ONNX's own reads ---------------------------------------------------------
    def convert(self, node: ir.Node) -> bool:
        """A QuantizeLinear or DequantizeLinear becomes ONNX's own; its numbers are remembered."""
        theirs, node.domain = node.domain == MICROSOFT, ""
        scale, zero = node.inputs[1], _input(node, 2)
        assert scale is not None
        if node.op_type == "QuantizeLinear":
            self.numbers[node.outputs[0]] = _Numbers(scale, zero)
        return theirs

    def around(self, node: ir.Node) -> bool:
        """DQ before, and Q behind, an operator that reads integers as they are."""
        quantized = [value for value in node.inputs if value is not None and value in self.numbers]
        if not quantized:
            return False
        numbers = self.numbers[quantized[0]]
        if node.op_type == "Cast" and _is_float(node.attributes["to"].as_int()):
            # the integers themselves, as numbers: a scale of 1 and no zero point
            (real,) = self.emit(node, "DequantizeLinear", [quantized[0], self.constant(np.float32(1), node, "one")])
            self.replace(node, 0, real)
            return self.drop(node)
        scale = _array(numbers.scale)
        if node.op_type not in _MOVES | _READS or scale is None or scale.size != 1:
            return False
        count = _DATA.get(node.op_type, 1)
        for index, value in enumerate(node.inputs):
            if value is None or (count is not None and index >= count and node.op_type != "Pad"):
                continue
            if value in self.numbers or (_array(value) is not None and _is_byte(value)):
                (real,) = self.emit(node, "DequantizeLinear", [value, numbers.scale, numbers.zero])
                node.replace_input_with(index, real)
        if node.op_type == "Pad" and (len(node.inputs) < 3 or node.inputs[2] is None):
            zero = self.constant(np.zeros((), self._dtype(numbers)), node, "fill")
            (fill,) = self.emit(node, "DequantizeLinear", [zero, numbers.scale, numbers.zero])
            node.resize_inputs(max(3, len(node.inputs)))
            node.replace_input_with(2, fill)
        if node.op_type in _MOVES:
            self._quantize_results(node, numbers)
        return True

    def integers_out(self) -> int:
        """A quantized output of the graph leaves as a Cast of the numbers that its integers are: a scale of 1."""
        import onnx_ir as ir

        fired = 0
        for index, q in enumerate(self.graph.outputs):
            maker = q.producer()
            if q not in self.numbers or maker is None or q.dtype is None:
                continue
            out = ir.Value(name=q.name, type=q.type, shape=q.shape)
            q.name = self._name(maker, "q")
            one = self.constant(np.float32(1), maker, "one")
            real = ir.node("DequantizeLinear", [q, one], name=f"{q.name}/real")
            real.outputs[0].name = real.name
            last = ir.node("Cast", real.outputs, attributes={"to": int(q.dtype)}, outputs=[out], name=out.name)
            self.graph.extend([real, last])
            self.graph.outputs[index] = out
            fired += 1
        return fired

    def _dtype(self, numbers: _Numbers) -> Any:
        zero = _array(numbers.zero)
        return np.uint8 if zero is None else zero.dtype

    def _quantize_results(self, node: ir.Node, numbers: _Numbers) -> None:
        import onnx_ir as ir

        for old in node.outputs:
            uses, leaves = list(old.uses()), old.is_graph_output()
            name, kind = old.name, old.type
            old.name, old.type = self._name(node, "real"), ir.TensorType(ir.DataType.FLOAT)
            q = ir.Value(name=name, type=kind, shape=old.shape)
            made = ir.node("QuantizeLinear", [old, numbers.scale, numbers.zero], outputs=[q], name=name)
            self.graph.insert_after(node, made)
            for user, index in uses:
                user.replace_input_with(index, q)
            if leaves:
                outputs = self.graph.outputs
                outputs[list(outputs).index(old)] = q
            self.numbers[q] = numbers


def _is_byte(value: ir.Value) -> bool:
    array = _array(value)
    return array is not None and array.dtype in (np.uint8, np.int8, np.uint16, np.int16)


def _is_float(kind: int) -> bool:
    import onnx

    return kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _attributes(node: ir.Node, *without: str) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items() if name not in without}


def _channels_last(node: ir.Node) -> bool:
    return "channels_last" in node.attributes and bool(node.attributes["channels_last"].as_int())


def _bias(rewriter: _Rewriter, node: ir.Node, bias: ir.Value | None, x: ir.Value | None, w: ir.Value | None) -> Any:
    """The DQ of an int32 bias in the scale of its accumulator; None where there is none."""
    if bias is None:
        return None
    sides = _array(x), _array(w)
    if sides[0] is None or sides[1] is None:
        (scale,) = rewriter.emit(node, "Mul", [x, w])
    else:
        product = sides[0].astype(np.float32) * sides[1].astype(np.float32)
        scale = rewriter.constant(product.reshape(-1) if product.size > 1 else product.reshape(()), node, "bias_scale")
    return rewriter.dequantize(node, bias, scale, None)


# -- one rule an operator ---------------------------------------------------------------------------------------------


def _conv(rewriter: _Rewriter, node: ir.Node) -> bool:
    x, sx, zx, w, sw, zw, sy, zy = node.inputs[:8]
    if _channels_last(node):
        return False
    inputs = [rewriter.dequantize(node, x, sx, zx), rewriter.dequantize(node, w, sw, zw)]
    if (bias := _bias(rewriter, node, _input(node, 8), sx, sw)) is not None:
        inputs.append(bias)
    (real,) = rewriter.emit(node, "Conv", inputs, **_attributes(node, "channels_last"))
    return rewriter.give(node, real, sy, zy)


def _matmul(rewriter: _Rewriter, node: ir.Node) -> bool:
    a, sa, za, b, sb, zb, sy, zy = node.inputs[:8]
    inputs = [rewriter.dequantize(node, a, sa, za, axis=-2), rewriter.dequantize(node, b, sb, zb, axis=-1)]
    (real,) = rewriter.emit(node, "MatMul", inputs)
    return rewriter.give(node, real, sy, zy)


def _gemm(rewriter: _Rewriter, node: ir.Node) -> bool:
    a, sa, za, b, sb, zb = node.inputs[:6]
    transposed = "transB" in node.attributes and node.attributes["transB"].as_int()
    inputs = [rewriter.dequantize(node, a, sa, za), rewriter.dequantize(node, b, sb, zb, axis=0 if transposed else 1)]
    alpha = node.attributes["alpha"].as_float() if "alpha" in node.attributes else 1.0
    scale = sa if alpha == 1.0 else rewriter.emit(node, "Mul", [sa, rewriter.constant(np.float32(alpha), node, "a")])[0]
    if (bias := _bias(rewriter, node, _input(node, 6), scale, sb)) is not None:
        inputs.append(bias)
    (real,) = rewriter.emit(node, "Gemm", inputs, **_attributes(node))
    if (sy := _input(node, 7)) is None:
        rewriter.replace(node, 0, real)
        return rewriter.drop(node)
    return rewriter.give(node, real, sy, _input(node, 8))


def _two(op: str) -> Callable[[_Rewriter, ir.Node], bool]:
    """Of two quantized tensors."""

    def rule(rewriter: _Rewriter, node: ir.Node) -> bool:
        a, sa, za, b, sb, zb, sy = node.inputs[:7]
        inputs = [rewriter.dequantize(node, a, sa, za), rewriter.dequantize(node, b, sb, zb)]
        (real,) = rewriter.emit(node, op, inputs)
        return rewriter.give(node, real, sy, _input(node, 7))

    return rule


def _one(op: str) -> Callable[[_Rewriter, ir.Node], bool]:
    """Of one quantized tensor: x, its scale, its zero point, the result's scale and zero point."""

    def rule(rewriter: _Rewriter, node: ir.Node) -> bool:
        x, sx, zx, sy = node.inputs[:4]
        if _channels_last(node):
            return False
        given = [rewriter.dequantize(node, x, sx, zx)]
        attributes = _attributes(node, "channels_last", "opset")
        if op == "ReduceMean" and "axes" in attributes and rewriter.opset >= 18:  # an input since then
            given.append(rewriter.constant(np.array(attributes.pop("axes"), np.int64), node, "axes"))
        (real,) = rewriter.emit(node, op, given, **attributes)
        return rewriter.give(node, real, sy, _input(node, 4))

    return rule


def _concat(rewriter: _Rewriter, node: ir.Node) -> bool:
    starts = range(2, len(node.inputs), 3)
    reals = [rewriter.dequantize(node, node.inputs[i], node.inputs[i + 1], node.inputs[i + 2]) for i in starts]
    (real,) = rewriter.emit(node, "Concat", reals, **_attributes(node))
    return rewriter.give(node, real, node.inputs[0], node.inputs[1])


def _integer(op: str, axis: int) -> Callable[[_Rewriter, ir.Node], bool]:
    """ConvInteger and MatMulInteger: int32 sums of products, as real numbers of scale 1."""

    def rule(rewriter: _Rewriter, node: ir.Node) -> bool:
        import onnx

        x, w = node.inputs[0], node.inputs[1]
        zx, zw = _input(node, 2), _input(node, 3)
        one = rewriter.constant(np.float32(1), node, "one")
        source = rewriter.reals.get(x) if x is not None else None
        source = rewriter.dequantize(node, x, one, zx) if source is None else source
        zeros = _array(zw)
        spread = one
        if zeros is not None and zeros.size > 1:
            spread = rewriter.constant(np.ones(zeros.size, np.float32), node, "ones")
            zw = rewriter.constant(zeros.reshape(-1), node, "zeros")
        inputs = [source, rewriter.dequantize(node, w, spread, zw, axis=axis)]
        (real,) = rewriter.emit(node, op, inputs, **_attributes(node))
        for cast, _ in list(node.outputs[0].uses()):
            if cast.op_type == "Cast" and cast.attributes["to"].as_int() == onnx.TensorProto.FLOAT:
                cast.replace_input_with(0, real)  # of float to float: a later pass removes it
        if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            return rewriter.drop(node)
        (whole,) = rewriter.emit(node, "Cast", [real], to=int(onnx.TensorProto.INT32))
        rewriter.replace(node, 0, whole)
        return rewriter.drop(node)

    return rule


def _to_float(rewriter: _Rewriter, node: ir.Node) -> bool:
    """MatMulIntegerToFloat: ``DQ(a) @ DQ(b) + bias``."""
    a, b, sa, sb = node.inputs[:4]
    source = rewriter.dequantize(node, a, sa, _input(node, 4)) if a not in rewriter.reals else None
    if source is None:
        assert a is not None
        (source,) = rewriter.emit(node, "Mul", [rewriter.reals[a], sa])
    (real,) = rewriter.emit(node, "MatMul", [source, rewriter.dequantize(node, b, sb, _input(node, 5), axis=-1)])
    return _finish_matmul(rewriter, node, real, _input(node, 6))


def _dynamic_matmul(rewriter: _Rewriter, node: ir.Node) -> bool:
    """DynamicQuantizeMatMul: `a` is float, quantized on the way."""
    a, b, sb = node.inputs[:3]
    assert a is not None
    whole, scale, _ = _dynamic_parts(rewriter, node, a)
    (source,) = rewriter.emit(node, "Mul", [whole, scale])
    (real,) = rewriter.emit(node, "MatMul", [source, rewriter.dequantize(node, b, sb, _input(node, 3), axis=-1)])
    return _finish_matmul(rewriter, node, real, _input(node, 4))


def _finish_matmul(rewriter: _Rewriter, node: ir.Node, real: ir.Value, bias: ir.Value | None) -> bool:
    if bias is not None:
        (real,) = rewriter.emit(node, "Add", [real, bias])
    rewriter.replace(node, 0, real)
    return rewriter.drop(node)


def _dynamic_parts(rewriter: _Rewriter, node: ir.Node, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """``q - zero``, scale and zero of a tensor that is quantized by its own range, all in float32.

    As ONNX defines it: ``scale = (max(x, 0) - min(x, 0)) / 255``, ``zero = clip(round(-min / scale), 0, 255)``,
    ``q = clip(round(x / scale) + zero, 0, 255)``.
    """

    def emit(op: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        return rewriter.emit(node, op, list(inputs), **attributes)[0]

    nothing, most = (rewriter.constant(np.float32(end), node, "end") for end in (0, 255))
    high = emit("Max", emit("ReduceMax", x, keepdims=0), nothing)
    low = emit("Min", emit("ReduceMin", x, keepdims=0), nothing)
    scale = emit("Div", emit("Sub", high, low), most)
    zero = emit("Clip", emit("Round", emit("Div", emit("Neg", low), scale)), nothing, most)
    shifted = emit("Add", emit("Round", emit("Div", x, scale)), zero)
    return emit("Sub", emit("Clip", shifted, nothing, most), zero), scale, zero


def _dynamic(rewriter: _Rewriter, node: ir.Node) -> bool:
    """DynamicQuantizeLinear, where only ConvInteger, MatMulInteger and DequantizeLinear read its integers."""
    (x,) = node.inputs
    q, _, old_zero = node.outputs
    readers = {user.op_type for user, _ in q.uses()}
    if q.is_graph_output() or readers - {"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"} or x is None:
        return False
    if any(user.op_type not in readers for user, _ in old_zero.uses()) or old_zero.is_graph_output():
        return False
    whole, scale, _ = _dynamic_parts(rewriter, node, x)
    rewriter.replace(node, 1, scale)
    rewriter.reals[q] = whole
    rewriter.idle.append(node)
    return True


_CHANGED = frozenset({"Squeeze", "Unsqueeze", "Split", "ReduceSum", "Softmax", "LogSoftmax", "Hardmax", "Upsample"})
"""Operators that mean something else, or are written otherwise, from opset 13 on than from 10 on."""

_WERE_ATTRIBUTES = {"Clip": ("min", "max"), "Pad": ("pads", "value"), "Dropout": ("ratio",)}
"""What are operands since opset 11 or 12."""

_ONNX = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")

_INTEGER = frozenset({*_ONNX, "QuantizeLinear"})
"""ONNX's own operators that give integers."""

_RULES: dict[str, Callable[[_Rewriter, ir.Node], bool]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "ConvInteger": _integer("Conv", 0),
    "MatMulInteger": _integer("MatMul", -1),
    "DynamicQuantizeLinear": _dynamic,
    "QGemm": _gemm,
    "QLinearAdd": _two("Add"),
    "QLinearMul": _two("Mul"),
    "QLinearSigmoid": _one("Sigmoid"),
    "QLinearLeakyRelu": _one("LeakyRelu"),
    "QLinearSoftmax": _one("Softmax"),
    "QLinearGlobalAveragePool": _one("GlobalAveragePool"),
    "QLinearAveragePool": _one("AveragePool"),
    "QLinearReduceMean": _one("ReduceMean"),
    "QLinearConcat": _concat,
    "MatMulIntegerToFloat": _to_float,
    "DynamicQuantizeMatMul": _dynamic_matmul,
}
