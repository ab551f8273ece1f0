"""Plans for several numbers of images on one GPU: one copy of the weights, in the file and on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from inception_deploy.graph.rows import with_rows
from inception_deploy.lower.lower import lower, lower_alike
from inception_deploy.lower.plan import MemoryKind, reading
from inception_deploy.runtime import compiled
from inception_deploy.targets import cuda, cuda_library
from inception_deploy.targets.cuda_compile import kernel_source
from inception_deploy.verify import tolerance

from .conftest import fake_cubin
from .test_runtime import small_network

BATCHES = (1, 3, 19)


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def several(simulated: Any, request: Any, tmp_path_factory: Any) -> Any:
    """The small network for several numbers of images, its folder and its kernels."""
    target, model = cuda.parse("cuda", "sm_90").at(request.param), small_network()
    plans = lower_alike((with_rows(model, rows) for rows in BATCHES), target)
    kernels = {symbol: kernel for plan in plans for symbol, kernel in plan.kernels.items()}
    folder = tmp_path_factory.mktemp("several")
    cubins = {"sm_90": dict.fromkeys(kernels, fake_cubin("sm_90"))}
    cuda_library.write_library(plans[0], cubins, folder, triple=simulated.triple, others=plans[1:])
    return target, model, plans, folder, simulated.compile([kernel_source(kernel) for kernel in kernels.values()])


def test_weights_are_there_once(several: Any) -> None:
    target, model, plans, folder, _ = several
    sizes = [len(lower(with_rows(model, rows), target).weights) for rows in BATCHES]
    assert len(plans[0].weights) == sizes[0] == (folder / "weights.bin").stat().st_size
    assert all(readers == {0, 1, 2} for _, readers in reading(plans))
    assert plans[0].steps == lower(model, target).steps, "the first is what it would be alone"
    (dense,) = {kernel.family for kernel in plans[2].kernels.values() if "dense" in kernel.family}
    assert dense == "gpu.dense", "19 images by the kernel that the first plan's weights are packed for"


def test_a_tile_is_chosen_for_the_number_of_images(several: Any) -> None:
    """Of those that take the weights as they are packed."""
    _, _, plans, _, _ = several
    one, many = ([plan.kernels[step.kernel].schedule for step in plan.steps] for plan in plans[::2])
    cut = [(a, b) for a, b in zip(one, many, strict=True) if hasattr(a, "bn")]
    assert len(cut) >= 5
    assert all((a.bn, getattr(a, "wn", 0)) == (b.bn, getattr(b, "wn", 0)) for a, b in cut)
    assert any(a.bm < b.bm or a.split > b.split for a, b in cut)


def test_they_run_on_one_copy(several: Any, gpu: Any) -> None:
    target, model, plans, folder, kernels = several
    gpu.install(kernels)
    gpu.library.fake_device(1, 90)
    x = np.random.default_rng(5).standard_normal((BATCHES[-1], 3, 33, 29)).astype(np.float32)
    wide = with_rows(model, BATCHES[-1]).SerializeToString()
    (expected,) = onnxruntime.InferenceSession(wide, providers=["CPUExecutionProvider"]).run(None, {"pixels": x})
    near = tolerance(target.precision.stage).max_rel * np.abs(expected).max()
    before = gpu.library.fake_allocated()
    opened = [compiled.load(folder, plan=number) for number in range(len(BATCHES))]
    taken, whole = gpu.library.fake_allocated() - before, [m for p in plans for m in cuda_library.whole(p).memories]
    try:
        sizes = [-(-max(1, m.bytes) // 256) * 256 for m in whole]
        weights = [size for size, m in zip(sizes, whole, strict=True) if m.kind is MemoryKind.WEIGHTS]
        assert len(set(weights)) == 1
        assert taken == sum(sizes) - sum(weights[1:])
        for _ in range(2):
            for model_, rows in zip(opened, BATCHES, strict=True):
                np.testing.assert_allclose(model_.run(x[:rows])[0], expected[:rows], rtol=0, atol=near)
                np.testing.assert_allclose(model_.run(x[-rows:])[0], expected[-rows:], rtol=0, atol=near)
        opened.pop(0).close()  # who came first goes first: the others keep the weights
        np.testing.assert_allclose(opened[-1].run(x)[0], expected, rtol=0, atol=near)
    finally:
        for model_ in opened:
            model_.close()
    assert gpu.library.fake_live() == 0
