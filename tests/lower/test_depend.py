"""What a step of a plan waits for."""

from __future__ import annotations

from dataclasses import replace

from inception_deploy.kernels.spec import Map
from inception_deploy.lower.depend import Access, dependencies, scratch_places
from inception_deploy.lower.plan import Kernel, Plan, Port, Ref, Step, memories

SIZE = 4 * 16 * 4
"""Bytes of a map of four pixels and 16 channels."""


def plan(*moves: tuple[int, int], waves: tuple[int, ...] = ()) -> Plan:
    """A plan of unary steps, each from one place of the arena to another."""
    port = Port("x", (1, 16, 2, 2))
    kernel = Kernel("k", Map("relu", 1, 1, 4), None, 2, 1)
    numbered = zip(moves, waves or range(len(moves)), strict=True)
    steps = tuple(
        Step("k", (Ref("arena", SIZE * a), Ref("arena", SIZE * b)), wave, (f"n{wave}",), "relu", "v")
        for (a, b), wave in numbered
    )
    table = memories((port,), (port,), arena=16 * SIZE, weights=0)
    return Plan("cpu", (port,), (port,), {"k": kernel}, steps, b"", table)


def test_reads_wait_for_the_last_writer() -> None:
    assert dependencies(plan((0, 1), (1, 2), (2, 3))) == ((), (0,), (1,))


def test_branches_do_not_wait_for_each_other() -> None:
    assert dependencies(plan((0, 1), (1, 2), (1, 3), (2, 4), (3, 5))) == ((), (0,), (0,), (1,), (2,))


def test_writing_over_a_value_waits_for_its_readers() -> None:
    # place 1 is read by two branches, and taken again by the fourth step
    assert dependencies(plan((0, 1), (1, 2), (1, 3), (6, 1))) == ((), (0,), (0,), (1, 2))


def test_what_follows_from_others_is_not_said_again() -> None:
    # the last step reads what both made, and the second waits for the first already
    assert dependencies(plan((0, 1), (1, 2), (2, 1))) == ((), (0,), (1,))


def test_half_of_a_place_counts() -> None:
    whole = plan((0, 1), (4, 5))
    middle = replace(whole.steps[1], args=(Ref("arena", SIZE + SIZE // 2), Ref("arena", 5 * SIZE)))
    assert dependencies(replace(whole, steps=(whole.steps[0], middle))) == ((), (0,))


def test_images_of_a_batch_reach_over_the_gaps_between_them() -> None:
    made = plan((0, 1), (3, 4))
    spec = Map("relu", 2, 1, 4, out_stride=4 * SIZE // 4)
    kernels = {"k": made.kernels["k"], "wide": replace(made.kernels["k"], symbol="wide", spec=spec)}
    first = replace(made.steps[0], kernel="wide", args=(Ref("arena", 8 * SIZE), Ref("arena", 0)))
    # the second image lies in place 4, which the other step writes
    assert dependencies(replace(made, kernels=kernels, steps=(first, made.steps[1]))) == ((), (0,))


def test_scratch_is_shared_by_waves_and_orders_them() -> None:
    made = plan((0, 1), (2, 3), (4, 5), waves=(0, 0, 1))
    places, size = scratch_places(made, [100, 64, 100], "scratch", 64)
    assert ([place.offset for place in places], size) == ([0, 128, 0], 192)
    used = [[Access(p.memory, p.offset, p.offset + n, True)] for p, n in zip(places, [100, 64, 100], strict=True)]
    assert dependencies(made, used) == ((), (), (0,))
