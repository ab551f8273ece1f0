"""Instructions that add up products of small numbers: a row each, and what it means in numpy.

`tests/kernels/test_dots.py` runs each row where the machine has it. A new instruction is a row here, and its name in
the rows of `isa` that have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arm import sums_of_pairs
from .elements import BF16, BRAIN


@dataclass(frozen=True)
class Dot:
    """In each of `lanes` 32-bit lanes: the accumulator, plus `depth` products, which fill the lane, or one, whose
    factors fill half of it.

    Attributes:
        name: as assemblers spell it.
        llvm: LLVM's name of it.
        features: what a CPU must have, as /proc/cpuinfo spells it.
        first, second: types of the operands' elements, `lanes * depth` of them each.
        adds: it takes the accumulator; without, an addition of its own follows.
        saturates: its sum stops at the ends of int32, instead of going round.
        rows: it multiplies two matrices of so many rows, `[rows, depth]` and the second transposed; lanes are the
            product's elements, row by row.
        run: numbers of a lane that lie side by side; all lanes' first runs come before their second ones.
        pairs: it adds two products in 16 bits: for weights whose sums fit there, whatever the inputs (`pairs_fit`).
        code: functions in LLVM's own language, where no one intrinsic is it: `llvm` names the one that multiplies,
            `llvm` and a 4 does it to four vectors of sums and of weights, and `lay0` to `lay3` put a word of four into
            all lanes, in runs.
    """

    name: str
    llvm: str
    features: tuple[str, ...]
    first: str
    second: str
    lanes: int
    depth: int
    adds: bool = True
    saturates: bool = False
    rows: int = 1
    run: int = 0
    pairs: bool = False
    code: str = ""

    def __post_init__(self) -> None:
        if self.depth % (self.run or self.depth):
            raise ValueError(f"{self.name}: {self.depth} numbers are no whole runs of {self.run}")
        fills = self.depth * self.bits == 32 * self.rows or (self.depth, self.bits) == (1, 16)
        if np.dtype(self.first).itemsize != np.dtype(self.second).itemsize or not fills:
            raise ValueError(f"{self.name}: {self.depth} of {self.first} and of {self.second} fill no lane of 32 bits")

    @property
    def bits(self) -> int:
        """Of an operand's element."""
        return 8 * np.dtype(self.first).itemsize

    @property
    def word(self) -> str:
        """The integer that holds a lane's numbers of the first operand."""
        return f"int{min(32, self.depth * self.bits)}"

    @property
    def count(self) -> int:
        """Elements of an operand."""
        return self.lanes * self.depth // self.rows

    @property
    def offset(self) -> int:
        """How much lower it takes bytes than they lie: they lie unsigned (`elements.BYTE`)."""
        return 128 if self.first == "int8" else 0

    def meaning(self, total: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """int32 `[lanes]` and twice `[count]` to int32 `[lanes]`."""
        ends = np.iinfo(np.int32)
        if self.rows > 1:
            left, right = (part.astype(np.int64).reshape(-1, self.depth) for part in (first, second))
            turned: np.ndarray = (total.astype(np.int64) + (left @ right.T).ravel()).astype(np.int32)
            return turned
        products = first.astype(np.int64) * second.astype(np.int64)
        run = self.run or self.depth
        wide = total.astype(np.int64) + products.reshape(-1, self.lanes, run).sum((0, 2))
        found: np.ndarray = (wide.clip(ends.min, ends.max) if self.saturates else wide).astype(np.int32)
        return found

    def pairs_fit(self, weight: np.ndarray) -> bool:
        """16 bits hold every sum of two products that a row of `pairs` adds, whatever the inputs.

        Args:
            weight: int8 `[O, I, ...]`, of whole words of I, as the kernel reads them.
        """
        words = weight.astype(np.int32).reshape(len(weight), -1, self.depth // 2, 2, *weight.shape[2:])
        least, most = (int(end) for end in (np.iinfo(self.first).min, np.iinfo(self.first).max))
        together = 2 if self.run else 3  # numbers of a lane that lie apart are of one sum, or neighbours
        ends = (np.minimum(words * least, words * most), np.maximum(words * least, words * most))
        low, high = (ends[0].sum(together).min(initial=0), ends[1].sum(together).max(initial=0))
        return bool(low >= np.iinfo(np.int16).min and high <= np.iinfo(np.int16).max)


VPDPBUSD = Dot("vpdpbusd", "llvm.x86.avx512.vpdpbusd.512", ("avx512_vnni",), "uint8", "int8", 16, 4)

VPMADDWD = Dot("vpmaddwd", "llvm.x86.avx2.pmadd.wd", ("avx2",), "int16", "int16", 8, 2, adds=False)
"""Of bytes that were widened, so exact for all weights."""

VPMADDUBSW = Dot("vpmaddubsw", "llvm.x86.avx2.pmadd.ub.sw", ("avx2",), "uint8", "int8", 8, 4, adds=False, pairs=True)
"""Of bytes as they lie: sums of two products that stop at 16 bits, which vpmaddwd by ones adds up: 32 products by three
instructions, where widened ones take four.
"""

VPDPBUSD_256 = Dot("vpdpbusd (VEX)", "llvm.x86.avx512.vpdpbusd.256", ("avx_vnni",), "uint8", "int8", 8, 4)

VPDPWSSD = Dot("vpdpwssd", "llvm.x86.avx512.vpdpwssd.512", ("avx512_vnni",), "int16", "int16", 16, 2)
"""Of weights that need more than 8 bits, like the next; half of the products at once."""

VPDPWSSD_256 = Dot("vpdpwssd (VEX)", "llvm.x86.avx512.vpdpwssd.256", ("avx_vnni",), "int16", "int16", 8, 2)

SDOT = Dot("sdot", "llvm.aarch64.neon.sdot", ("asimddp",), "int8", "int8", 4, 4)

SMMLA = Dot("smmla", "llvm.aarch64.neon.smmla.v4i32.v16i8", ("i8mm",), "int8", "int8", 4, 8, rows=2)
"""Two pixels by two outputs, eight channels each: twice what sdot does."""

SMLAL = Dot("smlal", "llvm.aarch64.neon.smull", ("asimd",), "int16", "int16", 4, 1, adds=False)
"""Of bytes that were widened, like all that every ARM core has. LLVM makes one instruction of it and its addition."""

SADALP = Dot(
    "smlal2+sadalp", "pairs", ("asimd",), "int8", "int8", 4, 4, run=2, pairs=True, code=sums_of_pairs("smlal2")
)
"""What every AArch64 core has for bytes: smull and smlal2 to sums of two products, which sadalp adds up: 16 products by
three instructions, where smlal has 4 by one.
"""

SADALP_ANY = Dot("smull+sadalp", "pairs", ("asimd",), "int8", "int8", 4, 4, run=2, code=sums_of_pairs("smull2"))
"""The same for weights whose pairs of products fill more than 16 bits: four instructions."""

VMLAL = Dot("vmlal.s16", "llvm.arm.neon.vmulls", ("neon",), "int16", "int16", 4, 1, adds=False)

DOTS: dict[str, Dot] = {
    dot.name: dot
    for dot in (
        *(VPDPBUSD, VPDPBUSD_256, VPDPWSSD, VPDPWSSD_256, VPMADDUBSW, VPMADDWD),
        *(SMMLA, SDOT, SADALP, SADALP_ANY, SMLAL, VMLAL),
    )
}


@dataclass(frozen=True)
class Tile:
    """A product of two tiles, added to one of fp32: `size` pixels by as many outputs, `depth` products each.

    Attributes:
        element: what both operands are kept in. A row of the first has `depth` of it, one of the second `run` of each
            output, side by side.
    """

    name: str
    llvm: str
    features: tuple[str, ...]
    element: str
    size: int
    depth: int
    run: int

    def meaning(self, total: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """fp32 `[size, size]`, `[size, depth]` and `[depth / run, size, run]` to fp32 `[size, size]`; the operands'
        real numbers. How an instruction rounds its sums is not in it.
        """
        weight = second.transpose(0, 2, 1).reshape(self.depth, self.size)
        found: np.ndarray = (total.astype(np.float64) + first.astype(np.float64) @ weight).astype(np.float32)
        return found


TDPBF16PS = Tile("tdpbf16ps", "llvm.x86.tdpbf16ps", ("amx_bf16", "amx_tile"), BF16, 16, 32, 2)

BFMMLA = Tile("bfmmla", "llvm.aarch64.neon.bfmmla", ("bf16",), BRAIN, 2, 4, 4)
"""Two pixels by two outputs, four channels each, in vectors. It takes numbers below 2^-126 for 0, as tdpbf16ps does,
and its sums are rounded to the odd one of the two next to them: by less than a unit of fp32's last place, where the
nearest is off by half of one.
"""
