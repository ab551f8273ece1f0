"""Run a compiled model from Python through ctypes. Needs neither TVM nor torch, nor any other part of the toolkit."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import DeployError
from . import dlpack
from .dlpack import DeviceTensor

ABI_VERSION = 1
"""`ID_ABI_VERSION` of `targets/csrc/inception_deploy.h`."""

_LIBRARY = "model.so"
_WEIGHTS = "weights.bin"
_ALIGNMENT = 64
_MESSAGE = 512

# The codes of inception_deploy.h that have more to say than id_error does.
_ARGUMENT, _CPU, _KERNEL = 1, 2, 8
_KINDS = {2: "cpu", 3: "weights", 4: "weights", 5: "weights", 6: "memory", 7: "threads", 8: "kernel", 11: "device"}

_MACHINES = {62: "x86_64", 183: "aarch64", 40: "armv7l", 3: "i686", 243: "riscv64"}
"""ELF's `e_machine` as `platform.machine()` spells it."""


class _IdPort(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("axes", ctypes.c_uint32),
        ("bytes", ctypes.c_uint64),
    )


class _IdStep(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("op", ctypes.c_char_p),
        ("wave", ctypes.c_uint32),
        ("macs", ctypes.c_uint64),
    )


class _IdInfo(ctypes.Structure):
    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        ("target", ctypes.c_char_p),
        ("features", ctypes.POINTER(ctypes.c_char_p)),
        ("feature_count", ctypes.c_uint32),
        ("arena_bytes", ctypes.c_uint64),
        ("weights_bytes", ctypes.c_uint64),
        ("weights_tag", ctypes.c_uint64),
        ("input_count", ctypes.c_uint32),
        ("output_count", ctypes.c_uint32),
        ("step_count", ctypes.c_uint32),
        ("wave_count", ctypes.c_uint32),
        ("inputs", ctypes.POINTER(_IdPort)),
        ("outputs", ctypes.POINTER(_IdPort)),
        ("steps", ctypes.POINTER(_IdStep)),
    )


@dataclass(frozen=True)
class Port:
    """An input or output: one C-contiguous array."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class StepTime:
    """How long one kernel call took.

    Attributes:
        name: the last network node it does the work of.
        op: what kind of work.
        ms: milliseconds.
        macs: multiply-adds.
    """

    name: str
    op: str
    ms: float
    macs: int


@dataclass(frozen=True)
class PhaseTime:
    """What the threads did in a phase, one or several waves, of one inference.

    Attributes:
        name: the last network node that its first kernel call does the work of.
        ms: of the phase.
        busy_ms: of each thread, the caller's first; the rest of the phase it waited.
    """

    name: str
    ms: float
    busy_ms: tuple[float, ...]


class CompiledModel:
    """A loaded model. `run` may be called from several threads; the calls then wait for each other.

    Attributes:
        inputs, outputs: the ports, in the order in which `run` takes and returns them.
        target: what it was built for.  features: the CPU features it needs.
        threads: how many threads an inference uses.
        arena_bytes: memory for activations.  waves: barriers an inference takes.
    """

    def __init__(self, library: ctypes.CDLL, info: _IdInfo, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._info = info
        self._handle: ctypes.c_void_p | None = handle
        self._lock = threading.Lock()
        self.inputs = _ports(info.inputs, info.input_count)
        self.outputs = _ports(info.outputs, info.output_count)
        self.target: str = info.target.decode()
        self.features = tuple(info.features[i].decode() for i in range(info.feature_count))
        self.threads: int = library.id_threads(handle)
        self.arena_bytes: int = info.arena_bytes
        self.waves: int = info.wave_count

    def run(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """One inference.

        Args:
            arrays: one array per input, with exactly its shape and dtype.

        Returns:
            One fresh array per output.

        Raises:
            DeployError: ``input``, where an array does not fit; ``kernel``, where a step fails; ``closed``.
        """
        return self._call(arrays, self._library.id_run)

    def run_on_device(self, *tensors: Any, stream: int = 1) -> list[DeviceTensor]:
        """One inference on a GPU's own memory, put into a stream of it and not waited for. Nothing is copied.

        Args:
            tensors: one for each input that knows DLPack, of PyTorch or CuPy, say: on the first visible GPU,
                contiguous, of exactly its shape and dtype. They must live until the stream has come so far; PyTorch
                sees to that for its current stream.
            stream: as the array API counts CUDA's: 1 for the default one, or a CUstream, such as
                ``torch.cuda.current_stream().cuda_stream``.

        Returns:
            One tensor for each output, which ``torch.from_dlpack`` takes as it lies. The model must not be closed
            before the stream has come so far.

        Raises:
            DeployError: ``input``, where a tensor does not fit; ``device``, ``memory``; ``closed``; ``runtime``, where
                the model is not for a GPU alone.
        """
        if not hasattr(self._library, "id_run_async") or not self.target.startswith("cuda"):
            message = f"a model for {self.target} takes no tensors of a GPU"
            raise DeployError(message, kind="runtime", got=self.target, allowed="a bundle for cuda")
        self._check_count(tensors)
        places = [
            dlpack.address(tensor, port.shape, port.dtype, f"input {port.name}", stream or 1)
            for tensor, port in zip(tensors, self.inputs, strict=True)
        ]
        outputs = [dlpack.DeviceTensor(port.shape, port.dtype, stream or 1) for port in self.outputs]
        ins = (ctypes.c_void_p * max(1, len(places)))(*(place for place, _ in places))
        outs = (ctypes.c_void_p * max(1, len(outputs)))(*(output.address for output in outputs))
        with self._lock:
            if self._handle is None:
                raise DeployError("the model was closed", kind="closed")
            code = self._library.id_run_async(self._handle, ins, outs, ctypes.c_void_p(stream or 1))
        if code:
            raise _error(self._library, code, self.target)
        return outputs

    def profile(self, *arrays: np.ndarray) -> list[StepTime]:
        """The time of every step, each run alone on all threads; their sum exceeds what `run` takes."""
        seconds = (ctypes.c_double * max(1, self._info.step_count))()
        self._call(arrays, lambda handle, ins, outs: self._library.id_profile(handle, ins, outs, seconds))
        steps = (self._info.steps[i] for i in range(self._info.step_count))
        return [
            StepTime(step.name.decode(), step.op.decode(), 1e3 * time, step.macs)
            for step, time in zip(steps, seconds, strict=False)
        ]

    def watch(self, *arrays: np.ndarray) -> list[PhaseTime]:
        """What every thread did in one inference, computed as `run` does it; nothing where one thread does everything,
        or the library is of before there was such a clock.
        """
        if not hasattr(self._library, "id_watch"):
            return []
        self._library.id_phases.argtypes = (ctypes.c_void_p,)
        self._library.id_phases.restype = ctypes.c_uint32
        with self._lock:
            count = 0 if self._handle is None else self._library.id_phases(self._handle)
        wide = 1 + self.threads
        seconds, first = (ctypes.c_double * max(1, count * wide))(), (ctypes.c_uint32 * max(1, count))()

        def call(handle: Any, ins: Any, outs: Any) -> int:
            pointers = ctypes.POINTER(ctypes.c_void_p)
            doubles, numbers = ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_uint32)
            self._library.id_watch.argtypes = (ctypes.c_void_p, pointers, pointers, doubles, numbers)
            return int(self._library.id_watch(handle, ins, outs, seconds, first))

        self._call(arrays, call)
        rows = [[1e3 * value for value in seconds[i * wide : (i + 1) * wide]] for i in range(count)]
        names = [self._info.steps[number].name.decode() for number in first[:count]]
        return [PhaseTime(name, row[0], tuple(row[1:])) for name, row in zip(names, rows, strict=True)]

    def close(self) -> None:
        """Stop its threads and free its memory. Nothing happens the second time."""
        with self._lock:
            if self._handle is not None:
                self._library.id_close(self._handle)
                self._handle = None

    def __enter__(self) -> CompiledModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _call(self, arrays: tuple[np.ndarray, ...], inference: Callable[[Any, Any, Any], int]) -> list[np.ndarray]:
        """One inference by a function of the library that takes the handle, the inputs and the outputs."""
        self._check(arrays)
        kept = [np.ascontiguousarray(array) for array in arrays]
        outputs = [_aligned_empty(port) for port in self.outputs]
        ins = (ctypes.c_void_p * max(1, len(kept)))(*(array.ctypes.data for array in kept))
        outs = (ctypes.c_void_p * max(1, len(outputs)))(*(array.ctypes.data for array in outputs))
        with self._lock:
            if self._handle is None:
                raise DeployError("the model was closed", kind="closed")
            code = inference(self._handle, ins, outs)
            if code == _KERNEL:
                step = self._info.steps[self._library.id_failed_step(self._handle)]
                message = f"step {step.name.decode()} ({step.op.decode()}) failed{_detail(self._library)}"
                raise DeployError(message, kind="kernel")
        if code:
            raise _error(self._library, code, self.target)
        return outputs

    def _check_count(self, arrays: tuple[Any, ...]) -> None:
        if len(arrays) != len(self.inputs):
            names = ", ".join(port.name for port in self.inputs)
            raise DeployError(
                f"the model takes {len(self.inputs)} inputs ({names})",
                kind="input",
                got=len(arrays),
                allowed=len(self.inputs),
            )

    def _check(self, arrays: tuple[np.ndarray, ...]) -> None:
        self._check_count(arrays)
        for array, port in zip(arrays, self.inputs, strict=True):
            if array.shape != port.shape or array.dtype != np.dtype(port.dtype):
                got, allowed = f"{array.dtype} {list(array.shape)}", f"{port.dtype} {list(port.shape)}"
                raise DeployError(f"input {port.name} is {allowed}, not {got}", kind="input", got=got, allowed=allowed)


def load(
    folder: Path, *, threads: int | None = None, driver: Path | None = None, simulated: bool = False, plan: int = 0
) -> CompiledModel:
    """Open the compiled model in a folder.

    Args:
        folder: where `model.so` and `weights.bin` lie; ``model-MACHINE.so`` is taken where `model.so` is another
            machine's.
        threads: how many an inference uses; None for one per CPU that this process may run on.
        driver: the shared library that drives the model's accelerator, where not the usual one.
        simulated: take the library that simulates a board, where there is one, also where the board's runs.
        plan: which of the library's, where it holds several for as many numbers of images (`plans.Plans`).

    Raises:
        DeployError: ``library`` (missing, damaged, for another machine or version), ``weights`` (missing, damaged, of
            another model), ``cpu`` (this one lacks a feature), ``memory``, ``threads``, ``device`` (the accelerator or
            its driver), ``driver`` (the model has no accelerator that takes one).
    """
    path, weights = library_of(Path(folder), simulated=simulated), Path(folder) / _WEIGHTS
    if threads is not None and not 1 <= threads <= 256:
        raise DeployError("an inference takes 1 to 256 threads", kind="threads", got=threads, allowed="1..256")
    _check_elf(path)
    if driver is not None:
        _check_elf(driver)
    try:
        library = ctypes.CDLL(_own_name(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        raise DeployError(f"{path} cannot be loaded: {error}", kind="library", got=str(error)) from error
    info = _declare(library, path, plan)
    handle = ctypes.c_void_p()
    # sched_getaffinity, not cpu_count: a container or taskset may leave fewer.
    count = threads or min(256, len(os.sched_getaffinity(0)))
    if plan:
        code = library.id_open_plan(plan, os.fsencode(weights), 0, count, ctypes.byref(handle))
    elif driver is None:
        code = library.id_open(os.fsencode(weights), count, ctypes.byref(handle))
    elif hasattr(library, "id_open_with_driver"):
        named = os.fsencode(driver.absolute())
        code = library.id_open_with_driver(os.fsencode(weights), count, named, ctypes.byref(handle))
    else:
        code = _ARGUMENT
    if code == _ARGUMENT and driver is not None:
        message = f"the model for {info.target.decode()} has no accelerator whose driver can be chosen"
        raise DeployError(message, kind="driver", got=str(driver), allowed="no driver")
    if code:
        raise _error(library, code, str(weights) if _KINDS.get(code) == "weights" else info.target.decode())
    return CompiledModel(library, info, handle)


def library_of(folder: Path, *, simulated: bool = False) -> Path:
    """The library in a folder that this machine runs. A board's bundle holds a second one, which simulates the board on
    another machine, or where that is asked for.
    """
    first, second = folder / _LIBRARY, folder / f"model-{platform.machine()}.so"
    return second if second.exists() and (simulated or _machine_of(first) != _here()) else first


def _here() -> str:
    return platform.machine().replace("armv8l", "armv7l")


def _machine_of(path: Path) -> str:
    """The machine that an ELF file is for; "" where it is none."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return ""
    return _named(head) if len(head) == 20 and head[:4] == b"\x7fELF" else ""


def _named(head: bytes) -> str:
    number = int.from_bytes(head[18:20], "little")
    return _MACHINES.get(number, f"ELF machine {number}")


_OPENED: dict[str, list[int]] = {}
"""The inodes of the libraries that were opened, by path."""


def _own_name(path: Path) -> str:
    """A name of the file that no other file was opened by: glibc gives the old library again where one was replaced."""
    inodes = _OPENED.setdefault(str(path.absolute()), [])
    inode = path.stat().st_ino
    if inode not in inodes:
        inodes.append(inode)
    return os.path.join(path.parent.absolute(), *["."] * inodes.index(inode), path.name)


def _error(library: ctypes.CDLL, code: int, subject: str) -> DeployError:
    text = library.id_error(code).decode()
    if code == _CPU:
        feature = library.id_missing_feature()
        name = feature.decode() if feature else "?"
        denied = " (or Linux does not let this process use it)" if name.startswith("amx") else ""
        return DeployError(
            f"this CPU lacks {name}{denied}, which the model was compiled for; export it for this machine",
            kind="cpu",
            got=f"no {name}",
        )
    return DeployError(f"{subject}: {text}{_detail(library)}", kind=_KINDS.get(code, "runtime"), got=code)


def _detail(library: ctypes.CDLL) -> str:
    """What the library says of its last failure, as the end of a message. Libraries of before say nothing."""
    if not hasattr(library, "id_detail"):
        return ""
    text = ctypes.create_string_buffer(_MESSAGE)
    library.id_detail(text, _MESSAGE)
    return f": {text.value.decode(errors='replace')}" if text.value else ""


def _check_elf(path: Path) -> None:
    """Say what is wrong with the file before the dynamic linker does.

    Its messages do not name the machines, and a file that was cut short kills the process.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DeployError(f"{path} cannot be read: {error.strerror}", kind="library", got=str(error)) from error
    if len(head) < 64 or head[:4] != b"\x7fELF":
        raise DeployError(
            f"{path} is not a shared library", kind="library", got="not ELF", allowed="an ELF shared library"
        )
    built, here = _named(head), _here()
    if built != here:
        raise DeployError(
            f"{path} was compiled for {built} and this is {here}", kind="library", got=built, allowed=here
        )
    # The table of sections is the last thing in the file.
    offset, entry, count = ("<Q", 0x28), ("<H", 0x3A), ("<H", 0x3C)
    if head[4] == 1:  # 32 bits
        offset, entry, count = ("<I", 0x20), ("<H", 0x2E), ("<H", 0x30)
    start, each, sections = (struct.unpack_from(field[0], head, field[1])[0] for field in (offset, entry, count))
    if start == 0 or size < start + each * sections:
        raise DeployError(f"{path} is cut short", kind="library", got=f"{size} bytes")


def _declare(library: ctypes.CDLL, path: Path, plan: int) -> _IdInfo:
    """Give ctypes the types of the interface, and read the description. DeployError where it is not such a library, or
    has no such plan.
    """
    try:
        library.id_describe.restype = ctypes.POINTER(_IdInfo)
        library.id_missing_feature.restype = ctypes.c_char_p
        library.id_error.restype = ctypes.c_char_p
        library.id_open.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p))
        library.id_threads.argtypes = (ctypes.c_void_p,)
        library.id_failed_step.argtypes = (ctypes.c_void_p,)
        pointers = ctypes.POINTER(ctypes.c_void_p)
        library.id_run.argtypes = (ctypes.c_void_p, pointers, pointers)
        library.id_profile.argtypes = (ctypes.c_void_p, pointers, pointers, ctypes.POINTER(ctypes.c_double))
        if hasattr(library, "id_run_async"):  # libraries of before lack it
            library.id_run_async.argtypes = (ctypes.c_void_p, pointers, pointers, ctypes.c_void_p)
        library.id_close.argtypes = (ctypes.c_void_p,)
        library.id_close.restype = None
    except AttributeError as error:
        raise DeployError(f"{path} is not a compiled model: {error}", kind="library", got=str(error)) from error
    info: _IdInfo = library.id_describe().contents
    if info.abi_version != ABI_VERSION:
        raise DeployError(
            f"{path} was compiled by another version of inception-deploy; export the model again",
            kind="library", got=info.abi_version, allowed=ABI_VERSION,
        )  # fmt: skip
    return info if not plan else _described(library, path, plan)


def _described(library: ctypes.CDLL, path: Path, plan: int) -> _IdInfo:
    """The description of a plan behind the first."""
    count = library.id_plans() if hasattr(library, "id_plans") else 1  # libraries of before hold one
    if plan >= count:
        message = f"{path} holds {count} plans, and none of number {plan}"
        raise DeployError(message, kind="library", got=plan, allowed=f"0 to {count - 1}")
    library.id_describe_plan.restype = ctypes.POINTER(_IdInfo)
    library.id_describe_plan.argtypes = (ctypes.c_uint32,)
    library.id_open_plan.argtypes = (
        ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p),
    )  # fmt: skip
    found: _IdInfo = library.id_describe_plan(plan).contents
    return found


def _ports(array: ctypes._Pointer[_IdPort], count: int) -> tuple[Port, ...]:
    ports = (array[i] for i in range(count))
    return tuple(Port(p.name.decode(), tuple(p.shape[: p.axes]), p.dtype.decode()) for p in ports)


def _aligned_empty(port: Port) -> np.ndarray:
    """An array for an output; aligned, so that the runtime writes into it directly."""
    dtype = np.dtype(port.dtype)
    size = int(np.prod(port.shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(port.shape)
