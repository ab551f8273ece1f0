"""ONNX to layers: walks the optimised graph once, fusing epilogues and adopting branches into their concat as it goes.

An operator is read by its handler in `ops.OPS`. A handler that cannot serve a node raises `Refuse` with the reason; the node then
takes TVM's default kernel through the Relax importer (`Extern`) and is listed in the Plan's refusals.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from ..errors import DeployError
from ..kernels.spec import BLOCK, Extern, Map, Pack, Unpack
from .network import Layer, Network, Param, Storage, Value
from .plan import Refusal


class Refuse(Exception):
    """A handler's no, with the reason."""


def blocks_of(channels: int) -> int:
    """Blocks of 16 that hold so many channels."""
    return -(-channels // BLOCK)


class Reader:
    """What is known while the graph is walked.

    Attributes:
        network: the layers so far.
        values: ONNX value name to `Value`.
        constants: ONNX value name to array.
        producer: storage to the layer that writes it, for fusing epilogues.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = shape_inference.infer_shapes(model, strict_mode=True)
        graph = inferred.graph
        self.network = Network()
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.values: dict[str, Value] = {}
        self.producer: dict[Storage, Layer] = {}
        self.types = {v.name: v.type.tensor_type for v in (*graph.value_info, *graph.output, *graph.input)}
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.uses.update(o.name for o in graph.output)
        self.output_names = [o.name for o in graph.output]
        self._graph = graph

    # -- facts about the graph -------------------------------------------------------------------------------------
    def shape(self, name: str) -> tuple[int, ...]:
        """The static shape of a value."""
        if name in self.constants:
            return tuple(self.constants[name].shape)
        dims = self.types[name].shape.dim
        if any(not d.HasField("dim_value") for d in dims):
            got = [d.dim_param or d.dim_value for d in dims]
            raise DeployError(f"the shape of '{name}' is not fixed: {got}", kind="onnx", got=got,
                              allowed="static shapes; give --batch and --input-size")
        return tuple(d.dim_value for d in dims)

    def constant(self, name: str, what: str) -> np.ndarray:
        """The array of a constant input; refuses one that is computed."""
        if name not in self.constants:
            raise Refuse(f"{what} is computed at run time")
        return self.constants[name]

    def private(self, name: str) -> bool:
        """Only one node reads this value, and the graph does not give it out."""
        return self.uses[name] == 1 and name not in self.output_names

    # -- values ----------------------------------------------------------------------------------------------------
    def value(self, name: str) -> Value:
        """The value as it lies in memory; a constant becomes none (handlers take constants apart themselves)."""
        if name in self.constants:
            raise Refuse(f"'{name}' is a constant where a tensor is expected")
        return self.values[name]

    def blocked(self, value: Value) -> Value:
        """`value` in NCHW16c, packed if need be. (N, C) becomes a 1x1 map."""
        if value.storage.blocked:
            return value
        if len(value.shape) not in (2, 4):
            raise Refuse(f"'{value.name}' has {len(value.shape)} axes, not 2 or 4")
        batch, channels = value.shape[:2]
        height, width = value.shape[2:] if len(value.shape) == 4 else (1, 1)
        storage = Storage(f"{value.name}:packed", batch, height * width, blocks_of(channels), np.arange(channels))
        table = np.full(storage.blocks * BLOCK, -1, np.int32)
        table[:channels] = np.arange(channels)
        spec = Pack(batch, channels, storage.blocks, height * width)
        self.emit("pack", [], spec, [(value.storage, ""), Param("table", table)], storage, value.name)
        packed = Value(value.name, value.shape, storage, height, width)
        self.values[value.name] = packed
        return packed

    def planar(self, value: Value, storage: Storage | None = None) -> Value:
        """`value` in plain NCHW, unpacked if need be (into `storage`, if given)."""
        source = value.storage
        if not source.blocked:
            return value
        assert source.slots is not None
        channels = len(source.slots)
        storage = storage or Storage(f"{value.name}:plain", source.batch, channels * source.pixels)
        spec = Unpack(source.batch, channels, source.blocks, source.pixels)
        self.emit("unpack", [], spec, [(source, "in_stride"), Param("table", source.slots.astype(np.int32))], storage, value.name)
        return Value(value.name, value.shape, storage)

    def with_slots(self, value: Value, slots: np.ndarray) -> Value:
        """`value` with its channels in the given slots, moved if need be."""
        storage = self.blocked(value).storage
        assert storage.slots is not None
        if np.array_equal(storage.slots, slots):
            return self.blocked(value)
        plain = self.planar(value).storage
        moved = Storage(f"{value.name}:moved", storage.batch, storage.pixels, blocks_of(int(slots.max()) + 1), slots)
        table = np.full(moved.blocks * BLOCK, -1, np.int32)
        table[slots] = np.arange(len(slots))
        spec = Pack(storage.batch, len(slots), moved.blocks, storage.pixels)
        self.emit("pack", [], spec, [(plain, ""), Param("table", table)], moved, value.name)
        return Value(value.name, value.shape, moved, value.height, value.width)

    def copy(self, value: Value) -> Value:
        """A blocked value in memory of its own."""
        source = self.blocked(value).storage
        storage = Storage(f"{value.name}:copy", source.batch, source.pixels, source.blocks, source.slots)
        spec = Map("identity", source.batch, source.blocks, source.pixels)
        self.emit("copy", [], spec, [(source, "in_stride")], storage, value.name)
        return Value(value.name, value.shape, storage, value.height, value.width)

    # -- layers ----------------------------------------------------------------------------------------------------
    def emit(self, op: str, nodes: list[str], spec: Any, operands: list[tuple[Storage, str] | Param], output: Storage,
             value: str, macs: int = 0) -> Layer:
        """Append a layer."""
        layer = Layer(op, nodes, spec, operands, output, value, macs)
        self.network.layers.append(layer)
        self.producer[output] = layer
        return layer

    def last(self, layer: Layer) -> None:
        """Move a layer to the end: what was fused into it may need everything before."""
        self.network.layers.remove(layer)
        self.network.layers.append(layer)

    def extern(self, node: onnx.NodeProto, reason: str) -> None:
        """Give a node to TVM's default kernels."""
        inputs = [name for name in node.input if name and name not in self.constants]
        operands: list[tuple[Storage, str] | Param] = [(self.planar(self.value(n)).storage, "") for n in dict.fromkeys(inputs)]
        for index, name in enumerate(node.output):
            if not name or not self.uses[name]:
                continue
            shape = self.shape(name)
            if self.types[name].elem_type != onnx.TensorProto.FLOAT:
                kind = onnx.TensorProto.DataType.Name(self.types[name].elem_type)
                raise DeployError(f"node '{node.name}' ({node.op_type}) gives {kind.lower()} values at run time", kind="onnx",
                                  got=kind.lower(), allowed="float32 tensors (others only where they fold into constants)")
            batch = shape[0] if shape else 1
            storage = Storage(name, batch, int(np.prod(shape, dtype=np.int64)) // batch)
            spec = Extern(self._alone(node, index), node.op_type)
            self.emit("extern", [node.name], spec, list(operands), storage, name)
            self.values[name] = Value(name, shape, storage)
        self.network.refusals.append(Refusal(node.name, node.op_type, reason))

    def _alone(self, node: onnx.NodeProto, output: int) -> bytes:
        """The node as a model of its own; its constants are initialisers, its names are positions (equal nodes, equal bytes)."""
        rename = {name: f"v{i}" for i, name in enumerate(dict.fromkeys([*node.input, *node.output])) if name}
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = "node"
        copy.doc_string = ""
        del copy.input[:], copy.output[:], copy.metadata_props[:]
        copy.input.extend(rename.get(n, "") for n in node.input)
        copy.output.extend(rename.get(n, "") for n in node.output)
        graph = onnx.GraphProto(name="node", node=[copy])
        for name in dict.fromkeys(n for n in node.input if n):
            if name in self.constants:
                graph.initializer.append(numpy_helper.from_array(self.constants[name], rename[name]))
            else:
                graph.input.append(onnx.helper.make_tensor_value_info(rename[name], self.types[name].elem_type, self.shape(name)))
        name = node.output[output]
        graph.output.append(onnx.helper.make_tensor_value_info(rename[name], self.types[name].elem_type, self.shape(name)))
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", self.opset)])
        return bytes(model.SerializeToString(deterministic=True))

    # -- the walk --------------------------------------------------------------------------------------------------
    def read(self) -> Network:
        """The whole graph."""
        from .ops import OPS

        graph = self._graph
        feeds = [i for i in graph.input if i.name not in self.constants]
        for index, feed in enumerate(feeds):
            shape = self.shape(feed.name)
            storage = Storage(feed.name, shape[0], int(np.prod(shape[1:], dtype=np.int64)), port=("input", index))
            self.values[feed.name] = Value(feed.name, shape, storage)
            self.network.inputs.append(self.values[feed.name])
        for node in graph.node:
            handler = OPS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            try:
                if handler is None:
                    raise Refuse(f"there is no kernel of ours for {node.op_type}")
                handler(self, node)
            except Refuse as refuse:
                self.extern(node, str(refuse))
        for index, output in enumerate(graph.output):
            self._give_out(index, output.name)
        return self.network

    def _give_out(self, index: int, name: str) -> None:
        """Let the caller's buffer receive an output of the graph."""
        if name not in self.values:
            raise DeployError(f"output '{name}' of the graph is a constant", kind="onnx", got=name, allowed="computed outputs")
        value = self.values[name]
        if value.storage.blocked:
            channels = int(np.prod(value.shape[1:], dtype=np.int64))
            value = self.planar(value, Storage(name, value.storage.batch, channels, port=("output", index)))
        elif value.storage.port is None:
            value.storage.port = ("output", index)
        else:
            raise DeployError(f"output '{name}' of the graph is its input, or another output, unchanged", kind="onnx", got=name,
                              allowed="outputs that the network computes")
        self.network.outputs.append(Value(name, value.shape, value.storage))


def read(model: onnx.ModelProto) -> Network:
    """The layers of an optimised model with static shapes.

    Raises:
        DeployError: a shape is not static, or a value's type is not float32 at run time.
    """
    return Reader(model).read()
