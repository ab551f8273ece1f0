"""Streams of a VTA in a compiled model, between kernels of the host, on the simulator that is linked in."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy.errors import DeployError
from inception_deploy.kernels.vta.profiles import PROFILES
from inception_deploy.runtime import compiled

from . import products


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(-128, 128, (1, products.COUNT)).astype(np.float32)


@pytest.mark.parametrize("profile", ["hls", "chisel", "fsim"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_host_and_vta_take_turns(tiny, tmp_path, pixels, profile, count):
    made = products.plan(count)
    folder = products.write(made, tmp_path / "model", tiny.triple, simulated=PROFILES[profile])
    with compiled.load(folder, threads=2) as model:
        for number in range(3):
            x = np.roll(pixels, number)
            np.testing.assert_array_equal(model.run(x)[0], products.expected(x, count))
        times = model.profile(pixels)
        assert [t.name for t in times] == [step.name for step in made.steps]
        assert all(t.ms > 0 for t in times)


def test_a_stream_that_hangs_names_its_step(tiny, tmp_path, pixels):
    streams = [products.stream(), products.stream(wgt={"push_next": 0})]
    folder = products.write(products.plan(2), tmp_path / "model", tiny.triple, streams)
    with compiled.load(folder, threads=1) as model:
        for _ in range(2):
            with pytest.raises(DeployError) as caught:
                model.run(pixels)
            assert caught.value.kind == "kernel"
            assert caught.value.message == (
                "step product1 (conv) failed: instruction 3 of the VTA's stream 1 waits for a token that never comes: "
                "the stream hangs"
            )


def test_nothing_is_left_in_sram_by_the_stream_before(tiny, tmp_path, pixels):
    """The second stream relies on the weights that the first has loaded: on a board that would be right by luck."""
    nothing = {"y_size": 0, "x_size": 0, "x_stride": 0, "push_next": 1}
    streams = [products.stream(), products.stream(wgt=nothing)]
    folder = products.write(products.plan(2), tmp_path / "model", tiny.triple, streams)
    with compiled.load(folder, threads=1) as model, pytest.raises(DeployError) as caught:
        model.run(pixels)
    assert caught.value.message == (
        "step product1 (conv) failed: instruction 4 of the VTA's stream 1 reads WGT[0], which nothing has written"
    )
