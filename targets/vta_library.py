"""The device `vta` of a library: streams of instructions, and what `csrc/vta_device.c` must know to run them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.boards import Board
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.profiles import Profile
from inception_deploy.lower.plan import HOST, Plan

from . import cpu_library, library
from .tables import Part, table
from .vta import bundle, driver, pieces, simulator
from .vta.pieces import DEVICE, Range, Stream

SOURCES = ("vta_device.c", "vta_driver.c")
"""The parts of `csrc` that only this device needs."""

_WAIT = 20_000_000
"""Polls, a microsecond or more each, before a VTA is given up."""


@dataclass(frozen=True)
class Host:
    """A machine that a library is for.

    Attributes:
        triple: a key of `link.PLATFORMS`.
        objects: of the host's kernels, by symbol.
        features: of the CPU, that they use.
    """

    triple: str
    objects: Mapping[str, bytes]
    features: tuple[str, ...] = ()


def write(
    plan: Plan,
    streams: Sequence[Stream],
    config: Config,
    profile: Profile,
    folder: Path,
    *,
    here: Host,
    board: Board | None = None,
    there: Host | None = None,
) -> list[str]:
    """Write everything that a bundle needs to run a plan on a VTA: libraries, weights, streams as files.

    Args:
        streams: one for each of `pieces.spans`, in order.
        profile: what the simulator executes as.
        folder: an existing folder.
        here: the machine that simulates. Its library is ``model.so`` where there is no board, ``model-MACHINE.so``
            beside the board's otherwise.
        board, there: what the network is for, and the board's own host, with ``libvta.so`` to drive it.

    Returns:
        The names of the files.

    Raises:
        DeployError: as `part` and `library.write_library`.
    """
    whole = pieces.with_streams(plan, streams, config)

    def library_of(host: Host, simulated: Profile | None, flushed: bool, name: str) -> list[str]:
        parts = [part(whole, streams, config, host.triple, simulated=simulated, flushed=flushed)]
        if HOST in whole.devices:
            parts.append(cpu_library.part(whole, host.objects))
        return library.write_library(whole, parts, folder, triple=host.triple, features=host.features, name=name)

    if board is None or there is None:
        names = library_of(here, profile, True, library.LIBRARY)
    else:
        names = library_of(here, profile, True, f"model-{here.triple.partition('-')[0]}.so")
        names += library_of(there, None, board.wiring.flushed, library.LIBRARY)
        driver.write(board, folder / driver.LIBRARY, there.triple)
        names.append(driver.LIBRARY)
    for name, data in bundle.files(whole, streams, config).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        names.append(name)
    return list(dict.fromkeys(names))


def part(
    plan: Plan,
    streams: Sequence[Stream],
    config: Config,
    triple: str,
    *,
    simulated: Profile | None,
    flushed: bool = True,
) -> Part:
    """What a library has of the device.

    Args:
        plan: as `pieces.with_streams` gives it. streams: the same.
        triple: of the host.
        simulated: the simulator of that hardware is linked in, and runs where no driver is named; None for a library
            that takes ``libvta.so`` from beside its weights.
        flushed: what the host caches is flushed and invalidated; otherwise the VTA sees it.

    Raises:
        DeployError: (kind ``plan``) the plan contradicts itself; (kind ``vta``) something is larger than drivers
            allocate.
    """
    library.check(plan)
    pieces.check(plan, streams)
    base = isa.places("memory", config)["dram_base"]
    assert (base.word, base.width) == (0, 32)
    number_of = {memory.name: number for number, memory in enumerate(plan.memories)}
    ranges: list[str] = []
    rows: list[str] = []
    code: dict[int, str] = {}
    codes: list[str] = []
    first, relocations = pieces.first_of(plan, pieces.STREAMS), pieces.first_of(plan, pieces.RELOCATIONS)
    for number, (steps, stream) in enumerate(zip(pieces.spans(plan), streams, strict=True)):
        before, after = (_rows(number_of, found) for found in pieces.seen(plan, steps))
        count = len(stream.instructions) // isa.WORDS
        rows.append(
            f"{{UINT64_C({first}), {count}u, UINT64_C({relocations}), {len(stream.relocations)}u, "
            f"{len(ranges)}u, {len(before)}u, {len(ranges) + len(before)}u, {len(after)}u}}"
        )
        ranges += [*before, *after]
        for step, row in zip(steps, stream.steps, strict=True):
            code[step] = f"&vta_code[{len(codes)}]"
            codes.append(f"{{{number}u, {row.first}u, UINT64_C({max(1, plan.steps[step].macs)})}}")
        first += pieces.whole(len(stream.instructions))
        relocations += pieces.whole(8 * len(stream.relocations))
    apart = [row for m in plan.memories for row in _rows(number_of, pieces.pieces(plan, m, config))]
    declared = [
        *table("const id_vta_code", "vta_code", codes),
        *table("const id_vta_stream", "vta_streams", rows),
        *table("const id_vta_range", "vta_pieces", apart),
        *table("const id_vta_range", "vta_ranges", ranges),
        "static const id_vta_tables vta_tables = {",
        "    .streams = vta_streams, .pieces = vta_pieces, .ranges = vta_ranges,",
        f"    .simulated = {'&id_vta_simulator' if simulated else 'NULL'},",
        f"    .stream_count = {len(rows)}, .piece_count = {len(apart)}, .alignment = {pieces.alignment(config)},",
        f"    .dram_shift = {base.shift}, .wait = {_WAIT}, .flushed = {int(flushed)},",
        "};",
    ]
    return Part(
        device=DEVICE,
        sources=SOURCES,
        include="vta_tables.h",
        symbol="id_vta_device",
        declared=declared,
        code=code,
        tables="&vta_tables",
        objects=simulator.objects(config, simulated, triple) if simulated else [],
        dl=True,
    )


def _rows(number_of: dict[str, int], ranges: Iterable[Range]) -> list[str]:
    return [f"{{UINT64_C({r.offset}), UINT64_C({r.bytes}), {number_of[r.memory]}u}}" for r in ranges]
