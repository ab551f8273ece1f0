"""A GPU made of this CPU: the generated CUDA C compiled for the host, and a driver library that launches it."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from inception_deploy import cache
from inception_deploy.kernels.family import COUNTERS, SCRATCH, Family
from inception_deploy.kernels.isa import gpu as gpu_isa
from inception_deploy.kernels.spec import Spec
from inception_deploy.kernels.table import BY_NAME, find
from inception_deploy.lower.plan import Plan
from inception_deploy.runtime import compiled
from inception_deploy.targets import cuda_library, link
from inception_deploy.targets.cuda_compile import kernel_source
from inception_deploy.targets.cuda_source import source

HERE = Path(__file__).parent
TRIPLES = {"x86_64": ("x86_64-linux-gnu", ("-mfma",)), "aarch64": ("aarch64-linux-gnu", ())}
_SIGNATURE = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(([^)]*)\);')
_SHARED = ("__start_sim_shared", "__stop_sim_shared")
"""Where the kernels of a library have their shared memory, as the linker calls it."""

_MEETING = ("__syncthreads", "id_last", "id_mma", "id_ldmatrix")
"""What the threads of a block meet in."""

_CXX = (
    "-x",
    "c++",
    "-std=c++17",
    "-w",
    "-fno-exceptions",
    "-fno-rtti",
    "-fvisibility=default",
    "-fno-math-errno",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
)


def _shared(objects: Sequence[bytes], soname: str, path: Path) -> Path:
    """Link objects into a shared library that finds the C library's functions in the process that loads it."""
    names = []
    for number, data in enumerate(objects):
        names.append(path.with_suffix(f".{number}.o"))
        names[-1].write_bytes(data)
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "ld.lld",
        "-shared",
        "-soname",
        soname,
        "-o",
        str(path),
        *map(str, names),
    ]
    subprocess.run(
        command,
        check=True,
        cwd=path.parent,
        env={"PATH": "/usr/bin:/bin", "ZIG_GLOBAL_CACHE_DIR": str(cache.directory() / "zig")},
    )
    return path


GPU = gpu_isa("sm_80")


def family_of(spec: Spec, schedule: object = None) -> Family:
    """What computes a spec: as a schedule says, or as the table does."""
    named = {"GemmSchedule": "gpu.conv", "DenseSchedule": "gpu.dense", "MmaSchedule": "gpu.mma"}.get(
        type(schedule).__name__
    )
    return BY_NAME[named] if named else find(spec, GPU).family


class Gpu:
    """The simulated driver, with the kernels of one test in it.

    Attributes:
        library: the driver library, loaded; its `fake_*` functions change what it does.
        backwards: the order of threads, blocks and launches.
    """

    backwards = False

    def __init__(self, folder: Path, machine: str) -> None:
        self.folder = folder
        self.triple, self.flags = TRIPLES[machine]
        path = self.driver(folder)
        # global: the kernels' library looks its barrier up here, and the runtime's dlopen finds it by its soname
        self.library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        self._kernels: list[ctypes.CDLL] = []

    def driver(self, folder: Path, *flags: str) -> Path:
        """The driver library, in a folder."""
        text = "".join((HERE / name).read_text() for name in ("grid.c", "driver.c"))
        data = link.compile_c(text, "driver.c", self.triple, flags=("-Wno-error", "-w", *flags))
        return _shared([data], "libcuda.so.1", folder / "libcuda.so.1")

    def compile(self, sources: Sequence[str]) -> ctypes.CDLL:
        """CUDA C, one text at a time, as a library for this CPU."""
        objects, table, declared = [], [], []
        for text in sources:
            meets = int(any(word in text.partition('extern "C" __global__')[2] for word in _MEETING))
            objects.append(link.compile_c(self._host(text), "kernel.cpp", self.triple, flags=(*_CXX, *self.flags)))
            for name, parameters in _SIGNATURE.findall(text):
                types = [p.rsplit(" ", 2)[0].replace(" __restrict__", "") for p in parameters.split(", ")]
                stars = "*" * len(types)
                declared.append(f'extern "C" void call_{name}(void **);')
                table.append(f'{{"{name}\\0{stars}", call_{name}, {meets}, {", ".join(_SHARED)}}},')
        rows = "\n".join(table)
        declared += [f'extern "C" __attribute__((weak, visibility("hidden"))) char {name}[];' for name in _SHARED]
        lines = ['#include "device.h"', *declared, f'extern "C" const sim_kernel table[] = {{{rows} {{0}}}};']
        text = "\n".join(lines).replace('#include "device.h"', (HERE / "device.h").read_text())
        objects.append(link.compile_c(text, "table.cpp", self.triple, flags=(*_CXX, *self.flags)))
        path = _shared(objects, "kernels.so", self.folder / f"kernels{len(self._kernels)}.so")
        self._kernels.append(ctypes.CDLL(str(path)))
        return self._kernels[-1]

    def install(self, kernels: ctypes.CDLL) -> None:
        """Let the driver find these kernels, and no others."""
        self.library.fake_kernels(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(kernels, "table"))))

    def add(self, kernels: ctypes.CDLL) -> None:
        """Let the driver find these kernels, too."""
        self.library.fake_more_kernels(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(kernels, "table"))))

    def _host(self, text: str) -> str:
        """The text with what it needs before it, and a function behind each kernel that takes its arguments as the driver gives them."""
        calls = []
        for name, parameters in _SIGNATURE.findall(text):
            kinds = [re.sub(r"\*.*", "*", p) for p in parameters.split(", ")]
            unpacked = ", ".join(f"*({kind}*)p[{i}]" for i, kind in enumerate(kinds))
            calls.append(f'extern "C" void call_{name}(void **p) {{ {name}({unpacked}); }}')
        return "\n".join([(HERE / "device.h").read_text(), text, *calls])

    def call(self, spec: Spec, arrays: Sequence[np.ndarray], schedule: object = None) -> None:
        """Run one kernel on arrays of the host, in place."""
        family = family_of(spec, schedule)
        schedule = schedule or family.choose(spec, GPU)
        program = family.program(spec, schedule)
        self.install(self.compile([source(family.emit(spec, schedule, "k"))]))
        scratch = np.full(program.scratch // 4 + 4, np.nan, np.float32)
        counters = np.zeros(program.counters + 1, np.int32)
        pointers = [array.ctypes.data for array in arrays] + [counters.ctypes.data, scratch.ctypes.data]
        assert (COUNTERS, SCRATCH) == (-2, -1)
        for name, launch in zip(program.symbols("k"), program.launches, strict=True):
            self._launch(name, (*launch.grid, *launch.block), [pointers[a] for a in launch.args])
        assert not counters.any(), "a counter is not back at 0"

    def launch(self, name: str, threads: int, arrays: Sequence[np.ndarray]) -> None:
        """Run an installed kernel in one block, on arrays of the host."""
        self._launch(name, (1, 1, 1, threads, 1, 1), [array.ctypes.data for array in arrays])

    def _launch(self, name: str, extents: Sequence[int], pointers: Sequence[int]) -> None:
        context, function = ctypes.c_void_p(1), ctypes.c_void_p()
        self.library.cuCtxPushCurrent_v2(context)
        assert self.library.cuModuleGetFunction(ctypes.byref(function), None, name.encode()) == 0
        values = [ctypes.c_void_p(pointer) for pointer in pointers]
        given = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        assert self.library.cuLaunchKernel(function, *extents, 0, None, given, None) == 0
        assert self.library.cuStreamSynchronize(None) == 0
        self.library.cuCtxPopCurrent_v2(ctypes.byref(context))


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Gpu:
    import platform

    if platform.machine() not in TRIPLES:
        pytest.skip(f"the simulation is not made for {platform.machine()}")
    return Gpu(tmp_path_factory.mktemp("gpu"), platform.machine())


@pytest.fixture(params=[False, True], ids=["forwards", "backwards"])
def gpu(simulated: Gpu, request: pytest.FixtureRequest) -> Iterator[Gpu]:
    """The simulated GPU, its threads in either order: a result that depends on the order is a missing barrier."""
    simulated.library.fake_backwards(int(request.param))
    simulated.backwards = request.param
    yield simulated
    simulated.library.fake_backwards(0)


def bundle(simulated: Gpu, plan: Plan, archs: Sequence[str], folder: Path) -> Path:
    """A plan's library in a folder, ready to be opened on the simulated GPU."""
    cubins = {arch: dict.fromkeys(plan.kernels, fake_cubin(arch)) for arch in archs}
    cuda_library.write_library(plan, cubins, folder, triple=simulated.triple)
    simulated.install(simulated.compile([kernel_source(kernel) for kernel in plan.kernels.values()]))
    simulated.library.fake_device(1, 90)
    return folder


def both_orders(simulated: Gpu, folder: Path, *inputs: np.ndarray) -> np.ndarray:
    """The first output of an inference, which has the same bits whatever runs first; nothing is left on the device."""
    results = []
    with compiled.load(folder) as model:
        for backwards in (0, 1):
            simulated.library.fake_backwards(backwards)
            results.append(model.run(*inputs)[0])
    simulated.library.fake_backwards(0)
    np.testing.assert_array_equal(results[0], results[1])
    assert simulated.library.fake_live() == 0
    return results[0]


def fake_cubin(arch: str) -> bytes:
    """What the simulated driver takes for machine code of an architecture: the head of an ELF file, with the number in its flags."""
    head = bytearray(64)
    head[:4], head[18], head[48] = b"\x7fELF", 190, int(arch.removeprefix("sm_"))
    return bytes(head)
