"""The integer steps of a QDQ model: what the nodes between its QuantizeLinear and DequantizeLinear stand for.

A step is one node that computes, with the activation behind it, between tensors of bytes. Who wrote the model does not
matter: scales and zero points may be anyone's, a bias may be float, a DequantizeLinear may have other numbers than the
QuantizeLinear before it. A node that cannot be integers is a float step, which says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from inception_deploy.errors import DeployError
from inception_deploy.graph.fold import AFFINE, affine_of
from inception_deploy.graph.rewrite import (
    constant,
    dequantized,
    integer,
    ints,
    only_reader,
    operand,
    rank,
    shape,
    text,
)

from .arith import INT32, Ints, count_factors, dequantize, quantize
from .scheme import LIMITS, Dtype, Params
from .step_weights import Linear, StaysFloatError, coarse, numbers_of_linear
from .structure import (
    ACTIVATIONS,
    FUNCTIONS,
    FUSE,
    MEANS,
    MOVES,
    POOLS,
    SCALARS,
    is_activation,
    is_function,
    is_plain_sum,
    is_pointwise,
    only_moves,
    scales_other,
    window_counts,
)


@dataclass(frozen=True)
class Tensor:
    """A quantized tensor: the name of its integers in the model, and what they mean to who makes or reads them."""

    name: str
    params: Params


@dataclass(frozen=True)
class Channelwise:
    """What an affine step computes, in reals: ``scale[c] * x[:, c] + shift[c]``, float64 (C,) both."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


@dataclass(frozen=True)
class IntegerStep:
    """One integer step, or one float node.

    Attributes:
        kind: ``linear``, ``pooled``, ``add``, ``mul``, ``affine``, ``mean``, ``concat``, ``move``, ``table``,
            ``float``, or the two edges ``quantize`` (a float tensor becomes integers) and ``dequantize`` (integers
            become one).
        nodes: the ONNX nodes it stands for; the first names it.
        inputs: the quantized tensors it reads, in order; of a ``linear`` step with an Add behind it, what it
            multiplies and the shortcut. A ``pooled`` step is an AveragePool of stride 1, the 1x1 Conv that alone reads
            it, and a Relu or Clip, where there is one: `arith` says what it computes, `factors` how its windows count.
        output: the quantized tensor it makes; None where its result leaves as float.
        result: the name of its float result; the integers' dequantization where there are both.
        linear: the numbers of a linear or pooled step; of the latter the weight is (O, I, 1, 1), that of each tap.
        channelwise: the numbers of an affine step, whose nodes are a chain of Mul, Div, Add, Sub or BatchNormalization.
        reason: why a float node is one.
    """

    kind: str
    nodes: tuple[ir.Node, ...]
    inputs: tuple[Tensor, ...]
    output: Tensor | None
    result: str
    linear: Linear | None = None
    channelwise: Channelwise | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """The name of the node that computes."""
        return self.nodes[0].name or ""

    @property
    def shortcut(self) -> Tensor | None:
        """What a linear step adds to its accumulators, before they are rounded: `arith.add_shortcut`, or
        `arith.requantize_sum`. Its nodes are the Conv, the Add and a Relu or Clip, where there is one; its result is
        theirs.
        """
        return self.inputs[1] if self.kind == "linear" and len(self.inputs) > 1 else None

    @property
    def exponents(self) -> NDArray[np.int32]:
        """Under powers of two, the exponent of a linear or pooled step's accumulators: ``n_x + n_w``, int32 (O,)."""
        assert self.linear is not None
        return np.round(np.log2(self.linear.scale)).astype(np.int32) + self.inputs[0].params.exponent

    @property
    def shifts(self) -> NDArray[np.int32]:
        """Under powers of two, how far the accumulators are shifted to the right: int32 (O,), and by ``j`` more where a
        pooled step's window counts ``m / 2^j`` times.
        """
        assert self.output is not None
        return self.output.params.exponent - self.exponents

    @property
    def shortcut_shifts(self) -> NDArray[np.int32]:
        """How far the shortcut is shifted to the left: ``n_s - n_x - n_w``, int32 (O,), never negative."""
        assert self.shortcut is not None
        return self.shortcut.params.exponent - self.exponents

    @property
    def factor_and_shift(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of an affine step, what `arith.scale_channels` multiplies by and adds, float32 (C,)."""
        assert self.channelwise is not None
        assert self.output is not None
        y = np.float64(np.float32(self.output.params.scale))
        factor = self.channelwise.scale * np.float64(np.float32(self.inputs[0].params.scale)) / y
        return factor.astype(np.float32), (self.channelwise.shift / y).astype(np.float32)

    @property
    def factors(self) -> tuple[Ints, Ints]:
        """Of a pooled step, m and j of each window, int32 (OH, OW): `arith.count_factors`."""
        pool = self.nodes[0]
        found = count_factors(window_counts(pool, (shape(pool.inputs[0]) or ())[2:]), taps_of(pool))
        assert found is not None, "a window that shifts cannot weigh is no pooled step"
        return found


def steps_of(graph: ir.Graph, *, ours: bool, power_of_two: bool = False) -> list[IntegerStep]:
    """All steps, in the graph's order.

    Args:
        ours: the insertion chose scales for which every sum fits 32 bits; otherwise that is checked.
        power_of_two: an AveragePool whose result goes into a 1x1 Conv and nowhere else, unrounded, is one step with it.
            A Conv whose result goes into an Add so, is one step with that, in files of others too; it stands where the
            Add does.
    """
    waiting: dict[ir.Node, IntegerStep] = {}  # steps that stand at a later node
    made: set[ir.Node] = set()  # the QuantizeLinear nodes that belong to integer steps
    taken: set[ir.Node] = set()
    steps: list[IntegerStep] = []
    for node in graph:
        if node in waiting:
            steps.append(waiting[node])
        if node in taken or node in made or (node.op_type == "DequantizeLinear" and not _computed(node.inputs[0])):
            continue
        edge = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        try:
            step = _edge(node) if edge else _integer(node, ours, power_of_two)
        except StaysFloatError as why:
            step = IntegerStep("float", (node,), (), None, node.outputs[0].name or "", reason=str(why))
        if step.output is not None and step.kind != "quantize":
            made.update(user for value in step.nodes[-1].outputs for user, _ in value.uses() if quantized_as(value))
        if step.shortcut is not None:
            waiting[step.nodes[1]] = step
        else:
            steps.append(step)
        taken.update(step.nodes)
    return steps


# -- edges and tensors ------------------------------------------------------------------------------------------------


def _edge(node: ir.Node) -> IntegerStep:
    """A QuantizeLinear of what no integer step makes, or a DequantizeLinear; the latter counts where float reads it. A
    QuantizeLinear of what was dequantized changes the scale of integers, or how many bits they have.
    """
    params = _params(node)
    if node.op_type == "QuantizeLinear":
        tensor = Tensor(node.outputs[0].name or "", params)
        maker = None if node.inputs[0] is None else node.inputs[0].producer()
        if (
            maker is not None
            and maker.op_type == "DequantizeLinear"
            and _computed(node.inputs[0])
            and has_params(maker)
        ):
            return IntegerStep("move", (node,), (_tensor(node.inputs[0]),), tensor, tensor.name)
        return IntegerStep("quantize", (node,), (), tensor, _name(node.inputs[0]))
    return IntegerStep(
        "dequantize", (node,), (Tensor(_name(node.inputs[0]), params),), None, node.outputs[0].name or ""
    )


def _tensor(value: ir.Value | None) -> Tensor:
    """The quantized tensor that a float value is the dequantization of."""
    maker = None if value is None else value.producer()
    if maker is None or maker.op_type != "DequantizeLinear":
        raise StaysFloatError(f"it reads '{_name(value)}', which is not quantized")
    return Tensor(_name(maker.inputs[0]), _params(maker))


def quantized_as(result: ir.Value) -> Tensor | None:
    """The integers that a float result is turned into, and nothing else; None where it is read as float."""
    user = only_reader(result)
    if user is None or user.op_type != "QuantizeLinear":
        return None
    try:
        return Tensor(user.outputs[0].name or "", _params(user))
    except StaysFloatError:
        return None


def params_of(node: ir.Node) -> Params:
    """The scale and zero point of a QuantizeLinear or DequantizeLinear.

    Raises:
        DeployError: (kind ``quantize``) they are no constant scalars of 8 or 16 bits.
    """
    try:
        return _params(node)
    except StaysFloatError as why:
        message = f"node '{node.name}' has no constant scale and zero point of 8 or 16 bits: {why}"
        allowed = "one constant scale and zero point a tensor"
        raise DeployError(message, kind="quantize", got=node.name, allowed=allowed) from why


def has_params(node: ir.Node) -> bool:
    """Whether `params_of` knows a QuantizeLinear or DequantizeLinear."""
    try:
        _params(node)
    except StaysFloatError:
        return False
    return True


def _params(node: ir.Node) -> Params:
    scale, zero = constant(operand(node, 1)), constant(operand(node, 2))
    if scale is None or (zero is None and operand(node, 2) is not None):
        raise StaysFloatError("a scale is computed at run time")
    if scale.size != 1:
        raise StaysFloatError("an activation has a scale for each channel")
    kind = _integer_type(node)
    if kind not in LIMITS:
        raise StaysFloatError(f"an activation is {kind or 'of an unknown type'}, not of 8 or 16 bits")
    number, offset = float(np.float32(scale.reshape(()))), int(zero.reshape(())) if zero is not None else 0
    if not (np.isfinite(number) and number > 0):
        raise StaysFloatError(f"an activation has the scale {number}")
    return Params(number, offset, cast(Dtype, kind))


def _integer_type(node: ir.Node) -> str:
    """numpy's name of the integers that a QuantizeLinear makes or a DequantizeLinear reads."""
    zero = constant(operand(node, 2))
    if zero is not None:
        return str(zero.dtype)
    value = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    if value is not None and value.dtype is not None:
        return str(value.dtype.numpy())
    return "uint8" if node.op_type == "QuantizeLinear" else ""


def _activations(node: ir.Node) -> list[ir.Value]:
    """What a node reads, without constants and dequantized constants."""
    return [value for value in node.inputs if value is not None and _computed(value)]


def _computed(value: ir.Value | None) -> bool:
    return constant(value) is None and dequantized(value) is None


def _name(value: ir.Value | None) -> str:
    return (value.name or "") if value is not None else ""


# -- steps ------------------------------------------------------------------------------------------------------------


def _integer(node: ir.Node, ours: bool, power_of_two: bool) -> IntegerStep:
    conv = _summed(node) if power_of_two else None
    scaled = None if power_of_two else _channelwise(node)
    if scaled is not None:
        return _affine(*scaled)
    kind = _kind(node) if conv is None else "pooled"
    inputs = tuple(_tensor(value) for value in _activations(node))
    if not inputs:
        raise StaysFloatError("it reads nothing that is quantized")
    nodes = [node] if conv is None else [node, conv]
    whole = power_of_two or not ours  # ours rounds before it adds under float scales
    if whole and kind == "linear" and (shortcut := _shortcut(node)) is not None:
        inputs += (_tensor(shortcut),)
        nodes += [user for user, _ in node.outputs[0].uses()]
    first = len(nodes)
    while (follower := only_reader(nodes[-1].outputs[0])) is not None:
        if not _follows(kind, follower, nodes[first - 1 :], inputs):
            break
        nodes.append(follower)
    result = nodes[-1].outputs[0]
    output = next(filter(None, map(quantized_as, nodes[-1].outputs)), None)
    if output is None and kind in ("move", "table", "concat"):
        raise StaysFloatError("its result is not quantized again")
    if node.op_type == "Pad" and output is not None and output.params != inputs[0].params:
        _require_filling(node, inputs[0].params, output.params)
    if kind == "mean":
        _require_short_sums(node, inputs[0].params)
    linear = None
    if kind == "linear" or conv is not None:
        taps = 1 if conv is None else taps_of(node)
        linear = numbers_of_linear(
            conv or node, inputs[0].params, None if output is None else output.params, ours, taps
        )
    return IntegerStep(kind, tuple(nodes), inputs, output, result.name or "", linear)


def _channelwise(node: ir.Node) -> tuple[list[ir.Node], Channelwise] | None:
    """The chain of nodes from this one on that scale and shift each channel of a map, and what they come to; None where
    there is none, or all of it is functions of a value, for which there are tables.
    """
    chain, whole = list[ir.Node](), None
    reader: ir.Node | None = node
    while reader is not None and not reader.domain and reader.op_type in (*AFFINE, "BatchNormalization"):
        found = affine_of(reader)
        if found is None or rank(found.x) != 4 or shape(found.x) != shape(reader.outputs[0]):
            break
        if chain and found.x is not chain[-1].outputs[0]:
            break
        scale, shift = (
            (found.scale, found.shift)
            if whole is None
            else (found.scale * whole.scale, found.scale * whole.shift + found.shift)
        )
        chain.append(reader)
        whole = Channelwise(scale, shift)
        reader = only_reader(reader.outputs[0])
    return None if whole is None or all(map(is_function, chain)) else (chain, whole)


def _affine(chain: list[ir.Node], numbers: Channelwise) -> IntegerStep:
    """The step of `_channelwise`, with the activation behind it."""
    found = affine_of(chain[0])
    assert found is not None
    nodes, given = list(chain), _tensor(found.x)
    follower = only_reader(nodes[-1].outputs[0])
    if follower is not None and is_activation(follower):
        nodes.append(follower)
    result = nodes[-1].outputs[0]
    output = quantized_as(result)
    if output is None:
        raise StaysFloatError("its result is not quantized again")
    step = IntegerStep("affine", tuple(nodes), (given,), output, result.name or "", channelwise=numbers)
    if not all(np.isfinite(part).all() for part in step.factor_and_shift):
        raise StaysFloatError("it scales or shifts a channel by more than float32 holds")
    return step


def taps_of(pool: ir.Node) -> int:
    """How many places an average pooling's whole window has."""
    return math.prod(ints(pool, "kernel_shape"))


def _summed(pool: ir.Node) -> ir.Node | None:
    """The 1x1 convolution that alone reads an average pooling's unrounded result, where shifts weigh its windows."""
    conv = only_reader(pool.outputs[0])
    if pool.op_type != "AveragePool" or pool.domain or conv is None or not is_pointwise(conv):
        return None
    size = (shape(pool.inputs[0]) or ())[2:]
    if conv.inputs[0] is not pool.outputs[0] or not is_plain_sum(pool) or len(size) != 2:
        return None
    _require_plain_window(pool)
    return conv if count_factors(window_counts(pool, size), taps_of(pool)) is not None else None


def _shortcut(conv: ir.Node) -> ir.Value | None:
    """The other side of the Add that alone reads a convolution's unrounded result, where that side is quantized, and so
    is the sum, or what a Relu or Clip makes of it.
    """
    add = only_reader(conv.outputs[0])
    if conv.op_type != "Conv" or add is None or add.op_type != "Add" or add.domain or integer(conv, "group", 1) != 1:
        return None
    behind = only_reader(add.outputs[0])
    last = behind if behind is not None and is_activation(behind) else add
    if quantized_as(last.outputs[0]) is None:
        return None
    other = add.inputs[1] if add.inputs[0] is conv.outputs[0] else add.inputs[0]
    maker = None if other is None else other.producer()
    if maker is None or maker.op_type != "DequantizeLinear" or not _computed(other) or not has_params(maker):
        return None
    return other if shape(other) == shape(conv.outputs[0]) is not None else None


def _kind(node: ir.Node) -> str:
    """What a node can be if all it reads is quantized."""
    op = node.op_type if not node.domain else f"{node.domain}.{node.op_type}"
    others_constant = all(value is None or not _computed(value) for value in node.inputs[1:])
    if op in ("Conv", "Gemm", "MatMul"):
        if rank(node.inputs[0]) not in (None, 4 if op == "Conv" else 2):
            raise StaysFloatError(f"integers know images only, not {rank(node.inputs[0])} axes")
        return "linear"
    if op == "Add" and len(_activations(node)) == 2:
        if len({shape(node.inputs[0]), shape(node.inputs[1])} - {None}) > 1:
            raise StaysFloatError("its two sides have different shapes")
        return "add"
    if op == "Mul" and scales_other(node):
        return "mul"
    if op in MEANS or op in POOLS:
        _require_plain_window(node)
        return "move" if op in POOLS else "mean"
    if op == "Concat" and len(_activations(node)) == len(node.inputs):
        return "concat"
    if op in ACTIVATIONS and is_activation(node):
        return "move"
    if op in MOVES and op not in ACTIVATIONS and others_constant:
        if not only_moves(node):
            raise StaysFloatError(f"this {op} gives other numbers than it is given")
        return "move"
    if is_function(node):
        return "table"
    if op in (*FUNCTIONS, *SCALARS, *MOVES, "Add", "Concat"):
        raise StaysFloatError(f"in integers {op} takes no such operands")
    raise StaysFloatError(f"there is no integer kernel for {op}")


def _require_plain_window(node: ir.Node) -> None:
    if rank(node.inputs[0]) not in (None, 4):
        raise StaysFloatError(f"integers know images only, not {rank(node.inputs[0])} axes")
    if text(node, "auto_pad", "NOTSET") != "NOTSET":
        raise StaysFloatError("its padding depends on the size of the map, which is not known")
    if node.op_type in POOLS:
        if any(value.uses() for value in node.outputs[1:]):
            raise StaysFloatError("the indices of its maxima are used")
    elif integer(node, "ceil_mode", 0) or any(step != 1 for step in ints(node, "dilations", [1])):
        raise StaysFloatError("in integers an average has no ceil_mode and no dilation")


def _require_short_sums(pool: ir.Node, x: Params) -> None:
    """32 bits hold the sum of any window. All that are so wide are of numbers of 16 bits."""
    window = (shape(pool.inputs[0]) or ())[2:] if pool.op_type == "GlobalAveragePool" else ints(pool, "kernel_shape")
    if math.prod(window) * x.reach > INT32.max:
        raise StaysFloatError("the sum of a window may need more than 32 bits")


def _require_filling(pad: ir.Node, x: Params, y: Params) -> None:
    """What is padded with is a number of the input's scale, nearly: it is rounded to that and then to the output's."""
    value = constant(operand(pad, 2))
    if value is None or not value.size or text(pad, "mode", "constant") != "constant":
        return
    real = np.asarray(value.reshape(-1)[:1], np.float32)
    kept = dequantize(quantize(real, x.scale, x.zero, x.dtype), x.scale, x.zero)
    if abs(float(kept[0]) - float(real[0])) > coarse(y):
        raise StaysFloatError("it pads with a number that the scale of its input does not have")


def _follows(kind: str, follower: ir.Node, nodes: list[ir.Node], inputs: tuple[Tensor, ...]) -> bool:
    """Whether a node goes into the step of those before it."""
    if kind != "table":
        return kind in FUSE and len(nodes) == 1 and is_activation(follower)
    if is_function(follower) or is_activation(follower):
        return True
    # x * f(x), where each of its readers may have a DequantizeLinear of its own
    rest = [value for value in follower.inputs if value is not nodes[-1].outputs[0]]
    if follower.op_type not in SCALARS or follower.domain or len(rest) != 1 or not _computed(rest[0]):
        return False
    try:
        return rest[0] is not None and _tensor(rest[0]) == inputs[0]
    except StaysFloatError:
        return False
