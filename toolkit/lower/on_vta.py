"""Layers of bytes become steps of a VTA, and the rest stays on the host.

Given: a network whose quantized layers take bytes (`lower.integers`). Result: what a VTA computes is a `spec.Vta`, with
its inputs and outputs in signed bytes, in memory that the host reaches too. Where a layer on the host reads or writes
such a memory, a flip of signs stands between; a convolution of the network's own few channels reads patches of it,
which the host makes; accumulators that leave as float are multiplied by the host. `Network.kept` says of every
quantized layer that stays on the host why it does.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from ..errors import DeployError
from ..kernels.elements import BLOCK, BYTE, Rounding
from ..kernels.spec import SIGNED, Conv, Flip, Map, Patches, Pixels, Planes, Vta, Window, WindowOp
from ..kernels.vta import tiling
from ..kernels.vta.accelerator import Accelerator
from . import vta_choice, vta_fusion, vta_layers, vta_stem
from .bytes.linear import retake
from .layers import Layer, Network, Param, Storage, needed
from .plan import VTA, Refusal
from .reader import Refuse
from .vta_sums import Ends

_FULL: Ends = (-128, 127)

_CONVERSIONS = ("quantize", "dequantize")
"""Edges between float and bytes, which are the host's anyway."""


def rewrite(network: Network, offset: int, accelerator: Accelerator | None = None) -> None:
    """Replace the layers.

    Args:
        accelerator: what its memories cannot hold stays on the host, too.
        offset: how much lower than they lie convolutions on the host take bytes.
    """
    rewriter = _Rewriter(network, accelerator)
    for layer in network.layers:
        _check_scales(layer)
    for layer in network.layers:
        rewriter.take(layer)
    if accelerator is not None:
        rewriter.layers = vta_fusion.fuse(rewriter.layers, accelerator)
    network.layers[:] = needed(_signs(rewriter.layers))
    for layer in network.layers:
        if isinstance(layer.spec, Vta):
            for storage in (*layer.reads, *layer.writes):
                storage.root.device = VTA
    if offset != vta_layers.SIGNED:
        for layer in network.layers:
            if isinstance(layer.spec, Conv) and layer.spec.in_element == BYTE:
                retake(layer, vta_layers.SIGNED - offset)


def _check_scales(layer: Layer) -> None:
    """Raise for what no shift computes."""
    spec = layer.spec
    if not isinstance(spec, (Conv, Window, Map)) or not spec.quantized or spec.rounding is None:
        return
    if isinstance(spec, Map) and spec.op in ("quantize", "clip"):
        return
    if not spec.rounding.shift or spec.rounding.zero != vta_layers.SIGNED:
        message = f"'{layer.value}' is rounded with a float scale or a zero point, and a VTA shifts"
        allowed = "a model quantized with --scheme power-of-two (the default for vta) or power-of-two-tensor"
        raise DeployError(message, kind="scheme", got="float scales", allowed=allowed)


class _Rewriter:
    """The walk over the layers, in their order."""

    def __init__(self, network: Network, accelerator: Accelerator | None) -> None:
        self.network, self.accelerator = network, accelerator
        self.layers: list[Layer] = []
        self.makers = {layer.output: layer for layer in network.layers}
        self.ends: dict[Storage, Ends] = {}
        self.roots: dict[Storage, Ends] = {}
        self.patches: dict[tuple[Storage, Patches], Storage] = {}

    def range_of(self, storage: Storage) -> Ends:
        """What every byte of a storage lies between, signed."""
        return self.ends.get(storage) or self.roots.get(storage.root, _FULL)

    def take(self, layer: Layer) -> None:
        """One layer, and what it becomes."""
        ends = self._made(layer)
        root = layer.output.root
        low, high = self.roots.get(root, ends)
        self.ends[layer.output] = ends
        self.roots[root] = (min(low, ends[0]), max(high, ends[1]))
        for part in _apart(layer):
            try:
                given = self._patched(part) if isinstance(part.spec, Conv) and part.spec.planar else part
                made = vta_layers.convert(given, self.range_of)
                self._check(made)
                self._compare(part, made)
            except Refuse as refuse:
                if part.spec.quantized and part.op not in _CONVERSIONS:
                    names = part.nodes or [part.value]
                    self.network.kept.append(Refusal(names[-1], part.op, str(refuse)))
                self.layers.append(part)
                continue
            self.layers.extend(made)
            if isinstance(made[0].spec, Vta) and made[0].spec.planes > 1:
                self._multiplied(part, made[0])

    def _check(self, made: list[Layer]) -> None:
        """Refuse what the accelerator has no room for."""
        for layer in made:
            assert isinstance(layer.spec, Vta)
            if self.accelerator is not None and (reason := tiling.refused(layer.spec, self.accelerator)):
                raise Refuse(reason)

    def _compare(self, layer: Layer, made: list[Layer]) -> None:
        """Refuse what the host is to do."""
        if self.accelerator is None or (found := vta_choice.compared(layer, made, self.accelerator)) is None:
            return
        self.network.compared.append(found)
        if found.device != VTA:
            raise Refuse(vta_choice.reason(found, self.accelerator))

    def _made(self, layer: Layer) -> Ends:
        """The range of a layer's result."""
        spec = layer.spec
        if isinstance(spec, Window) and spec.op is WindowOp.MAX:
            return self.range_of(layer.reads[0])
        if not isinstance(spec, (Conv, Window, Map)):
            return _FULL
        addition = None if isinstance(spec, Window) else spec.addition
        rounding = spec.rounding if addition is None else addition.rounding
        if rounding is None or rounding.zero != vta_layers.SIGNED:
            return _FULL
        return vta_layers.ends_of(rounding)

    def _patched(self, layer: Layer) -> Layer:
        """A convolution of the network's input, as one of what the host makes of it, as the VTA is fastest."""
        spec, words = layer.spec, layer.reads[0]
        assert isinstance(spec, Conv)
        maker = self.makers[words]
        pixels = maker.spec
        weight = layer.operands[1]
        assert isinstance(pixels, Pixels)
        assert isinstance(weight, Param)
        if pixels.rounding is None or pixels.rounding.zero != vta_layers.SIGNED:
            raise Refuse("its zero point is not 0; quantize with the scheme 'power-of-two'")
        signed = Rounding(0, *_FULL)
        found = [(way, self._of(way, layer)) for way in vta_stem.ways(spec, pixels, weight.array, signed)]
        way, made = min(found, key=lambda pair: self._cycles(pair[1]))
        key = (words, way.patches)
        if key not in self.patches:
            source = maker.reads[0]
            image = Storage(f"{source.name}:framed", spec.batch, way.framed.size, dtype=SIGNED)
            self.layers.append(Layer("quantize", maker.nodes, way.framed, [(source, "")], image, maker.value))
            self.patches[key] = made.reads[0]
            name = made.reads[0].name
            self.layers.append(Layer("patches", [], way.patches, [(image, "")], made.reads[0], name))
        made.operands[0] = (self.patches[key], "in_stride")
        return made

    def _of(self, way: vta_stem.Way, layer: Layer) -> Layer:
        """A convolution computed in a certain way."""
        size = (way.spec.height * way.spec.width, way.patches.blocks, np.arange(way.patches.depth))
        given = Storage(f"{layer.value}:{way.name}", way.spec.batch, *size, dtype=SIGNED)
        operands = [(given, "in_stride"), Param("weight", way.weight), *layer.operands[2:]]
        return replace(layer, spec=way.spec, operands=operands)

    def _cycles(self, layer: Layer) -> int:
        """What a VTA takes for a layer; where there is none to ask, nothing."""
        steps = vta_layers.convert(layer, self.range_of)
        return 0 if self.accelerator is None else vta_choice.cycles(steps, self.accelerator)

    def _multiplied(self, layer: Layer, made: Layer) -> None:
        """The VTA's accumulators go to memory of their own, and the host makes floats of them."""
        spec, output = layer.spec, layer.output
        assert isinstance(spec, Conv)
        assert isinstance(made.spec, Vta)
        planes = Storage(
            f"{output.name}:accumulators", output.batch, output.pixels, 4 * output.blocks,
            np.arange(4 * output.blocks * BLOCK), dtype=SIGNED,
        )  # fmt: skip
        made.output = planes
        factor = layer.operands[3]
        assert isinstance(factor, Param)
        multiply = Planes(output.batch, output.blocks, output.pixels, spec.activation)
        self.layers.append(Layer("dequantize", [], multiply, [(planes, "in_stride"), factor], output, layer.value))


def _apart(layer: Layer) -> list[Layer]:
    """A convolution with an add whose sides lie too far from each other for one sum, and the add by itself."""
    spec = layer.spec
    if not isinstance(spec, Conv) or spec.addition is None or not vta_layers.far(spec.addition):
        return [layer]
    output, addend = layer.output, layer.reads[1]
    between = replace(output, name=f"{output.name}:addend", parent=None, parent_block=0)
    alone = replace(spec, add=False, addition=None)
    first = replace(layer, spec=alone, operands=layer.operands[:-1], output=between, value=between.name)
    add = Map(
        "add", output.batch, output.blocks, output.pixels, "tensor", in_element=BYTE, second_element=BYTE,
        out_element=BYTE, addition=spec.addition,
    )  # fmt: skip
    operands: list[tuple[Storage, str] | Param] = [(between, "in_stride"), (addend, "second_stride")]
    return [first, Layer("add", layer.nodes[-1:], add, operands, output, layer.value)]


# -- signs -------------------------------------------------------------------------------------------------------------
def _signs(layers: list[Layer]) -> list[Layer]:
    """Flips where a layer on the host meets a memory of the VTA's, and the other way round."""
    unsigned = {s.root for layer in layers for s in (*layer.reads, *layer.writes) if s.dtype == BYTE and s.blocked}
    signed = unsigned & _signed(layers)
    copies: dict[Storage, Storage] = {}
    found: list[Layer] = []

    def copied(source: Storage, out: str) -> Storage:
        if source not in copies:
            copies[source] = replace(source, name=f"{source.name}:{out}", parent=None, parent_block=0, dtype=out)
            found.append(_flip(source, copies[source]))
        return copies[source]

    for layer in layers:
        ours = isinstance(layer.spec, Vta)
        if _is_table(layer):
            _turn(layer, layer.reads[0].root in signed, layer.output.root in signed)
            found.append(layer)
            continue
        for number, operand in enumerate(layer.operands):
            if isinstance(operand, Param) or operand[0].root not in unsigned:
                continue
            if (operand[0].root in signed) != ours:
                layer.operands[number] = (copied(operand[0], SIGNED if ours else BYTE), operand[1])
        found.append(layer)
        if not ours and layer.output.root in signed:
            output = layer.output
            layer.output = replace(output, name=f"{output.name}:{BYTE}", parent=None, parent_block=0, dtype=BYTE)
            found.append(_flip(layer.output, output))
    for layer in found:
        for storage in (*layer.reads, *layer.writes):
            part: Storage | None = storage
            while part is not None and storage.root in signed:
                part.dtype, part = SIGNED, part.parent
    for layer in found:
        if isinstance(layer.spec, Flip):
            layer.spec = replace(layer.spec, in_element=layer.reads[0].dtype, out_element=layer.output.dtype)
    return found


def _signed(layers: list[Layer]) -> set[Storage]:
    """The memories with signed bytes: what a VTA writes, and what tables write that it reads."""
    writers: dict[Storage, list[Layer]] = defaultdict(list)
    for layer in layers:
        writers[layer.output.root].append(layer)
    read = {s.root for layer in layers if isinstance(layer.spec, Vta) for s in layer.reads}
    return {
        root
        for root, those in writers.items()
        if any(isinstance(layer.spec, Vta) for layer in those) or (root in read and all(map(_is_table, those)))
    }


def _is_table(layer: Layer) -> bool:
    return isinstance(layer.spec, Map) and layer.spec.op == "table"


def _turn(layer: Layer, given: bool, made: bool) -> None:
    """A table that is told the bytes of the other sign, or tells them: its entries say so, and nothing is flipped."""
    table = layer.operands[1]
    assert isinstance(table, Param)
    entries = np.roll(table.array, vta_layers.SIGNED) if given else table.array
    layer.operands[1] = Param(table.role, entries ^ np.uint8(vta_layers.SIGNED if made else 0))


def _flip(source: Storage, output: Storage) -> Layer:
    """The elements are filled in when it is known which memories are signed."""
    spec = Flip(source.batch, source.blocks, source.pixels)
    return Layer("flip", [], spec, [(source, "in_stride")], output, output.name)
