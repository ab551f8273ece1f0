"""Tensors of a GPU in and out, without a copy: PyTorch's own capsules, which are said to be of CUDA, on the simulated driver, whose
memory is this machine's."""

from __future__ import annotations

import ctypes
import gc
from typing import Any

import numpy as np
import pytest

from inception_deploy.errors import DeployError
from inception_deploy.runtime import compiled, dlpack
from inception_deploy.targets import cpu_library, library

from .test_runtime import built as built
from .test_runtime import network as network  # a fixture
from .test_runtime import right

torch = pytest.importorskip("torch")

STREAM = 64
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def said_to_be_of(capsule: Any, kind: int) -> Any:
    """The capsule with another device: a DLTensor's second field, behind the pointer."""
    ctypes.c_int32.from_address(_pointer(capsule, b"dltensor") + 8).value = kind
    return capsule


class OnGpu:
    """A tensor of PyTorch as if it were in a GPU's memory."""

    def __init__(self, tensor: Any, device: tuple[int, int] = (dlpack.CUDA, 0)) -> None:
        self.tensor, self.device, self.streams = tensor, device, []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int) -> Any:
        self.streams.append(stream)
        return said_to_be_of(torch.utils.dlpack.to_dlpack(self.tensor), dlpack.CUDA)


def taken(tensor: dlpack.DeviceTensor, stream: int = STREAM) -> Any:
    """What PyTorch makes of an output."""
    return torch.from_dlpack(said_to_be_of(tensor.__dlpack__(stream=stream), 1))


def test_a_tensor_in_and_a_tensor_out(gpu: Any, network: Any) -> None:
    x = torch.from_numpy(network.x.copy())
    with compiled.load(network.folder) as model:
        copies = gpu.library.fake_copies()
        given = OnGpu(x)
        (out,) = model.run_on_device(given, stream=STREAM)
        assert given.streams == [STREAM], "the producer is told which stream will read it"
        out.wait()
        result = taken(out)
        assert result.data_ptr() == out.address, "as it lies"
        right(network, [result.numpy()])
        assert gpu.library.fake_copies() == copies, "nothing went between host and device"
        right(network, [out.numpy()])
        # the memory is PyTorch's now
        del out
        gc.collect()
        right(network, [result.numpy()])
        del result
        gc.collect()
    assert gpu.library.fake_live() == 0


def test_results_of_earlier_runs_stay(gpu: Any, network: Any) -> None:
    """Nothing of the first is waited for before the second is put into the stream, with other buffers."""
    xs = [network.x, network.x[:, ::-1].copy(), network.x * 0.5]
    with compiled.load(network.folder) as model:
        want = [model.run(x)[0] for x in xs]
        given = [OnGpu(torch.from_numpy(x)) for x in xs]
        outs = [model.run_on_device(tensor, stream=STREAM)[0] for tensor in given]
        for out, expected in zip(outs, want, strict=True):
            np.testing.assert_array_equal(out.numpy(), expected)
        # and id_run has its own buffers again, in both directions
        np.testing.assert_array_equal(model.run(xs[1])[0], want[1])
        np.testing.assert_array_equal(model.run_on_device(given[2])[0].numpy(), want[2])
        assert len(model.profile(xs[0])) == len(network.plan.steps)


def test_the_same_buffers_change_no_node(gpu: Any, network: Any) -> None:
    """Only launches that read the input or write the output are told of new addresses."""
    with compiled.load(network.folder) as model:
        (port,), (result,) = model.inputs, model.outputs
        x = torch.from_numpy(network.x.copy())
        y = dlpack.DeviceTensor(result.shape, result.dtype, STREAM)
        before = gpu.library.fake_updates()
        pointers = [(ctypes.c_void_p * 1)(at) for at in (x.data_ptr(), y.address)]
        for times in range(3):
            assert model._library.id_run_async(model._handle, *pointers, ctypes.c_void_p(STREAM)) == 0
            changed = gpu.library.fake_updates() - before
            assert 2 <= changed <= 4, times
        right(network, [y.numpy()])
        assert port.dtype == "float32"


def test_handles_side_by_side(gpu: Any, network: Any) -> None:
    """Two on one GPU, each with a stream of its own, and both in work."""
    x = OnGpu(torch.from_numpy(network.x.copy()))
    with compiled.load(network.folder) as one, compiled.load(network.folder) as two:
        outs = [model.run_on_device(x, stream=STREAM + k)[0] for k, model in enumerate((one, two, one))]
        for out in outs:
            right(network, [out.numpy()])


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (lambda x: x.numpy().tolist(), "is no tensor that knows DLPack, but a list"),
        (lambda x: x, "is on DLPack device 1:0, and the model on the first GPU (2:0)"),
        (lambda x: OnGpu(x, (2, 1)), "is on DLPack device 2:1"),
        (lambda x: OnGpu(x.double()), r"is contiguous float32 \[1, 3, 33, 29\], not .* of type 2, 64 bits"),
        (lambda x: OnGpu(x[:, :2]), r"not \[1, 2, 33, 29\]"),
        (lambda x: OnGpu(x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)), "with gaps"),
    ],
)
def test_what_does_not_fit_is_told(gpu: Any, network: Any, tensor: Any, why: str) -> None:
    with compiled.load(network.folder) as model:
        with pytest.raises(DeployError, match=why.replace("(2:0)", r"\(2:0\)")) as caught:
            model.run_on_device(tensor(torch.from_numpy(network.x)), stream=STREAM)
        assert caught.value.kind == "input"
        right(network, model.run(network.x))


def test_an_address_between_quads_is_refused(gpu: Any, network: Any) -> None:
    wide = torch.zeros(network.x.size + 4)
    at = wide[1 : 1 + network.x.size].reshape(network.x.shape)
    with compiled.load(network.folder) as model, pytest.raises(DeployError, match="at a multiple of 16 bytes"):
        model.run_on_device(OnGpu(at))


@pytest.mark.parametrize("function", ["cuGraphExecKernelNodeSetParams_v2", "cuGraphLaunch", "cuCtxPushCurrent_v2"])
def test_what_fails_can_be_repeated(gpu: Any, network: Any, function: str) -> None:
    x = OnGpu(torch.from_numpy(network.x.copy()))
    with compiled.load(network.folder) as model:
        (result,) = model.outputs
        y = dlpack.DeviceTensor(result.shape, result.dtype, STREAM)
        pointers = [(ctypes.c_void_p * 1)(at) for at in (x.tensor.data_ptr(), y.address)]
        gpu.library.fake_fail(function.encode(), 0)
        assert model._library.id_run_async(model._handle, *pointers, None) == 11
        gpu.library.fake_fail(b"", 0)
        assert model._library.id_run_async(model._handle, *pointers, None) == 0
        right(network, [y.numpy()])
        del y
        right(network, model.run(network.x))


def test_a_model_for_a_cpu_says_so(tiny: Any, tmp_path: Any) -> None:
    plan = tiny.chain(1)
    parts = [cpu_library.part(plan, tiny.objects())]
    library.write_library(plan, parts, tmp_path, triple=tiny.triple)
    with compiled.load(tmp_path) as model:
        with pytest.raises(DeployError, match="takes no tensors of a GPU"):
            model.run_on_device(OnGpu(torch.zeros(1)))
        buffers = [
            (ctypes.c_void_p * 1)(np.zeros(port.shape, port.dtype).ctypes.data)
            for port in (*model.inputs, *model.outputs)
        ]
        assert model._library.id_run_async(model._handle, *buffers, None) == 1
        assert model._library.id_run_async(model._handle, None, None, None) == 1
