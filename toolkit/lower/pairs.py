"""Which convolutions of bytes have weights whose products fit 16 bits two by two, as instructions add them up that take
bytes as they lie (`dots.Dot.pairs`). It is known when channels are in their slots.
"""

from __future__ import annotations

from dataclasses import replace

from ..kernels.elements import BYTE
from ..kernels.isa import Isa
from ..kernels.spec import Conv
from .kernel_set import KernelSet
from .layers import Network, Param
from .pack import in_slots


def find(network: Network, kernels: KernelSet) -> None:
    """Set `Conv.pairs_fit` where it holds."""
    for layer in network.layers:
        spec = layer.spec
        if not isinstance(spec, Conv) or spec.in_element != BYTE or spec.weight_element != "int8":
            continue
        machine = kernels.machine(spec)
        dot = next((row for row in machine.dots if row.pairs), None) if isinstance(machine, Isa) else None
        weight = layer.operands[1]
        assert isinstance(weight, Param)
        if dot is not None:
            layer.spec = replace(spec, pairs_fit=dot.pairs_fit(in_slots(weight, layer)))
