"""What numbers a layer computes in. A handler of an operator knows shapes and places; how its operands and its result
are written, real or quantized, is told by one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from .layers import Param, Storage, Value
from .reader import Reader, blocks_of_dtype


@dataclass(frozen=True)
class Numbers:
    """The number format of one layer.

    Attributes:
        nodes: the names of the nodes that the layer does the work of.
        result: the name of the value that it makes.
        dtype: what that is kept in, as a `Storage` has it.
        fields: of the spec: elements, roundings, bounds.
        behind: what follows a weight: the spec, and the weight `[O, I / groups, r, s]`, to the spec with what it has to
            know of these operands, and the operands.
    """

    nodes: list[str]
    result: str
    dtype: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    behind: Callable[[Any, np.ndarray], tuple[Any, list[Param]]] = lambda spec, _: (spec, [])

    def storage(self, like: Storage, channels: int | np.ndarray, pixels: int, blocks: int = 0) -> Storage:
        """Blocked memory for the result: `channels` of them in order, or in the slots given."""
        slots = np.arange(channels) if isinstance(channels, int) else channels
        blocks = blocks or blocks_of_dtype(int(slots.max()) + 1, self.dtype)
        return Storage(self.result, like.batch, pixels, blocks, slots, dtype=self.dtype)

    def emit(
        self,
        reader: Reader,
        op: str,
        spec: Any,
        source: Storage,
        params: list[Param],
        result: Storage,
        size: tuple[int, int],
        macs: int = 0,
    ) -> Value:
        """Append the layer; gives its result, a map of `size`."""
        reader.emit(op, self.nodes, spec, [(source, "in_stride"), *params], result, result.name, macs)
        value = Value(result.name, reader.shape(result.name), result, *size)
        reader.values[value.name] = value
        return value


def reals(reader: Reader, node: onnx.NodeProto, bias: np.ndarray | None = None) -> Numbers:
    """Real numbers, in what the reader keeps them in."""
    operands = [] if bias is None else [Param("bias", bias.astype(np.float32))]
    return Numbers([node.name], node.output[0], reader.element, behind=lambda spec, _: (spec, operands))
