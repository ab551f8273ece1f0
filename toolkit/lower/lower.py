"""From an optimised ONNX model to a `Plan`: read, order, place, choose schedules, pack weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import onnx

from ..kernels.spec_tiles import ConvTiles
from . import elements, on_tiles, place, siblings, winograd
from .kernel_set import KernelSet
from .layers import Layer, Network, Param, Storage
from .pack import pack
from .plan import ALIGNMENT, Kernel, Placement, Plan, Port, Ref, Space, Step
from .walk import read


class _Blob:
    """The weights, one after the other, each aligned; equal arrays are kept once."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self._seen: dict[bytes, int] = {}

    def add(self, array: np.ndarray) -> int:
        """Byte offset of the array in the blob."""
        data = array.tobytes()
        key = hashlib.sha256(data).digest()
        if key not in self._seen:
            self._seen[key] = self.size
            padding = -len(data) % ALIGNMENT
            self.parts.append(data + bytes(padding))
            self.size += len(data) + padding
        return self._seen[key]


def layers_for(model: onnx.ModelProto, kernels: KernelSet) -> Network:
    """The layers that a target's kernels compute, in what it keeps values in. What is left to decide is whether a
    convolution is done by Winograd's algorithm, and every schedule: that is what tuning searches.

    Raises:
        DeployError: the model has shapes or types that cannot be compiled.
    """
    network = read(model, integers=kernels.integers, element=kernels.element)
    if kernels.element != "float32":
        on_tiles.rewrite(network)
    elements.settle(network)
    if kernels.element != "float32":
        siblings.join(network)
    return network


def lower(model: onnx.ModelProto, kernels: KernelSet, progress: Callable[[str], None] | None = None) -> Plan:
    """The Plan of an optimised model with static shapes, for a target's kernels.

    Raises:
        DeployError: the model has shapes or types that cannot be compiled.
    """
    network = layers_for(model, kernels)
    if kernels.element == "float32":
        winograd.rewrite(network, kernels)
    place.assign_waves(network)
    place.share_adds(network)
    copies = place.copies(network)
    arena = place.place(network, copies)
    blob = _Blob()
    steps: list[Step] = []
    table: dict[str, Kernel] = {}
    for layer in sorted(network.layers, key=lambda la: la.wave):
        layer.spec = _with_strides(layer)
        schedule = kernels.schedule(layer.spec)
        args = []
        for operand in layer.operands:
            if isinstance(operand, Param):
                args.append(Ref(Space.WEIGHTS, blob.add(pack(operand, layer, schedule, kernels))))
            else:
                args.append(_ref(operand[0]))
        args.extend(_ref(storage) for storage in layer.writes)
        symbol = symbol_of(kernels, layer.spec, schedule)
        units = kernels.units(layer.spec, schedule)
        table.setdefault(
            symbol, Kernel(symbol, layer.spec, schedule, len(args), units, kernels.launch(layer.spec, schedule))
        )
        steps.append(Step(symbol, tuple(args), layer.wave, tuple(layer.nodes), layer.op, layer.value, layer.macs))
        if progress:
            progress(layer.value)
    return Plan(
        target=kernels.name,
        inputs=tuple(
            Port(v.name, v.shape, v.storage.dtype, c.offset) for v, c in zip(network.inputs, copies, strict=True)
        ),
        outputs=tuple(Port(v.name, v.shape, v.storage.dtype) for v in network.outputs),
        kernels=table,
        steps=tuple(steps),
        weights=b"".join(blob.parts),
        arena_bytes=arena,
        placements=_placements(network),
        refusals=tuple(network.refusals),
    )


def symbol_of(kernels: KernelSet, spec: Any, schedule: Any) -> str:
    """The C name of a kernel: equal ones have equal names, whatever network they are of."""
    identity = f"{kernels.fingerprint()} {spec!r} {schedule!r}"
    return "k_" + hashlib.sha256(identity.encode()).hexdigest()[:24]


def _with_strides(layer: Layer) -> Any:
    """The layer's spec with the distances between images filled in."""
    known = {f.name for f in fields(layer.spec)}
    strides: dict[str, Any] = {
        field: storage.stride
        for storage, field in (o for o in layer.operands if not isinstance(o, Param))
        if field in known
    }
    if "out_stride" in known:
        strides["out_stride"] = layer.output.stride
    if isinstance(layer.spec, ConvTiles) and layer.spec.split:
        both = zip(layer.spec.split, layer.writes, strict=True)
        strides["split"] = tuple(replace(output, out_stride=storage.stride) for output, storage in both)
    return replace(layer.spec, **strides)


def _ref(storage: Storage) -> Ref:
    port = storage.root.port
    if port is None:
        return Ref(Space.ARENA, storage.address)
    return Ref(Space(port[0]), storage.address, port[1])


def _placements(network: Network) -> tuple[Placement, ...]:
    """Every value of the arena, in order of its first wave."""
    found: dict[Storage, Placement] = {}
    for layer in network.layers:
        for storage in layer.writes:
            root = storage.root
            if root.port is not None:
                continue
            last = max([layer.wave, *(other.wave for other in network.layers if storage in other.reads)])
            shares = None if root is storage else root.name
            name = layer.value if storage is layer.output else storage.name
            found[storage] = Placement(name, storage.address, storage.bytes, layer.wave, last, shares)
    return tuple(sorted(found.values(), key=lambda p: (p.first_wave, p.offset)))
