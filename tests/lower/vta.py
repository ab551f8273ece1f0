"""A network lowered for VTA, executed in numpy: every step of the VTA from what `quantize.arith` says of its inputs."""

from __future__ import annotations

import numpy as np
import onnx

from inception_deploy.kernels.spec import SIGNED, Flip, Map, Patches, Pick, Pixels, Vta
from inception_deploy.kernels.vta import meaning
from inception_deploy.kernels.vta.accelerator import Accelerator
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.kernels.vta.config import Config
from inception_deploy.lower import on_vta, vta_siblings
from inception_deploy.lower.layers import Layer, Network, Param, Storage
from inception_deploy.lower.walk import read
from inception_deploy.quantize import integer_network

PYNQ = Accelerator("pynq", Config(), BOARDS["pynq"])


class Executed:
    """Every step of a VTA computes, and is compared with the exact value of the tensor that it makes, where it has one.

    Attributes:
        network: the layers.
        wrong: names of values that differ.
        compared: names of values that were compared.
    """

    def __init__(self, model: onnx.ModelProto, x: np.ndarray, accelerator: Accelerator = PYNQ) -> None:
        network = read(model, byte_offset=128, weighs=True)
        on_vta.rewrite(network, 128, accelerator)
        vta_siblings.join(network, accelerator)
        self.begin(network, integer_network.read(model).run({model.graph.input[0].name: x}))
        last = {storage: number for number, layer in enumerate(self.network.layers) for storage in layer.writes}
        for number, layer in enumerate(self.network.layers):
            if not isinstance(layer.spec, Vta):
                self.host(layer)
                continue
            self._vta(layer)
            for storage in layer.writes:
                if last[storage] == number:
                    self.compare(storage)

    def begin(self, network: Network, exact: dict[str, np.ndarray]) -> None:
        """Nothing is computed yet; `exact`: the value of every tensor."""
        self.network, self.exact = network, exact
        self.memory: dict[Storage, np.ndarray] = {}
        self.wrong: list[str] = []
        self.compared: list[str] = []

    @property
    def on_host(self) -> list[str]:
        """What the host does, without what crosses the border."""
        return [la.op for la in self.network.layers if not isinstance(la.spec, (Vta, Flip, Patches, Pixels))]

    def root(self, storage: Storage) -> np.ndarray:
        """The bytes of a whole memory `[N, blocks, pixels, 16]`."""
        root = storage.root
        if root not in self.memory:
            self.memory[root] = np.full((root.batch, root.blocks, root.pixels, 16), 99, np.int8)
        return self.memory[root]

    def part(self, storage: Storage) -> np.ndarray:
        """The bytes of a storage, a view."""
        return self.root(storage)[:, storage.root_block : storage.root_block + storage.blocks]

    def _fill(self, storage: Storage) -> None:
        """The exact value, from the reference."""
        name = storage.name.split(":")[0]  # a copy of it: flipped, or moved
        if name in self.exact:
            self.part(storage)[...] = self._laid(storage, self.exact[name])

    def _laid(self, storage: Storage, value: np.ndarray) -> np.ndarray:
        made = np.zeros((storage.batch, storage.blocks * 16, storage.pixels), np.int8)
        made[:, storage.slots] = value.reshape(storage.batch, -1, storage.pixels)
        return made.reshape(storage.batch, storage.blocks, 16, -1).transpose(0, 1, 3, 2)

    def host(self, layer: Layer) -> None:
        """What the VTA reads of a layer on the host."""
        spec = layer.spec
        if isinstance(spec, Patches):
            self._patches(layer, spec)
        elif isinstance(spec, Flip):
            self._fill(layer.reads[0])
            self.part(layer.output)[...] = self.part(layer.reads[0])
        elif isinstance(spec, Map) and spec.op == "table":
            self._fill(layer.output)
        elif isinstance(spec, Pick):
            self._pick(layer, spec)
        elif isinstance(spec, Pixels) and spec.out_element == SIGNED:
            q = self.exact[layer.value]
            top, left, bottom, right = spec.frame
            framed = np.pad(q, ((0, 0), (0, 0), (top, bottom), (left, right)))
            self.memory[layer.output] = framed.transpose(0, 2, 3, 1)

    def _pick(self, layer: Layer, spec: Pick) -> None:
        self._fill(layer.reads[0])
        rows, columns, *channels = (o.array for o in layer.operands if isinstance(o, Param))
        given = self.part(layer.reads[0]).reshape(spec.batch, spec.in_blocks, spec.height, spec.width, 16)
        given = np.moveaxis(given, 4, 2).reshape(spec.batch, -1, spec.height, spec.width)
        slots = channels[0] if channels else np.arange(given.shape[1])
        made = given[:, slots][:, :, rows][:, :, :, columns]
        nowhere = (slots < 0)[:, None, None] | (rows < 0)[:, None] | (columns < 0)
        made = np.where(nowhere, spec.fill - 128, made)
        split = made.reshape(spec.batch, spec.blocks, 16, -1)
        self.part(layer.output)[...] = np.moveaxis(split, 2, 3)

    def _patches(self, layer: Layer, spec: Patches) -> None:
        image = self.memory[layer.reads[0]]
        made = np.zeros((spec.batch, spec.blocks * 16, spec.out_height, spec.out_width), np.int8)
        for r in range(spec.kernel[0]):
            for s in range(spec.kernel[1]):
                y, x = r * spec.dilation[0], s * spec.dilation[1]
                seen = image[:, y :: spec.stride[0], x :: spec.stride[1]][:, : spec.out_height, : spec.out_width]
                first = (r * spec.kernel[1] + s) * spec.channels
                made[:, first : first + spec.channels] = seen.transpose(0, 3, 1, 2)
        split = made.reshape(spec.batch, spec.blocks, 16, -1)
        self.memory[layer.output] = split.transpose(0, 1, 3, 2)

    def _vta(self, layer: Layer) -> None:
        spec = layer.spec
        assert isinstance(spec, Vta)
        operands = [o.array if isinstance(o, Param) else self.part(o[0]) for o in layer.operands]
        for operand, given in zip(spec.operands, operands, strict=False):
            assert operand.size == given.size, operand
        made = meaning.compute(spec, operands)
        made = made.reshape(spec.batch, -1, *made.shape[-3:])
        rows = slice(spec.corner[0], spec.corner[0] + spec.height)
        columns = slice(spec.corner[1], spec.corner[1] + spec.width)
        first = 0
        for storage, share in zip(layer.writes, spec.outputs, strict=True):
            count = spec.planes * share.blocks
            goal = self.part(storage).reshape(spec.batch, count, *spec.map, 16)
            goal[:, :, rows, columns] = made[:, first : first + count]
            first += count

    def compare(self, storage: Storage) -> None:
        """What lies there with the exact value, where that has one."""
        value = self.exact.get(storage.name)
        if value is None or value.dtype != np.int8:
            return
        lanes = np.moveaxis(self.part(storage), 3, 2).reshape(storage.batch, -1, storage.pixels)[:, storage.slots]
        self.compared.append(storage.name)
        if not np.array_equal(lanes.reshape(-1), value.reshape(-1)):
            self.wrong.append(storage.name)
