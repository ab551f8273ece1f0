"""Steps of a VTA with random numbers, and a network of them in one DRAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inception_deploy.kernels.spec import Term, Vta
from inception_deploy.kernels.vta import constants, meaning
from inception_deploy.kernels.vta.accelerator import Accelerator
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.profiles import PROFILES
from inception_deploy.kernels.vta.tiling import Tiling, choose
from inception_deploy.lower.plan import Ref
from inception_deploy.targets.vta.assemble import UOPS, Work, assemble
from inception_deploy.targets.vta.memory import Dram
from inception_deploy.targets.vta.simulator import simulate

ARENA, WEIGHTS = "arena", "weights"
BASES = {ARENA: 0x100000, WEIGHTS: 0x4000000, UOPS: 0x8000000}
HLS, CHISEL = BOARDS["pynq"], BOARDS["de10nano"]


def accelerator(profile: str = "hls", config: Config | None = None) -> Accelerator:
    """Of pynq's or de10nano's hardware."""
    return Accelerator(profile, config or Config(), CHISEL if profile == "chisel" else HLS)


def constants_of(spec: Vta, random: np.random.Generator, bias: int = 20_000) -> list[np.ndarray]:
    """Random constants in the order of the spec's operands, inputs left out; small enough for int32."""
    found = []
    for stage in spec.stages:
        for term in stage.terms:
            outputs = 1 if term.shared else spec.out_blocks
            shape = (outputs, term.depth, *term.kernel, spec.block, spec.block)
            found.append(random.integers(-128, 128, shape, dtype=np.int8))
        if stage.bias == "tiles":
            found.append(constants.ones(spec.block, spec.rows))
            shape = (spec.out_blocks, stage.bias_tiles, spec.block, spec.block)
            found.append(random.integers(-128, 128, shape, dtype=np.int8))
        elif stage.bias == "words":
            words = random.integers(-bias, bias, (spec.out_blocks, 1, spec.block), dtype=np.int32)
            found.append(np.repeat(words, spec.rows, 1))
        if stage.shifts:
            words = random.integers(0, 7, (spec.out_blocks, 1, spec.block), dtype=np.int32)
            found.append(np.repeat(words, spec.rows, 1))
    return found


@dataclass
class Layer:
    """A step of a network, and the layers that it reads, by their numbers; None for an input of the network's."""

    spec: Vta
    inputs: Sequence[int | None]
    tiling: Tiling | None = None


class Network:
    """Layers in one arena, each value in a place of its own."""

    def __init__(self, layers: Sequence[Layer], at: Accelerator, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.at, self.layers = at, layers
        self.given: list[tuple[int, np.ndarray]] = []  # where inputs lie
        self.wanted: list[tuple[int, np.ndarray]] = []  # the value of each layer, and where it lies
        self.end = 0
        self.weights = bytearray()
        self.works: list[Work] = []
        for number, layer in enumerate(layers):
            spec, operands, refs = layer.spec, [], []
            rest, inputs, terms = iter(constants_of(spec, self.random)), iter(layer.inputs), iter(spec.terms)
            for operand in spec.operands[: -len(spec.outputs)]:
                if operand.role == "input":
                    at_layer, term = next(inputs), next(terms)
                    place, value = self._input(spec, term) if at_layer is None else self.wanted[at_layer]
                    operands.append(value)
                    refs.append(Ref(ARENA, place))
                else:
                    operands.append(next(rest))
                    refs.append(Ref(WEIGHTS, len(self.weights)))
                    self.weights += operands[-1].tobytes()
                    self.weights += bytes(-len(self.weights) % 4096)
            value = meaning.compute(spec, operands)
            self.wanted.append((self.end, value))
            refs += [Ref(ARENA, self._place(one.bytes)) for one in spec.operands[-len(spec.outputs) :]]
            self.works.append(Work(f"layer{number}", spec, layer.tiling or choose(spec, at), tuple(refs)))
        self.stream = assemble(self.works, at)

    def _input(self, spec: Vta, term: Term) -> tuple[int, np.ndarray]:
        shape = (spec.batch // spec.rows, term.blocks, term.height, term.width, spec.rows, spec.block)
        value = self.random.integers(-128, 128, shape, dtype=np.int8)
        self.given.append((self._place(value.nbytes), value))
        return self.given[-1]

    def _place(self, size: int) -> int:
        place = self.end
        self.end += -(-size // 4096) * 4096
        return place

    def run(self, profile: str = "") -> list[np.ndarray]:
        """The values of all layers, as the simulator computes them."""
        base = BASES[ARENA]
        contents = [(base + place, value.tobytes()) for place, value in self.given]
        contents += [(BASES[UOPS], self.stream.uops or bytes(4)), (BASES[WEIGHTS], bytes(self.weights) or bytes(4))]
        spaces = [
            [(base + ref.offset, one.bytes)
             for ref, one in zip(work.outputs, work.spec.operands[-len(work.outputs) :], strict=True)]
            for work in self.works
        ]  # fmt: skip
        dram = Dram.of(contents, [space for several in spaces for space in several], self.at.config.inp_bytes)
        simulate(self.stream.at(BASES), self.at.config, PROFILES[profile or self.at.board.executes], dram)
        found = []
        for work, several in zip(self.works, spaces, strict=True):
            spec, (high, wide) = work.spec, work.spec.map
            images, lanes = spec.batch // spec.rows, (spec.rows, spec.block)
            outputs = [
                np.frombuffer(dram.read(*space), np.int8).reshape(images, -1, high, wide, *lanes) for space in several
            ]
            top, left = spec.corner
            found.append(np.concatenate(outputs, 1)[:, :, top : top + spec.height, left : left + spec.width])
        return found

    def check(self, profile: str = "") -> None:
        """Every value is what the specs mean."""
        for number, (found, (_, value)) in enumerate(zip(self.run(profile), self.wanted, strict=True)):
            assert np.array_equal(found.reshape(value.shape), value), (
                f"layer {number} differs in {np.sum(found.reshape(value.shape) != value)}"
            )
