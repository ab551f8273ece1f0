"""Sibling convolutions of a VTA become one step that loads each tile of their input once, where the model says it pays.

Given: a network whose steps of a VTA are `spec.Vta`. Result: convolutions that read the same tensor through the same
window, and are clamped alike, are one layer with their channels one after the other. Their outputs stay where they
were, slices of a concat or buffers of their own: a tile is stored into each that it has blocks of.
`Network.siblings` has every family with both estimates, and why it stayed apart where it did.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.spec import Reads, Share, Stage, Term, Vta
from ..kernels.vta.accelerator import Accelerator
from .layers import Layer, Network, Param, Storage
from .plan import Siblings
from .reader import Refuse
from .vta_choice import cycles
from .vta_sums import split_shift

_OTHERWISE = "its clamp, or how its bias is added, is another than that of what reads the same"
_SLOWER = "one step would take no less"


def join(network: Network, accelerator: Accelerator | None) -> None:
    """Replace sibling layers; the first one's place is that of all. Where there is no accelerator to ask, none pay."""
    if accelerator is None:
        return
    families: dict[tuple[Storage, Term], list[Layer]] = defaultdict(list)
    for layer in network.layers:
        if (term := _term(layer)) is not None:
            families[layer.reads[0], term].append(layer)
    absorbed: set[Layer] = set()
    for family in (layers for layers in families.values() if len(layers) > 1):
        alike: dict[object, list[Layer]] = defaultdict(list)
        for layer in family:
            alike[_ending(layer)].append(layer)
        for layers in alike.values():
            row, joined = _chosen(layers, accelerator)
            network.siblings.append(row)
            if joined is not None:
                network.layers[network.layers.index(layers[0])] = joined
                absorbed.update(layers[1:])
    network.layers[:] = [layer for layer in network.layers if layer not in absorbed]


def _term(layer: Layer) -> Term | None:
    """What a layer sums, where that is all of its work and its output is a map by itself."""
    spec = layer.spec
    if not isinstance(spec, Vta) or len(spec.terms) > 1 or layer.after is not None:
        return None
    if spec.pooling is not None or spec.whole is not None or spec.planes > 1:
        return None
    (term,) = spec.terms
    return term if term.reads is Reads.ALL and not term.shared else None


def _stage(layer: Layer) -> Stage:
    assert isinstance(layer.spec, Vta)
    return layer.spec.stages[0]


def _ending(layer: Layer) -> object:
    """What siblings have in common beside their term: but for numbers of each channel, how their sums become bytes. An
    end of the clamp that can never act is that of all bytes.
    """
    spec, stage = layer.spec, _stage(layer)
    assert isinstance(spec, Vta)
    clamp = (-128 if stage.low is None else stage.low, 127 if stage.high is None else stage.high)
    return spec.height, spec.width, stage.bias, clamp


def _chosen(layers: Sequence[Layer], accelerator: Accelerator) -> tuple[Siblings, Layer | None]:
    """Both estimates for layers that end alike, and the one layer that they become, if they do."""
    nodes = tuple((layer.nodes or [layer.value])[-1] for layer in layers)
    apart = cycles(layers, accelerator)

    def row(together: int | None, reason: str) -> Siblings:
        ms = [None if n is None else round(accelerator.board.milliseconds(n), 4) for n in (apart, together)]
        return Siblings(nodes, not reason, ms[0] or 0.0, ms[1], reason)

    if len(layers) == 1:
        return row(None, _OTHERWISE), None
    try:
        joined = _joined(layers)
    except Refuse as refuse:
        return row(None, str(refuse)), None
    together = cycles([joined], accelerator)
    return (row(together, ""), joined) if together < apart else (row(together, _SLOWER), None)


def _joined(layers: Sequence[Layer]) -> Layer:
    """One layer of several.

    Raises:
        Refuse: they are shifted by amounts too far apart.
    """
    first, stages, constants = layers[0], [_stage(layer) for layer in layers], [_constants(layer) for layer in layers]
    specs = [layer.spec for layer in layers if isinstance(layer.spec, Vta)]
    common, rest = split_shift(np.concatenate([each.amounts for each in constants]))
    stage = replace(
        stages[0],
        bias_tiles=max(each.bias_tiles for each in stages),
        shift=common,
        shifts=rest is not None,
        low=next((each.low for each in stages if each.low is not None), None),
        high=next((each.high for each in stages if each.high is not None), None),
    )
    arrays = [np.concatenate([each.tiles for each in constants])]
    if stage.bias == "tiles":
        arrays += [constants[0].ones, np.concatenate([_filled(each.bias, stage.bias_tiles) for each in constants])]
    elif stage.bias:
        arrays.append(np.concatenate([each.bias for each in constants]))
    if rest is not None:
        arrays.append(rest)
    shares = tuple(Share(spec.out_blocks) for spec in specs)
    blocks = sum(share.blocks for share in shares)
    return replace(
        first,
        spec=replace(specs[0], out_blocks=blocks, stages=(stage,), split=shares),
        operands=[first.operands[0], *(Param("raw", array) for array in arrays)],
        nodes=[node for layer in layers for node in layer.nodes],
        macs=sum(layer.macs for layer in layers),
        also=[layer.output for layer in layers[1:]],
    )


class _Constants(NamedTuple):
    """Those of a step of one term; of a bias that is none, nothing. `amounts`: of each channel's shift, in all."""

    tiles: NDArray[np.int8]
    ones: NDArray[np.int8]
    bias: NDArray[np.integer]
    amounts: NDArray[np.int32]


def _constants(layer: Layer) -> _Constants:
    stage, spec = _stage(layer), layer.spec
    assert isinstance(spec, Vta)
    rest = iter([operand.array for operand in layer.operands if isinstance(operand, Param)])
    nothing, tiles = np.zeros(0, np.int8), next(rest)
    ones = next(rest) if stage.bias == "tiles" else nothing
    bias = next(rest) if stage.bias else nothing
    amounts = np.full(spec.out_blocks * spec.block, stage.shift, np.int32)
    return _Constants(tiles, ones, bias, amounts + next(rest) if stage.shifts else amounts)


def _filled(tiles: NDArray[np.integer], count: int) -> NDArray[np.integer]:
    """Bias tiles ``[blocks, n, B, B]``, so many of them for each block: the others add nothing."""
    return np.pad(tiles, ((0, 0), (0, count - tiles.shape[1]), (0, 0), (0, 0)))
