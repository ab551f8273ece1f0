"""Depthwise and grouped convolutions: a VTA's, or its host's, whichever is estimated to be faster.

A depthwise tile wastes 15 of 16 multipliers, and a processor wastes none; but what the processor computes between two
steps of the VTA is handed over twice: its bytes change their sign, caches are written back, and a stream ends and
another one begins. Both sides of a layer are taken for the VTA's.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..kernels.spec import Conv, Vta, Window, WindowOp
from ..kernels.vta import tiling
from ..kernels.vta.accelerator import FASTER, Accelerator
from .layers import Layer
from .plan import HOST, VTA, Compared

_NEVER = 1 << 62


def compared(layer: Layer, steps: Sequence[Layer], accelerator: Accelerator) -> Compared | None:
    """Who computes a layer; None for one that a VTA's multipliers are made for.

    Args:
        steps: what the VTA would do.
    """
    spec = layer.spec
    alone = isinstance(spec, Window) and spec.op is WindowOp.DEPTHWISE
    if not alone and not (isinstance(spec, Conv) and spec.groups > 1):
        return None
    board = accelerator.board
    size = sum(storage.bytes for storage in (*layer.reads, layer.output))
    rate = board.host.depthwise if alone else board.host.grouped
    vta, host = board.milliseconds(cycles(steps, accelerator)), board.host.computed(spec.macs, rate, size)
    crossing = board.host.crossed(size, flushed=board.wiring.flushed)
    device = VTA if vta <= host + crossing else HOST
    if accelerator.depthwise != FASTER:
        device = VTA if accelerator.depthwise == "vta" else HOST
    node = (layer.nodes or [layer.value])[-1]
    return Compared(node, layer.op, device, round(vta, 4), round(host, 4), round(crossing, 4))


def cycles(steps: Sequence[Layer], accelerator: Accelerator) -> int:
    """What a VTA takes for steps by the model of their tiles; more than it ever takes where one does not fit."""
    specs = [step.spec for step in steps if isinstance(step.spec, Vta)]
    if any(tiling.refused(spec, accelerator) for spec in specs):
        return _NEVER
    return sum(tiling.cost(spec, accelerator, tiling.choose(spec, accelerator)) for spec in specs)


def reason(found: Compared, accelerator: Accelerator) -> str:
    """Why the host computes it."""
    times = f"{found.host:.2f} ms and {found.crossing:.2f} to hand it over, {found.vta:.2f} on the VTA (estimates)"
    return times if accelerator.depthwise == FASTER else f"asked for by depthwise={accelerator.depthwise}: {times}"
