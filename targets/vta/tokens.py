"""Which tokens keep three engines in the order of a program.

The program, executed one instruction after the other, is what is meant. Two instructions of different engines depend on
each other where one writes what the other reads or writes. Of these edges those remain that no earlier one implies, so
that an instruction takes and leaves at most one token a queue, and tokens come in the order in which they are taken.
Executing the program in order finds every token there: no stream made so can hang.

There is no queue between load and store. A load that reads what a store wrote waits through the compute engine:
a relay, an instruction that only moves tokens, stands where the store is expected to have ended.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inception_deploy.errors import DeployError

LOAD, COMPUTE, STORE = range(3)

Range = tuple[int, int]
"""Elements: the first, and that behind the last."""


@dataclass
class Access:
    """What an instruction does, as far as the others are concerned.

    Attributes:
        engine: who executes it. cycles: that it takes, about.
        inp, wgt, acc: what it reads or writes in SRAM; the accumulators stand for OUT, too.
        dram: memory, first element, rows, elements in a row, stride: of what loads read and stores write in memories
            that stores write.
        after: an instruction that it waits for besides.
    """

    engine: int
    cycles: int = 0
    inp: Range | None = None
    wgt: Range | None = None
    acc: Range | None = None
    dram: tuple[str, int, int, int, int] | None = None
    after: int = -1


@dataclass
class Ordered:
    """A program in order, with its tokens.

    Attributes:
        order: numbers of the program's instructions; -1 for a relay.
        pops, pushes: of each of these, bit 0 for the engine before, bit 1 for the one behind.
    """

    order: list[int]
    pops: list[int]
    pushes: list[int]


@dataclass
class _Needs:
    """Of each instruction, the last one of each engine that it has to wait for; -1 for none."""

    load: list[int]
    compute: list[int]
    store: list[int]
    behind: list[int]  # of stores: the last load that reads what they write over


class _Memory:
    """Who touched each element of an SRAM or of DRAM last."""

    def __init__(self, size: int) -> None:
        self.written = np.full(size, -1, np.int64)
        self.read = np.full(size, -1, np.int64)


def _part(array: NDArray[np.int64], dram: tuple[str, int, int, int, int]) -> NDArray[np.int64]:
    _, first, rows, size, stride = dram
    if rows == 1:
        return array[first : first + size]
    return np.lib.stride_tricks.as_strided(array[first:], (rows, size), (stride * array.itemsize, array.itemsize))


def _needs(program: Sequence[Access], depths: Sequence[int]) -> _Needs:
    inp, wgt, acc = (_Memory(depth) for depth in depths)
    spaces: dict[str, int] = {}
    for it in program:
        if it.dram:
            name, first, rows, size, stride = it.dram
            spaces[name] = max(spaces.get(name, 0), first + (rows - 1) * stride + size)
    drams = {name: _Memory(size) for name, size in spaces.items()}
    count = len(program)
    needs = _Needs([-1] * count, [-1] * count, [-1] * count, [-1] * count)
    for number, it in enumerate(program):
        if it.engine == COMPUTE:
            for memory, part in ((inp, it.inp), (wgt, it.wgt)):
                if part:
                    needs.load[number] = max(needs.load[number], int(memory.written[slice(*part)].max()))
                    memory.read[slice(*part)] = number
            needs.store[number] = it.after
            if it.acc:
                needs.store[number] = max(it.after, int(acc.read[slice(*it.acc)].max()))
                acc.written[slice(*it.acc)] = number
        elif it.engine == LOAD:
            memory, part = (inp, it.inp) if it.inp else (wgt, it.wgt)
            if part:
                needs.compute[number] = int(memory.read[slice(*part)].max())
                memory.written[slice(*part)] = number
            if it.dram:
                needs.store[number] = int(_part(drams[it.dram[0]].written, it.dram).max())
                _part(drams[it.dram[0]].read, it.dram)[...] = number
        else:
            if it.acc:
                needs.compute[number] = int(acc.written[slice(*it.acc)].max())
                acc.read[slice(*it.acc)] = number
            if it.dram:
                needs.behind[number] = int(_part(drams[it.dram[0]].read, it.dram).max())
                _part(drams[it.dram[0]].written, it.dram)[...] = number
    return needs


def _relays(program: Sequence[Access], needs: _Needs) -> list[tuple[int, int]]:
    """Where relays stand: in front of which instruction, and for which store."""
    computes = [number for number, it in enumerate(program) if it.engine == COMPUTE]
    starts, clock = [], 0
    ends: dict[int, int] = {}
    known: list[int] = []  # of each compute instruction, the last store that it knows of
    last_store = store_free = -1
    for number, it in enumerate(program):
        if it.engine == COMPUTE:
            starts.append(clock)
            clock += it.cycles
            last_store = max(last_store, needs.store[number])
            known.append(last_store)
        elif it.engine == STORE:
            store_free = max(store_free, clock) + it.cycles
            ends[number] = store_free
    found: list[tuple[int, int]] = []
    covered = -1
    for number, it in enumerate(program):
        store = needs.store[number]
        if it.engine != LOAD or store <= covered:
            continue
        covered = store
        after = bisect_left(computes, needs.compute[number] + 1)
        if after and known[after - 1] >= store:
            continue
        position = max(after, bisect_left(computes, store), bisect_left(starts, ends[store]))
        before = min(number, computes[position] if position < len(computes) else number)
        found.append((before, store))
    return found


def order(program: Sequence[Access], depths: Sequence[int], tokens: int) -> Ordered:
    """The tokens of a program.

    Args:
        depths: elements of INP, WGT and ACC. tokens: that a queue holds; 0 for any number.

    Raises:
        DeployError: (kind ``vta``) the tokens do not prove the order, or overflow a queue.
    """
    needs = _needs(program, depths)
    relays = _relays(program, needs)
    places: list[int] = []  # where each instruction comes to stand
    sequence: list[int] = []
    serves: dict[int, int] = {}  # relays by their place: the store
    pending = deque(sorted(relays))
    for number in range(len(program)):
        while pending and pending[0][0] == number:
            serves[len(sequence)] = pending.popleft()[1]
            sequence.append(-1)
        places.append(len(sequence))
        sequence.append(number)

    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for pair in ((LOAD, COMPUTE), (COMPUTE, LOAD), (COMPUTE, STORE), (STORE, COMPUTE)):
        edges[pair] = []

    def need(pair: tuple[int, int], first: int, second: int) -> None:
        kept = edges[pair]
        if first >= 0 and (not kept or kept[-1][0] < first):
            kept.append((first, second))

    def place(number: int) -> int:
        return places[number] if number >= 0 else -1

    relayed = sorted((store, at) for at, store in serves.items())
    stores = [store for store, _ in relayed]
    for at, number in enumerate(sequence):
        if number < 0:
            need((STORE, COMPUTE), place(serves[at]), at)
            continue
        engine = program[number].engine
        if engine == COMPUTE:
            need((LOAD, COMPUTE), place(needs.load[number]), at)
            need((STORE, COMPUTE), place(needs.store[number]), at)
        elif engine == STORE:
            need((COMPUTE, STORE), place(needs.compute[number]), at)
        else:
            first = place(needs.compute[number])
            if needs.store[number] >= 0:
                after = bisect_left(stores, needs.store[number])
                via = min((relay for _, relay in relayed[after : after + 1] if relay < at), default=-1)
                first = max(first, via)
            need((COMPUTE, LOAD), first, at)
    result = Ordered(sequence, [0] * len(sequence), [0] * len(sequence))
    for (first, second), kept in edges.items():
        for push, pop in kept:
            result.pushes[push] |= 1 if second < first else 2
            result.pops[pop] |= 1 if first < second else 2
    _prove(program, needs, places, result, tokens)
    return result


@dataclass
class _Queue:
    pushed: int = 0
    waiting: deque[tuple[int, int, int]] = field(default_factory=deque)
    taken: list[int] = field(default_factory=list)  # the places of the instructions that took one


def _prove(program: Sequence[Access], needs: _Needs, places: Sequence[int], found: Ordered, tokens: int) -> None:
    """Every need is met by tokens, every token is taken, no queue overflows."""
    pairs = ((LOAD, COMPUTE), (COMPUTE, LOAD), (COMPUTE, STORE), (STORE, COMPUTE))
    queues = {pair: _Queue() for pair in pairs}
    clocks = [(-1, -1, -1)] * 3
    for at, number in enumerate(found.order):
        engine = program[number].engine if number >= 0 else COMPUTE
        a, b, c = clocks[engine]
        for bit, other in ((1, engine - 1), (2, engine + 1)):
            if found.pops[at] & bit:
                queue = queues[other, engine]
                if not queue.waiting:
                    raise _unproved(f"instruction {at} takes a token that is not there")
                x, y, z = queue.waiting.popleft()
                a, b, c = max(a, x), max(b, y), max(c, z)
                queue.taken.append(at)
        clock = [a, b, c]
        clock[engine] = at
        if number >= 0:
            wanted: Iterable[tuple[int, int]] = (
                (LOAD, needs.load[number]),
                (COMPUTE, needs.compute[number]),
                (STORE, needs.store[number]),
                (LOAD, needs.behind[number]),
            )
            for other, before in wanted:
                if before >= 0 and clock[other] < places[before]:
                    raise _unproved(f"instruction {at} is not ordered after {places[before]}")
        clocks[engine] = now = (clock[0], clock[1], clock[2])
        for bit, other in ((1, engine - 1), (2, engine + 1)):
            if found.pushes[at] & bit:
                queue = queues[engine, other]
                queue.waiting.append(now)
                queue.pushed += 1
                taken = bisect_left(queue.taken, clock[other] + 1)
                if tokens and queue.pushed - taken > tokens:
                    raise _unproved(f"instruction {at} may find {tokens} tokens in its queue")
    if any(queue.waiting for queue in queues.values()):
        raise _unproved("tokens are left over")


def _unproved(what: str) -> DeployError:
    return DeployError(f"the stream of instructions for VTA does not prove safe: {what}", kind="vta", got=what)
