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

from . import cpu_library, library, program
from .tables import Part, table
from .vta import bundle, driver, pieces, simulator
from .vta.pieces import DEVICE, Range, Stream

_SOURCES = ("vta_device.c", "vta_driver.c")
_LINKED = ("vta_device.c", "vta_linked.c")
"""The parts of `csrc` that only this device needs; where no library can be loaded."""

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
    programs: bool = True,
) -> list[str]:
    """Write everything that a bundle needs to run a plan on a VTA: libraries, weights, streams as files.

    Args:
        streams: one for each of `pieces.spans`, in order.
        profile: what the simulator executes as.
        folder: an existing folder.
        here: the machine that simulates. Its library is ``model.so`` where there is no board, ``model-MACHINE.so``
            beside the board's otherwise.
        board, there: what the network is for, and the board's own host, with ``libvta.so`` to drive it.
        programs: write ``run_model`` and its like too, for what the network is for.

    Returns:
        The names of the files.

    Raises:
        DeployError: as `part` and `library.write_library`.
    """
    whole = pieces.with_streams(plan, streams, config)

    def parts(host: Host, *, alone: bool = False) -> list[Part]:
        of = None if host is here else board
        simulated = profile if host is here else None
        found = [part(whole, streams, config, host.triple, simulated=simulated, board=of, alone=alone)]
        return [*found, cpu_library.part(whole, host.objects)] if HOST in whole.devices else found

    def library_of(host: Host, name: str) -> list[str]:
        made = parts(host)
        return library.write_library(whole, made, folder, triple=host.triple, features=host.features, name=name)

    if board is None or there is None:
        goal = here
        names = library_of(here, library.LIBRARY)
    else:
        goal = there
        names = library_of(here, f"model-{here.triple.partition('-')[0]}.so")
        names += library_of(there, library.LIBRARY)
        driver.write(board, folder / driver.LIBRARY, there.triple)
        names.append(driver.LIBRARY)
    if programs:
        made = parts(goal, alone=True)
        names += program.write_program(whole, made, folder, triple=goal.triple, features=goal.features)
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
    board: Board | None = None,
    alone: bool = False,
) -> Part:
    """What a library has of the device.

    Args:
        plan: as `pieces.with_streams` gives it. streams: the same.
        triple: of the host.
        simulated: the simulator of that hardware is linked in, and runs where no driver is named; None for a library
            that takes ``libvta.so`` from beside its weights.
        board: what it is for; None for the simulator alone.
        alone: for a program that loads no libraries: its driver is linked in, the simulator or ours for the board.

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
    inside = board if alone and simulated is None else None
    linked = "&id_vta_simulator" if simulated else "&id_vta_zynq" if inside else "NULL"
    objects = simulator.objects(config, simulated, triple) if simulated else []
    objects += [driver.wired(inside, triple)] if inside else []
    declared = [
        *table("const id_vta_code", "vta_code", codes),
        *table("const id_vta_stream", "vta_streams", rows),
        *table("const id_vta_range", "vta_pieces", apart),
        *table("const id_vta_range", "vta_ranges", ranges),
        "static const id_vta_tables vta_tables = {",
        "    .streams = vta_streams, .pieces = vta_pieces, .ranges = vta_ranges,",
        f"    .linked = {linked},",
        f"    .stream_count = {len(rows)}, .piece_count = {len(apart)}, .alignment = {pieces.alignment(config)},",
        f"    .dram_shift = {base.shift}, .wait = {_WAIT}, .flushed = {int(board is None or board.wiring.flushed)},",
        "};",
    ]
    return Part(
        device=DEVICE,
        sources=(*(_LINKED if alone else _SOURCES), *(driver.SOURCES if inside else ())),
        include="vta_tables.h",
        symbol="id_vta_device",
        declared=declared,
        code=code,
        tables="&vta_tables",
        objects=objects,
        dl=not alone,
    )


def _rows(number_of: dict[str, int], ranges: Iterable[Range]) -> list[str]:
    return [f"{{UINT64_C({r.offset}), UINT64_C({r.bytes}), {number_of[r.memory]}u}}" for r in ranges]
