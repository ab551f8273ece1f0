"""A bundle's own streams, executed from its files: what ``vta simulate --bundle`` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from inception_deploy import artifact
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.kernels.vta import config as configurations
from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.boards import BOARDS, board
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.profiles import profile
from inception_deploy.runtime import bundle as bundles

from .bundle import MAP
from .cycles import Timing, measure
from .memory import Dram
from .pieces import LARGEST
from .simulator import simulate

_LOWEST, _GAP = 0x10000, 0x10000


def run(
    path: Path,
    number: int = 0,
    *,
    profile_name: str | None = None,
    board_name: str | None = None,
    trace: Path | None = None,
) -> dict[str, Any]:
    """Simulate one stream of a bundle. Its activations start as zeros: what the host would have put there is not known,
    and changes neither what is executed nor how long it takes.

    Args:
        path: the bundle. number: of the stream.
        profile_name, board_name, trace: as `files.run`; None for those of the bundle's own target.

    Returns:
        As `files.run`, without ``dumps``; ``stream`` and ``streams`` (its number, and how many there are); with a board
        ``steps``: name, first instruction and the one behind the last, and cycles until the last one's end.

    Raises:
        simulator.Fault: the stream does what the hardware does not survive.
        DeployError: (kind ``bundle``) it is none, or damaged. UsageError: (kind ``vta``) it has no such stream.
    """
    with bundles.open(path) as opened:
        if not (opened.folder / MAP).is_file():
            message = f"bundle {path} is for {opened.manifest['target']} and has no streams of a VTA"
            raise UsageError(message, kind="vta", got=opened.manifest["target"], allowed="a bundle for vta")
        details = opened.manifest["target_details"]
        if board_name is None and details.get("variant") in BOARDS:
            board_name = details["variant"]
        row = None if board_name is None else board(board_name)
        if trace is not None and row is None:
            message = "--trace needs a board, whose time it shows"
            raise UsageError(message, kind="vta", got="no --board", allowed=list(BOARDS))
        hardware = profile(profile_name or (row.executes if row else details.get("profile", "hls")))
        told = opened.document(MAP)
        streams = told["streams"]
        if not 0 <= number < len(streams):
            message = f"bundle {path} has {len(streams)} streams"
            raise UsageError(message, kind="vta", got=number, allowed=f"0 to {len(streams) - 1}")
        machine = configurations.load(_file(opened, told["configuration"]))
        stream, dram = _placed(opened, told, streams[number], machine)
    where = f"stream {number} of {path}"
    counts = simulate(stream, machine, hardware, dram, where)
    found = {"profile": hardware.name, "stream": number, "streams": len(streams), **asdict(counts)}
    if row is None:
        return found
    timing = measure(stream, machine, row, where)
    if trace is not None:
        with artifact.atomic_file(trace) as partial:
            artifact.dump_json(timing.trace(stream, machine), partial)
    return {**found, "timing": timing.document(), "steps": step_cycles(streams[number]["steps"], timing)}


def _file(opened: bundles.Bundle, name: str) -> Path:
    """A file that the map names, and the manifest too."""
    if name not in opened.manifest["files"]:
        raise _wrong(opened, f"names {name}, which its manifest does not")
    return opened.folder / name


def _wrong(opened: bundles.Bundle, what: str) -> DeployError:
    return DeployError(f"bundle {opened.source} {MAP}: {what}", kind="bundle", got=what)


def _placed(
    opened: bundles.Bundle, told: Mapping[str, Any], row: Mapping[str, Any], machine: Config
) -> tuple[bytes, Dram]:
    """The stream with the addresses of a DRAM that holds the bundle's memories."""
    memories = {memory["name"]: memory for memory in told["memories"]}
    contents: list[tuple[int, bytes]] = []
    pieces: dict[str, list[tuple[int, int, int]]] = {}
    free = _LOWEST
    for piece in told["allocations"]:
        memory, first, size = memories.get(piece["memory"]), piece["offset"], piece["bytes"]
        if memory is None or not 0 < size <= LARGEST:
            raise _wrong(opened, f"allocates {size} bytes of {piece['memory']}")
        data = bytes(size)
        if "file" in memory:
            with _file(opened, memory["file"]).open("rb") as file:
                file.seek(memory.get("offset", 0) + first)
                data = file.read(size)
        contents.append((free, data))
        pieces.setdefault(memory["name"], []).append((first, first + size, free))
        free += -(-size // _GAP) * _GAP + _GAP
    names = {memory["number"]: name for name, memory in memories.items()}
    code, entries = (_file(opened, row[name]).read_bytes() for name in ("instructions", "relocations"))
    if not code or len(code) % isa.WORDS or len(entries) % 8:
        raise _wrong(opened, f"{row['instructions']} or {row['relocations']} is cut short")
    words = np.frombuffer(code, "<u8").reshape(-1, 2).copy()
    table = np.frombuffer(entries, [("at", "<u4"), ("of", "<u2"), ("size", "<u2")])
    if np.any(table["at"] >= len(words)) or np.any(table["size"] == 0):
        raise _wrong(opened, f"{row['relocations']} relocates what is no instruction")
    shift = np.uint64(isa.places("memory", machine)["dram_base"].shift)
    mask = np.uint64(0xFFFFFFFF)
    for number, name in names.items():
        rows = table[table["of"] == number]
        at, size = rows["at"], rows["size"].astype(np.uint64)
        offset = (words[at, 0] >> shift & mask) * size
        for first, end, place in pieces.get(name, []):
            inside = (offset >= first) & (offset < end)
            moved = (offset[inside] - np.uint64(first) + np.uint64(place)) // size[inside]
            words[at[inside], 0] = words[at[inside], 0] & ~(mask << shift) | moved << shift
    return words.tobytes(), Dram.of(contents, [], machine.inp_bytes)


def step_cycles(rows: list[dict[str, Any]], timing: Timing) -> list[dict[str, Any]]:
    """How long each step takes until its last instruction is done, beside what ran before."""
    taken = timing.of_steps((row["first"], row["end"]) for row in rows)
    return [
        {"name": row["name"], "first": row["first"], "end": row["end"], "cycles": cycles}
        for row, cycles in zip(rows, taken, strict=True)
    ]
