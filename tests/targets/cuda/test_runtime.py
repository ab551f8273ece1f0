"""Whole bundles on the simulated GPU: the same libraries, tables and launches as on a real one, with the driver's part played by a CPU.

Memory is full of NaNs before it is written, nothing in a stream happens before it is waited for, and everything has to be given back.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from inception_deploy.errors import DeployError
from inception_deploy.lower.lower import lower
from inception_deploy.runtime import compiled
from inception_deploy.targets import cuda, cuda_library
from inception_deploy.targets.cuda_compile import kernel_source
from inception_deploy.verify import bound

from .conftest import bundle, fake_cubin

TARGET = cuda.parse("cuda", "")


def small_network() -> onnx.ModelProto:
    """Stem, pools, three branches and their concat, a residual add in place, a depthwise and a default operator, a head."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(*shape: int) -> str:
        fan = int(np.prod(shape[1:])) or 1
        weights.append(
            numpy_helper.from_array(
                (random.standard_normal(shape) / np.sqrt(fan)).astype(np.float32), f"w{len(weights)}"
            )
        )
        return weights[-1].name

    def op(kind: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"v{len(nodes)}"], f"{kind}_{len(nodes)}", **attributes))
        return str(nodes[-1].output[0])

    def conv(x: str, channels: int, out: int, kernel: tuple[int, int], **attributes: object) -> str:
        return op(
            "Conv", x, weight(out, channels // int(str(attributes.get("group", 1))), *kernel), weight(out), **attributes
        )

    x = op("Relu", conv("pixels", 3, 20, (3, 3), strides=[2, 2], pads=[1, 1, 1, 1]))
    x = op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    x = op("LRN", x, size=3)
    left = op("Relu", conv(x, 20, 24, (1, 1)))
    middle = op("Relu", conv(op("Relu", conv(x, 20, 16, (1, 1))), 16, 40, (1, 3), pads=[0, 1, 0, 1]))
    right = conv(op("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]), 20, 10, (1, 1))
    joined = op("Concat", left, middle, right, axis=1)
    x = op("Relu", op("Add", joined, conv(joined, 74, 74, (3, 3), pads=[1, 1, 1, 1])))
    x = conv(x, 74, 74, (3, 3), group=74, strides=[2, 2], pads=[1, 1, 1, 1])
    x = op("Flatten", op("GlobalAveragePool", x))
    x = op("Softmax", op("Gemm", x, weight(10, 74), weight(10), transB=1), axis=-1)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", 1, [1, 3, 33, 29])],
        [helper.make_tensor_value_info(x, 1, [1, 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.fixture(scope="session")
def built(simulated, tmp_path_factory):
    """A network, its library with images that only the simulated driver takes, its kernels, an input and the outputs expected."""
    model = small_network()
    plan = lower(model, TARGET)
    folder = tmp_path_factory.mktemp("bundle")
    cubins = {arch: dict.fromkeys(plan.kernels, fake_cubin(arch)) for arch in TARGET.archs}
    files = cuda_library.write_library(plan, cubins, folder, triple=simulated.triple)
    kernels = simulated.compile([kernel_source(kernel) for kernel in plan.kernels.values()])
    x = np.random.default_rng(1).standard_normal((1, 3, 33, 29)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"pixels": x})[0]
    return SimpleNamespace(
        plan=plan, cubins=cubins, folder=folder, files=files, kernels=kernels, x=x, expected=expected
    )


@pytest.fixture
def network(gpu, built):
    """The network, ready to be opened; in the end nothing of it may be left on the device."""
    gpu.install(built.kernels)
    gpu.library.fake_device(1, 90)
    gpu.library.fake_fail(b"", 0)
    yield built
    assert gpu.library.fake_live() == 0


def right(network, outputs) -> None:
    np.testing.assert_allclose(outputs[0], network.expected, atol=bound("rounding"))


def test_gives_what_onnxruntime_gives(gpu, network):
    with compiled.load(network.folder) as model:
        assert (model.target, model.threads, model.features) == ("cuda", 1, ())
        assert [p.shape for p in model.outputs] == [(1, 10)]
        first = model.run(network.x)
        right(network, first)
        right(network, model.run(network.x))
        other = model.run(network.x[:, ::-1].copy())
        assert not np.allclose(other[0], first[0])
        np.testing.assert_array_equal(model.run(network.x)[0], first[0])


def test_the_network_covers_the_kernels(network):
    kinds = {type(kernel.spec).__name__ for kernel in network.plan.kernels.values()}
    assert kinds == {"Conv", "Window", "GlobalAverage", "Pack", "Unpack", "Softmax", "Extern"}
    assert any(cuda_library.program(kernel).counters for kernel in network.plan.kernels.values())


def test_two_handles(network):
    with compiled.load(network.folder) as one, compiled.load(network.folder) as two:
        right(network, one.run(network.x))
        right(network, two.run(network.x))
        right(network, one.run(network.x))


def test_profile(gpu, network):
    with compiled.load(network.folder) as model:
        for _ in range(2):
            times = model.profile(network.x)
            assert [t.op for t in times] == [s.op for s in network.plan.steps]
            # the simulated clock: half a millisecond for every operation in the stream
            launches = [len(cuda_library.program(network.plan.kernels[s.kernel]).launches) for s in network.plan.steps]
            assert [t.ms for t in times] == [0.5 * (count + 1) for count in launches]
        right(network, model.run(network.x))


@pytest.mark.parametrize(("capability", "code"), [(80, 80), (86, 80), (89, 80), (90, 90)])
def test_takes_the_code_for_the_device(gpu, network, capability, code):
    gpu.library.fake_device(1, capability)
    with compiled.load(network.folder) as model:
        assert gpu.library.fake_loaded() == code
        right(network, model.run(network.x))


@pytest.mark.parametrize(("count", "capability"), [(0, 90), (1, 75), (1, 100), (1, 120)])
def test_no_device_for_it(gpu, network, count, capability):
    gpu.library.fake_device(count, capability)
    with pytest.raises(DeployError, match="cuda: no device or driver that the library was built for") as caught:
        compiled.load(network.folder)
    assert caught.value.kind == "device"


OPENING = {
    "cuInit": ("device", 1),
    "cuDevicePrimaryCtxRetain": ("device", 1),
    "cuCtxPushCurrent_v2": ("device", 1),
    "cuStreamCreate": ("device", 1),
    "cuModuleLoadData": ("device", 3),
    "cuModuleGetFunction": ("device", 3),
    "cuMemAlloc_v2": ("memory", 5),
    "cuMemHostAlloc": ("memory", 1),
    "cuMemcpyHtoDAsync_v2": ("device", 1),
    "cuMemsetD8Async": ("device", 1),
    "cuGraphCreate": ("device", 1),
    "cuGraphAddKernelNode_v2": ("device", 5),
    "cuGraphInstantiateWithFlags": ("device", 1),
    "cuStreamSynchronize": ("device", 2),
}


@pytest.mark.parametrize("function", OPENING)
def test_what_fails_while_opening_is_given_back(gpu, network, function):
    kind, calls = OPENING[function]
    for after in range(calls):
        gpu.library.fake_fail(function.encode(), after)
        with pytest.raises(DeployError) as caught:
            compiled.load(network.folder)
        assert caught.value.kind == kind
        assert f"{function}: CUDA_ERROR_" in caught.value.message
        assert gpu.library.fake_live() == 0
    gpu.library.fake_fail(b"", 0)
    with compiled.load(network.folder) as model:
        right(network, model.run(network.x))


def test_the_gpu_copies_from_page_locked_memory_alone(gpu, network):
    """What is pageable the driver would copy itself, while the caller waits."""
    with compiled.load(network.folder) as model:
        copies, pageable = gpu.library.fake_copies(), gpu.library.fake_pageable()
        right(network, model.run(network.x))
        assert gpu.library.fake_copies() - copies == 2
        assert gpu.library.fake_pageable() == pageable


def test_a_large_input_is_copied_in_pieces(gpu, simulated, tmp_path):
    shape = [1, 16, 250, 250]
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"], "neg")],
        "large",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    bundle(simulated, lower(model, TARGET), TARGET.archs, tmp_path)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with compiled.load(tmp_path) as opened:
        copies = gpu.library.fake_copies()
        for given in (x, 2 * x):
            np.testing.assert_array_equal(opened.run(given)[0], -given)
        assert gpu.library.fake_copies() - copies == 2 * (4 + 1)
    assert gpu.library.fake_live() == 0


def test_a_launch_that_fails_names_its_step(gpu, network):
    """In a profile, which launches one by one; the graph of an inference fails as a whole."""
    with compiled.load(network.folder) as model:
        launches = [len(cuda_library.program(network.plan.kernels[s.kernel]).launches) for s in network.plan.steps]
        for index in (0, 4, len(launches) - 1):
            gpu.library.fake_fail(b"cuLaunchKernel", sum(launches[:index]))
            with pytest.raises(DeployError) as caught:
                model.profile(network.x)
            assert caught.value.kind == "kernel"
            assert network.plan.steps[index].name in caught.value.message
        right(network, model.run(network.x))


def test_an_inference_is_one_launch(gpu, network):
    with compiled.load(network.folder) as model:
        gpu.library.fake_fail(b"cuLaunchKernel", 0)
        before = gpu.library.fake_launches()
        right(network, model.run(network.x))
        launches = [len(cuda_library.program(network.plan.kernels[s.kernel]).launches) for s in network.plan.steps]
        assert gpu.library.fake_launches() - before == sum(launches)


RUNNING = [
    "cuCtxPushCurrent_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuGraphLaunch",
    "cuMemcpyDtoHAsync_v2",
    "cuStreamSynchronize",
]


@pytest.mark.parametrize("function", RUNNING)
def test_a_run_that_fails_can_be_repeated(gpu, network, function):
    with compiled.load(network.folder) as model:
        gpu.library.fake_fail(function.encode(), 0)
        with pytest.raises(DeployError) as caught:
            model.run(network.x)
        assert caught.value.kind == "device"
        assert f"{function}: CUDA_ERROR_" in caught.value.message
        right(network, model.run(network.x))


@pytest.mark.parametrize("function", ["cuEventCreate", "cuEventRecord", "cuEventElapsedTime"])
def test_a_profile_that_fails_can_be_repeated(gpu, network, function):
    with compiled.load(network.folder) as model:
        gpu.library.fake_fail(function.encode(), 2)
        with pytest.raises(DeployError) as caught:
            model.profile(network.x)
        assert caught.value.kind == "device"
        assert len(model.profile(network.x)) == len(network.plan.steps)


def test_a_kernel_that_is_missing(gpu, network):
    gpu.library.fake_kernels(None)
    with pytest.raises(DeployError) as caught:
        compiled.load(network.folder)
    assert caught.value.kind == "device"


def test_weights_of_another_model(gpu, network, tmp_path):
    for name in network.files:
        data = bytearray((network.folder / name).read_bytes())
        if name == "weights.bin":
            data[100] ^= 1
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DeployError, match="damaged") as caught:
        compiled.load(tmp_path)
    assert caught.value.kind == "weights"


def test_a_fork_has_no_share_in_the_device(gpu, network):
    with compiled.load(network.folder) as model:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's own advice against forking with threads
            child = os.fork()
        if child == 0:
            status = 1
            try:
                model.run(network.x)
            except DeployError as error:
                model.close()
                status = 0 if "fork" in error.message else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        right(network, model.run(network.x))


def test_equal_plans_give_equal_bytes(network, simulated, tmp_path):
    cuda_library.write_library(network.plan, network.cubins, tmp_path, triple=simulated.triple)
    for name in network.files:
        assert (tmp_path / name).read_bytes() == (network.folder / name).read_bytes()


def test_code_for_every_kernel_and_architecture(network, simulated, tmp_path):
    lacking = {"sm_80": {}}
    with pytest.raises(DeployError, match=r"no code of k_.* for sm_80"):
        cuda_library.write_library(network.plan, lacking, tmp_path, triple=simulated.triple)


def test_without_a_driver(built):
    """In a process of its own: here the simulated driver is loaded."""
    script = f"""
import ctypes, pathlib
from inception_deploy.runtime import compiled
from inception_deploy.errors import DeployError
from inception_deploy.targets import cuda
from inception_deploy.verify import bound
try:
    ctypes.CDLL("libcuda.so.1")
except OSError:
    try:
        compiled.load(pathlib.Path({str(built.folder)!r}))
    except DeployError as error:
        print(error.kind, error.message)
    print(cuda.parse("cuda", "").missing())
else:
    print("there is one")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    if done.stdout.strip() == "there is one":
        pytest.skip("this machine has an NVIDIA driver")
    assert done.stdout.splitlines() == [
        "device cuda: no device or driver that the library was built for, or it failed: there is no NVIDIA driver "
        "(libcuda.so.1)",
        "no NVIDIA driver (libcuda.so.1) on this machine",
    ]
