"""How long a stream takes on a board: a model of its three engines, their queues and the bus that they share.

    an instruction starts when its engine is free, it has been fetched and its tokens are there
    GEMM, ALU          overhead + steps * interval + passes * drain
    LOAD, STORE        overhead + latency, then the bus for bytes / width, then rows * row latency

Instructions wait in a queue in front of each engine; fetching is in order and stops where a queue is full. Transfers
take the bus in the order in which their instructions start. Every result is an estimate: no board was asked.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inception_deploy.errors import DeployError
from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.boards import Board
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.isa import Instruction, Memory, Opcode

from .simulator import fault

ENGINES = ("load", "compute", "store")

_MEMORY_BYTES = {
    Memory.UOP: "uop_bytes",
    Memory.WGT: "wgt_bytes",
    Memory.INP: "inp_bytes",
    Memory.ACC: "acc_bytes",
    Memory.OUT: "inp_bytes",
    Memory.ACC_8BIT: "inp_bytes",
}


@dataclass(frozen=True)
class Span:
    """What an engine did from one cycle to another."""

    instruction: int
    engine: str
    start: int
    end: int


@dataclass
class Timing:
    """The time of a stream.

    Attributes:
        board: whose time it is.
        cycles: from the first instruction's start to the last one's end.
        busy: cycles of each engine in which an instruction was executed.
        steps: ``gemm`` (without resets), ``reset`` and ``alu`` steps.
        stalls: cycles in which an engine waited, by engine and cause: ``tokens from ENGINE``, ``fetch`` or ``bus``.
        moved: bytes, by memory.
        spans: every instruction that took time, in the order of execution.
    """

    board: Board
    cycles: int = 0
    busy: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    stalls: Counter[tuple[str, str]] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    spans: list[Span] = field(default_factory=list)

    @property
    def milliseconds(self) -> float:
        """An estimate."""
        return self.board.milliseconds(self.cycles)

    @property
    def utilization(self) -> float:
        """The part of all cycles in which GEMM multiplied."""
        return self.steps["gemm"] * self.board.gemm_interval / self.cycles if self.cycles else 0.0

    def of_steps(self, steps: Iterable[tuple[int, int]]) -> list[int]:
        """Cycles until the last instruction of each step is done, from where the step before it was.

        Args:
            steps: the first instruction of each, and that behind its last.
        """
        ranges = list(steps)
        ends = np.zeros(max((end for _, end in ranges), default=0) + 1, np.int64)
        for span in self.spans:
            if span.instruction < len(ends):
                ends[span.instruction] = span.end
        found, before = [], 0
        for first, end in ranges:
            done = max(before, int(ends[first:end].max(initial=0)))
            found.append(done - before)
            before = done
        return found

    def document(self) -> dict[str, Any]:
        """For JSON, without the spans."""
        return {
            "board": self.board.name,
            "estimate": True,
            "cycles": self.cycles,
            "ms": self.milliseconds,
            "gemm_utilization": self.utilization,
            "busy": {engine: self.busy[engine] for engine in ENGINES},
            "stalls": [
                {"engine": engine, "cause": cause, "cycles": cycles}
                for (engine, cause), cycles in sorted(self.stalls.items())
            ],
        }

    def trace(self, stream: bytes, config: Config) -> dict[str, Any]:
        """The spans as Chrome's trace format, which Perfetto and chrome://tracing open; times in microseconds."""
        events: list[dict[str, Any]] = [
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": number, "args": {"name": engine}}
            for number, engine in enumerate(ENGINES)
        ]
        for span in self.spans:
            it = isa.decode(stream[span.instruction * isa.WORDS : (span.instruction + 1) * isa.WORDS], config)
            text = isa.disassemble(it)[8:]
            events.append(
                {
                    "name": " ".join(text.split()[:2]) if it.kind == "memory" else text.split()[0],
                    "ph": "X",
                    "pid": 0,
                    "tid": ENGINES.index(span.engine),
                    "ts": span.start / self.board.mhz,
                    "dur": (span.end - span.start) / self.board.mhz,
                    "args": {"instruction": span.instruction, "text": text, "cycles": span.end - span.start},
                }
            )
        return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"board": self.board.name}}


@dataclass(frozen=True)
class _Work:
    """What an instruction keeps busy: cycles before the bus is wanted, on it, and after it."""

    before: int
    bus: int = 0
    after: int = 0


@dataclass
class _Engine:
    """An engine on its way through its own instructions."""

    name: str
    free: int = 0
    waiting: deque[tuple[int, Instruction, int]] = field(default_factory=deque)  # number, instruction, when fetched


class _Model:
    """The three engines, the tokens between them, and the bus."""

    def __init__(self, board: Board, config: Config) -> None:
        self.board, self.config = board, config
        self.engines = {name: _Engine(name) for name in ENGINES}
        self.tokens: dict[tuple[str, str], deque[int]] = {
            pair: deque()
            for pair in (("load", "compute"), ("compute", "load"), ("compute", "store"), ("store", "compute"))
        }
        self.bus_free = 0
        self.timing = Timing(board)

    def work(self, it: Instruction) -> _Work:
        """Of one instruction; also counts what it does."""
        board, timing = self.board, self.timing
        if it.kind == "finish":
            return _Work(board.overhead)
        if it.kind == "memory":
            memory = Memory(it["memory_type"])
            count = it["x_size"] * it["y_size"]
            if not count:
                return _Work(board.overhead)
            size = count * getattr(self.config, _MEMORY_BYTES[memory])
            timing.moved[memory.name.lower()] += size
            bus = -(-size // board.bus_bytes)
            return _Work(board.overhead + board.latency, bus, it["y_size"] * board.row_latency)
        passes = it["iter_out"] * it["iter_in"]
        steps = passes * max(0, it["uop_end"] - it["uop_bgn"])
        kind = "alu" if it.opcode is Opcode.ALU else "reset" if it["reset"] else "gemm"
        timing.steps[kind] += steps
        interval = board.alu_interval if kind == "alu" else board.gemm_interval
        return _Work(board.overhead + steps * interval + passes * board.drain)

    def pops(self, engine: str, it: Instruction) -> Iterator[tuple[str, deque[int]]]:
        """The queues that it takes tokens of, and whose they are."""
        index = ENGINES.index(engine)
        for name, other in (("pop_prev", index - 1), ("pop_next", index + 1)):
            if it[name] and 0 <= other < len(ENGINES):
                yield ENGINES[other], self.tokens[ENGINES[other], engine]

    def ready(self, engine: _Engine) -> int | None:
        """When the engine's next instruction can start; None where a token is not there yet, or nothing waits."""
        if not engine.waiting:
            return None
        _, it, fetched = engine.waiting[0]
        start = max(engine.free, fetched)
        for _, queue in self.pops(engine.name, it):
            if not queue:
                return None
            start = max(start, queue[0])
        return start

    def execute(self, engine: _Engine, start: int) -> None:
        """The engine's next instruction, from cycle `start` on."""
        number, it, fetched = engine.waiting.popleft()
        timing = self.timing
        cause, until = "fetch", fetched
        for other, queue in self.pops(engine.name, it):
            token = queue.popleft()
            if token > until:
                cause, until = f"tokens from {other}", token
        if start > engine.free:
            timing.stalls[engine.name, cause] += start - engine.free
        work = self.work(it)
        at = start + work.before
        if work.bus:
            granted = max(at, self.bus_free)
            if granted > at:
                timing.stalls[engine.name, "bus"] += granted - at
            self.bus_free = granted + work.bus
            at = self.bus_free + work.after
        engine.free = at
        timing.busy[engine.name] += at - start
        timing.spans.append(Span(number, engine.name, start, at))
        index = ENGINES.index(engine.name)
        for name, other_index in (("push_prev", index - 1), ("push_next", index + 1)):
            if it[name] and 0 <= other_index < len(ENGINES):
                self.tokens[engine.name, ENGINES[other_index]].append(at)


def measure(stream: bytes, config: Config, board: Board, where: str = "the stream") -> Timing:
    """The time of a stream that `simulator.simulate` executes without a fault.

    Raises:
        simulator.Fault: it hangs.
        DeployError: (kind ``vta``) it is no whole number of instructions, or one of them is none.
    """
    model = _Model(board, config)
    pieces = list(isa.instructions(stream, where))
    most = board.profile.commands
    fetched = clock = 0
    while True:
        while fetched < len(pieces):
            try:
                it = isa.decode(pieces[fetched], config)
                Memory(it["memory_type"])
            except ValueError as error:
                raise DeployError(f"instruction {fetched} of {where}: {error}", kind="vta", got=str(error)) from error
            engine = model.engines[it.engine]
            if most and len(engine.waiting) >= most:
                break
            engine.waiting.append((fetched, it, clock))
            fetched += 1
        starts = [(start, engine) for engine in model.engines.values() if (start := model.ready(engine)) is not None]
        if not starts:
            break
        start, engine = min(starts, key=lambda pair: pair[0])
        clock = max(clock, start)
        model.execute(engine, start)
    stuck = [engine.waiting[0][0] for engine in model.engines.values() if engine.waiting]
    if stuck or fetched < len(pieces):
        raise fault(stream, config, min([*stuck, fetched]), "waits for a token that never comes: the stream hangs")
    model.timing.cycles = max(engine.free for engine in model.engines.values())
    return model.timing
