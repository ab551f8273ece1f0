"""CUDA C to cubins, with no GPU and no CUDA toolkit: NVRTC from PyPI through ctypes, or an `nvcc` that is there anyway.

A cubin is machine code for one architecture; it runs on every GPU of the same major version with an equal or newer
minor one. The driver has to be as new as the compiler's major version of CUDA, so NVRTC 12 reaches more machines than
13 does.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from inception_deploy import artifact, cache
from inception_deploy.errors import DeployError

if TYPE_CHECKING:
    from inception_deploy.lower.plan import Kernel

    from .base import Progress

OPTIONS = ("--fmad=false", "--std=c++17")
"""For every compiler. Kernels write out where they want a fused multiply-add; nothing else may be contracted."""

INSTALL = "pip install 'inception-deploy[cuda]'"

_PLACES = (("nvidia.cuda_nvrtc", "lib/libnvrtc.so.12"), ("nvidia.cu13", "lib/libnvrtc.so.13"))
"""Where PyPI's packages nvidia-cuda-nvrtc-cu12 and nvidia-cuda-nvrtc put the library."""

_SYSTEM = ("libnvrtc.so.12", "libnvrtc.so.13")


class Compiler(Protocol):
    """Something that makes cubins.

    Attributes:
        name: its kind and version, as manifests and cache keys have it.
        archs: what it can compile for, as ``sm_80``.
    """

    @property
    def name(self) -> str: ...

    @property
    def archs(self) -> tuple[str, ...]: ...

    def cubin(self, source: str, arch: str) -> bytes:
        """The machine code of `source` for `arch`. DeployError ``compile`` with the compiler's message."""


def _failed(arch: str, log: str) -> DeployError:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    first = next((line for line in lines if "error" in line), lines[0] if lines else "no message")
    return DeployError(f"compiling a kernel for {arch} failed: {first}", kind="compile", got="\n".join(lines[:20]))


@dataclass(frozen=True)
class Nvrtc:
    """NVIDIA's compiler as a library."""

    library: ctypes.CDLL
    name: str
    archs: tuple[str, ...]

    @staticmethod
    def load(path: str) -> Nvrtc | None:
        """The library at a path or by a name that the dynamic linker knows; None where there is none."""
        try:
            library = ctypes.CDLL(path)
        except OSError:
            return None
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        if library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)) != 0:
            return None
        library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        library.nvrtcGetSupportedArchs(numbers)
        return Nvrtc(library, f"nvrtc {major.value}.{minor.value}", tuple(f"sm_{number}" for number in numbers))

    def cubin(self, source: str, arch: str) -> bytes:
        call, program = self.library, ctypes.c_void_p()
        self._check(call.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None))
        try:
            options = [f"--gpu-architecture={arch}".encode(), *(option.encode() for option in OPTIONS)]
            result = call.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
            size = ctypes.c_size_t()
            if result != 0:
                self._check(call.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
                log = ctypes.create_string_buffer(size.value)
                self._check(call.nvrtcGetProgramLog(program, log))
                raise _failed(arch, log.value.decode(errors="replace") or self._text(result))
            self._check(call.nvrtcGetCUBINSize(program, ctypes.byref(size)))
            code = ctypes.create_string_buffer(size.value)
            self._check(call.nvrtcGetCUBIN(program, code))
            return code.raw
        finally:
            call.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, result: int) -> str:
        return str(self.library.nvrtcGetErrorString(result).decode())

    def _check(self, result: int) -> None:
        if result != 0:
            raise DeployError(f"{self.name} failed: {self._text(result)}", kind="compile", got=result)


@dataclass(frozen=True)
class Nvcc:
    """The CUDA toolkit's compiler."""

    path: str
    name: str
    archs: tuple[str, ...]

    @staticmethod
    def find() -> Nvcc | None:
        """The one on PATH, if it works."""
        path = shutil.which("nvcc")
        if path is None:
            return None
        version = _output([path, "--version"])
        found = re.search(r"release (\d+\.\d+)", version)
        archs = tuple(re.findall(r"\bsm_\d+\b", _output([path, "--list-gpu-code"])))
        return Nvcc(path, f"nvcc {found.group(1)}", archs) if found and archs else None

    def cubin(self, source: str, arch: str) -> bytes:
        with artifact.temporary() as folder:
            (folder / "kernel.cu").write_text(source, encoding="utf-8")
            command = [self.path, "-cubin", f"-arch={arch}", *OPTIONS, "-w", "-o", "kernel.cubin", "kernel.cu"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode != 0:
                raise _failed(arch, done.stderr or done.stdout)
            return (folder / "kernel.cubin").read_bytes()


def _output(command: Sequence[str]) -> str:
    """What a program prints; nothing where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _candidates() -> Iterator[str]:
    for package, file in _PLACES:
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield str(Path(folder) / file)
    yield from _SYSTEM


@lru_cache(maxsize=1)
def find() -> Compiler | None:
    """NVRTC from PyPI, the system's NVRTC, or nvcc, in this order; None where there is none of them."""
    for path in _candidates():
        nvrtc = Nvrtc.load(path)
        if nvrtc is not None:
            return nvrtc
    return Nvcc.find()


def compiler() -> Compiler:
    """The compiler to use. DeployError ``target`` says how to get one."""
    found = find()
    if found is None:
        raise DeployError(
            f"cuda needs NVIDIA's compiler: {INSTALL}",
            kind="target",
            got="neither NVRTC nor nvcc",
            allowed="NVRTC 12 or 13, nvcc",
        )
    return found


def compile_kernels(
    kernels: Iterable[Kernel], archs: Sequence[str], progress: Progress | None = None
) -> dict[str, dict[str, bytes]]:
    """The cubin of every kernel, by architecture and symbol; those compiled before come from the cache."""
    tool, todo = compiler(), list(kernels)
    if lacking := [arch for arch in archs if arch not in tool.archs]:
        raise DeployError(
            f"{tool.name} does not compile for {lacking[0]}", kind="target", got=lacking[0], allowed=list(tool.archs)
        )
    emitting = (
        threading.Lock()
    )  # TVM's code generator is not made for threads; NVIDIA's compiler is, and takes all the time

    def one(job: tuple[Kernel, str]) -> bytes:
        kernel, arch = job
        with emitting:
            text = kernel_source(kernel)
        return cache.fetch(cubin_key(tool.name, arch, text), ".cubin", lambda: tool.cubin(text, arch))

    jobs = [(kernel, arch) for kernel in todo for arch in archs]
    cubins: dict[str, dict[str, bytes]] = {arch: {} for arch in archs}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for index, ((kernel, arch), code) in enumerate(zip(jobs, pool.map(one, jobs), strict=True)):
            cubins[arch][kernel.symbol] = code
            if progress:
                progress(index + 1, len(jobs), kernel.symbol)
    return cubins


def cubin_key(compiler: str, arch: str, source: str) -> str:
    """What machine code is kept by: the compiler's name and version, its options, and the source text."""
    return cache.key("cubin", compiler, arch, *OPTIONS, source)


@lru_cache(maxsize=256)
def kernel_source(kernel: Kernel) -> str:
    """The CUDA C of all of a kernel's launches; written once for each state of the files that decide it."""
    from inception_deploy.kernels import sources_digest

    from . import cuda_source

    def write() -> bytes:
        from inception_deploy.kernels.table import BY_NAME

        functions = BY_NAME[kernel.family].emit(kernel.spec, kernel.schedule, kernel.symbol)
        return cuda_source.source(functions).encode()

    writer = Path(cuda_source.__file__).read_bytes()
    known = cache.key(
        "cuda", sources_digest(), writer, kernel.family, kernel.symbol, repr(kernel.spec), repr(kernel.schedule)
    )
    return cache.fetch(known, ".cu", write).decode()
