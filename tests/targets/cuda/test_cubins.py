"""Machine code for GPUs, where there is a compiler for it: every template compiles for every architecture, and keeps to registers."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from dataclasses import replace

import pytest

from inception_deploy.errors import DeployError
from inception_deploy.kernels.elements import BLOCK, BRAIN, BYTE, HALF, PAIRS, TF32, Addition, Rounding
from inception_deploy.kernels.gpu import conv, mma
from inception_deploy.kernels.gpu.conv import GemmSchedule
from inception_deploy.kernels.gpu.dense import DenseSchedule
from inception_deploy.kernels.isa import gpu
from inception_deploy.kernels.spec import (
    Conv,
    GlobalAverage,
    Map,
    Normalise,
    Pack,
    Pick,
    Pixels,
    Softmax,
    Unpack,
    Window,
    WindowOp,
)
from inception_deploy.lower.plan import Kernel
from inception_deploy.targets import cuda_compile

from .conftest import GPU, family_of

FRAME_SIZE, REGISTERS = 0x11, 0x2F  # attributes in a cubin's .nv.info

WAIT, TRIGGER, LOAD, COPY, STORE, ATOMIC = 0x82E, 0x82D, 0x981, 0xFAE, 0x986, 0x9A8
"""The lowest 12 bits of an instruction of 16 bytes, as nvdisasm names them: ACQBULK, PREEXIT, LDG, LDGSTS, STG, ATOMG."""


APART = """
import sys
from inception_deploy.errors import DeployError
from inception_deploy.targets import cuda_compile
try:
    sys.stdout.buffer.write(cuda_compile.compiler().cubin(sys.stdin.read(), sys.argv[1]))
except DeployError as error:
    sys.exit(f"{error.kind}: {error.message}")
"""


class Apart:
    """The compiler in a process of its own: NVRTC 12.9 crashes in one whose libcuda.so.1 is the simulated one."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], bytes] = {}

    def cubin(self, text: str, arch: str) -> bytes:
        if (text, arch) not in self._made:
            self._made[text, arch] = self._cubin(text, arch)
        return self._made[text, arch]

    def _cubin(self, text: str, arch: str) -> bytes:
        command = [sys.executable, "-c", APART, arch]
        done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
        if done.returncode:
            kind, _, message = done.stderr.decode().strip().partition(": ")
            raise DeployError(message, kind=kind)
        return done.stdout


@pytest.fixture(scope="module")
def compiler():
    if cuda_compile.find() is None:
        pytest.skip(f"no NVRTC and no nvcc: {cuda_compile.INSTALL}")
    return Apart()


def sections(cubin: bytes) -> dict[str, bytes]:
    """By their names."""
    assert cubin[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", cubin, 18) == (190,)
    (table,), (size, count, names) = struct.unpack_from("<Q", cubin, 40), struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    found = {}
    for name, _, _, _, offset, length in headers:
        start = headers[names][4] + name
        found[cubin[start : cubin.index(b"\0", start)].decode()] = cubin[offset : offset + length]
    return found


def attributes(cubin: bytes, wanted: int) -> list[int]:
    """The values of one attribute of all functions of a cubin."""
    information = sections(cubin)[".nv.info"]
    found, at = [], 0
    while at < len(information):
        kind, attribute, value = struct.unpack_from("<BBH", information, at)
        if kind == 4 and attribute == wanted:
            found.append(struct.unpack_from("<II", information, at + 4)[1])
        at += 4 + (value if kind == 4 else 0)
    return found


def instructions(cubin: bytes, symbol: str) -> list[int]:
    """The lowest bits of a function's instructions, in order."""
    return [word & 0xFFF for word, _ in struct.iter_unpack("<QQ", sections(cubin)[f".text.{symbol}"])]


SPLIT = Conv(1, 64, 8, 8, 64, 8, 8, (3, 3), pad=(1, 1), add=True, activation=(0.0, 6.0))
HALVES = Conv(
    1, 64, 35, 35, 96, 35, 35, (3, 3), pad=(1, 1), add=True, in_element=HALF, add_element=HALF, out_element=HALF
)
BYTES = Conv(
    1, 64, 35, 35, 96, 35, 35, (3, 3), pad=(1, 1), add=True, in_element=BYTE, add_element=BYTE, out_element=BYTE,
    rounding=Rounding(3, 0, 255), addition=Addition((3, 5), (1, 0), 0.1, Rounding(3, 0, 255)), row_sets=3, column_sets=3,
)  # fmt: skip
WORDS = Conv(
    1, 4, 99, 99, 32, 49, 49, (3, 3), stride=(2, 2), planar=True, in_element=BYTE, out_element=BYTE,
    rounding=Rounding(3, 0, 255),
)  # fmt: skip
KERNELS = {
    **{f"bytes {t.bm}x{t.bn}": (BYTES, t) for t in mma.NARROW_TILES},
    "bytes split": (BYTES, replace(mma.NARROW_TILES[1], split=4)),
    "bytes stem": (WORDS, None),
    "bytes of 16-bit weights": (replace(BYTES, weight_element="int16"), None),
    "bytes max": (
        Window(WindowOp.MAX, 1, 4, 35, 35, 17, 17, (3, 3), (2, 2), (0, 0, 0, 0), in_element=BYTE, out_element=BYTE),
        None,
    ),
    "bytes depthwise": (
        Window(
            WindowOp.DEPTHWISE,
            1,
            4,
            28,
            28,
            28,
            28,
            (3, 3),
            (1, 1),
            (1, 1, 1, 1),
            in_element=BYTE,
            out_element=BYTE,
            rounding=Rounding(3, 0, 255),
            zero=4,
        ),
        None,
    ),
    "bytes add": (
        Map("add", 1, 4, 64, "tensor", in_element=BYTE, second_element=BYTE, out_element=BYTE, addition=BYTES.addition),
        None,
    ),
    "bytes table": (Map("table", 1, 4, 64, "table", in_element=BYTE, out_element=BYTE), None),
    "bytes pick": (Pick(1, 4, 8, 8, 4, 16, 16, shuffled=True, fill=3), None),
    "pixels": (Pixels(1, 3, 4, 99, 99, rounding=Rounding(3, 0, 255), out_element=BYTE), None),
    "mma bf16": (replace(HALVES, in_element=BRAIN, add_element=BRAIN, out_element=BRAIN), mma.TILES[0]),
    **{
        f"conv {t.bm}x{t.bn}": (replace(SPLIT, height=35, width=35, out_height=35, out_width=35), t) for t in conv.TILES
    },
    "split": (SPLIT, GemmSchedule(4, 4, 8, 8, split=4)),
    "planar": (Conv(1, 3, 99, 99, 32, 49, 49, (3, 3), stride=(2, 2), planar=True), None),
    **{f"mma {t.bm}x{t.bn}": (HALVES, t) for t in mma.TILES},
    **{f"pairs {t.bm}x{t.bn}": (SPLIT, replace(t, by=PAIRS)) for t in mma.NARROW_TILES},
    **{f"tf32 {t.bm}x{t.bn}": (SPLIT, replace(t, by=TF32)) for t in mma.TILES},
    "pairs split": (SPLIT, replace(mma.NARROW_TILES[1], by=PAIRS, split=4)),
    **{f"mma narrow {t.bm}x{t.bn}": (HALVES, t) for t in mma.NARROW_TILES[:2]},
    "mma split": (HALVES, replace(mma.TILES[-1], split=4)),
    "mma split across": (HALVES, replace(mma.TILES[2], split=4, across=True, stages=6)),
    "half stem": (Conv(1, 3, 99, 99, 32, 49, 49, (3, 3), stride=(2, 2), planar=True, out_element=HALF), None),
    "half max": (
        Window(WindowOp.MAX, 1, 4, 35, 35, 17, 17, (3, 3), (2, 2), (0, 0, 0, 0), in_element=HALF, out_element=HALF),
        None,
    ),
    "dense": (Conv(8, 512, 1, 1, 1008, 1, 1, (1, 1)), DenseSchedule()),
    "max": (Window(WindowOp.MAX, 1, 4, 35, 35, 17, 17, (3, 3), (2, 2), (0, 0, 0, 0)), None),
    "depthwise": (Window(WindowOp.DEPTHWISE, 1, 4, 28, 28, 28, 28, (3, 3), (1, 1), (1, 1, 1, 1)), None),
    "average": (GlobalAverage(1, 4, 64), None),
    "gelu": (Map("gelu", 1, 4, 64), None),
    "pack": (Pack(1, 60, 4, 64), None),
    "unpack": (Unpack(1, 60, 4, 64), None),
    "normalise": (Normalise(1, 3, 299 * 299), None),
    "softmax": (Softmax(1, 1000), None),
}


def kernel_of(spec, schedule) -> Kernel:
    family = family_of(spec, schedule)
    return Kernel("k", spec, schedule or family.choose(spec, GPU), 1, 1, family.name)


def everything(arch: str) -> tuple[str, list[str]]:
    """The source of all that an architecture runs in one text, which compiles much faster than each on its own, and the functions in it."""
    texts, symbols = [], []
    for number, (spec, schedule) in enumerate(KERNELS.values()):
        kernel = replace(kernel_of(spec, schedule), symbol=f"k{number}")
        newer = kernel.family == "gpu.mma" and (kernel.schedule.by or spec.in_element == BRAIN)
        if newer and not gpu(arch).has(BRAIN):
            continue
        program = family_of(spec, kernel.schedule).program(spec, kernel.schedule)
        texts.append(cuda_compile.kernel_source(kernel))
        symbols += program.symbols(kernel.symbol)
    return "\n".join(texts), symbols


MOST = {"sm_75": 172}
"""Registers of a thread; 168 leave room for three blocks of 128 threads in a multiprocessor's 65536."""

OFTEN, SELDOM = ("sm_80", "sm_90"), ("sm_75", "sm_86", "sm_89", "sm_100", "sm_120")


@pytest.mark.parametrize("arch", [*OFTEN, *(pytest.param(arch, marks=pytest.mark.slow) for arch in SELDOM)])
def test_compiles_and_spills_nothing(compiler, arch):
    known = cuda_compile.compiler()
    if arch not in known.archs:
        pytest.skip(f"{known.name} does not compile for {arch}")
    text, symbols = everything(arch)
    cubin = compiler.cubin(text, arch)
    for symbol in symbols:
        assert f".text.{symbol}\0".encode() in cubin
    frames, registers = attributes(cubin, FRAME_SIZE), attributes(cubin, REGISTERS)
    assert len(registers) == len(symbols)
    assert len(frames) >= len(symbols)
    assert not any(frames), "spilled, or an array that is not in registers"
    assert max(registers) <= MOST.get(arch, 168)


@pytest.mark.parametrize(
    ("element", "tile", "store"),
    [
        (HALF, mma.MmaSchedule(32, 32, 2, 2), "uint4"),
        (BRAIN, mma.MmaSchedule(32, 16, 2, 1), "ushort4"),
        ("float32", mma.MmaSchedule(32, 32, 2, 2, by=PAIRS), "float4"),
        (BYTE, mma.MmaSchedule(32, 32, 2, 2), "uint2"),
    ],
)
def test_neighbouring_channels_leave_together(element, tile, store):
    """Eight of a thread's where a warp has 32, four where it has 16; never more than 16 bytes."""
    rounding = Rounding(0, 0, 255) if element == BYTE else None
    spec = Conv(1, 64, 9, 9, 96, 9, 9, (1, 1), in_element=element, out_element=element, rounding=rounding)
    text = cuda_compile.kernel_source(kernel_of(spec, tile))
    stores = re.findall(r"(\S*)\bdst\b", text[text.index("{", text.index("__global__")) :])
    assert set(stores) == {f"*({store}*)("}


def weights_ahead(spec, schedule) -> tuple[int, int]:
    """How many loads, and how many copies to shared memory, of weights a thread starts before it waits for earlier launches."""
    if isinstance(schedule, GemmSchedule):
        return schedule.bn * BLOCK // (schedule.threads * 4), 0
    if isinstance(schedule, mma.MmaSchedule):
        return 0, min(schedule.stages - 1, mma.steps(spec)) * -(-schedule.bn * mma.CHUNKS // schedule.threads)
    return 0, 0


def test_the_machine_code_waits_before_it_touches_what_others_write(compiler):
    """Nothing but weights is read, and nothing written; what the compiler made of it, in the order that it chose."""
    text, symbols = everything("sm_90")
    cubin = compiler.cubin(text, "sm_90")
    for (name, (spec, schedule)), symbol in zip(KERNELS.items(), symbols, strict=True):
        code = instructions(cubin, symbol)
        assert (code.count(WAIT), code.count(TRIGGER)) == (1, 1), name
        before = code[: code.index(WAIT)]
        chosen = kernel_of(spec, schedule).schedule
        assert (before.count(LOAD), before.count(COPY)) == weights_ahead(spec, chosen), name
        assert not {STORE, ATOMIC, TRIGGER} & set(before), name
        assert STORE in code, name
    older = compiler.cubin(cuda_compile.kernel_source(kernel_of(*KERNELS["max"])), "sm_80")
    assert not {WAIT, TRIGGER} & set(instructions(older, "k"))


def test_the_compilers_message_is_the_errors(compiler):
    with pytest.raises(DeployError, match=r"compiling a kernel for sm_80 failed: .*error") as caught:
        compiler.cubin("nonsense", "sm_80")
    assert caught.value.kind == "compile"


def test_an_architecture_that_the_compiler_lacks(compiler):
    with pytest.raises(DeployError, match="does not compile for sm_999") as caught:
        cuda_compile.compile_kernels([], ["sm_999"])
    assert caught.value.kind == "target"
    assert "sm_90" in caught.value.allowed


def test_nvcc_is_good_enough(monkeypatch):
    """Without NVRTC, an nvcc on PATH is taken."""
    nvcc = cuda_compile.Nvcc.find()
    if nvcc is None:
        pytest.skip("no nvcc")
    monkeypatch.setattr(cuda_compile, "_candidates", lambda: iter(()))
    cuda_compile.find.cache_clear()
    try:
        assert cuda_compile.compiler() == nvcc
        assert nvcc.name.startswith("nvcc ")
        assert {"sm_80", "sm_90"} <= set(nvcc.archs)
        assert attributes(nvcc.cubin(cuda_compile.kernel_source(kernel_of(*KERNELS["max"])), "sm_80"), FRAME_SIZE) == [
            0
        ]
        with pytest.raises(DeployError, match=r"compiling a kernel for sm_80 failed: .*error"):
            nvcc.cubin("nonsense", "sm_80")
    finally:
        cuda_compile.find.cache_clear()


def test_without_any_compiler(monkeypatch):
    monkeypatch.setattr(cuda_compile, "_candidates", lambda: iter(["no-such-library.so"]))
    monkeypatch.setenv("PATH", "/nonexistent")
    cuda_compile.find.cache_clear()
    try:
        assert cuda_compile.find() is None
        with pytest.raises(DeployError, match=r"cuda needs NVIDIA's compiler: pip install 'inception-deploy\[cuda\]'"):
            cuda_compile.compiler()
    finally:
        cuda_compile.find.cache_clear()
