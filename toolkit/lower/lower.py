"""From an optimised ONNX model to a `Plan`: read, run the list of passes, choose schedules, pack weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from ..kernels.elements import TILED
from ..kernels.spec import Spec, Vta
from . import by_winograd, elements, heads, on_tiles, on_vta, pairs, place, siblings, vta_siblings
from .alike import Alike
from .dump import text
from .kernel_set import KernelSet
from .layers import Layer, Network, Param, Storage
from .pack import pack
from .plan import (
    ALIGNMENT,
    ARENA,
    GPU,
    VTA,
    WEIGHTS,
    Kernel,
    Memory,
    MemoryKind,
    Placement,
    Plan,
    Port,
    Ref,
    Step,
    memories,
    memory_of,
    port_memory,
)
from .walk import read

Dump = Callable[[str, str], object]
"""Is given the name of a pass and the network after it as text."""


class _Blob:
    """The weights of a device, one after the other, each aligned; equal arrays are kept once."""

    def __init__(self, alignment: int = ALIGNMENT) -> None:
        self.alignment = alignment
        self.parts: list[bytes] = []
        self.size = 0
        self._seen: dict[bytes, int] = {}

    def content(self) -> bytes:
        """All of it."""
        return b"".join(self.parts)

    def add(self, array: np.ndarray) -> int:
        """Byte offset of the array in the blob."""
        data = array.tobytes()
        key = hashlib.sha256(data).digest()
        if key not in self._seen:
            self._seen[key] = self.size
            padding = -len(data) % self.alignment
            self.parts.append(data + bytes(padding))
            self.size += len(data) + padding
        return self._seen[key]


@dataclass(frozen=True)
class Pass:
    """One entry of `PASSES`.

    Attributes:
        name: as the dump is called.
        run: changes a network in place.
        why_here: the reason for its place in the list.
        condition: when it is on, for people; and `on` decides.
    """

    name: str
    run: Callable[[Network, KernelSet], object]
    why_here: str
    condition: str = "always"
    on: Callable[[KernelSet], bool] = lambda _: True


def _tiles(kernels: KernelSet) -> bool:
    return kernels.element in TILED


_TILES = "the target has matrix tiles, for which values are kept in other elements than fp32"

PASSES: tuple[Pass, ...] = (
    Pass(
        "on_vta",
        lambda network, kernels: on_vta.rewrite(network, kernels.host_offset, kernels.accelerator),
        "first: it decides which device does each layer",
        "the target is a VTA with its host",
        lambda kernels: kernels.accelerator is not None,
    ),
    Pass(
        "vta_siblings",
        lambda network, kernels: vta_siblings.join(network, kernels.accelerator),
        "after on_vta: it joins steps that are what a VTA computes, windows included",
        "the target is a VTA with its host",
        lambda kernels: kernels.accelerator is not None,
    ),
    Pass(
        "on_tiles",
        lambda network, _: on_tiles.rewrite(network),
        "first: it decides which values a tile reads, which all that follows asks",
        _TILES,
        _tiles,
    ),
    Pass(
        "elements",
        lambda network, kernels: elements.settle(network, kernels.in_fp32),
        "when it is known which layers read tiles",
    ),
    Pass(
        "siblings",
        lambda network, kernels: siblings.join(network, kernels),
        "after elements: outputs of one kernel may be of several",
        f"{_TILES}, or is a GPU",
        lambda kernels: _tiles(kernels) or kernels.device == GPU,
    ),
    Pass(
        "heads",
        lambda network, _: heads.rewrite(network),
        "after elements: what a head writes is the caller's float32; after siblings, which have several outputs",
        "the target is a GPU, where a copy is a launch",
        lambda kernels: kernels.device == GPU,
    ),
    Pass(
        "pairs",
        pairs.find,
        "after siblings: a kernel's weights are all there; before what compares ways to compute a convolution",
        "there are kernels that multiply bytes",
        lambda kernels: kernels.integers,
    ),
    Pass(
        "by_winograd",
        by_winograd.rewrite,
        "before waves: a convolution becomes three layers, one after the other",
        "activations are fp32 or bytes, for which the transforms are written",
        lambda kernels: kernels.element == "float32",
    ),
    Pass(
        "waves",
        lambda network, _: place.assign_waves(network),
        "the layers are final",
        "one device does all steps",
        lambda kernels: kernels.accelerator is None,
    ),
    Pass(
        "turns",
        lambda network, kernels: place.assign_turns(network, lambda layer: _device(kernels, layer)),
        "the layers are final",
        "two devices take turns",
        lambda kernels: kernels.accelerator is not None,
    ),
    Pass(
        "share_adds",
        lambda network, _: place.share_adds(network),
        "after waves: an addend may be written over when its last reader has run",
    ),
    Pass("place", lambda network, _: place.place(network), "after share_adds: only roots have addresses of their own"),
    Pass("strides", lambda network, _: _give_strides(network), "last: a slice's distance between images is its root's"),
)
"""The one list of lowering passes, in order. The first network is what `walk.read` gives."""

CHOSEN = "by_winograd"
"""From this pass on a network depends on choices that tuning searches."""


def layers_for(model: onnx.ModelProto, kernels: KernelSet, dump: Dump | None = None) -> Network:
    """The layers that a target's kernels compute, in what it keeps values in. What is left to decide is whether a
    convolution is done by Winograd's algorithm, and every schedule: that is what tuning searches.

    Raises:
        DeployError: the model has shapes or types that cannot be compiled.
    """
    offset = kernels.byte_offset if kernels.integers else None
    able = {"weighs": kernels.accelerator is not None, "sixteen": kernels.sixteen}
    network = read(model, byte_offset=offset, element=kernels.element, **able)
    if dump is not None:
        dump("00-read", text(network))
    _run(network, kernels, range(_CHOSEN_AT), dump)
    return network


_CHOSEN_AT = [entry.name for entry in PASSES].index(CHOSEN)


def _run(network: Network, kernels: KernelSet, which: range, dump: Dump | None) -> None:
    for index in which:
        entry = PASSES[index]
        if entry.on(kernels):
            entry.run(network, kernels)
            if dump is not None:
                dump(f"{index + 1:02}-{entry.name}", text(network))


def lower(
    model: onnx.ModelProto,
    kernels: KernelSet,
    progress: Callable[[str], None] | None = None,
    dump: Dump | None = None,
) -> Plan:
    """The Plan of an optimised model with static shapes, for a target's kernels.

    Args:
        dump: is given the network as text when it was read and after every pass that is on, with the pass's number
            and name.

    Raises:
        DeployError: the model has shapes or types that cannot be compiled.
    """
    blobs = {kernels.device: _Blob()}
    if kernels.accelerator is not None:
        blobs[VTA] = _Blob(max(ALIGNMENT, kernels.accelerator.config.wgt_bytes))
    return _lower(model, kernels, blobs, progress, dump)


def lower_alike(
    models: Iterable[onnx.ModelProto],
    kernels: KernelSet,
    progress: Callable[[str], None] | None = None,
    dump: Dump | None = None,
) -> tuple[Plan, ...]:
    """The Plans of one network for several numbers of images, with one copy of the weights: each has all of them, and
    what is packed alike is in them once.

    Whether a convolution is done by Winograd's algorithm, and how its weights are packed, is decided for the first
    one, and the same for the others (`alike.Alike`).

    Args:
        models: of one device, made one after the other; the `dump` is of the first.
    """
    blobs = {kernels.device: _Blob()}
    decided = Alike(kernels)
    plans = []
    for number, model in enumerate(models):
        plans.append(_lower(model, decided, blobs, progress, None if number else dump))
        decided.settle()
    weights, size = blobs[kernels.device].content(), blobs[kernels.device].size
    return tuple(
        replace(
            plan,
            weights=weights,
            memories=tuple(replace(m, bytes=size) if m.kind is MemoryKind.WEIGHTS else m for m in plan.memories),
        )
        for plan in plans
    )


def _lower(
    model: onnx.ModelProto,
    kernels: KernelSet,
    blobs: Mapping[str, _Blob],
    progress: Callable[[str], None] | None,
    dump: Dump | None,
) -> Plan:
    """`lower` into weights that may have something in them already."""
    network = layers_for(model, kernels, dump)
    _run(network, kernels, range(_CHOSEN_AT, len(PASSES)), dump)
    steps: list[Step] = []
    table: dict[str, Kernel] = {}
    for layer in sorted(network.layers, key=lambda la: la.wave):
        schedule = kernels.schedule(layer.spec)
        device = _device(kernels, layer)
        args = []
        for operand in layer.operands:
            if isinstance(operand, Param):
                offset = blobs[device].add(pack(operand, layer, schedule, kernels))
                args.append(Ref(WEIGHTS if device == kernels.device else memory_of(WEIGHTS, device), offset))
            else:
                args.append(_ref(operand[0]))
        args.extend(_ref(storage) for storage in layer.writes)
        kernel = kernel_of(kernels, layer.spec, schedule)
        table.setdefault(kernel.symbol, kernel)
        nodes, symbol = tuple(layer.nodes), kernel.symbol
        steps.append(Step(symbol, tuple(args), layer.wave, nodes, layer.op, layer.value, layer.macs, device=device))
        if progress:
            progress(layer.value)
    inputs = tuple(
        Port(v.name, v.shape, v.storage.dtype, c.offset) for v, c in zip(network.inputs, network.copies, strict=True)
    )
    outputs = tuple(Port(v.name, v.shape, v.storage.dtype) for v in network.outputs)
    return Plan(
        target=kernels.name,
        inputs=inputs,
        outputs=outputs,
        kernels=table,
        steps=tuple(steps),
        weights=b"".join(blob.content() for blob in blobs.values()),
        memories=(
            *memories(
                inputs, outputs, arena=network.arenas[""], weights=blobs[kernels.device].size, device=kernels.device
            ),
            *_others(network, blobs, kernels.device),
        ),
        placements=_placements(network),
        refusals=tuple(network.refusals),
        kept=tuple(network.kept),
        compared=tuple(network.compared),
        siblings=tuple(network.siblings),
    )


def _device(kernels: KernelSet, layer: Layer) -> str:
    return VTA if isinstance(layer.spec, Vta) else kernels.device


def _others(network: Network, blobs: Mapping[str, _Blob], device: str) -> list[Memory]:
    """The memories of an accelerator: its arena, and its part of the weights."""
    first = blobs[device].size
    found = []
    for other in (name for name in blobs if name != device):
        arena, weights = memory_of(ARENA, other), memory_of(WEIGHTS, other)
        found.append(Memory(arena, other, MemoryKind.ARENA, network.arenas.get(other, 0)))
        found.append(Memory(weights, other, MemoryKind.WEIGHTS, blobs[other].size, first))
        first += blobs[other].size
    return found


def kernel_of(kernels: KernelSet, spec: Spec, schedule: Any = None) -> Kernel:
    """The kernel of a spec, with the target's schedule or another."""
    found = kernels.family(spec)
    schedule = kernels.schedule(spec) if schedule is None else schedule
    units = found.family.units(spec, schedule)
    pointers = len(spec.operands)
    return Kernel(symbol_of(spec, schedule), spec, schedule, pointers, units, found.family.name, found.refused)


def symbol_of(spec: Spec, schedule: Any) -> str:
    """The C name of a kernel: equal ones have equal names, whatever network they are of. It says what is computed and
    how it is cut, not what code that gives (`targets.objects` tells code apart).
    """
    return "k_" + hashlib.sha256(f"{spec!r} {schedule!r}".encode()).hexdigest()[:24]


def _give_strides(network: Network) -> None:
    for layer in network.layers:
        layer.spec = _with_strides(layer)


def _with_strides(layer: Layer) -> Spec:
    """The layer's spec with the distances between images filled in."""
    inputs = {field: storage.stride for storage, field in (o for o in layer.operands if not isinstance(o, Param))}
    return layer.spec.with_strides(inputs, [storage.stride for storage in layer.writes])


def _ref(storage: Storage) -> Ref:
    root = storage.root
    port = root.port
    if port is None:
        return Ref(memory_of(ARENA, root.device) if root.device else ARENA, storage.address)
    return Ref(port_memory(MemoryKind(port[0]), port[1]), storage.address)


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
