"""A step's instructions before they are ordered by tokens and have addresses: they mean what they do one by one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .config import Config
from .isa import AluOp, Memory, places

GEMM, RESET = -1, -2
"""What a `Loop` does beside the operations of `AluOp`."""


@dataclass(frozen=True)
class Uops:
    """A list of micro-operations, encoded, and the ends of the indices in it."""

    data: bytes
    dst: tuple[int, int]
    src: tuple[int, int]
    wgt: tuple[int, int]

    def __hash__(self) -> int:
        return hash(self.data)

    def __len__(self) -> int:
        return len(self.data) // 4


def uops(config: Config, dst: Sequence[int], src: Sequence[int], wgt: Sequence[int]) -> Uops:
    """A list of micro-operations.

    Raises:
        ValueError: an index that its bits cannot hold.
    """
    found = places("uop", config)
    for name, values in (("dst", dst), ("src", src), ("wgt", wgt)):
        if min(values) < 0 or max(values) > found[name].high:
            raise ValueError(f"{name} is {min(values)} to {max(values)}; there are {found[name].width} bits")
    a, b = found["src"].shift, found["wgt"].shift
    words = [d | s << a | w << b for d, s, w in zip(dst, src, wgt, strict=True)]
    ends = ((min(values), max(values) + 1) for values in (dst, src, wgt))
    return Uops(struct.pack(f"<{len(words)}I", *words), *ends)


class Move(NamedTuple):
    """LOAD, or STORE where the memory is OUT: `rows` rows of `size` elements, `stride` elements apart in DRAM.

    `pads`: elements of SRAM that are left at both ends of a row. `keep`: what an earlier move of the same put there
    still lies there; it need not be done again.
    """

    memory: Memory
    operand: int
    offset: int
    sram: int
    rows: int
    size: int
    stride: int
    keep: bool = False
    pads: tuple[int, int] = (0, 0)


class Loop(NamedTuple):
    """A GEMM, its reset, or an operation of the ALU with an immediate or (None) a register; of a list of
    micro-operations the first `length`.
    """

    what: int
    uops: Uops
    length: int
    iter_out: int = 1
    iter_in: int = 1
    dst_out: int = 0
    dst_in: int = 0
    src_out: int = 0
    src_in: int = 0
    wgt_out: int = 0
    wgt_in: int = 0
    imm: int | None = None

    @property
    def steps(self) -> int:
        """How many it does."""
        return self.length * self.iter_out * self.iter_in

    def ends(self, index: str) -> tuple[int, int]:
        """The least index of a kind (``dst``, ``src``, ``wgt``), and that behind the greatest."""
        low, high = getattr(self.uops, index)
        outer, inner = getattr(self, f"{index}_out"), getattr(self, f"{index}_in")
        return low, high + outer * (self.iter_out - 1) + inner * (self.iter_in - 1)

    def at(self, config: Config, number: int) -> tuple[int, int]:
        """The accumulators that a step writes, and reads beside that one, where it is an ALU's with a register."""
        outer, rest = divmod(number, self.iter_in * self.length)
        inner, uop = divmod(rest, self.length)
        word = int.from_bytes(self.uops.data[4 * uop : 4 * uop + 4], "little")
        table = places("uop", config)
        dst = (word & table["dst"].high) + outer * self.dst_out + inner * self.dst_in
        if self.what < 0 or self.imm is not None:
            return dst, dst
        return dst, (word >> table["src"].shift & table["src"].high) + outer * self.src_out + inner * self.src_in


Op = Move | Loop


class Contexts(NamedTuple):
    """Which half of each memory comes next."""

    inp: int = 0
    wgt: int = 0
    acc: int = 0


@dataclass(frozen=True)
class Program:
    """A step's instructions in order.

    Attributes:
        uops: the lists that they run.
        after: the contexts that come next.
    """

    ops: tuple[Op, ...]
    uops: tuple[Uops, ...]
    after: Contexts


__all__ = ["GEMM", "RESET", "AluOp", "Contexts", "Loop", "Memory", "Move", "Op", "Program", "Uops", "uops"]
