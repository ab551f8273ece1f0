"""What a stream means, written down as plainly as possible: the specification that the C simulator is tested against.

Naive and slow. Memories are dicts of what has been written (everything is 0 from the start where a profile is not
poisoned); an engine's knowledge of the others is a dict too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.isa import AluOp, Instruction, Memory, Opcode
from inception_deploy.kernels.vta.profiles import Profile, Shift

from .memory import NEVER, Dram, Region
from .simulator import Fault, depths, fault

_NEIGHBOURS = {"load": (None, "compute"), "compute": ("load", "store"), "store": ("compute", None)}
"""Before an engine, and after it."""

_SIZES = {Memory.UOP: "uop", Memory.WGT: "wgt", Memory.INP: "inp", Memory.ACC: "acc", Memory.ACC_8BIT: "acc"}


class Wrong(Exception):
    """What an instruction does that the hardware does not survive."""


class Machine:
    """The state of a machine between two instructions."""

    def __init__(self, config: Config, profile: Profile, dram: Dram) -> None:
        self.config, self.profile, self.dram = config, profile, dram
        self.depth = {name: depths(config, profile)[f"{name}_depth"] for name in ("uop", "inp", "wgt", "acc")}
        self.sram: dict[str, dict[int, Any]] = {name: {} for name in ("uop", "inp", "wgt", "acc", "out")}
        self.written: dict[tuple[str, int], tuple[str, int]] = {}  # an element -> the engine and its instruction
        self.read: dict[tuple[str, int], dict[str, int]] = {}  # an element -> the last of each engine
        self.updated: dict[int, int] = {}  # an accumulator element -> the step
        self.step = 0
        self.stale: int | None = None
        self.tokens: dict[tuple[str, str], deque[dict[str, int]]] = {
            (a, b): deque() for a, both in _NEIGHBOURS.items() for b in both if b is not None
        }
        self.clock = {engine: dict.fromkeys(_NEIGHBOURS, 0) for engine in _NEIGHBOURS}
        self.finished = False

    # -- SRAM ---------------------------------------------------------------------------------------------------------
    def zero(self, memory: str) -> Any:
        """An element of zeros."""
        shape = {"uop": (3,), "inp": (self.config.batch, self.config.block), "wgt": (self.config.block,) * 2}
        return np.zeros(shape.get(memory, shape["inp"]), np.int32)

    def value(self, engine: str, memory: str, index: int) -> Any:
        """An element that is read."""
        if index >= self.depth["acc" if memory == "out" else memory]:
            raise Wrong(f"addresses {memory}[{index}]")
        if index not in self.sram[memory]:
            if self.profile.poisoned:
                raise Wrong(f"reads {memory}[{index}], which nothing has written")
            self.sram[memory][index] = self.zero(memory)
        self.sees(engine, (memory, index))
        return self.sram[memory][index]

    def sees(self, engine: str, element: tuple[str, int]) -> None:
        """A read: what wrote the element must lie before."""
        other, epoch = self.written.get(element, (engine, 0))
        self.ordered(engine, other, epoch, element)
        self.read.setdefault(element, {})[engine] = self.clock[engine][engine]

    def put(self, engine: str, memory: str, index: int, value: Any) -> None:
        """A write: what read the element must lie before."""
        self.sram[memory][index] = value
        for other, epoch in self.read.get((memory, index), {}).items():
            self.ordered(engine, other, epoch, (memory, index))
        self.written[memory, index] = (engine, self.clock[engine][engine])

    def ordered(self, engine: str, other: str, epoch: int, element: tuple[str, int]) -> None:
        """Wrong unless instruction `epoch` of `other` lies before what `engine` does now."""
        if self.profile.ordered and engine != other and self.clock[engine][other] < epoch:
            raise Wrong(f"{element} is not ordered after {other}")

    # -- DRAM ---------------------------------------------------------------------------------------------------------
    def span(self, address: int, length: int) -> tuple[Region, int, range]:
        """The piece of DRAM, the first byte in it, and its granules."""
        for region in self.dram.regions:
            if region.address <= address and address + length <= region.end:
                at = address - region.address
                return region, at, range(at // self.dram.granule, (at + length - 1) // self.dram.granule + 1)
        raise Wrong(f"reaches {length} bytes of DRAM at {address:#x}")

    def fetch(self, engine: str, address: int, length: int) -> bytes:
        """Bytes from DRAM."""
        region, at, granules = self.span(address, length)
        for granule in granules:
            if region.stored[granule] == NEVER:
                raise Wrong("reads DRAM that nothing has written")
            self.ordered(engine, "store", int(region.stored[granule]), ("dram", granule))
            region.read[granule, engine == "compute"] = self.clock[engine][engine]
        return region.data[at : at + length].tobytes()

    def keep(self, address: int, data: bytes) -> None:
        """Bytes to DRAM."""
        region, at, granules = self.span(address, len(data))
        for granule in granules:
            for column, other in enumerate(("load", "compute")):
                self.ordered("store", other, int(region.read[granule, column]), ("dram", granule))
            region.stored[granule] = self.clock["store"]["store"]
        region.data[at : at + len(data)] = np.frombuffer(data, np.uint8)

    # -- instructions -------------------------------------------------------------------------------------------------
    def element(self, memory: Memory, data: bytes | None) -> Any:
        """An element as it lies in SRAM; zeros for no data."""
        shape = (self.config.batch, self.config.block)
        if memory is Memory.UOP:
            found = isa.decode_uop(data or bytes(4), self.config)
            return np.array([found["dst"], found["src"], found["wgt"]], np.int32)
        if data is None:
            return self.zero(_SIZES[memory])
        if memory is Memory.WGT:
            return np.frombuffer(data, np.int8).reshape(self.config.block, self.config.block).astype(np.int32)
        kind = np.dtype("<i4") if memory is Memory.ACC else np.dtype(np.int8)
        return np.frombuffer(data, kind).reshape(shape).astype(np.int32)

    def load(self, engine: str, it: Instruction) -> None:
        """LOAD: a block of rows, with zeros around it."""
        profile = self.profile
        if it["memory_type"] not in _SIZES:
            raise Wrong("loads what cannot be loaded")
        memory = Memory(it["memory_type"])
        if memory is Memory.ACC_8BIT and not profile.acc_8bit:
            raise Wrong("loads ACC_8BIT")
        rows, columns = it["y_size"], it["x_size"]
        top, bottom, left, right = (it[name] for name in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"))
        if profile.flat_uops and memory in (Memory.UOP, Memory.WGT):
            top = bottom = left = right = 0
            rows = (columns > 0) if memory is Memory.UOP else rows
        if (profile.strict_memory or not profile.own_output) and columns == 0:
            return
        if profile.strict_memory and rows == 0:
            raise Wrong("loads 0 rows")
        wide, high = left + columns + right, top + rows + bottom
        name = _SIZES[memory]
        if wide * high and it["sram_base"] + wide * high > self.depth[name]:
            raise Wrong("fills more than the buffer")
        size = self.config.inp_bytes if memory is Memory.ACC_8BIT else getattr(self.config, f"{name}_bytes")
        for y in range(high):
            line = b""
            if top <= y < top + rows and columns:
                line = self.fetch(engine, (it["dram_base"] + (y - top) * it["x_stride"]) * size, columns * size)
            for x in range(wide):
                data = line[(x - left) * size : (x - left + 1) * size] if line and 0 <= x - left < columns else None
                index = it["sram_base"] + y * wide + x
                self.put(engine, name, index, self.element(memory, data))
                if name == "acc":
                    self.updated.pop(index, None)

    def store(self, it: Instruction) -> None:
        """STORE: OUT's elements, or the accumulator's low bytes."""
        if it["memory_type"] != Memory.OUT:
            raise Wrong("stores what cannot be stored")
        if not self.profile.store_pads and any(it[name] for name in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")):
            raise Wrong("stores with pads")
        if not it["x_size"] or not it["y_size"]:
            if it["x_size"] and self.profile.strict_memory:
                raise Wrong("stores 0 rows")
            return
        if it["sram_base"] + it["x_size"] * it["y_size"] > self.depth["acc"]:
            raise Wrong("stores more than the buffer")
        for y in range(it["y_size"]):
            indices = [it["sram_base"] + y * it["x_size"] + x for x in range(it["x_size"])]
            address = (it["dram_base"] + y * it["x_stride"]) * self.config.inp_bytes
            self.span(address, len(indices) * self.config.inp_bytes)
            memory = "out" if self.profile.own_output else "acc"
            row = [self.value("store", memory, index).astype(np.int8).tobytes() for index in indices]
            self.keep(address, b"".join(row))

    def steps(self, it: Instruction) -> Iterator[tuple[int, int, int]]:
        """The indices dst, src, wgt of every step of a GEMM or ALU."""
        outer, inner, first, end = (it[name] for name in ("iter_out", "iter_in", "uop_bgn", "uop_end"))
        if not outer or not inner or first >= end:
            if not self.profile.empty_loops:
                raise Wrong("runs an empty loop")
            return
        for i in range(outer):
            for j in range(inner):
                for u in range(first, end):
                    uop = self.value("compute", "uop", u)
                    yield tuple(  # type: ignore[misc]
                        int(uop[k]) + i * it[f"{name}_out"] + j * it[f"{name}_in"]
                        for k, name in enumerate(("dst", "src", "wgt"))
                    )

    def update(self, dst: int, value: NDArray[np.int32]) -> None:
        """A step's result; also into OUT, where that is a memory of its own."""
        last = self.updated.get(dst)
        if last is not None and self.step - last < self.profile.distance:
            raise Wrong(f"updates acc[{dst}] too soon")
        self.updated[dst] = self.step
        self.put("compute", "acc", dst, value)

    def gemm(self, it: Instruction) -> None:
        """GEMM: sums of products, or zeros."""
        for dst, src, wgt in self.steps(it):
            self.step += 1
            if dst >= self.depth["acc"]:
                raise Wrong(f"addresses acc[{dst}]")
            if it["reset"]:
                out = self.lost(dst, src, wgt) if self.profile.own_output and self.profile.reset_writes else None
                self.update(dst, self.zero("acc"))
                if self.profile.own_output and self.profile.reset_writes:
                    self.put("compute", "out", dst, out)
                    if out is None:
                        del self.sram["out"][dst]
                elif self.profile.own_output:  # it must not run ahead of a STORE all the same
                    for other, epoch in self.read.get(("out", dst), {}).items():
                        self.ordered("compute", other, epoch, ("out", dst))
                continue
            inputs, weights = self.value("compute", "inp", src), self.value("compute", "wgt", wgt)
            total = (self.value("compute", "acc", dst).astype(np.int64) + inputs @ weights.T).astype(np.int32)
            self.update(dst, total)
            if self.profile.own_output:
                self.put("compute", "out", dst, total)

    def lost(self, dst: int, src: int, wgt: int) -> NDArray[np.int32] | None:
        """The sum that a resetting step does not keep; None where something of it is not known."""
        if not (dst in self.sram["acc"] and src in self.sram["inp"] and wgt in self.sram["wgt"]):
            return None
        for memory, index in (("inp", src), ("wgt", wgt)):
            self.read.setdefault((memory, index), {})["compute"] = self.clock["compute"]["compute"]
        total = self.sram["acc"][dst].astype(np.int64) + self.sram["inp"][src] @ self.sram["wgt"][wgt].T
        return np.asarray(total.astype(np.int32))

    def shift(self, amount: int, it: Instruction) -> int:
        """By how much to shift right."""
        low = amount & 31
        if self.profile.shift is Shift.WRAPS:
            return low if low < 16 else low - 32
        if self.profile.shift is Shift.IMMEDIATE_WIDE and not it["use_imm"]:
            return -(-amount & 31) if it["imm"] < 0 else low
        if abs(amount) > 31:
            raise Wrong(f"shifts by {amount}")
        return amount

    def alu(self, it: Instruction) -> None:
        """ALU: element by element on accumulator tiles."""
        profile, code = self.profile, it["alu_opcode"]
        if code > AluOp.MUL or (code == AluOp.MUL and not profile.mul):
            raise Wrong("does what the ALU lacks")
        self.stale = None
        for dst, src, _ in self.steps(it):
            self.step += 1
            first = src if it["use_imm"] and profile.immediate_src else dst
            if dst >= self.depth["acc"]:
                raise Wrong(f"addresses acc[{dst}]")
            a = self.value("compute", "acc", first).astype(np.int64)
            b = np.full_like(a, it["imm"]) if it["use_imm"] else self.value("compute", "acc", src).astype(np.int64)
            if profile.stale_alu and self.stale == (first if it["use_imm"] else src):
                raise Wrong("reads what the step before wrote")
            last = self.updated.get(src)
            if not it["use_imm"] and src != dst and last is not None and self.step - last < profile.distance:
                raise Wrong("reads too soon")
            if code == AluOp.SHR:
                both = zip(a.flat, (self.shift(int(n), it) for n in b.flat), strict=True)
                result = np.array([int(x) >> n if n >= 0 else int(x) << -n for x, n in both]).reshape(a.shape)
            else:
                result = {AluOp.MIN: np.minimum, AluOp.MAX: np.maximum, AluOp.ADD: np.add, AluOp.MUL: np.multiply}[
                    AluOp(code)
                ](a, b)
            value = result.astype(np.int32)
            self.update(dst, value)
            self.stale = dst
            if profile.own_output:
                self.put("compute", "out", dst, value)

    # -- tokens and the walk ------------------------------------------------------------------------------------------
    def queues(self, engine: str, it: Instruction, what: str) -> list[deque[dict[str, int]]]:
        """The queues that an instruction pops or pushes."""
        found = []
        for other, side in zip(_NEIGHBOURS[engine], ("prev", "next"), strict=True):
            if it[f"{what}_{side}"]:
                if other is None:
                    raise Wrong(f"{what}s a token of no neighbour")
                found.append(self.tokens[(other, engine) if what == "pop" else (engine, other)])
        return found

    def ready(self, engine: str, it: Instruction) -> bool:
        """Take the tokens, if all are there."""
        queues = self.queues(engine, it, "pop")
        if not all(queues):
            return False
        for queue in queues:
            token = queue.popleft()
            self.clock[engine] = {e: max(epoch, token[e]) for e, epoch in self.clock[engine].items()}
        self.clock[engine][engine] += 1
        return True

    def execute(self, engine: str, it: Instruction) -> None:
        """One instruction, its tokens taken."""
        if engine == "compute":
            self.finished = it.opcode is Opcode.FINISH
        if it.opcode is Opcode.LOAD:
            self.load(engine, it)
        elif it.opcode is Opcode.STORE:
            self.store(it)
        elif it.opcode is Opcode.GEMM:
            self.gemm(it)
        elif it.opcode is Opcode.ALU:
            self.alu(it)
        for queue in self.queues(engine, it, "push"):
            if self.profile.tokens and len(queue) == self.profile.tokens:
                raise Wrong("pushes into a full queue")
            queue.append(dict(self.clock[engine]))


def simulate(stream: bytes, config: Config, profile: Profile, dram: Dram) -> None:
    """`simulator.simulate`, without its counts. Fault as there."""
    pieces = list(isa.instructions(stream, "the stream"))
    machine = Machine(config, profile, dram)
    number = 0
    try:
        fetched = 0
        waiting: dict[str, deque[tuple[int, Instruction]]] = {engine: deque() for engine in _NEIGHBOURS}
        last = 0
        moved = True
        while moved:
            moved = False
            while fetched < len(pieces):
                number = fetched
                it = _decoded(pieces[fetched], config)
                if profile.commands and len(waiting[it.engine]) >= profile.commands:
                    break
                waiting[it.engine].append((fetched, it))
                fetched += 1
            for engine, queue in waiting.items():
                if queue:
                    number, it = queue[0]
                    if machine.ready(engine, it):
                        machine.execute(engine, it)
                        queue.popleft()
                        moved = True
                        last = number if engine == "compute" else last
        for queue in waiting.values():
            if queue:
                number = queue[0][0]
                raise Wrong("waits for a token that never comes")
        number = last
        if not machine.finished:
            raise Wrong("is no FINISH")
        stores = machine.clock["store"]["store"]
        if profile.ordered and (any(machine.tokens.values()) or machine.clock["compute"]["store"] < stores):
            raise Wrong("leaves something over")
    except Wrong as wrong:
        raise fault(stream, config, number, str(wrong)) from None


def _decoded(piece: bytes, config: Config) -> Instruction:
    try:
        return isa.decode(piece, config)
    except ValueError as error:
        raise Wrong(str(error)) from None


__all__ = ["Fault", "Machine", "simulate"]
