"""Our driver for boards, against registers and memories that are files: no board was asked.

The library is the product's, compiled with a point before every path, so that ``/dev/mem`` lies in the working directory. A
thread is the hardware: it waits for the start in the registers' file and executes what they name.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from inception_deploy.errors import DeployError
from inception_deploy.kernels.vta.boards import BOARDS, Board
from inception_deploy.kernels.vta.config import Config
from inception_deploy.runtime import compiled
from inception_deploy.targets import link
from inception_deploy.targets.vta import driver
from inception_deploy.targets.vta.memory import Dram
from inception_deploy.targets.vta.simulator import simulate

from . import products

PHYSICAL, SIZE = 0x16000000, 1 << 20
HERE = '#define ID_ROOT "."\n#define ID_SETTLE 100000000\n'
KINDS = ["pynq", "de10nano"]
"""A board of four blocks of registers, and one of one block."""


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(5).integers(-128, 128, (1, products.COUNT)).astype(np.float32)


@pytest.fixture
def at(tmp_path, monkeypatch) -> Path:
    """The working directory, which is the root of the board's files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dev").mkdir()
    return tmp_path


def sparse(path: Path, size: int) -> Path:
    """A file of zeros that takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


def udmabuf(root: Path, number: int = 0, physical: int = PHYSICAL, size: int = SIZE) -> Path:
    """A buffer of u-dma-buf: its device, and its files in sysfs."""
    folder = root / f"sys/class/u-dma-buf/udmabuf{number}"
    folder.mkdir(parents=True)
    (folder / "phys_addr").write_text(f"{physical:#010x}\n")
    (folder / "size").write_text(f"{size}\n")
    for name in ("sync_for_cpu", "sync_for_device"):
        (folder / name).write_text("")
    return sparse(root / f"dev/udmabuf{number}", size)


class Hardware:
    """What stands behind the registers of a board."""

    def __init__(self, board: Board, root: Path, memory: Path, physical: int = PHYSICAL) -> None:
        self.board, self.memory, self.physical = board, memory, physical
        base, self.pages = board.wiring.registers, 4 if board.wiring.blocks == 4 else 1
        file = os.open(sparse(root / "dev/mem", base + self.pages * 4096), os.O_RDWR)
        self.registers = mmap.mmap(file, self.pages * 4096, offset=base)
        os.close(file)
        self.seen: list[dict[int, int]] = []
        self.broken = False

    def read(self, block: int, offset: int) -> int:
        return int(struct.unpack_from("<I", self.registers, 4096 * block + offset)[0])

    def write(self, block: int, offset: int, value: int) -> None:
        struct.pack_into("<I", self.registers, 4096 * block + offset, value)

    @contextmanager
    def on(self) -> Iterator[Hardware]:
        stop = threading.Event()
        thread = threading.Thread(target=self._work, args=(stop,))
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()

    def _work(self, stop: threading.Event) -> None:
        four = self.board.wiring.blocks == 4
        while not stop.wait(1e-4):
            started = all(self.read(block, 0) == 0x81 for block in (1, 2, 3)) if four else True
            if not started or self.read(0, 0) != 1:
                continue
            for block in range(self.pages):
                self.write(block, 0, 0)
            if four:
                self.write(2, 0x18, 0)
            named = {offset: self.read(0, offset) for offset in ((0x10, 0x18) if four else (0x08, 0x0C))}
            self.seen.append(named)
            if self.broken:
                continue
            self.execute(*named.values())
            self.write(2, 0x18, 1) if four else self.write(0, 0, 2)

    def execute(self, count: int, address: int) -> None:
        start = self.physical + self.board.wiring.bus_offset
        content = self.memory.read_bytes()
        dram = Dram.of([(start, content)], [(start, len(content))], 16)
        stream = content[address - start : address - start + 16 * count]
        simulate(stream, Config(), self.board.profile, dram)
        with self.memory.open("r+b") as file:
            file.write(dram.read(start, len(content)))


@pytest.fixture
def zynq(tiny, at) -> Callable[..., Path]:
    """`zynq(board)`: the board's driver, for this machine's files."""

    def make(board: Board, before: str = HERE, *more: bytes) -> Path:
        driver.link([*driver.objects(board, tiny.triple, before), *more], at / "libvta.so", tiny.triple)
        return at / "libvta.so"

    return make


@pytest.mark.parametrize("name", KINDS)
def test_a_network_runs_through_registers_and_udmabuf(tiny, at, zynq, pixels, name):
    board = BOARDS[name]
    folder = products.write(products.plan(2), at / "model", tiny.triple, simulated=None, board=board)
    library = zynq(board)
    memory = udmabuf(at)
    (at / "sys/class/fpga_manager/fpga0").mkdir(parents=True)
    (at / "sys/class/fpga_manager/fpga0/state").write_text("operating\n")
    with Hardware(board, at, memory).on() as hardware:
        for _ in range(2):  # what was allocated is given back
            with compiled.load(folder, threads=1, driver=library) as model:
                for number in range(2):
                    x = np.roll(pixels, number)
                    np.testing.assert_array_equal(model.run(x)[0], products.expected(x, 2))
    assert len(hardware.seen) == 8
    assert {next(iter(named.values())) for named in hardware.seen} == {10}
    synced = (at / "sys/class/u-dma-buf/udmabuf0/sync_for_cpu").read_text()
    if board.wiring.flushed:
        # offset in the upper half; size, direction (2: from the device) and 1 in the lower
        low = int(synced, 16) & 0xFFFFFFFF
        assert low & 0xF == 2 << 2 | 1
        assert low & ~0xF == 128
        assert (int(synced, 16) >> 32) % 4096 == products.OUT_AT
        assert int((at / "sys/class/u-dma-buf/udmabuf0/sync_for_device").read_text(), 16) & 0xF == 1 << 2 | 1
    else:
        assert synced == ""


@pytest.mark.parametrize("name", KINDS)
def test_a_board_that_does_not_answer(tiny, at, zynq, pixels, name, capfd):
    """The library is told to wait for 20 s; here it is called with less."""
    library = ctypes.CDLL(str(zynq(BOARDS[name])))
    library.VTADeviceAlloc.restype = ctypes.c_void_p
    udmabuf(at)
    hardware = Hardware(BOARDS[name], at, at / "dev/udmabuf0")
    device = ctypes.c_void_p(library.VTADeviceAlloc())
    assert device.value
    assert library.VTADeviceRun(device, ctypes.c_size_t(PHYSICAL), 7, 3000) == 1
    assert "the VTA is not done after 3000 us" in capfd.readouterr().err
    offsets = (0x10, 0x18) if BOARDS[name].wiring.blocks == 4 else (0x08, 0x0C)
    assert [hardware.read(0, offset) for offset in offsets] == [7, PHYSICAL]
    library.VTADeviceFree(device)


def test_an_fpga_that_is_not_programmed_is_not_touched(tiny, at, zynq, capfd):
    folder = products.for_pynq(products.plan(1), at / "model", tiny.triple)
    library = zynq(BOARDS["pynq"])
    udmabuf(at)
    (at / "sys/class/fpga_manager/fpga0").mkdir(parents=True)
    (at / "sys/class/fpga_manager/fpga0/state").write_text("unknown\n")
    with pytest.raises(DeployError, match="the VTA's driver finds no VTA"):
        compiled.load(folder, threads=1, driver=library)
    assert "the FPGA is not programmed" in capfd.readouterr().err


def test_no_registers(tiny, at, zynq, capfd):
    library = ctypes.CDLL(str(zynq(BOARDS["zcu104"])))
    library.VTADeviceAlloc.restype = ctypes.c_void_p
    assert library.VTADeviceAlloc() is None
    assert "/dev/mem cannot be opened" in capfd.readouterr().err


class Memory:
    """The memory functions of a driver library."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.VTAMemAlloc.restype = ctypes.c_void_p
        self.library.VTAMemGetPhyAddr.restype = ctypes.c_size_t

    def allocate(self, size: int, cached: int = 1) -> int | None:
        return self.library.VTAMemAlloc(ctypes.c_size_t(size), cached)

    def physical(self, memory: int) -> int:
        return int(self.library.VTAMemGetPhyAddr(ctypes.c_void_p(memory)))

    def free(self, memory: int) -> None:
        self.library.VTAMemFree(ctypes.c_void_p(memory))


def test_no_memory_says_what_was_tried(tiny, at, zynq, capfd):
    memory = Memory(zynq(BOARDS["pynq"]))
    assert memory.allocate(4096) is None
    told = capfd.readouterr().err
    assert told.startswith("libvta: no 4096 bytes of contiguous memory; tried: u-dma-buf (/dev/udmabuf0)")
    assert told.endswith("xlnk (/usr/lib/libcma.so)\n")


def test_blocks_of_udmabuf(tiny, at, zynq):
    memory = Memory(zynq(BOARDS["pynq"]))
    udmabuf(at, 0, 0x10000000, 64 << 10)
    udmabuf(at, 1, 0x20000000, 128 << 10)
    sizes = [20 << 10, 30 << 10, 100 << 10, 8 << 10]
    blocks = [memory.allocate(size, number % 2) for number, size in enumerate(sizes)]
    assert all(blocks)
    assert [memory.physical(b) for b in blocks if b] == [0x10000000, 0x10005000, 0x20000000, 0x1000D000]
    for number, block in enumerate(blocks):
        assert block
        assert block % 64 == 0
        ctypes.memset(block, number + 1, sizes[number])
    first = (at / "dev/udmabuf0").read_bytes()
    assert (first[0], first[0x5000], first[0xD000]) == (1, 2, 4)
    assert memory.physical(blocks[1] + 100) == 0x10005000 + 100
    memory.free(blocks[1])
    again = memory.allocate(28 << 10)
    assert again
    assert memory.physical(again) == 0x10005000
    assert memory.allocate(64 << 10) is None


def test_memory_that_the_vta_does_not_reach(tiny, at, zynq, capfd):
    memory = Memory(zynq(BOARDS["de10nano"]))
    udmabuf(at, 0, 0x90000000)
    assert memory.allocate(4096) is None
    assert "memory at 0x90000000, which the VTA does not reach" in capfd.readouterr().err


def test_xlnk(tiny, at, zynq):
    """libcma.so of old PYNQ images, by a stand-in."""
    folder = at / "xlnk/usr/lib"  # a path of its own: a library of one name is loaded once
    folder.mkdir(parents=True)
    source = """
#include <stdint.h>
#define API __attribute__((visibility("default")))
static unsigned char pool[65536] __attribute__((aligned(4096)));
static uint32_t used;
API unsigned calls[4];
API void *cma_alloc(uint32_t bytes, uint32_t cached) { calls[0] += cached; used += bytes; return used <= 65536 ? pool + used - bytes : 0; }
API unsigned long cma_get_phy_addr(void *memory) { return 0x18000000u + (unsigned long)((unsigned char *)memory - pool); }
API void cma_free(void *memory) { (void)memory; ++calls[1]; }
API void cma_flush_cache(void *memory, unsigned physical, int bytes) { calls[2] += cma_get_phy_addr(memory) == physical && bytes == 100; }
API void cma_invalidate_cache(void *memory, unsigned physical, int bytes) { calls[3] += cma_get_phy_addr(memory) == physical && bytes == 50; }
"""
    names = ["cma_alloc", "cma_get_phy_addr", "cma_free", "cma_flush_cache", "cma_invalidate_cache", "calls"]
    link.link_shared([link.compile_c(source, "cma.c", tiny.triple)], names, folder / "libcma.so", tiny.triple)
    memory = Memory(zynq(BOARDS["pynq"], HERE.replace('"."', '"./xlnk"')))
    blocks = [memory.allocate(5000, cached) for cached in (1, 0)]
    assert [memory.physical(block) for block in blocks if block] == [0x18000000, 0x18002000]
    for block in blocks:
        assert block
        memory.library.VTAFlushCache(ctypes.c_void_p(block + 8), ctypes.c_size_t(0), 100)
        memory.library.VTAInvalidateCache(ctypes.c_void_p(block + 8), ctypes.c_size_t(0), 50)
        memory.free(block)
    calls = (ctypes.c_uint * 4).in_dll(ctypes.CDLL("./xlnk/usr/lib/libcma.so"), "calls")
    assert list(calls) == [1, 2, 1, 1]  # what is not cached is not flushed


HEAP = """
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
int mock_ioctl(int file, unsigned long request, ...);
int mock_ioctl(int file, unsigned long request, ...) {
  va_list more;
  va_start(more, request);
  struct { uint64_t bytes; uint32_t file, flags; uint64_t heap; } *wanted = va_arg(more, void *);
  va_end(more);
  (void)file, (void)request;
  wanted->file = (uint32_t)syscall(SYS_memfd_create, "heap", 0u);
  return syscall(SYS_ftruncate, wanted->file, wanted->bytes) == 0 ? 0 : -1;
}
"""


@pytest.mark.parametrize("broken", [False, True])
def test_a_cma_heap_gives_what_lies_in_one_piece(tiny, at, zynq, broken):
    """A heap by a stand-in for its ioctl; where its pages lie is written into a file where Linux would say it."""
    before = HERE + "#define ID_TEST_HEAP\n#define ioctl mock_ioctl\n"
    library = zynq(BOARDS["zcu104"], before, link.compile_c(HEAP, "heap.c", tiny.triple))
    sparse(at / "dev/dma_heap/linux,cma", 0)
    memory = Memory(library)
    # Where it will be mapped is not known: frames count up over the 4 GiB around where mmap maps now.
    with mmap.mmap(-1, 4096) as probe:
        first = (ctypes.addressof(ctypes.c_char.from_buffer(probe)) >> 12) - (1 << 19)
    frames = np.arange(1 << 20, dtype=np.uint64) + np.uint64(1 << 63 | 0x10000)
    frames[1::2] += np.uint64(7 * broken)
    with sparse(at / "proc/self/pagemap", 1 << 40).open("r+b") as file:
        file.seek(8 * first)
        file.write(frames.tobytes())
    block = memory.allocate(3 * 4096)
    if broken:
        assert block is None
    else:
        assert block
        assert memory.physical(block) == ((block >> 12) - first + 0x10000) << 12
        assert memory.allocate(4096, 0) is None  # a heap maps with a cache
        memory.free(block)
