"""The network between ONNX and the Plan: layers that our kernels (or TVM's default ones) compute, and where their
values live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..kernels.elements import ELEMENTS, element_of
from ..kernels.spec import Spec
from .plan import Compared, Refusal, Siblings


@dataclass(eq=False)
class Storage:
    """The memory of one value: NCHW16c (NCHW32c in some elements) where `slots` is set, plain NCHW otherwise.

    Attributes:
        slots: for a blocked one, the slot that each channel lies in; slots nobody names hold padding, which is finite.
        pixels: pixels of a block's plane (blocked), or all elements of an image (planar).
        parent, parent_block: this is the slice of `parent` that starts at that block (a branch of a concat). A planar
            one with a parent is all of it, with other axes.
        port: a graph input or output: the caller's memory.
        dtype: numpy's name of a type, or an element of `kernels.elements.ELEMENTS`.
        device: of a root, whose arena it lies in; "" for that of the device that does all steps, or the host's.
    """

    name: str
    batch: int
    pixels: int
    blocks: int = 0
    slots: np.ndarray | None = None
    parent: Storage | None = None
    parent_block: int = 0
    port: tuple[str, int] | None = None
    first_wave: int = -1
    last_wave: int = -1
    offset: int = -1
    dtype: str = "float32"
    device: str = ""

    @property
    def blocked(self) -> bool:
        """In NCHW16c."""
        return self.slots is not None

    @property
    def block(self) -> int:
        """Channels in a block."""
        return element_of(self.dtype).block

    @property
    def real(self) -> bool:
        """It holds real numbers."""
        return self.dtype in ELEMENTS

    @property
    def itemsize(self) -> int:
        """Bytes of what pointers count."""
        return np.dtype(element_of(self.dtype).stored).itemsize

    @property
    def elements(self) -> int:
        """Values of one image."""
        return self.blocks * self.pixels * self.block if self.blocked else self.pixels

    @property
    def size(self) -> int:
        """One image in memory, counted in what pointers count."""
        return self.blocks * self.pixels * element_of(self.dtype).cell if self.blocked else self.pixels

    @property
    def root(self) -> Storage:
        """The storage that this one is a part of, in the end."""
        return self if self.parent is None else self.parent.root

    @property
    def root_block(self) -> int:
        """Blocks from the root's start to this slice."""
        return 0 if self.parent is None else self.parent_block + self.parent.root_block

    @property
    def stride(self) -> int:
        """From one image to the next, counted in what pointers count; 0 where there is only one."""
        if self.batch == 1:
            return 0
        return self.root.size * self.root.itemsize // self.itemsize if self.blocked else self.size

    @property
    def bytes(self) -> int:
        """Size of all images, if they lie one after the other."""
        return self.batch * self.size * self.itemsize

    @property
    def address(self) -> int:
        """Byte offset in the root's memory (in the arena, or in the caller's buffer)."""
        root = self.root
        blocks = self.root_block * self.pixels * element_of(self.dtype).cell * self.itemsize
        return (root.offset if root.port is None else 0) + blocks


@dataclass(frozen=True)
class Value:
    """A tensor of the ONNX graph. `height`, `width` describe a blocked storage's map (1x1 for a vector)."""

    name: str
    shape: tuple[int, ...]
    storage: Storage
    height: int = 1
    width: int = 1


@dataclass(frozen=True)
class Param:
    """A constant argument. `role` tells how it is packed: "weight", "dense", "bias", "channel", "channels"; "raw" is
    taken as it is, "physical" is a weight whose channels are in their slots already.

    A weight has its logical shape `[O, I / groups, r, s]`; channels are moved to their slots when the Plan is made.
    Integers stay of their type. "channels" is several values a channel, `[n, O]`.
    """

    role: str
    array: np.ndarray


@dataclass(eq=False)
class Layer:
    """One kernel call to be.

    Attributes:
        spec: the kernel's spec; its `*_stride` fields are filled in when memory is placed.
        operands: pointer arguments in the spec's order: a Storage read, with the name of its stride field, or a Param.
            The output is last.
        also: more outputs, whose pointers follow it.
        after: a layer that must have run, so that both need not have their memory at the same time.
    """

    op: str
    nodes: list[str]
    spec: Spec
    operands: list[tuple[Storage, str] | Param]
    output: Storage
    value: str
    macs: int = 0
    wave: int = -1
    also: list[Storage] = field(default_factory=list)
    after: Layer | None = None

    @property
    def reads(self) -> list[Storage]:
        """The storages it reads."""
        return [o[0] for o in self.operands if not isinstance(o, Param)]

    @property
    def writes(self) -> list[Storage]:
        """The storages it writes."""
        return [self.output, *self.also]


def needed(layers: Sequence[Layer]) -> list[Layer]:
    """The layers without those whose results nobody reads."""
    read: set[Storage] = set()
    kept = []
    for layer in reversed(layers):
        if any(storage.root in read or storage.root.port is not None for storage in layer.writes):
            kept.append(layer)
            read.update(storage.root for storage in layer.reads)
    return kept[::-1]


@dataclass
class Network:
    """All layers in an order in which they can run.

    Attributes:
        kept: quantized layers that the host computes beside an accelerator. compared: those that either may compute.
        siblings: those that an accelerator computes as one step, or might have.
        copies: for each input, memory that an aligned copy of it may take; known with `arenas`, when all is placed.
        arenas: bytes of each device's arena, by `Storage.device`.
    """

    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    kept: list[Refusal] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)
    siblings: list[Siblings] = field(default_factory=list)
    copies: list[Storage] = field(default_factory=list)
    arenas: dict[str, int] = field(default_factory=dict)

    @property
    def arena_bytes(self) -> int:
        """Of all arenas together."""
        return sum(self.arenas.values())
