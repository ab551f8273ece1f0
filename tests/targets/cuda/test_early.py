"""Launches that begin before what they wait for has ended, from sm_90 on: where a kernel waits, and what would show if it did not.

The simulated driver begins them as early as their edges allow, and keeps them at their wait while the others run (grid.c).
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inception_deploy.lower.lower import lower
from inception_deploy.runtime import compiled
from inception_deploy.targets import cuda, cuda_library
from inception_deploy.targets.cuda_compile import kernel_source
from inception_deploy.verify import tolerance

from .conftest import fake_cubin
from .test_runtime import built as built
from .test_runtime import network as network  # a fixture
from .test_runtime import right, small_network

SWITCH = "INCEPTION_DEPLOY_CUDA_PROGRAMMATIC"
WAIT = "id_earlier_done();"


def early(gpu: Any, first: int = 0) -> set[str]:
    """The kernels of which a launch began early, but for the first so many launches."""
    gpu.library.fake_early_name.restype = ctypes.c_char_p
    return {gpu.library.fake_early_name(number).decode() for number in range(first, gpu.library.fake_early())}


def test_launches_begin_early_and_give_the_same_bits(gpu, network, monkeypatch):
    before = gpu.library.fake_early()
    with compiled.load(network.folder) as model:
        (first,) = model.run(network.x)
        began = gpu.library.fake_early() - before
        right(network, [first])
        np.testing.assert_array_equal(model.run(network.x)[0], first)
        assert gpu.library.fake_early() - before == 2 * began
    assert began > len(network.plan.steps) / 2
    monkeypatch.setenv(SWITCH, "0")
    with compiled.load(network.folder) as model:
        np.testing.assert_array_equal(model.run(network.x)[0], first)
    assert gpu.library.fake_early() - before == 2 * began, "switched off, and some began early"


def test_not_before_sm_90(gpu, network):
    before = gpu.library.fake_early()
    gpu.library.fake_device(1, 89)
    with compiled.load(network.folder) as model:
        right(network, model.run(network.x))
    assert gpu.library.fake_early() == before


@pytest.mark.parametrize("refused", [0, 3])
def test_a_driver_that_takes_no_such_edges(gpu, network, refused):
    before = gpu.library.fake_early()
    gpu.library.fake_fail(b"cuGraphAddDependencies_v2", refused)
    with compiled.load(network.folder) as model:
        right(network, model.run(network.x))
    assert gpu.library.fake_early() == before


OLDER = """
import ctypes, sys
import numpy as np
from pathlib import Path
from inception_deploy.runtime import compiled
driver, kernels = (ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL) for path in sys.argv[1:3])
assert not hasattr(driver, "cuGraphAddDependencies_v2")
driver.fake_kernels(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(kernels, "table"))))
driver.fake_device(1, 90)
with compiled.load(Path(sys.argv[3])) as model:
    np.save(sys.argv[5], model.run(np.load(sys.argv[4]))[0])
print(driver.fake_early())
"""


def test_a_driver_from_before_cuda_12_3(simulated, built, tmp_path):
    driver = simulated.driver(tmp_path, "-DFAKE_OLDER")
    np.save(tmp_path / "x.npy", built.x)
    paths = [driver, built.kernels._name, built.folder, tmp_path / "x.npy", tmp_path / "y.npy"]
    command = [sys.executable, "-c", OLDER, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0"
    right(built, [np.load(tmp_path / "y.npy")])


@pytest.fixture(scope="module")
def half(simulated, tmp_path_factory):
    """The network in fp16, on tensor cores."""
    model, target = small_network(), cuda.parse("cuda", "sm_90").at("fp16")
    plan, folder = lower(model, target), tmp_path_factory.mktemp("half")
    cubins = {"sm_90": dict.fromkeys(plan.kernels, fake_cubin("sm_90"))}
    cuda_library.write_library(plan, cubins, folder, triple=simulated.triple)
    return SimpleNamespace(plan=plan, folder=folder)


def planted(gpu: Any, plan: Any, change: dict[str, Any]) -> None:
    """Install a plan's kernels, some with their text changed."""
    texts = [change.get(symbol, str)(kernel_source(kernel)) for symbol, kernel in plan.kernels.items()]
    gpu.install(gpu.compile(texts))


def answer(gpu: Any, folder: Any, x: np.ndarray) -> np.ndarray:
    """Of the first inference of a handle: none of an earlier one's numbers are there to be read."""
    gpu.library.fake_device(1, 90)
    with compiled.load(folder) as model:
        return np.asarray(model.run(x)[0])


def near(got: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(got - expected).max() <= tolerance("compiled-fp16").max_rel * np.abs(expected).max())


def only_one_thread(text: str) -> str:
    """The wait of thread 0 alone."""
    head, mark, body = text.partition('extern "C" __global__')
    assert body.count(WAIT) == 1
    return head + mark + body.replace(WAIT, "if (threadIdx.x == 0) id_earlier_done();")


def without(text: str) -> str:
    """No wait."""
    head, mark, body = text.partition('extern "C" __global__')
    assert body.count(WAIT) == 1
    return head + mark + body.replace(WAIT, "")


def behind_the_copies(text: str) -> str:
    """The wait after the first pixels are on their way."""
    text, count = re.subn(r"\bid_copy_wait<(\d)>\(\);", r"id_earlier_done(); id_copy_wait<\1>();", without(text))
    assert count == 1
    return text


def test_fp16_as_well(gpu, half, built):
    planted(gpu, half.plan, {})
    assert near(answer(gpu, half.folder, built.x), built.expected)


@pytest.mark.parametrize("change", [without, pytest.param(only_one_thread, marks=pytest.mark.slow)])
def test_a_kernel_that_does_not_wait_shows(gpu, half, built, change):
    """Each kernel that may begin early, by itself."""
    planted(gpu, half.plan, {})
    before = gpu.library.fake_early()
    sound = answer(gpu, half.folder, built.x)
    begins = early(gpu, before)
    assert len(begins) > len(half.plan.kernels) / 2
    if gpu.backwards:
        begins = {min(begins), max(begins)}  # each is tried in one of the orders
    for symbol in sorted(begins):
        if change is only_one_thread and cuda_library.program(half.plan.kernels[symbol]).launches[0].block == (1, 1, 1):
            continue
        planted(gpu, half.plan, {symbol: change})
        assert not np.array_equal(answer(gpu, half.folder, built.x), sound), half.plan.kernels[symbol]


def test_pixels_that_are_copied_before_the_wait_show(gpu, half, built):
    tiles = {symbol: behind_the_copies for symbol, kernel in half.plan.kernels.items() if kernel.family == "gpu.mma"}
    assert tiles
    planted(gpu, half.plan, tiles)
    assert not near(answer(gpu, half.folder, built.x), built.expected)
