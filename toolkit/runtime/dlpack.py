"""Tensors in a GPU's memory, to and from whoever knows DLPack: PyTorch, CuPy, JAX. Nothing is copied.

The protocol is the array API's: a producer has ``__dlpack_device__()`` and ``__dlpack__(stream=...)``, which gives a
capsule named ``dltensor`` with a `DLManagedTensor` (dlpack.h, version 0.x). Memory of our own comes from the driver, in
the device's primary context, which PyTorch and CuPy use, too.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np

from ..errors import DeployError

CUDA = 2
"""kDLCUDA."""

_NAME = b"dltensor"
_KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}
"""DLDataTypeCode by numpy's kind."""


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def address(tensor: Any, shape: tuple[int, ...], dtype: str, name: str, stream: int) -> tuple[int, Any]:
    """Where a producer's tensor lies on the first visible GPU, ready for work in a stream, and what keeps it there.

    Raises:
        DeployError: (kind ``input``) it is no such tensor, or not of exactly this shape and dtype, contiguous.
    """
    if not hasattr(tensor, "__dlpack__") or not hasattr(tensor, "__dlpack_device__"):
        got = type(tensor).__name__
        raise DeployError(f"{name} is no tensor that knows DLPack, but a {got}", kind="input", got=got)
    kind, number = (int(part) for part in tensor.__dlpack_device__())
    if (kind, number) != (CUDA, 0):
        message = f"{name} is on DLPack device {kind}:{number}, and the model on the first GPU ({CUDA}:0)"
        raise DeployError(message, kind="input", got=f"{kind}:{number}", allowed=f"{CUDA}:0")
    capsule = tensor.__dlpack__(stream=stream)
    it = ctypes.cast(_pointer(capsule, _NAME), ctypes.POINTER(_Managed)).contents.tensor
    found = tuple(it.shape[axis] for axis in range(it.ndim))
    wanted = np.dtype(dtype)
    typed = (it.code, it.bits, it.lanes) == (_KINDS.get(wanted.kind), 8 * wanted.itemsize, 1)
    if found != shape or not typed or not _contiguous(it, shape):
        got = f"{list(found)} of type {it.code}, {it.bits} bits{'' if _contiguous(it, shape) else ', with gaps'}"
        allowed = f"contiguous {dtype} {list(shape)}"
        raise DeployError(f"{name} is {allowed}, not {got}", kind="input", got=got, allowed=allowed)
    return (it.data or 0) + it.byte_offset, (tensor, capsule)


def _contiguous(tensor: _Tensor, shape: tuple[int, ...]) -> bool:
    if not tensor.strides or tensor.ndim != len(shape):
        return True
    expected = 1
    for axis in reversed(range(len(shape))):
        if shape[axis] > 1 and tensor.strides[axis] != expected:
            return False
        expected *= shape[axis]
    return True


class _Gpu:
    """The first visible GPU's primary context, for allocations."""

    def __init__(self) -> None:
        self.driver = ctypes.CDLL("libcuda.so.1")
        self.context = ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), 0)

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self.driver, name)(*arguments):
            kind = "memory" if code == 2 else "device"  # CUDA_ERROR_OUT_OF_MEMORY
            raise DeployError(f"the NVIDIA driver's {name} failed ({code})", kind=kind, got=code)

    def inside(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver with the context current."""
        self._call("cuCtxPushCurrent_v2", self.context)
        try:
            self._call(name, *arguments)
        finally:
            self.driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def close(self) -> None:
        """Give the context back."""
        self.driver.cuDevicePrimaryCtxRelease_v2(0)


class DeviceTensor:
    """An output of a model in a GPU's memory, dense. ``torch.from_dlpack(it)`` and ``cupy.from_dlpack(it)`` take it as
    it lies; the memory is freed when the last who has it lets go.

    Attributes:
        shape, dtype: as numpy has them.  address: of the first byte.
        stream: in which it is computed; it is complete when that has come so far.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, stream: int) -> None:
        self.shape, self.dtype, self.stream = shape, np.dtype(dtype), stream
        self._memory = _Memory(max(1, int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize), stream)
        self.address = self._memory.address

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, 0

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> Any:
        """A capsule. Another stream than the one it is computed in finds it complete: that one is waited for."""
        if stream not in (-1, self.stream):
            self.wait()
        return _exported(self)

    def wait(self) -> None:
        """Return when it is complete."""
        self._memory.gpu.inside("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def numpy(self) -> np.ndarray:
        """A copy on the host."""
        self.wait()
        array = np.empty(self.shape, self.dtype)
        into = ctypes.c_void_p(array.ctypes.data)
        gpu, size = self._memory.gpu, ctypes.c_size_t(array.nbytes)
        gpu.inside("cuMemcpyDtoHAsync_v2", into, ctypes.c_uint64(self.address), size, ctypes.c_void_p(self.stream))
        self.wait()
        return array


class _Memory:
    """Bytes on the GPU, freed with the object, after what its stream still does with them."""

    def __init__(self, size: int, stream: int) -> None:
        self.gpu, self._stream = _Gpu(), stream
        pointer = ctypes.c_uint64()
        try:
            self.gpu.inside("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        except DeployError:
            self.gpu.close()
            raise
        self.address: int = pointer.value

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            self.gpu.inside("cuStreamSynchronize", ctypes.c_void_p(self._stream))
            self.gpu.inside("cuMemFree_v2", ctypes.c_uint64(self.address))
            self.gpu.close()
            self.address = 0


_LENT: dict[int, tuple[Any, ...]] = {}
"""By the address of its `DLManagedTensor`, what a consumer has: kept until it calls the deleter."""

_LOCK = threading.Lock()


def _give_back(managed: Any) -> None:
    with _LOCK:
        gone = _LENT.pop(ctypes.addressof(managed.contents), None)
    del gone


def _nobody_took_it(capsule: int) -> None:
    """A capsule that was consumed has another name by now."""
    if _is_valid(capsule, _NAME):
        managed = ctypes.cast(_raw_pointer(capsule, _NAME), ctypes.POINTER(_Managed))
        _give_back(managed)


_DELETER, _DESTRUCTOR = _Deleter(_give_back), _Destructor(_nobody_took_it)


def _exported(tensor: DeviceTensor) -> Any:
    axes, kind = len(tensor.shape), tensor.dtype
    shape = (ctypes.c_int64 * max(1, axes))(*tensor.shape)
    described = _Tensor(tensor.address, CUDA, 0, axes, _KINDS[kind.kind], 8 * kind.itemsize, 1, shape, None, 0)
    managed = _Managed(described, None, ctypes.cast(_DELETER, ctypes.c_void_p))
    with _LOCK:
        _LENT[ctypes.addressof(managed)] = (managed, shape, tensor)
    return _capsule(ctypes.addressof(managed), _NAME, ctypes.cast(_DESTRUCTOR, ctypes.c_void_p))
