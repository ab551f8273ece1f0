"""Building streams for the tests of VTA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.isa import AluOp, Instruction, Memory, Opcode
from inception_deploy.targets.vta.memory import Dram

SMALL = Config(log_block=3, log_uop_buffer=6, log_inp_buffer=7, log_wgt_buffer=9, log_acc_buffer=9)
"""16 of every element (8 weights), so that random indices meet each other."""


class Stream:
    """A list of instructions to be."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.pieces: list[bytes] = []

    def add(self, opcode: Opcode, **values: int) -> Stream:
        self.pieces.append(isa.encode(Instruction(opcode, values), self.config))
        return self

    def load(self, memory: Memory, dram: int, count: int, sram: int = 0, **more: int) -> Stream:
        return self._move(Opcode.LOAD, memory, dram, count, sram, more)

    def store(self, dram: int, count: int, sram: int = 0, **more: int) -> Stream:
        return self._move(Opcode.STORE, Memory.OUT, dram, count, sram, more)

    def _move(self, opcode: Opcode, memory: Memory, dram: int, count: int, sram: int, more: dict[str, int]) -> Stream:
        where = {"memory_type": int(memory), "sram_base": sram, "dram_base": dram}
        return self.add(opcode, **{**where, "y_size": 1, "x_size": count, "x_stride": count, **more})

    def gemm(self, **values: int) -> Stream:
        return self.add(Opcode.GEMM, **{"iter_out": 1, "iter_in": 1, "uop_end": 1, **values})

    def alu(self, op: AluOp, **values: int) -> Stream:
        return self.add(Opcode.ALU, **{"alu_opcode": int(op), "iter_out": 1, "iter_in": 1, "uop_end": 1, **values})

    def finish(self, **values: int) -> Stream:
        return self.add(Opcode.FINISH, **values)

    @property
    def bytes(self) -> bytes:
        return b"".join(self.pieces)


UOPS, INP, WGT, ACC, OUT = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000


class Matmul:
    """`rows` inputs times two weight tiles, ReLU, shifted right by 3: a stream with its DRAM and the right answer."""

    def __init__(self, config: Config, rows: int = 8) -> None:
        rng = np.random.default_rng(1)
        shape = (rows, config.batch, config.block)
        self.config, self.rows = config, rows
        self.inp = rng.integers(-128, 128, shape, np.int8)
        self.wgt = rng.integers(-128, 128, (2, config.block, config.block), np.int8)
        uops = b"".join(isa.encode_uop(config, wgt=tile) for tile in range(2))
        self.contents = [(UOPS, uops), (INP, self.inp.tobytes()), (WGT, self.wgt.tobytes())]
        self.spaces = [(OUT, rows * config.inp_bytes)]
        sums = np.einsum("rbi,toi->rbo", self.inp.astype(np.int32), self.wgt.astype(np.int32))
        self.expected = (np.maximum(sums, 0) >> 3).astype(np.int8)

    def stream(self, **changes: dict[str, int]) -> Stream:
        """The stream; `changes` name an instruction and what is different in it."""
        c, rows = self.config, self.rows

        def more(name: str, **values: int) -> dict[str, int]:
            return {**values, **changes.get(name, {})}

        loops = {"iter_out": 1, "iter_in": rows, "dst_in": 1, "src_in": 1}
        elementwise = {"iter_in": rows, "dst_in": 1, "src_in": 1, "use_imm": 1}
        found = Stream(c)
        found.load(Memory.UOP, UOPS // 4, 2, **more("uops"))
        found.load(Memory.INP, INP // c.inp_bytes, rows, **more("inp"))
        found.load(Memory.WGT, WGT // c.wgt_bytes, 2, **more("wgt", push_next=1))
        found.gemm(**more("reset", reset=1, pop_prev=1, **loops))
        found.gemm(**more("first", **loops))
        found.gemm(**more("second", uop_bgn=1, **{**loops, "uop_end": 2}))
        found.alu(AluOp.MAX, **more("max", imm=0, **elementwise))
        found.alu(AluOp.SHR, **more("shr", imm=3, push_next=1, **elementwise))
        found.store(OUT // c.inp_bytes, rows, **more("store", pop_prev=1, push_prev=1))
        found.finish(**more("finish", pop_next=1))
        return found

    def dram(self) -> Dram:
        return Dram.of(self.contents, self.spaces, self.config.inp_bytes)

    def answer(self, dram: Dram) -> np.ndarray:
        return np.frombuffer(dram.read(OUT, self.expected.nbytes), np.int8).reshape(self.expected.shape)


@pytest.fixture
def matmul() -> Matmul:
    """On upstream's default configuration."""
    return Matmul(Config())


def random_stream(seed: int, config: Config = SMALL) -> tuple[bytes, list[tuple[int, bytes]], list[tuple[int, int]]]:
    """A stream that does most things, some of them wrong; DRAM's contents and spaces for it."""
    rng = np.random.default_rng(seed)

    def some(high: int) -> int:
        return int(rng.integers(0, high + 1))

    tame = rng.random() < 0.5
    indices = [(k, k, some(6)) if tame else (some(11), some(11), some(6)) for k in range(16)]
    uops = b"".join(isa.encode_uop(config, *each) for each in indices)
    contents = [(UOPS, uops), (INP, rng.bytes(16 * config.inp_bytes)), (WGT, rng.bytes(8 * config.wgt_bytes))]
    contents.append((ACC, rng.bytes(16 * config.acc_bytes)))
    found = Stream(config)
    found.load(Memory.UOP, UOPS // 4, 16)
    if rng.random() < 0.9:
        found.load(Memory.ACC, ACC // config.acc_bytes, 16)
    found.load(Memory.INP, INP // config.inp_bytes, 16)
    found.load(Memory.WGT, WGT // config.wgt_bytes, 8, push_next=1)
    found.gemm(pop_prev=1, iter_out=int(tame or rng.random() < 0.9), iter_in=8, dst_in=1, src_in=1, reset=some(1))
    for _ in range(some(6)):
        what = some(9)
        loops: dict[str, Any] = {
            "iter_out": 1 + some(1),
            "iter_in": 1 + some(2),
            "uop_bgn": some(3),
            "uop_end": 4 + some(1),
        }
        factors = {name: some(1) for name in ("dst_out", "dst_in", "src_out", "src_in")}
        if tame:
            factors = {"dst_out": 2, "dst_in": 0, "src_out": 2, "src_in": 0}
            loops |= {"iter_in": 1, "uop_bgn": 0}
        if what < 4:
            found.gemm(**loops, **factors, wgt_in=some(1), reset=int(rng.random() < 0.2))
        elif what < 8:
            op = AluOp(some(4) if rng.random() < 0.2 else some(3))
            imm = int(rng.integers(-20, 33)) if op is AluOp.SHR else int(rng.integers(-(1 << 15), 1 << 15))
            found.alu(op, **loops, **factors, use_imm=int(tame) or some(1), imm=imm)
        else:
            memory = Memory.ACC if rng.random() < 0.7 else Memory.ACC_8BIT
            pads = {"y_pad_0": some(1), "x_pad_0": some(1), "x_pad_1": some(1)}
            base = (ACC if memory is Memory.ACC else INP) // (
                config.acc_bytes if memory is Memory.ACC else config.inp_bytes
            )
            found.load(
                memory, base + some(2), 1 + some(1), some(4), y_size=int(tame) or some(2), x_stride=some(3), **pads
            )
    found.alu(AluOp.MIN, iter_in=16, dst_in=1, src_in=1, use_imm=1, imm=127, push_next=int(rng.random() < 0.95))
    found.store(OUT // config.inp_bytes, 4, some(3), y_size=1 + some(2), x_stride=4, pop_prev=1, push_prev=1)
    if rng.random() < 0.2:  # a race: nothing orders it after the store
        found.alu(AluOp.ADD, iter_in=4, dst_in=1, src_in=1, use_imm=1, imm=1)
    found.finish(pop_next=1)
    return found.bytes, contents, [(OUT, 12 * config.inp_bytes)]
