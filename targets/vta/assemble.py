"""Consecutive steps of a VTA as one stream of instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inception_deploy.errors import DeployError
from inception_deploy.kernels.spec import Operand, Vta
from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.accelerator import Accelerator
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.emit import emit
from inception_deploy.kernels.vta.isa import AluOp, Memory, Opcode
from inception_deploy.kernels.vta.program import GEMM, RESET, Contexts, Loop, Move, Uops
from inception_deploy.kernels.vta.tiling import Tiling
from inception_deploy.lower.plan import Ref

from . import tokens

UOPS = "uops"
"""What a `Relocation` calls the memory of a stream's micro-operations."""


@dataclass(frozen=True)
class Work:
    """A step to be done.

    Attributes:
        args: as the spec's `operands`, the outputs last. Tiles lie at multiples of their size in their memory.
    """

    name: str
    spec: Vta
    tiling: Tiling
    args: tuple[Ref, ...]

    @property
    def outputs(self) -> tuple[Ref, ...]:
        """Where it stores."""
        return self.args[-len(self.spec.outputs) :]


class Relocation(NamedTuple):
    """An instruction whose `dram_base` counts elements of so many bytes from the start of a memory."""

    instruction: int
    memory: str
    element_bytes: int


class StepRange(NamedTuple):
    """The instructions of a step: `first` to `end - 1`."""

    first: int
    end: int


@dataclass(frozen=True)
class Stream:
    """A stream of instructions, ready but for the addresses of memories.

    Attributes:
        instructions: 16 bytes each.
        uops: micro-operations, 4 bytes each: a piece of DRAM of its own.
        relocations: the loads and stores, in order.
        steps: the instructions of each step, as the steps were given.
        counts: instructions, by what they are.
    """

    instructions: bytes = field(repr=False)
    uops: bytes = field(repr=False)
    relocations: tuple[Relocation, ...] = field(repr=False)
    steps: tuple[StepRange, ...]
    counts: Mapping[str, int]

    def at(self, bases: Mapping[str, int]) -> bytes:
        """The instructions for memories that lie at these byte addresses (of `UOPS`, too)."""
        words = np.frombuffer(self.instructions, "<u8").copy()
        for row in self.relocations:
            words[2 * row.instruction] += np.uint64(bases[row.memory] // row.element_bytes << _DRAM_BASE)
        return bytes(words.tobytes())


_DRAM_BASE = 26  # the lowest bit of the field


def assemble(steps: Sequence[Work], accelerator: Accelerator) -> Stream:
    """One stream that does the steps in order.

    Raises:
        DeployError: (kind ``vta``) an argument is not aligned to its elements, or the stream does not prove safe.
    """
    maker = _Assembler(accelerator, {ref.memory for work in steps for ref in work.outputs})
    contexts = Contexts()
    for work in steps:
        contexts = maker.step(work, contexts)
    return maker.stream()


class _Rows:
    """Instructions by the values of their fields, which are encoded together."""

    def __init__(self) -> None:
        self.fields: dict[str, list[int]] = {}
        self.count = 0

    def add(self, **values: int) -> None:
        """A row; what is not given is 0."""
        for name, value in values.items():
            column = self.fields.get(name)
            if column is None:
                column = self.fields[name] = []
            if len(column) < self.count:
                column.extend([0] * (self.count - len(column)))
            column.append(value)
        self.count += 1

    def words(self, kind: str, config: Config) -> NDArray[np.uint64]:
        """Two words a row. ValueError where a value does not fit its field."""
        words = np.zeros((self.count, 2), np.uint64)
        for name, column in self.fields.items():
            place = isa.places(kind, config)[name]
            values = np.zeros(self.count, np.int64)
            values[: len(column)] = column
            if values.min() < place.low or values.max() > place.high:
                raise ValueError(f"{name} is {values.min()} to {values.max()}; it has {place.width} bits")
            bits = (values & ((1 << place.width) - 1)).astype(np.uint64)
            words[:, place.word] |= bits << np.uint64(place.shift)
        return words


class _Lists:
    """The micro-operations of a stream, and which of them lie in SRAM."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.pool = bytearray()
        self.known: dict[tuple[Uops, ...], int] = {}  # what was loaded at once: where it lies in the pool
        self.there: dict[Uops, int] = {}  # where it lies in SRAM, in the order of arrival
        self.next = 0

    def want(self, lists: Sequence[Uops], keep: frozenset[Uops] = frozenset()) -> tuple[int, int, int] | None:
        """Have lists in SRAM: from where in the pool to where in SRAM how many are loaded; None where they are there.

        Raises:
            LookupError: that would overwrite one of `keep`; nothing has changed.
            ValueError: they are more than SRAM holds.
        """
        missing = tuple(one for one in lists if one not in self.there)
        if not missing:
            return None
        count = sum(len(one) for one in missing)
        first = 0 if self.next + count > self.depth else self.next
        lost = [one for one in self.there if self._hit(one, first, count)]
        if not set(lists).isdisjoint(lost):
            missing, first, lost = tuple(dict.fromkeys(lists)), 0, list(self.there)
            count = sum(len(one) for one in missing)
        if count > self.depth:
            raise ValueError(f"{count} micro-operations; there is room for {self.depth}")
        if not keep.isdisjoint(lost):
            raise LookupError
        for one in lost:
            del self.there[one]
        place = self.known.get(missing)
        if place is None:
            place = self.known[missing] = len(self.pool) // 4
            for one in missing:
                self.pool += one.data
        at = first
        for one in missing:
            self.there[one] = at
            at += len(one)
        self.next = at
        return place, first, count

    def _hit(self, one: Uops, first: int, count: int) -> bool:
        return self.there[one] < first + count and first < self.there[one] + len(one)


class _Assembler:
    def __init__(self, accelerator: Accelerator, stored: set[str]) -> None:
        self.at, self.config, self.stored = accelerator, accelerator.config, stored
        self.lists = _Lists(accelerator.uop_depth)
        self.accesses: list[tokens.Access] = []
        self.rows: list[tuple[str, dict[str, int], str]] = []  # format, fields, the memory in DRAM
        self.held: dict[Memory, tuple[str, int]] = {}  # what moves that need not be repeated have put where
        self.steps: list[tuple[int, int]] = []
        self.last: int | None = None  # the last GEMM
        self.running: frozenset[Uops] | None = frozenset()  # the lists of the step before, where they lie in SRAM
        self.sizes = {Memory.INP: self.config.inp_bytes, Memory.OUT: self.config.inp_bytes,
                      Memory.WGT: self.config.wgt_bytes, Memory.ACC: self.config.acc_bytes,
                      Memory.UOP: self.config.uop_bytes}  # fmt: skip

    def step(self, work: Work, contexts: Contexts) -> Contexts:
        """All of a step; the contexts behind it."""
        program = emit(work.spec, work.tiling, self.at, contexts)
        for ref, operand in zip(work.args, work.spec.operands, strict=True):
            size = self.element(operand)
            if ref.offset % size:
                message = f"{operand.name} of {work.name} lies at byte {ref.offset}, between elements of {size}"
                raise DeployError(message, kind="vta", got=ref.offset, allowed=f"multiples of {size}")
        whole = sum(len(one) for one in program.uops) <= self.at.uop_depth
        if whole and not self.ahead(program.uops):
            self.want(program.uops)
        for op in program.ops:
            if isinstance(op, Move):
                self.move(op, work.args[op.operand])
            else:
                if not whole:
                    self.want((op.uops,))
                if op.what == GEMM:
                    self.last = len(self.rows)
                self.loop(op)
        self.running = frozenset(program.uops) if whole else None
        self.steps.append((self.steps[-1][1] if self.steps else 0, len(self.rows)))
        return program.after

    def element(self, operand: Operand) -> int:
        """Bytes of an operand's elements."""
        if operand.element == "int32":
            return self.sizes[Memory.ACC]
        return self.sizes[Memory.WGT if operand.name.startswith(("tiles", "bias")) else Memory.INP]

    def want(self, lists: Sequence[Uops]) -> None:
        """Load what is missing of these lists."""
        found = self.lists.want(lists)
        if found is not None:
            first, goal, count = found
            self.transfer(Memory.UOP, UOPS, first, goal, 1, count, count)

    def ahead(self, lists: Sequence[Uops]) -> bool:
        """Load lists in front of the last GEMM of the step before, while the bus rests; whether that was possible.

        Behind it the bus belongs to the weights that this step has waited with.
        """
        if self.last is None or self.running is None:
            return False
        try:
            found = self.lists.want(lists, self.running)
        except LookupError:
            return False
        if found is not None:
            place, goal, count = found
            self.transfer(Memory.UOP, UOPS, place, goal, 1, count, count)
            self.rows.insert(self.last, self.rows.pop())
            self.accesses.insert(self.last, self.accesses.pop())
            first, end = self.steps[-1]
            self.steps[-1] = first, end + 1
        return True

    def move(self, op: Move, ref: Ref) -> None:
        """A load or store."""
        first = ref.offset // self.sizes[op.memory] + op.offset
        if op.keep:
            if self.held.get(op.memory) == (ref.memory, first):
                return
            self.held[op.memory] = ref.memory, first
        self.transfer(op.memory, ref.memory, first, op.sram, op.rows, op.size, op.stride, op.pads)

    def transfer(self, memory: Memory, name: str, first: int, sram: int, rows: int, size: int, stride: int,
                 pads: tuple[int, int] = (0, 0)) -> None:  # fmt: skip
        """The instruction of a load or store."""
        board = self.at.board
        count = rows * size
        cycles = board.overhead + board.latency + rows * board.row_latency
        cycles += -(-count * self.sizes[memory] // board.bus_bytes)
        part = (sram, sram + rows * (size + sum(pads)))
        engine = {Memory.INP: tokens.LOAD, Memory.WGT: tokens.LOAD, Memory.OUT: tokens.STORE}.get(
            memory, tokens.COMPUTE
        )
        access = tokens.Access(engine, cycles)
        if memory is Memory.INP:
            access.inp = part
        elif memory is Memory.WGT:
            access.wgt = part
        elif memory in (Memory.OUT, Memory.ACC):
            access.acc = part
        if memory in (Memory.INP, Memory.OUT) and name in self.stored:
            access.dram = name, first, rows, size, stride
        opcode = Opcode.STORE if memory is Memory.OUT else Opcode.LOAD
        values = {"opcode": opcode, "memory_type": memory, "sram_base": sram, "dram_base": first,
                  "y_size": rows, "x_size": size, "x_stride": stride,
                  "x_pad_0": pads[0], "x_pad_1": pads[1]}  # fmt: skip
        self.accesses.append(access)
        self.rows.append(("memory", values, name))

    def loop(self, op: Loop) -> None:
        """A GEMM or ALU instruction."""
        board, alu = self.at.board, op.what >= 0
        interval = board.alu_interval if alu else board.gemm_interval
        cycles = board.overhead + op.steps * interval + op.iter_out * op.iter_in * board.drain
        access = tokens.Access(tokens.COMPUTE, cycles, acc=op.ends("dst"))
        if not alu:
            access.inp, access.wgt = op.ends("src"), op.ends("wgt")
        begin = self.lists.there[op.uops]
        values = {"opcode": Opcode.ALU if alu else Opcode.GEMM, "reset": int(op.what == RESET),
                  "uop_bgn": begin, "uop_end": begin + op.length, "iter_out": op.iter_out, "iter_in": op.iter_in,
                  "dst_out": op.dst_out, "dst_in": op.dst_in, "src_out": op.src_out, "src_in": op.src_in}  # fmt: skip
        if alu:
            values |= {"alu_opcode": op.what, "use_imm": int(op.imm is not None), "imm": op.imm or 0}
        else:
            values |= {"wgt_out": op.wgt_out, "wgt_in": op.wgt_in}
        self.accesses.append(access)
        self.rows.append(("alu" if alu else "gemm", values, ""))

    def stream(self) -> Stream:
        """What was done so far, ordered and encoded."""
        depths = (self.config.inp_depth, self.config.wgt_depth, self.config.acc_depth)
        last = max((n for n, it in enumerate(self.accesses) if it.engine == tokens.STORE), default=-1)
        self.rows.append(("finish", {"opcode": Opcode.FINISH}, ""))
        self.accesses.append(tokens.Access(tokens.COMPUTE, self.at.board.overhead, after=last))
        found = tokens.order(self.accesses, depths, self.at.board.profile.tokens)
        kinds: dict[str, tuple[list[int], _Rows]] = {kind: ([], _Rows()) for kind in isa.FORMATS if kind != "uop"}
        relocations = []
        places = [0] * len(self.rows)
        for at, number in enumerate(found.order):
            kind, values, memory = self.rows[number] if number >= 0 else _RELAY
            if number >= 0:
                places[number] = at
            pops, pushes = found.pops[at], found.pushes[at]
            numbers, rows = kinds[kind]
            numbers.append(at)
            rows.add(pop_prev=pops & 1, pop_next=pops >> 1, push_prev=pushes & 1, push_next=pushes >> 1, **values)
            if memory:
                size = self.sizes[Memory(values["memory_type"])]
                relocations.append(Relocation(at, memory, size))
        words = np.zeros((len(found.order), 2), np.uint64)
        for kind, (numbers, rows) in kinds.items():
            if numbers:
                words[numbers] = rows.words(kind, self.config)
        ends = [*places, len(found.order)]
        steps = tuple(StepRange(places[first], ends[end]) for first, end in self.steps)
        counts = {kind: len(numbers) for kind, (numbers, _) in kinds.items()}
        return Stream(words.astype("<u8").tobytes(), bytes(self.lists.pool), tuple(relocations), steps, counts)


_RELAY: tuple[str, dict[str, int], str] = ("memory", {"opcode": Opcode.LOAD, "memory_type": Memory.UOP}, "")

__all__ = ["GEMM", "UOPS", "AluOp", "Relocation", "StepRange", "Stream", "Work", "assemble"]
