"""Streams in files: what ``vta simulate`` and ``vta disassemble`` do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inception_deploy import artifact
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.kernels.vta import config as configurations
from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.boards import BOARDS, board
from inception_deploy.kernels.vta.profiles import profile


@dataclass(frozen=True)
class Load:
    """A file whose bytes lie in DRAM from an address on."""

    path: Path
    address: int


@dataclass(frozen=True)
class Dump:
    """A file that receives `length` bytes of DRAM from an address on; streams may write there."""

    path: Path
    address: int
    length: int


def parse_load(text: str) -> Load:
    """``FILE@0xADDR``. UsageError for anything else."""
    path, _, where = text.rpartition("@")
    if not path:
        raise _unreadable("--load", text, "FILE@0xADDR")
    return Load(Path(path), _number(where, "--load", text, "FILE@0xADDR"))


def parse_dump(text: str) -> Dump:
    """``FILE@0xADDR:LENGTH``. UsageError for anything else."""
    path, _, where = text.rpartition("@")
    address, colon, length = where.partition(":")
    if not path or not colon:
        raise _unreadable("--dump", text, "FILE@0xADDR:LENGTH")
    form = "FILE@0xADDR:LENGTH"
    return Dump(Path(path), _number(address, "--dump", text, form), _number(length, "--dump", text, form))


def _number(text: str, flag: str, whole: str, form: str) -> int:
    digits = text.lower().removeprefix("0x")
    base = 16 if digits != text.lower() else 10
    allowed = "0123456789abcdef"[:base]
    if not digits or len(digits) > 16 or any(c not in allowed for c in digits):
        raise _unreadable(flag, whole, form)
    return int(digits, base)


def _unreadable(flag: str, text: str, form: str) -> UsageError:
    return UsageError(f"{flag} is '{text}'", kind="vta", got=text, allowed=f"{form}, numbers as 4096 or 0x1000")


def run(
    config: Path,
    instructions: Path,
    loads: Sequence[Load],
    dumps: Sequence[Dump],
    *,
    profile_name: str | None = None,
    board_name: str | None = None,
    trace: Path | None = None,
) -> dict[str, Any]:
    """Simulate a stream; then write every dump's file.

    Args:
        config: upstream's ``vta_config.json``. instructions: 16 bytes each.
        loads: what lies in DRAM before. dumps: what is read back; DRAM exists in both and nowhere else.
        profile_name: of `profiles.PROFILES`; None for the board's, and ``hls`` without a board.
        board_name: of `boards.BOARDS`: estimates the time on it.
        trace: a file for the estimated timeline, in Chrome's trace format; needs a board.

    Returns:
        ``profile``, ``instructions``, ``gemm_steps``, ``reset_steps``, ``alu_steps``, ``bytes`` (by memory), ``dumps``;
        with a board ``timing``, as `cycles.Timing.document`.

    Raises:
        simulator.Fault: the stream does what the profile's hardware does not survive; nothing is written.
        DeployError: (kind ``vta``) a file that cannot be read or is none.
    """
    from .cycles import measure
    from .memory import Dram
    from .simulator import simulate

    if trace is not None and board_name is None:
        message = "--trace needs a board, whose time it shows"
        raise UsageError(message, kind="vta", got="no --board", allowed=list(BOARDS))
    row = None if board_name is None else board(board_name)
    hardware = profile(profile_name or (row.executes if row else "hls"))
    machine = configurations.load(config)
    contents = [(load.address, _content(load.path)) for load in loads]
    spaces = [(dump.address, dump.length) for dump in dumps]
    dram = Dram.of(contents, spaces, machine.inp_bytes)
    stream = _content(instructions)
    counts = simulate(stream, machine, hardware, dram, str(instructions))
    timing = None if row is None else measure(stream, machine, row, str(instructions))
    for dump in dumps:
        with artifact.atomic_file(dump.path) as partial:
            partial.write_bytes(dram.read(dump.address, dump.length))
    if trace is not None and timing is not None:
        with artifact.atomic_file(trace) as partial:
            artifact.dump_json(timing.trace(stream, machine), partial)
    found = {"profile": hardware.name, **asdict(counts), "dumps": [str(dump.path) for dump in dumps]}
    return found if timing is None else {**found, "timing": timing.document()}


def disassemble(instructions: Path, uops: Path | None = None, config: Path | None = None) -> list[str]:
    """A line an instruction, then a line a micro-operation; upstream's default configuration where none is given.

    Raises:
        DeployError: (kind ``vta``) a file that cannot be read, or of a wrong length.
    """
    machine = configurations.Config() if config is None else configurations.load(config)
    micro = None if uops is None else _content(uops)
    return isa.listing(_content(instructions), machine, str(instructions), micro, str(uops))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DeployError(f"{path} cannot be read: {error.strerror}", kind="vta", got=str(path)) from error
