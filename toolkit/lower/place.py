"""When each layer runs and where each value lives.

Waves: a layer runs one wave after the last of those it reads from, so sibling branches share a wave and keep all
threads busy without a barrier between them. Where two devices take turns, a layer has a wave of its own, and they are
ordered so that the devices change as seldom as can be. Placement: an arena a device; values whose waves do not overlap
may share its bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import heappop, heappush

from .layers import Layer, Network, Storage
from .plan import ALIGNMENT


def assign_waves(network: Network) -> None:
    """Give every layer the earliest wave its inputs allow. Layers come in an order in which they can run."""
    writers: dict[Storage, list[tuple[Storage, int]]] = {}
    for layer in network.layers:
        before = (
            wave for read in layer.reads for written, wave in writers.get(read.root, ()) if _overlap(read, written)
        )
        layer.wave = 1 + max(before, default=-1)
        if layer.after is not None:
            layer.wave = max(layer.wave, layer.after.wave + 1)
        for storage in layer.writes:
            writers.setdefault(storage.root, []).append((storage, layer.wave))


def assign_turns(network: Network, device_of: Callable[[Layer], str]) -> None:
    """Order the layers of two devices: one goes on for as long as it has something to do, in the order given."""
    writers: dict[Storage, list[tuple[Storage, Layer]]] = {}
    waits: dict[Layer, int] = {}
    readers: dict[Layer, list[Layer]] = defaultdict(list)
    for layer in network.layers:
        before = {w for read in layer.reads for s, w in writers.get(read.root, ()) if _overlap(read, s)}
        before |= set() if layer.after is None else {layer.after}
        waits[layer] = len(before)
        for other in before:
            readers[other].append(layer)
        for storage in layer.writes:
            writers.setdefault(storage.root, []).append((storage, layer))
    number = {layer: at for at, layer in enumerate(network.layers)}
    ready: dict[str, list[int]] = defaultdict(list)  # heaps, by device
    for layer in network.layers:
        if not waits[layer]:
            heappush(ready[device_of(layer)], number[layer])
    ordered: list[Layer] = []
    device = device_of(network.layers[0]) if network.layers else ""
    while any(ready.values()):
        if not ready[device]:
            device = next(name for name, heap in ready.items() if heap)
        layer = network.layers[heappop(ready[device])]
        layer.wave = len(ordered)
        ordered.append(layer)
        for reader in readers[layer]:
            waits[reader] -= 1
            if not waits[reader]:
                heappush(ready[device_of(reader)], number[reader])
    network.layers[:] = ordered


def _overlap(a: Storage, b: Storage) -> bool:
    """Two storages of one root have blocks in common. A planar storage is all of its root."""
    if a.root is not b.root:
        return False
    if not a.root.blocked:
        return True
    return a.root_block < b.root_block + b.blocks and b.root_block < a.root_block + a.blocks


def share_adds(network: Network) -> None:
    """Let a residual add write over its addend, where the addend is dead afterwards.

    The convolution reads an element of the addend before it writes the same element of its output, and nobody else
    reads it then.
    """
    readers: dict[Storage, list[Layer]] = {}
    for layer in network.layers:
        for read in layer.reads:
            readers.setdefault(read.root, []).append(layer)
    writers = Counter(layer.output for layer in network.layers)
    for layer in network.layers:
        addend = next((o[0] for o in layer.operands if isinstance(o, tuple) and o[1] == "add_stride"), None)
        if addend is None or layer.output.parent is not None or layer.output.port is not None:
            continue
        if writers[layer.output] > 1:  # bands: somebody may read the addend between two of them
            continue
        root = addend.root
        if addend.dtype != layer.output.dtype:  # a pixel of one is not a pixel of the other
            continue
        if root.port is not None or not root.bytes == addend.bytes == layer.output.bytes:
            continue
        if layer.reads.count(addend) > 1 or any(r is not layer and r.wave >= layer.wave for r in readers[root]):
            continue
        readers[root].extend(readers.pop(layer.output, []))
        layer.output.parent = root


def copies(network: Network) -> list[Storage]:
    """For each input of the network, memory that an aligned copy of the caller's may take while somebody reads it."""
    found = []
    for value in network.inputs:
        readers = (layer for layer in network.layers if any(read.root is value.storage for read in layer.reads))
        last = max((layer.wave for layer in readers), default=0)
        found.append(replace(value.storage, name=f"{value.name}:copy", port=None, first_wave=0, last_wave=last))
    return found


def place(network: Network) -> None:
    """Fix every root's offset in its arena, those of the inputs' copies, and the arenas' sizes."""
    network.copies = copies(network)
    network.arenas = arrange(network, network.copies)


def arrange(network: Network, inputs: Sequence[Storage] = ()) -> dict[str, int]:
    """Offsets for every root and for `inputs`; gives the size in bytes of each device's arena."""
    roots = list(inputs)
    for layer in network.layers:
        for storage in (*layer.writes, *layer.reads):
            root = storage.root
            if root.port is not None:
                continue
            if root.first_wave < 0:
                roots.append(root)
                root.first_wave = root.last_wave = layer.wave
            root.first_wave = min(root.first_wave, layer.wave)
            root.last_wave = max(root.last_wave, layer.wave)
    devices = sorted({"", *(root.device for root in roots)})
    return {device: _arranged([root for root in roots if root.device == device]) for device in devices}


def _arranged(roots: Sequence[Storage]) -> int:
    """Offsets for the values of one arena, and its size in bytes.

    Values are placed one after the other, each at the lowest offset where no value alive at the same time lies. The
    best order is hard to find (it is a packing problem): several are tried, and the smallest arena is kept.
    """
    alive: dict[int, int] = defaultdict(int)  # bytes, by wave
    for root in roots:
        for wave in range(root.first_wave, root.last_wave + 1):
            alive[wave] += size(root)
    crowded = {root: max(alive[wave] for wave in range(root.first_wave, root.last_wave + 1)) for root in roots}
    orders: tuple[Callable[[Storage], tuple[int | str, ...]], ...] = (
        lambda r: (-size(r), r.first_wave, r.name),
        lambda r: (-crowded[r], -size(r), r.first_wave, r.name),
        lambda r: (-crowded[r], r.first_wave, -size(r), r.name),
        lambda r: (r.first_wave, -size(r), r.name),
        lambda r: (-r.last_wave, -size(r), r.name),
        lambda r: (r.first_wave - r.last_wave, -size(r), r.name),
        lambda r: (-size(r) * (r.last_wave - r.first_wave + 1), r.first_wave, r.name),
    )
    total, best = -1, roots
    for order in orders:
        ordered = sorted(roots, key=order)
        needed = _pack(ordered)
        if total < 0 or needed < total:
            total, best = needed, ordered
        if total == max(alive.values(), default=0):
            break
    return _pack(best)


def _pack(roots: Sequence[Storage]) -> int:
    """Offsets for values in the order given; gives the end of the last one."""
    placed: list[Storage] = []
    for root in roots:
        together = sorted(
            (o for o in placed if o.first_wave <= root.last_wave and root.first_wave <= o.last_wave),
            key=lambda o: o.offset,
        )
        offset = 0
        for other in together:
            if offset + size(root) <= other.offset:
                break
            offset = max(offset, other.offset + size(other))
        root.offset = offset
        placed.append(root)
    return max((r.offset + size(r) for r in placed), default=0)


def size(root: Storage) -> int:
    """Bytes of a root, a multiple of the alignment."""
    return -(-root.bytes // ALIGNMENT) * ALIGNMENT
