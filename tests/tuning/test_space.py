"""Tasks and their choices."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest

from inception_deploy import targets
from inception_deploy.kernels.elements import BF16, BRAIN, BYTE, HALF, Addition, Rounding
from inception_deploy.kernels.spec import Conv, GlobalAverage, Window, WindowOp, decode
from inception_deploy.lower.layers import Layer, Storage
from inception_deploy.tuning import task as tasks_
from inception_deploy.tuning.features import WIDTH, features
from inception_deploy.tuning.space import Space, choice_of, default, knobs
from inception_deploy.tuning.tuned import tunable


def layer(op: str, spec, name: str) -> Layer:
    return Layer(op, [name], spec, [], Storage(name, 1, 1), name)


def test_equal_layers_are_one_task() -> None:
    conv = Conv(1, 16, 8, 8, 16, 8, 8, (3, 3), pad=(1, 1))
    strided = Conv(1, 16, 8, 8, 16, 8, 8, (3, 3), pad=(1, 1), in_stride=9999)
    pool = Window(WindowOp.MAX, 1, 2, 8, 8, 4, 4, (2, 2), (2, 2), (0, 0, 0, 0))
    layers = [
        layer("conv", conv, "a"),
        layer("conv", strided, "b"),
        layer("dense", conv, "c"),
        layer("pool", pool, "d"),
    ]
    none = [GlobalAverage(1, 2, 64), replace(pool, in_element=BYTE, out_element=BYTE)]
    found = tasks_.tasks_of([*layers, *(layer("conv", spec, "no knobs") for spec in none)])
    assert [(t.layers, t.count, t.eligible) for t in found] == [
        (("a", "b"), 2, True), (("c",), 1, False), (("d",), 1, False),
    ]  # fmt: skip
    assert len({t.key for t in found}) == 3
    assert [str(t) for t in found] == ["16-16 3x3 @8x8", "16-16 3x3 @8x8", "max 32 2x2/2 @4x4"]


def bytes_conv(zero: int, factor: float, *, sets: int = 1, shift: bool = False) -> Conv:
    rounding = Rounding(zero, zero, 255, shift)
    kept = {"in_element": BYTE, "out_element": BYTE, "add_element": BYTE, "row_sets": sets, "column_sets": sets}
    added = Addition((zero, 3), (0, 1), factor, rounding)
    return Conv(1, 32, 9, 9, 64, 9, 9, (3, 3), pad=(1, 1), add=True, rounding=rounding, addition=added, **kept)


def test_layers_of_other_scales_are_one_task() -> None:
    """A shift is another task than a multiplication; so is a sum without rounding before it."""
    inside = replace(bytes_conv(1, 0.5), addition=Addition((0, 3), (0, 0), 0.5, Rounding(1, 1, 255), inside=0))
    specs = [bytes_conv(0, 0.5), bytes_conv(9, 0.25, sets=3), bytes_conv(0, 3, shift=True), inside]
    found = tasks_.tasks_of([layer("conv", spec, str(number)) for number, spec in enumerate(specs)])
    assert [(task.layers, task.eligible) for task in found] == [(("0", "1"), True), (("2",), True), (("3",), True)]
    assert tasks_.key_of(layer("conv", specs[1], "")) == found[0].key


def test_winograds_tiles_are_choices_where_bytes_are_widened() -> None:
    spec = tasks_.plain(bytes_conv(7, 0.5))
    task = tasks_.Task(spec, True, 1, ("a",))
    for name, some in (("avx2", True), ("avx512-vnni", False)):
        target = replace(targets.parse(f"cpu:{name}"), precision=targets.precision.rows("int8")[0])
        space = Space(task, target)
        found = {group.base.outputs for group in space.groups}
        assert (found - {None} != set()) == some
        for choice in space.sample(Random(3), 30):
            assert choice_of(knobs(choice), task, target) == choice


@pytest.mark.parametrize(
    ("goal", "precision", "element"),
    [("arm:cortex-a76", "fp16", HALF), ("arm:neoverse-v1", "bf16", BRAIN), ("cpu:avx512-amx", "bf16", BF16)],
)
def test_choices_for_two_bytes(goal: str, precision: str, element: str) -> None:
    """They come back from their knobs, none is Winograd's, and sums stay in the registers of a core."""
    target = tunable(targets.parse(goal), precision)
    kept = {"in_element": element, "out_element": element, "add_element": element}
    for spec in (
        Conv(1, 64, 19, 19, 96, 17, 17, (3, 3), **kept),
        Conv(1, 64, 17, 17, 96, 17, 17, (1, 1), add=True, **kept),
        Conv(1, 64, 1, 1, 96, 1, 1, (1, 1), **kept),
    ):
        task = tasks_.Task(tasks_.plain(spec), not spec.tiled, 1, ("a",))
        space, random = Space(task, target), Random(3)
        assert len(space) > (1 if spec.height == 1 else 100)
        for choice in [space.default, *space.sample(random, 30), *space.neighbours(space.default)]:
            assert choice_of(knobs(choice), task, target) == choice
            assert features(spec, choice, target, 2).shape == (WIDTH,)
            assert target.units(spec, choice.schedule) >= 1
            assert choice.outputs is None
            if not spec.tiled:
                assert choice.schedule.vectors * choice.schedule.pixels < 32
                assert spec.out_channels % (choice.schedule.vectors * choice.schedule.lanes) == 0


@pytest.mark.parametrize("isa", ["avx512-vnni", "avx2", "cortex-a9", "cortex-a72", "cortex-a76"])
def test_choices_for_bytes(isa: str) -> None:
    """They come back from their knobs, and only widened bytes are unrolled."""
    name = f"{'arm' if 'cortex' in isa else 'cpu'}:{isa}"
    target = replace(targets.parse(name), precision=targets.precision.rows("int8")[0])
    words = (1, 2, 4, 8) if isa in ("avx2", "cortex-a9") else (1,)
    spec = tasks_.plain(bytes_conv(7, 0.5))
    task = tasks_.Task(spec, False, 1, ("a",))
    space, random = Space(task, target), Random(3)
    assert {choice.schedule.unroll for choice in space.sample(random, 300)} == set(words)
    for choice in [space.default, *space.sample(random, 30), *space.neighbours(space.default)]:
        assert choice_of(knobs(choice), task, target) == choice
        assert features(spec, choice, target, 2).shape == (WIDTH,)
        assert (choice.outputs, choice.schedule.k_block) == (None, 0)
        assert target.units(spec, choice.schedule) >= 1


def test_a_spec_survives_json(tasks) -> None:
    pool = Window(WindowOp.AVERAGE, 1, 2, 8, 8, 4, 4, (2, 2), (2, 2), (0, 1, 0, 1), include_pad=True)
    for spec in [*(task.spec for task in tasks), pool]:
        assert decode(json.loads(json.dumps(spec.encode()))) == spec


def test_choices_are_buildable_and_come_back_from_their_knobs(tasks, target) -> None:
    random = Random(1)
    for task in tasks:
        space = Space(task, target)
        found = [space.default, *space.sample(random, 30), *random.sample(space.neighbours(space.default), 20)]
        assert len(space) > 200
        for choice in found:
            assert choice_of(knobs(choice), task, target) == choice
            assert features(task.spec, choice, target, 2).shape == (WIDTH,)
            assert choice.schedule.lanes == 8
            assert choice.schedule.vectors * choice.schedule.pixels < 16
            for name, value in knobs(choice).items():
                assert value in space.domains()[name]
    assert {choice.outputs for choice in Space(tasks[0], target).sample(random, 200)} == {
        None, (2, 2), (2, 4), (4, 2), (4, 4),
    }  # fmt: skip


def test_choices_for_tiles(tiled) -> None:
    """They fit eight registers, share the blocks of a group evenly, and come back from their knobs and JSON."""
    target = targets.parse("cpu:avx512-amx").at("fp32")
    random = Random(2)
    for task in tiled:
        assert decode(json.loads(json.dumps(task.spec.encode()))) == task.spec
        space = Space(task, target)
        for choice in [space.default, *space.sample(random, 30), *space.neighbours(space.default)]:
            assert choice_of(knobs(choice), task, target) == choice
            assert features(task.spec, choice, target, 2).shape == (WIDTH,)
            assert target.units(task.spec, choice.schedule) >= 1
            if isinstance(task.spec, Conv):
                assert 2 * choice.schedule.tiles * choice.schedule.blocks <= 6
                assert all(output.channels // 32 % choice.schedule.blocks == 0 for output in task.spec.outputs)
    assert [str(task) for task in tiled] == [
        "64-96 3x3 @17x17 on tiles", "96-64 1x1 @17x17 + add on tiles", "4-32 3x3/2 @17x17 on tiles", "max 96 3x3/2 @8x8",
        "64-32+64+96 1x1 @17x17 on tiles", "depthwise 64 3x3 @9x9 in groups of 4",
    ]  # fmt: skip


def test_neighbours_differ_in_one_thing(tasks, target) -> None:
    space = Space(tasks[1], target)
    base = knobs(space.default)
    tile = {"vectors", "pixels", "rows", "rows_outer", "winograd_rows", "winograd_columns"}
    for choice in space.neighbours(space.default):
        changed = {name for name, value in knobs(choice).items() if value != base[name]}
        assert changed
        assert changed <= tile or len(changed) == 1


@pytest.mark.parametrize("change", [{"winograd_rows": 3}, {"spice": 1}, {"unroll": None}])
def test_knobs_of_something_else_are_refused(tasks, target, change) -> None:
    values = {**knobs(default(tasks[0], target)), **change}
    if values["unroll"] is None:
        del values["unroll"]
    with pytest.raises((KeyError, ValueError)):
        choice_of(values, tasks[0], target)
