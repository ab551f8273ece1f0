"""What is known while a graph is read: values and where they lie, and the layers so far. The handlers' one tool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from ..errors import DeployError
from ..kernels.elements import BLOCK, QUANTIZED, Rounding, element_of, ends
from ..kernels.spec import Map, Pack, Spec, Unpack
from .layers import Layer, Network, Param, Storage, Value


class Refuse(Exception):
    """A handler's no, with the reason."""


def blocks_of(channels: int, block: int = BLOCK) -> int:
    """Blocks that hold so many channels."""
    return -(-channels // block)


def blocks_of_dtype(channels: int, dtype: str) -> int:
    """Blocks that hold so many channels of what a `Storage` may have as its type."""
    return blocks_of(channels, element_of(dtype).block)


class Reader:
    """What is known while the graph is walked.

    Attributes:
        model: with the shapes of all values.
        network: the layers so far.
        element: what blocked float values are kept in.
        values: ONNX value name to `Value`.
        constants: ONNX value name to array.
        producer: storage to the layer that writes it, for fusing epilogues.
        quantized: what QuantizeLinear gave, by name: its scale, zero point and type.
        plain: blocked storage to one that holds the same in plain NCHW.
        islands: a value that lies as a map though its channels come last, to the map's name (`islands`).
        turned: matrices that a product reads as they lie, by the name of what their Transpose would give.
        folded: values whose nodes went into an earlier one.
        parts: a concat's storage to those of its parts in order; of a part that is a concat, to its parts.
    """

    def __init__(self, model: onnx.ModelProto, element: str = "float32") -> None:
        try:
            inferred = shape_inference.infer_shapes(model, strict_mode=True)
        except shape_inference.InferenceError as error:
            first = str(error).strip().splitlines()[0]
            raise DeployError(f"the model's shapes contradict each other: {first}", kind="onnx", got=first) from error
        self.model = inferred
        graph = inferred.graph
        self.network = Network()
        self.element = element
        self.opsets = {o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import}
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.values: dict[str, Value] = {}
        self.producer: dict[Storage, Layer] = {}
        self.quantized: dict[str, tuple[float, int, str]] = {}
        self.plain: dict[Storage, Storage] = {}
        self.parts: dict[Storage, list[Storage]] = {}
        self.islands: dict[str, str] = {}
        self.turned: dict[str, str] = {}
        self.folded: set[str] = set()
        self.types = {v.name: v.type.tensor_type for v in (*graph.value_info, *graph.output, *graph.input)}
        self.uses = Counter(name for node in graph.node for name in node.input)
        self._readers = {name: node for node in graph.node for name in node.input}
        self.uses.update(o.name for o in graph.output)
        self.output_names = [o.name for o in graph.output]

    # -- facts about the graph -------------------------------------------------------------------------------------
    def shape(self, name: str) -> tuple[int, ...]:
        """The static shape of a value."""
        if name in self.constants:
            return tuple(self.constants[name].shape)
        dims = self.types[name].shape.dim
        if any(not d.HasField("dim_value") for d in dims):
            got = [d.dim_param or d.dim_value for d in dims]
            raise DeployError(
                f"the shape of '{name}' is not fixed: {got}",
                kind="onnx",
                got=got,
                allowed="static shapes; give --batch and --input-size",
            )
        return tuple(d.dim_value for d in dims)

    def elem_type(self, name: str) -> int:
        """The ONNX element type of a value."""
        if name in self.constants:
            return int(onnx.helper.np_dtype_to_tensor_dtype(self.constants[name].dtype))
        return int(self.types[name].elem_type)

    def known(self, name: str) -> bool:
        """A tensor of numbers (or truth values) that numpy knows too."""
        kind = self.types[name].elem_type if name in self.types else 0
        return (
            bool(kind)
            and np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).kind in "fiub"
            and kind != onnx.TensorProto.BFLOAT16
        )

    def dtype(self, name: str) -> str:
        """The numpy name of a run-time value's type."""
        if not self.known(name):
            kind = self.types[name].elem_type if name in self.types else 0
            got = onnx.TensorProto.DataType.Name(kind).lower() if kind else "no tensor"
            raise DeployError(
                f"'{name}' has a type that cannot be compiled: {got}",
                kind="onnx",
                got=got,
                allowed="tensors of float, integer or bool",
            )
        return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.types[name].elem_type)))

    def declare(self, name: str, kind: int, shape: Sequence[int]) -> None:
        """Make a value known that the graph does not have."""
        self.types[name] = onnx.helper.make_tensor_value_info(name, kind, shape).type.tensor_type

    def constant(self, name: str, what: str) -> np.ndarray:
        """The array of a constant input; refuses one that is computed."""
        if name not in self.constants:
            raise Refuse(f"{what} is computed at run time")
        return self.constants[name]

    def private(self, name: str) -> bool:
        """Only one node reads this value, and the graph does not give it out."""
        return self.uses[name] == 1 and name not in self.output_names

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a value; None where there are several, or the graph gives it out."""
        return self._readers.get(name) if self.private(name) else None

    # -- values ----------------------------------------------------------------------------------------------------
    def value(self, name: str) -> Value:
        """The float32 value as it lies in memory; refuses a constant (handlers take constants apart themselves)."""
        if name in self.constants:
            raise Refuse(f"'{name}' is a constant where a tensor is expected")
        value = self.values[name]
        if not value.storage.real:
            raise Refuse(f"'{name}' is {value.storage.dtype}, not float32")
        return value

    def blocked(self, value: Value) -> Value:
        """`value` in NCHW16c, packed if need be. (N, C) becomes a 1x1 map."""
        if value.storage.blocked:
            return value
        if len(value.shape) not in (2, 4):
            raise Refuse(f"'{value.name}' has {len(value.shape)} axes, not 2 or 4")
        batch, channels = value.shape[:2]
        height, width = value.shape[2:] if len(value.shape) == 4 else (1, 1)
        blocks = blocks_of(channels, element_of(self.element).block)
        slots = np.arange(channels)
        storage = Storage(f"{value.name}:packed", batch, height * width, blocks, slots, dtype=self.element)
        table = np.full(storage.blocks * storage.block, -1, np.int32)
        table[:channels] = np.arange(channels)
        spec = Pack(batch, channels, storage.blocks, height * width)
        self.emit("pack", [], spec, [(value.storage, ""), Param("raw", table)], storage, value.name)
        packed = Value(value.name, value.shape, storage, height, width)
        self.values[value.name] = packed
        self.plain[storage] = value.storage
        return packed

    def planar(self, value: Value, storage: Storage | None = None) -> Value:
        """`value` in plain NCHW, unpacked if need be (into `storage`, if given)."""
        source = value.storage
        if not source.blocked:
            return value
        if storage is None and source in self.plain:
            return Value(value.name, value.shape, self.plain[source])
        assert source.slots is not None
        channels = len(source.slots)
        if storage is None:
            self.plain[source] = Storage(f"{value.name}:plain", source.batch, channels * source.pixels)
        storage = storage or self.plain[source]
        spec = Unpack(source.batch, channels, source.blocks, source.pixels)
        self.emit(
            "unpack",
            [],
            spec,
            [(source, "in_stride"), Param("raw", source.slots.astype(np.int32))],
            storage,
            value.name,
        )
        return Value(value.name, value.shape, storage)

    def with_slots(self, value: Value, slots: np.ndarray) -> Value:
        """`value` with its channels in the given slots, moved if need be."""
        storage = self.blocked(value).storage
        assert storage.slots is not None
        if np.array_equal(storage.slots, slots):
            return self.blocked(value)
        plain = self.planar(value).storage
        blocks = blocks_of(int(slots.max()) + 1, storage.block)
        moved = Storage(f"{value.name}:moved", storage.batch, storage.pixels, blocks, slots, dtype=storage.dtype)
        table = np.full(moved.blocks * moved.block, -1, np.int32)
        table[slots] = np.arange(len(slots))
        spec = Pack(storage.batch, len(slots), moved.blocks, storage.pixels)
        self.emit("pack", [], spec, [(plain, ""), Param("raw", table)], moved, value.name)
        return Value(value.name, value.shape, moved, value.height, value.width)

    def copy(self, value: Value) -> Value:
        """A blocked value in memory of its own."""
        source = self.blocked(value).storage
        size = (source.batch, source.pixels, source.blocks, source.slots)
        storage = Storage(f"{value.name}:copy", *size, dtype=source.dtype)
        spec = Map("identity", source.batch, source.blocks, source.pixels)
        if source.dtype in QUANTIZED:
            elements: Any = {"in_element": source.dtype, "out_element": source.dtype}
            spec = replace(spec, op="clip", **elements, rounding=Rounding(0, *ends(source.dtype)))
        self.emit("copy", [], spec, [(source, "in_stride")], storage, value.name)
        return Value(value.name, value.shape, storage, value.height, value.width)

    # -- layers ----------------------------------------------------------------------------------------------------
    def emit(
        self,
        op: str,
        nodes: list[str],
        spec: Spec,
        operands: list[tuple[Storage, str] | Param],
        output: Storage,
        value: str,
        macs: int = 0,
    ) -> Layer:
        """Append a layer."""
        layer = Layer(op, nodes, spec, operands, output, value, macs)
        self.network.layers.append(layer)
        self.producer[output] = layer
        return layer

    def last(self, layer: Layer) -> None:
        """Move a layer to the end: what was fused into it may need everything before."""
        self.network.layers.remove(layer)
        self.network.layers.append(layer)
