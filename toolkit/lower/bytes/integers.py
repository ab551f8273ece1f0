"""The integer steps of a quantized model as layers: what `quantize.integer_network` reads, computed as `quantize.arith`
says.

What has no integer kernel is computed in float32 between a dequantization and a quantization, like the layers that the
model itself keeps in float.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from ...graph.rewrite import constant, integer
from ...quantize import integer_network as quantized
from ...quantize.integer_steps import IntegerStep, has_params, params_of, quantized_as
from ...quantize.structure import ACTIVATIONS, POOLS
from . import joins, moves
from .linear import linear, pooled
from .places import image
from .values import Bytes, raw

if TYPE_CHECKING:
    from ..reader import Reader

HANDLERS: dict[str, Callable[[Bytes, IntegerStep], None]] = {
    "linear": linear,
    "pooled": pooled,
    "add": joins.add,
    "mul": joins.multiply,
    "affine": joins.affine,
    "mean": moves.mean,
    "concat": joins.concat,
    "move": moves.move,
    "table": moves.table,
}
"""A handler for each kind of step."""


class Integers:
    """The integer steps of a model, for the reader's walk over its nodes.

    Args:
        reader: what the layers go to.
        model: with the shapes of all values.
        offset: how much lower than they lie convolutions take bytes.
        weighs: there are convolutions whose windows count differently.
        sixteen: there are kernels of numbers of 16 bits.
    """

    def __init__(
        self, reader: Reader, model: onnx.ModelProto, offset: int, *, weighs: bool = False, sixteen: bool = True
    ) -> None:
        self.weighs, self.sixteen = weighs, sixteen
        network = quantized.read(model)
        self.reader, self.steps = reader, Bytes(reader, offset, network.power_of_two)
        self.starts: dict[str, IntegerStep] = {}
        self.taken: set[str] = set()
        for step in network.steps:
            if step.kind in HANDLERS and self._has_kernel(step):
                names = [value.name or "" for node in step.nodes for value in node.outputs]
                # A shortcut may be made between the convolution and its Add.
                self.starts[names[0] if step.shortcut is None else names[1]] = step
                self.taken.update(names)
                self.taken.update(made.name for made in map(quantized_as, step.nodes[-1].outputs) if made is not None)
        self.steps.readers.update(tensor.name for step in self.starts.values() for tensor in step.inputs)
        self.wanted: set[str] = set()
        self._find_edges(ir.from_proto(model).graph)

    def _find_edges(self, graph: ir.Graph) -> None:
        """What crosses between float and integers, and the constants that float reads."""
        outputs = {value.name for value in graph.outputs}
        for node in graph:
            name = node.outputs[0].name or ""
            if node.op_type == "QuantizeLinear" and self._known(node):
                self.steps.params[name] = raw(params_of(node))
            if node.op_type != "DequantizeLinear":
                continue
            users = {user.outputs[0].name or "" for user, _ in node.outputs[0].uses()}
            if name in outputs or users - self.taken:
                self.wanted.add(name)
            source = node.inputs[0]
            if source is not None and constant(source) is None and name in self.wanted:
                self.steps.readers[source.name or ""] += 1
                if self._known(node):
                    self.steps.ways_out[name] = params_of(node)

    def _known(self, node: ir.Node) -> bool:
        """There are kernels of what a QuantizeLinear makes, or a DequantizeLinear reads."""
        return has_params(node) and (self.sixteen or not params_of(node).wide)

    def take(self, node: onnx.NodeProto) -> bool:
        """Whether `node` is a part of an integer step, or an edge between integers and float; then it is done."""
        name, made = node.output[0], node.op_type == "QuantizeLinear" and node.input[0] not in self.reader.constants
        if name in self.starts:
            step = self.starts[name]
            HANDLERS[step.kind](self.steps, step)
        elif name in self.taken:
            pass
        elif made and name in self.steps.params and image(self.reader.shape(name)) is not None:
            self.steps.quantize(node)  # what is no image has no integer readers: a float handler takes it
        elif node.op_type == "DequantizeLinear" and name not in self.wanted:
            pass
        elif name in self.steps.ways_out and node.input[0] not in self.reader.quantized:
            self.steps.dequantize(node)
        else:
            return False
        return True

    def _has_kernel(self, step: IntegerStep) -> bool:
        node, tensors = step.nodes[0], (*step.inputs, *([] if step.output is None else [step.output]))
        if not self.sixteen and any(tensor.params.wide for tensor in tensors):
            return False
        if any(image(self.reader.shape(tensor.name)) is None for tensor in step.inputs):
            return False
        axes = len(self.reader.shape(node.outputs[0].name or ""))
        if step.kind == "linear":
            return axes == (4 if node.op_type == "Conv" else 2) and (step.shortcut is None or step.output is not None)
        if step.kind == "pooled":
            # Windows that count otherwise at the border need a factor of their own there.
            return step.output is not None and (self.weighs or bool((step.factors[0] == 1).all()))
        if step.kind == "mean":
            return axes == 4
        if step.output is None:
            return False
        if step.kind == "concat":
            return integer(node, "axis", 1) % axes == 1
        if (
            step.kind != "move"
            or node.op_type in (*POOLS, *ACTIVATIONS, "QuantizeLinear")
            or moves.flattens(self.steps, step)
        ):
            return True
        self.steps.places[step.name] = found = moves.places_of(self.steps, step)
        used = (bool(value.uses()) or value.is_graph_output() for value in node.outputs)
        return all(places is not None for places, read in zip(found, used, strict=True) if read)
