"""Compile an ONNX model as `export` does, run its Plan on poisoned memory, and compare with onnxruntime."""

from __future__ import annotations

import ctypes
import itertools
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from inception_deploy import targets
from inception_deploy.errors import DeployError
from inception_deploy.kernels.elements import PAIR
from inception_deploy.lower.lower import lower
from inception_deploy.lower.plan import ALIGNMENT, MemoryKind, port_memory
from inception_deploy.ortsession import session_options
from inception_deploy.verify import bound

KERNEL = bound("kernel")

POISON = 0xFF
"""Four of these bytes are a NaN: whatever is read before it was written shows in the result."""


def fenced(size: int, side: str = "begin", fill: int = POISON) -> np.ndarray:
    """Bytes that start at a multiple of the alignment, next to memory that no one may touch: before them, or behind."""
    page = mmap.PAGESIZE
    pages = -(-max(size, 1) // page)
    memory = np.frombuffer(mmap.mmap(-1, (pages + 2) * page), np.uint8)
    for fence in (0, pages + 1):
        assert _LIBC.mprotect(ctypes.c_void_p(memory.ctypes.data + fence * page), ctypes.c_size_t(page), 0) == 0
    start = page if side == "begin" else page + (pages * page - size) // ALIGNMENT * ALIGNMENT
    part: np.ndarray = memory[start : start + size]
    part[:] = fill
    return part


_LIBC = ctypes.CDLL(None, use_errno=True)


class Compiled:
    """A model, its Plan for one target, and the kernels in a loaded library. Steps are run from Python, one thread, one wave at a time."""

    def __init__(self, model: onnx.ModelProto, target: Any, path: Path) -> None:
        from inception_deploy.targets.link import link_shared
        from inception_deploy.targets.objects import compile_kernels

        self.model, self.plan = model, lower(model, target)
        self.pairs = target.element == PAIR
        objects = compile_kernels(self.plan.kernels.values(), target.tvm_target())
        link_shared(list(dict.fromkeys(objects.values())), sorted(objects), path, target.isa.triple)
        self.library = ctypes.CDLL(str(path))

    @property
    def ops(self) -> list[str]:
        """What the steps do, without those that only move or pad data."""
        return [s.op for s in self.plan.steps if s.op not in ("frame", "pack", "unpack")]

    def run(self, *inputs: np.ndarray, side: str = "begin") -> list[np.ndarray]:
        """One inference, in poisoned memory with a fence at one side of every buffer.

        A wave's steps run last one first, in two halves of their units each, so that a missing dependency shows. The
        inputs lie in memory of their own, or, for the "end", where the arena has a place for their copies.
        """
        raw = [np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8) for x in inputs]
        arena = fenced(self.plan.arena_bytes, side)
        given = [fenced(len(x), side) for x in raw]
        if side == "end":
            given = [arena[port.copy :][: len(x)] for port, x in zip(self.plan.inputs, raw, strict=True)]
        weights = fenced(len(self.plan.weights), side)
        for buffer, array in zip([*given, weights], [*raw, np.frombuffer(self.plan.weights, np.uint8)], strict=True):
            buffer[:] = array
        outputs = [fenced(port.bytes, side) for port in self.plan.outputs]
        memory = {"arena": arena, "weights": weights}
        memory |= {port_memory(MemoryKind.INPUT, i): buffer for i, buffer in enumerate(given)}
        memory |= {port_memory(MemoryKind.OUTPUT, i): buffer for i, buffer in enumerate(outputs)}
        for _, steps in itertools.groupby(self.plan.steps, key=lambda step: step.wave):
            for step in reversed(list(steps)):
                units = self.plan.kernels[step.kernel].units
                args = [memory[a.memory].ctypes.data + a.offset for a in step.args]
                pointers = (ctypes.c_void_p * len(args))(*args)
                for lo, hi in ((units // 2, units), (0, units // 2)):
                    assert getattr(self.library, step.kernel)(pointers, lo, hi) == 0
        return [out.view(port.dtype).reshape(port.shape) for out, port in zip(outputs, self.plan.outputs, strict=True)]

    def check(self, *inputs: np.ndarray, tolerance: float = KERNEL) -> list[np.ndarray]:
        """Run, and compare with onnxruntime: relative to the largest value of each output. Pairs of bfloat16 have 7
        bits less than fp32, a few of which its own rounding hides.
        """
        import onnxruntime

        tolerance *= 32 if self.pairs else 1
        session = onnxruntime.InferenceSession(
            self.model.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"]
        )
        expected = session.run(None, {i.name: x for i, x in zip(session.get_inputs(), inputs, strict=True)})
        outputs = self.run(*inputs)
        for one, other in zip(outputs, self.run(*inputs, side="end"), strict=True):
            assert np.array_equal(one, other)
        for got, want in zip(outputs, expected, strict=True):
            assert (got.shape, got.dtype) == (want.shape, want.dtype)
            error = np.abs(got.astype(np.float64) - want).max() / max(np.abs(want).max(), 1e-6)
            assert error <= tolerance, f"{error:.2e} with {[s.op for s in self.plan.steps]}"
        return outputs


class Builder:
    """An ONNX model, an operator at a time. Weights and inputs are random and repeatable."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: dict[str, np.ndarray] = {}

    def input(self, *shape: int, dtype: str = "float32", high: int = 5) -> str:
        """A graph input; floats are normal, integers below `high`."""
        name = f"x{len(self.inputs)}"
        array = self.random.standard_normal(shape) if dtype == "float32" else self.random.integers(0, high, shape)
        self.inputs[name] = array.astype(dtype)
        return name

    def constant(self, value: Any, dtype: str = "float32") -> str:
        """An initialiser."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        """A random initialiser, scaled by what one output of it sums."""
        fan = int(np.prod(shape[1:])) or 1
        return self.constant(self.random.standard_normal(shape) / np.sqrt(fan))

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; gives the name of its output, or a list of them."""
        names = [f"{kind.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, name=f"{kind}_{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def conv(
        self, x: str, channels: int, out: int, kernel: tuple[int, int] = (3, 3), group: int = 1, **attributes: Any
    ) -> str:
        """A convolution of `channels` channels, with a bias."""
        name: str = self.op(
            "Conv", x, self.weight(out, channels // group, *kernel), self.weight(out), group=group, **attributes
        )
        return name

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The checked model that gives `outputs`."""
        kinds = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in self.inputs.items()}
        given = [helper.make_tensor_value_info(name, kinds[name], x.shape) for name, x in self.inputs.items()]
        taken = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self.nodes, "test", given, taken, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
        return model


@pytest.fixture(scope="session")
def builder() -> Callable[..., Builder]:
    """`builder(seed)`: a model to be put together."""
    return Builder


@pytest.fixture(scope="session", params=["avx512", "avx2", "avx512-amx"])
def target(request: pytest.FixtureRequest) -> Any:
    """Each instruction set that this machine has, for fp32."""
    found = targets.parse(f"cpu:{request.param}").at("fp32")
    if reason := found.missing():
        pytest.skip(reason)
    if found.element != "float32":
        permit_tiles()
    return found


def permit_tiles() -> None:
    """As the runtime does when a model is opened: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)."""
    if _LIBC.syscall(158, 0x1023, 18) != 0:
        pytest.skip("Linux does not let this process use tile registers")


@pytest.fixture(scope="session")
def compiled_bf16(tmp_path_factory: pytest.TempPathFactory) -> Callable[[onnx.ModelProto], Compiled]:
    """`compiled_bf16(model)`: a `Compiled` in bfloat16, where this machine can."""
    try:
        found = targets.parse("cpu").at("bf16")
    except DeployError as error:
        pytest.skip(error.message)
    permit_tiles()
    folder, number = tmp_path_factory.mktemp("bf16"), itertools.count()
    return lambda model: Compiled(model, found, folder / f"{next(number)}.so")


@pytest.fixture(scope="session")
def compiled(target: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[onnx.ModelProto], Compiled]:
    """`compiled(model)`: a `Compiled` for the target."""
    folder = tmp_path_factory.mktemp("kernels")
    number = itertools.count()
    return lambda model: Compiled(model, target, folder / f"{next(number)}.so")
