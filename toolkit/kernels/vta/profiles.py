"""What really executes VTA's instructions, as rows: the boards' HLS design, the Chisel one, upstream's simulator.

The three disagree. A stream that only one of them executes is worth nothing on the others, so a simulation runs as one
of them and stops at what that one lacks. Sources: upstream's HLS, Chisel and simulator sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from inception_deploy.errors import UsageError


class Shift(IntEnum):
    """How SHR takes its amount; a negative one shifts left."""

    WRAPS = 0
    """Five signed bits of it, immediate or not: 16 to 31 shift left."""
    IMMEDIATE_WIDE = 1
    """Immediates from -31 to 31; registers to the right by their low five bits, to the left where the instruction's
    unused immediate is negative."""
    BOUNDED = 2
    """From -31 to 31; more is undefined."""


@dataclass(frozen=True)
class Profile:
    """One implementation. What an attribute says of SRAM holds for DRAM too, where it makes sense.

    Attributes:
        name: as ``--profile`` takes it. about: in a few words.
        acc_8bit: LOAD ACC_8BIT exists. mul: the ALU multiplies.
        shift: of SHR.
        own_output: OUT is a memory of its own, which GEMM and ALU steps write; otherwise STORE narrows the accumulator.
        reset_writes: a resetting GEMM step writes OUT: the sum that would have been.
        immediate_src: an ALU step with an immediate computes ``acc[dst] = op(acc[src], imm)``.
        distance: steps from one update of an accumulator element to the next, at least; 0 for any.
        stale_alu: an ALU step does not see what the step before it in the same instruction wrote.
        empty_loops: a loop without iterations does nothing; otherwise it wraps, and is refused.
        strict_memory: x_size 0 does nothing, y_size 0 hangs; otherwise pads are written all the same.
        flat_uops: LOAD UOP has one dimension and LOAD WGT no pads.
        store_pads: STORE ignores pads; otherwise it refuses them.
        commands: instructions that wait for an engine; when its queue is full, fetching stops for all. 0 for no limit.
        tokens: in a queue. 0 for no limit.
        uop_depth: most micro-operations, whatever the configuration says. 0 for the configuration's.
        poisoned: memories start with nothing in them, and reading that is a fault; otherwise with zeros.
        ordered: accesses of two engines that no token orders are faults, and so is what is left over at the end.
    """

    name: str
    about: str
    acc_8bit: bool = False
    mul: bool = False
    shift: Shift = Shift.WRAPS
    own_output: bool = True
    reset_writes: bool = False
    immediate_src: bool = False
    distance: int = 0
    stale_alu: bool = False
    empty_loops: bool = True
    strict_memory: bool = False
    flat_uops: bool = False
    store_pads: bool = True
    commands: int = 0
    tokens: int = 0
    uop_depth: int = 0
    poisoned: bool = True
    ordered: bool = True


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "hls", "the Xilinx boards: pynq, ultra96, zcu104", reset_writes=True, distance=3, flat_uops=True,
            commands=512, tokens=1024,
        ),
        Profile(
            "chisel", "the Chisel design: de10nano, RTL simulation", shift=Shift.IMMEDIATE_WIDE, immediate_src=True,
            stale_alu=True, empty_loops=False, strict_memory=True, commands=512, tokens=255, uop_depth=2048,
        ),
        Profile(
            "fsim", "upstream's functional simulator", acc_8bit=True, mul=True, shift=Shift.BOUNDED, own_output=False,
            store_pads=False, poisoned=False, ordered=False,
        ),
    )
}  # fmt: skip
"""By name."""


def profile(name: str) -> Profile:
    """The row of that name. UsageError where there is none."""
    if name not in PROFILES:
        message = f"there is no VTA profile '{name}'"
        raise UsageError(
            message, kind="vta", got=name, allowed=[f"{row.name} ({row.about})" for row in PROFILES.values()]
        )
    return PROFILES[name]
