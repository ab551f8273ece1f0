"""Where values live and when layers run: properties of the Plans of random graphs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inception_deploy.lower import place
from inception_deploy.lower.layers import Layer, Network, Storage
from inception_deploy.lower.lower import lower
from inception_deploy.lower.plan import ALIGNMENT
from inception_deploy.lower.walk import read
from inception_deploy.verify import bound

pytestmark = pytest.mark.parametrize("target", ["avx2"], indirect=True)

BUDGET = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

STEPS = st.lists(st.tuples(st.sampled_from(["conv", "relu", "residual", "add", "concat", "pool", "tanh", "split", "lrn"]), st.integers(0, 99), st.integers(0, 99)),
                 min_size=2, max_size=14)  # fmt: skip


def random_model(builder, steps, batch):
    """Values of 20 channels, 4x4; each step takes two of those before it."""
    b = builder()
    values = [b.conv(b.input(batch, 3, 4, 4), 3, 20, (1, 1))]
    for kind, first, second in steps:
        x, y = values[first % len(values)], values[second % len(values)]
        if kind == "conv":
            z = b.conv(x, 20, 20, (3, 3), pads=[1] * 4)
        elif kind == "add":
            z = b.op("Add", x, y)
        elif kind == "residual":
            z = b.op("Add", b.conv(x, 20, 20, (3, 3), pads=[1] * 4), y)
        elif kind == "concat":
            z = b.conv(b.op("Concat", x, y, axis=1), 40, 20, (1, 1))
        elif kind == "split":
            left, right = b.op("Split", x, outputs=2, axis=1, num_outputs=2)
            z = b.op("Concat", right, left, axis=1)
        elif kind == "pool":
            z = b.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)
        elif kind == "lrn":
            z = b.op("LRN", x, size=3)
        else:
            z = b.op({"relu": "Relu", "tanh": "Tanh"}[kind], x)
        values.append(z)
    used = {name for node in b.nodes for name in node.input}
    return b, b.model(*[v for v in values if v not in used])


def footprint(storage: Storage) -> tuple[int, int]:
    """First and last byte of the arena (of a whole batch)."""
    images = storage.batch - 1 if storage.batch > 1 else 0
    return storage.address, storage.address + 4 * (images * storage.stride + storage.elements)


def placed(model):
    network = read(model)
    place.assign_waves(network)
    place.share_adds(network)
    return network, place.arrange(network)[""]


@BUDGET
@given(steps=STEPS, batch=st.integers(1, 2))
def test_nothing_is_overwritten_that_is_still_read(builder, target, steps, batch):
    """Replays the waves over the arena, every byte knowing who wrote it last: each layer must find what its producers wrote."""
    _, model = random_model(builder, steps, batch)
    network, size = placed(model)
    arena = np.full(size // 4 + 1, -1)
    layers = sorted(network.layers, key=lambda layer: layer.wave)

    def cells(storage):
        step = storage.stride if storage.batch > 1 else 0
        start = storage.address // 4
        return np.concatenate(
            [np.arange(start + n * step, start + n * step + storage.elements) for n in range(storage.batch)]
        )

    content: dict[Storage, np.ndarray] = {}  # the bytes of each storage as its last writer left them
    for index, layer in enumerate(layers):
        for read_ in layer.reads:
            if read_.root.port is not None:
                continue
            written = np.unique(arena[cells(read_)])
            assert -1 not in written, "reads what nobody wrote"
            writers = {
                i
                for i, other in enumerate(layers)
                if other.wave < layer.wave
                for w in other.writes
                if w.root is read_.root or w.root.parent is read_.root
            }
            assert set(written) <= writers, f"{layer.value} finds what another value left in {read_.name}"
            if read_ in content:
                assert np.array_equal(content[read_], arena[cells(read_)]), (
                    f"{read_.name} was overwritten before {layer.value} read it"
                )
        for output in layer.writes:
            if output.root.port is None:
                arena[cells(output)] = index
                content[output] = arena[cells(output)].copy()


@BUDGET
@given(steps=STEPS)
def test_the_arena_is_no_larger_than_its_values(builder, target, steps):
    _, model = random_model(builder, steps, 1)
    network, size = placed(model)
    roots = {s.root for layer in network.layers for s in (*layer.writes, *layer.reads) if s.root.port is None}
    assert size <= sum(place.size(root) for root in roots)
    assert all(root.offset % ALIGNMENT == 0 for root in roots)
    assert all(0 <= a <= b <= size for a, b in map(footprint, roots))


@BUDGET
@given(steps=STEPS)
def test_waves_respect_dependencies(builder, target, steps):
    """A layer comes after all that write what it reads; layers of one wave do not touch each other's outputs."""
    _, model = random_model(builder, steps, 1)
    plan = lower(model, target)
    assert [s.wave for s in plan.steps] == sorted(s.wave for s in plan.steps)
    network, _ = placed(model)
    for wave in {layer.wave for layer in network.layers}:
        together = [layer for layer in network.layers if layer.wave == wave]
        spans = [(footprint(w), layer) for layer in together for w in layer.writes if w.root.port is None]
        for (start, end), writer in spans:
            for layer in together:
                if layer is writer:
                    continue
                others = [footprint(s) for s in (*layer.reads, *layer.writes) if s.root.port is None]
                if any(w.batch > 1 for w in layer.writes):
                    continue
                assert not any(start < b and a < end for a, b in others), (
                    f"{writer.value} and {layer.value} meet in wave {wave}"
                )


@pytest.mark.slow
@settings(BUDGET, max_examples=12)
@given(steps=STEPS, batch=st.integers(1, 2))
def test_random_graphs_compute_the_same(compiled, builder, steps, batch):
    b, model = random_model(builder, steps, batch)
    compiled(model).check(*b.inputs.values(), tolerance=bound("kernels"))


@pytest.mark.parametrize(("own", "late", "shares"), [(False, False, True), (True, False, False), (False, True, False)])
def test_an_add_writes_over_its_addend_only_where_that_is_dead(compiled, builder, own, late, shares):
    """Not where the convolution itself reads the addend, and not where somebody does afterwards."""
    b = builder()
    x = b.conv(b.input(1, 3, 6, 6), 3, 16, (1, 1))
    other = x if own else b.op("Tanh", x)
    y = b.op("Add", b.conv(other, 16, 16, pads=[1] * 4), x)
    z = b.op("Sub", b.op("Sigmoid", y), x) if late else b.op("Sigmoid", y)
    made = compiled(b.model(z))
    made.check(*b.inputs.values())
    (add,) = [p for p in made.plan.placements if p.value == y]
    assert (add.shares == x) is shares


def chain(*storages):
    """Layers that each read the one before."""
    layers = [
        Layer("t", [], None, [(before, "")] if before else [], after, after.name)
        for before, after in zip((None, *storages), storages, strict=False)
    ]
    return Network(layers=layers)


def test_a_chain_needs_two_places(target):
    network = chain(*(Storage(f"s{i}", 1, 100) for i in range(6)))
    place.assign_waves(network)
    assert place.arrange(network)[""] == 2 * 448


@BUDGET
@given(lives=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=14))
def test_the_arena_is_no_larger_than_placing_the_largest_first(target, lives):
    """And no smaller than what is alive at a time; nobody lies over another."""
    storages = [Storage(f"s{i}", 1, 64 * pixels) for i, (pixels, _, _) in enumerate(lives)]
    for storage, (_, first, length) in zip(storages, lives, strict=True):
        storage.first_wave, storage.last_wave = first, first + length
    alive = max(sum(s.bytes for s in storages if s.first_wave <= wave <= s.last_wave) for wave in range(14))
    simple = place._pack(sorted(storages, key=lambda s: -s.bytes))
    total = place.arrange(Network(), storages)[""]
    assert alive <= total <= simple
    for one, other in itertools.combinations(storages, 2):
        if one.first_wave <= other.last_wave and other.first_wave <= one.last_wave:
            assert one.offset + one.bytes <= other.offset or other.offset + other.bytes <= one.offset


def test_refusals_carry_node_operator_and_reason(builder, target):
    b = builder()
    x = b.input(1, 4, 6, 6)
    plan = lower(b.model(b.op("Floor", b.op("Relu", x))), target)
    (refusal,) = plan.refusals
    assert (refusal.node, refusal.op, refusal.reason) == ("Floor_1", "Floor", "there is no kernel of ours for Floor")


def test_every_address_lies_inside(builder, target):
    _, model = random_model(builder, [("concat", 0, 0), ("lrn", 1, 0), ("add", 2, 1), ("split", 3, 0)], 2)
    plan = lower(model, target)
    sizes = {memory.name: memory.bytes for memory in plan.memories}
    assert sizes["weights"] == len(plan.weights)
    assert all(0 <= ref.offset < sizes[ref.memory] for step in plan.steps for ref in step.args)
    assert all(0 <= p.offset <= p.offset + p.bytes <= plan.arena_bytes for p in plan.placements if p.shares is None)
