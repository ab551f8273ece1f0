"""The streams of a whole network, simulated with a place of its own for each value: every layer of them is compared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import onnx
import pytest

from inception_deploy.kernels.spec import Vta
from inception_deploy.lower import lower as lowering
from inception_deploy.lower import place
from inception_deploy.lower.layers import Layer, Network, Storage
from inception_deploy.lower.plan import ARENA, VTA, WEIGHTS, Plan, memory_of
from inception_deploy.targets.vta.assemble import UOPS, Work, assemble
from inception_deploy.targets.vta.memory import Dram
from inception_deploy.targets.vta.simulator import simulate
from inception_deploy.targets.vta_target import VtaTarget

from ...lower.vta import Executed

BASES = {memory_of(ARENA, VTA): 1 << 30, memory_of(WEIGHTS, VTA): 1 << 29, UOPS: 1 << 28}


class Simulated(Executed):
    """As `Executed`, but that the target's simulator executes the streams as they are compiled.

    Attributes:
        stored: the names of the values of bytes that streams store.
    """

    def __init__(self, model: onnx.ModelProto, exact: dict[str, np.ndarray], target: VtaTarget) -> None:
        network, self.plan = placed(model, target)
        self.begin(network, exact)
        self.target = target
        self.stored: set[str] = set()
        layers = sorted(network.layers, key=lambda layer: layer.wave)
        for device, numbers in groupby(range(len(layers)), key=lambda number: self.plan.steps[number].device):
            if device == VTA:
                self.stream(layers, list(numbers))
            else:
                for number in numbers:
                    self.host(layers[number])

    def stream(self, layers: Sequence[Layer], numbers: Sequence[int]) -> None:
        """Execute consecutive steps; what they store has been nowhere before."""
        works = []
        for step in (self.plan.steps[number] for number in numbers):
            kernel = self.plan.kernels[step.kernel]
            assert isinstance(kernel.spec, Vta)
            works.append(Work(step.name, kernel.spec, kernel.schedule, step.args))
        made = assemble(works, self.target.vta)
        arena = BASES[memory_of(ARENA, VTA)]
        written = {storage: layers[number] for number in numbers for storage in layers[number].writes}
        roots = {storage.root for storage in written}
        memory = next(row for row in self.plan.memories if row.name == memory_of(WEIGHTS, VTA))
        contents = [(arena + root.offset, held.tobytes()) for root, held in self.memory.items() if root.device == VTA]
        contents += [
            (BASES[UOPS], made.uops),
            (BASES[memory.name], self.plan.weights[memory.first : memory.first + memory.bytes]),
        ]
        config = self.target.vta.config
        dram = Dram.of(contents, [(arena + root.offset, root.bytes) for root in roots], config.inp_bytes)
        simulate(made.at(BASES), config, self.target.vta.board.profile, dram)
        for root in roots:
            held = np.frombuffer(dram.read(arena + root.offset, root.bytes), np.int8)
            self.memory[root] = held.reshape(root.batch, root.blocks, root.pixels, 16).copy()
        for storage, layer in written.items():
            assert isinstance(layer.spec, Vta)
            if layer.spec.planes == 1:
                self.stored.add(storage.name)
            self.compare(storage)


def placed(model: onnx.ModelProto, target: VtaTarget) -> tuple[Network, Plan]:
    """The plan, in which no two values share memory, and the layers that it was made of."""
    found: list[Network] = []
    before = lowering.layers_for

    def kept(*given: object) -> Network:
        found.append(before(*given))  # type: ignore[arg-type]
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowering, "layers_for", kept)
        patch.setattr(place, "_arranged", apart)
        plan = lowering.lower(model, target)
    return found[0], plan


def apart(roots: Sequence[Storage]) -> int:
    """One after the other."""
    end = 0
    for root in roots:
        root.offset, end = end, end + place.size(root)
    return end
