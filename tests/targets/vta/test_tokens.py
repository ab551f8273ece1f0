"""Tokens follow from what instructions touch: as few as can be, and none missing."""

from __future__ import annotations

import pytest

from inception_deploy.errors import DeployError
from inception_deploy.targets.vta import tokens
from inception_deploy.targets.vta.tokens import COMPUTE, LOAD, STORE, Access

DEPTHS = (16, 16, 16)


def load(part: tuple[int, int], dram: int | None = None) -> Access:
    return Access(LOAD, 10, inp=part, dram=None if dram is None else ("arena", dram, 1, part[1] - part[0], 0))


def compute(inp: tuple[int, int], acc: tuple[int, int], cycles: int = 10) -> Access:
    return Access(COMPUTE, cycles, inp=inp, acc=acc)


def store(acc: tuple[int, int], dram: int) -> Access:
    return Access(STORE, 10, acc=acc, dram=("arena", dram, 1, acc[1] - acc[0], 0))


def edges(found: tokens.Ordered) -> tuple[int, int]:
    """Tokens that are left, and that are taken."""
    return sum(bits.bit_count() for bits in found.pushes), sum(bits.bit_count() for bits in found.pops)


def test_what_is_implied_takes_no_token() -> None:
    program = [load((0, 4)), load((4, 8)), compute((0, 8), (0, 4)), compute((0, 4), (4, 8)), store((0, 8), 0)]
    found = tokens.order(program, DEPTHS, 0)
    assert found.order == [0, 1, 2, 3, 4]
    assert found.pops == [0, 0, 1, 0, 1]
    assert found.pushes == [0, 2, 0, 2, 0]


def test_writing_over_waits_for_the_reader() -> None:
    program = [load((0, 4)), compute((0, 4), (0, 4)), load((0, 4)), compute((0, 4), (4, 8)), store((0, 4), 0)]
    program += [compute((0, 4), (0, 4))]
    found = tokens.order(program, DEPTHS, 0)
    assert found.pops == [0, 1, 2, 1, 1, 2]
    assert found.pushes == [2, 3, 2, 0, 1, 0]


def test_a_load_of_what_was_stored_waits_through_compute() -> None:
    program = [load((0, 4)), compute((0, 4), (0, 4)), store((0, 4), 8), compute((0, 4), (4, 8), 100)]
    program += [load((4, 8), dram=8), compute((4, 8), (8, 12))]
    found = tokens.order(program, DEPTHS, 0)
    relay = found.order.index(-1)
    assert found.order.index(2) < relay < found.order.index(4)
    assert found.pops[relay] == 2
    assert found.pushes[relay] == 1
    assert found.pops[found.order.index(4)] == 2


def test_a_relay_stands_where_the_store_is_expected_to_have_ended() -> None:
    program = [load((0, 4)), compute((0, 4), (0, 4)), store((0, 4), 8)]
    program += [compute((0, 4), (4, 8), 4) for _ in range(8)] + [load((4, 8), dram=8), compute((4, 8), (8, 12))]
    found = tokens.order(program, DEPTHS, 0)
    after = found.order[: found.order.index(-1)]
    assert sum(number > 2 for number in after) == 3  # 3 x 4 cycles cover the 10 of the store


def test_stores_wait_for_loads_of_what_they_write_over() -> None:
    program = [load((0, 4), dram=0), compute((0, 4), (0, 4)), store((0, 4), 0)]
    assert edges(tokens.order(program, DEPTHS, 0)) == (2, 2)
    with pytest.raises(DeployError, match="does not prove safe: instruction 2 is not ordered after 0"):
        tokens.order([load((0, 4), dram=0), Access(COMPUTE, 1, acc=(0, 4)), store((0, 4), 0)], DEPTHS, 0)


def test_a_queue_that_overflows_is_refused() -> None:
    program = [load((number, number + 1)) for number in range(8)]
    program += [compute((number, number + 1), (0, 1)) for number in range(8)]
    assert edges(tokens.order(program, DEPTHS, 8)) == (8, 8)
    with pytest.raises(DeployError, match="may find 7 tokens in its queue"):
        tokens.order(program, DEPTHS, 7)
