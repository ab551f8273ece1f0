"""A network of layers as text, a line a layer: two dumps of one network differ where a lowering pass changed it.

    conv stem/conv  Conv(batch=1, ...)  reads stem/x:float32[1x1x1225x16], ...  writes ...  macs 110592  wave 3

The same network gives the same text; nothing depends on addresses of objects or on the order of a set.
"""

from __future__ import annotations

import hashlib

import numpy as np

from ..kernels.spec import Spec
from .layers import Layer, Network, Param, Storage

_LONG = 80
"""Characters of a field's text that are shown; of a longer one, its hash."""


def text(network: Network) -> str:
    """The inputs, the layers in order, the outputs, the refusals."""
    lines = [f"input {value.name} {list(value.shape)} {storage(value.storage)}" for value in network.inputs]
    lines += [_layer(layer) for layer in network.layers]
    lines += [f"output {value.name} {list(value.shape)} {storage(value.storage)}" for value in network.outputs]
    lines += [f"refusal {refusal.node} {refusal.op}: {refusal.reason}" for refusal in network.refusals]
    if network.arena_bytes:
        lines.append(f"arena {network.arena_bytes} bytes")
    return "\n".join(lines) + "\n"


def _layer(layer: Layer) -> str:
    reads = ", ".join(_operand(operand) for operand in layer.operands)
    writes = ", ".join(storage(written) for written in layer.writes)
    parts = [f"{layer.op} {layer.value}", describe(layer.spec), f"reads {reads}", f"writes {writes}"]
    if layer.nodes:
        parts.append(f"nodes {', '.join(layer.nodes)}")
    if layer.macs:
        parts.append(f"macs {layer.macs}")
    if layer.wave >= 0:
        parts.append(f"wave {layer.wave}")
    return "  ".join(parts)


def describe(spec: Spec) -> str:
    """What a spec says of itself, and its fields that are not at their defaults."""
    shown = [f"{name}={_short(str(value))}" for name, value in spec.encode().items() if name != "kind"]
    return f"{type(spec).__name__}({spec.describe()}: {', '.join(shown)})"


def _short(told: str) -> str:
    return told if len(told) <= _LONG else f"#{_hash(told.encode())}"


def _operand(operand: tuple[Storage, str] | Param) -> str:
    if isinstance(operand, Param):
        array = np.ascontiguousarray(operand.array)
        return f"{operand.role}:{array.dtype}{list(array.shape)}#{_hash(array.tobytes())}"
    return storage(operand[0])


def storage(it: Storage) -> str:
    """A storage: its name, element and size, what it is a part of, and where it lies once that is known."""
    size = f"{it.batch}x{it.blocks}x{it.pixels}x{it.block}" if it.blocked else f"{it.batch}x{it.pixels}"
    told = f"{it.name}:{it.dtype}[{size}]"
    if it.slots is not None and not np.array_equal(it.slots, np.arange(len(it.slots))):
        told += f" slots #{_hash(np.asarray(it.slots, np.int64).tobytes())}"
    if it.parent is not None:
        told += f" in {it.root.name}+{it.root_block}"
    if it.root.port is not None:
        return told + f" {it.root.port[0]} {it.root.port[1]}"
    return told + (f" at {it.address}" if it.root.offset >= 0 else "")


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]
