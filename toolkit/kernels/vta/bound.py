"""What a step takes at least on a VTA: the roof that a stream is compared with.

    max(GEMM steps + the leanest epilogue, compulsory bytes / bus)

GEMM multiplies one pair of tiles a cycle; a pair whose input is padding is none. The leanest epilogue known: for each
accumulator a reset and its bias (steps of GEMM), for each stage its shifts and the needed ends of its clamp, of
windows the rows and then the columns in place (steps of the ALU). On the HLS design that makes 8 cycles a vector of a
plain convolution, on the Chisel one 5. Bytes: what a step reads and writes, once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..spec.vta import Reads, Stage, Term, Vta
from .accelerator import Accelerator


@dataclass(frozen=True)
class Bound:
    """Cycles, at least.

    Attributes:
        gemm: of the multiplications. padded: of these with all pairs that meet padding.
        epilogue: of resets, biases, pooling, shifts and clamps.
        moved: bytes that must be moved. bus: cycles of these.
    """

    gemm: int
    padded: int
    epilogue: int
    moved: int
    bus: int

    @property
    def cycles(self) -> int:
        """What no order of the instructions undercuts."""
        return max(self.gemm + self.epilogue, self.bus)

    @property
    def nominal(self) -> int:
        """The same if padding were multiplied, as multiply-adds are counted commonly."""
        return max(self.padded + self.epilogue, self.bus)


def bound(spec: Vta, accelerator: Accelerator) -> Bound:
    """What a step takes at least."""
    board, config = accelerator.board, accelerator.config
    images = spec.batch // config.batch
    inner = math.prod(spec.inner) * spec.out_blocks
    outer = spec.height * spec.width * spec.out_blocks
    gemm = padded = 0
    moved = outer * spec.planes * config.inp_bytes
    for term in spec.terms:
        inside = pairs(term, spec.inner, 0) * pairs(term, spec.inner, 1)
        gemm += spec.out_blocks * term.depth * inside
        padded += inner * term.steps
        groups = spec.out_blocks // term.group if term.reads is Reads.OWN else 1
        seen = math.prod(_seen(term, spec.inner, axis) for axis in (0, 1))
        moved += min(term.blocks, groups * term.depth) * seen * config.inp_bytes
    steps, alu = inner, 0
    for number, stage in enumerate(spec.stages):
        last = number + 1 == len(spec.stages)
        steps += (outer if last else inner) * (stage.bias_tiles if stage.bias == "tiles" else 0)
        before = shifts(stage.lead) if number else 0
        before += sum(shifts(term.shift) for term in stage.terms)
        alu += before * inner + behind(stage) * (outer if last else inner)
    alu += (spec.planes - 1) * outer
    if spec.pooling:
        high, wide = spec.pooling.kernel
        alu += spec.out_blocks * (high - 1) * spec.height * spec.pooling.width + (wide - 1) * outer
    epilogue = steps * board.gemm_interval + alu * board.alu_interval
    constants = sum(operand.bytes for operand in spec.operands if operand.role == "constant")
    moved = images * moved + constants
    return Bound(
        images * gemm * board.gemm_interval, images * padded * board.gemm_interval, images * epilogue, moved,
        -(-moved // board.bus_bytes),
    )  # fmt: skip


def _seen(term: Term, inner: tuple[int, int], axis: int) -> int:
    """Rows or columns of the input that lie between the first and the last that is read."""
    first = -term.pad[axis]
    last = first + (inner[axis] - 1) * term.stride[axis] + (term.kernel[axis] - 1) * term.dilation[axis]
    return max(0, min((term.height, term.width)[axis], last + 1) - max(0, first))


def pairs(term: Term, inner: tuple[int, int], axis: int) -> int:
    """Pairs of an output and a tap, along an axis, that meet the input."""
    size = (term.height, term.width)[axis]
    stride, pad, dilation = term.stride[axis], term.pad[axis], term.dilation[axis]
    found = 0
    for tap in range(term.kernel[axis]):
        far = tap * dilation - pad
        found += max(0, min(inner[axis], (size - 1 - far) // stride + 1) - max(0, -(far // stride)))
    return found


def behind(stage: Stage) -> int:
    """Instructions of the ALU that end a stage: a bias of words, the shifts, the clamp."""
    ends = (stage.low is not None) + (stage.high is not None)
    return (stage.bias == "words") + shifts(stage.shift) + stage.shifts + ends


def shifts(amount: int) -> int:
    """Instructions that a shift by immediates takes."""
    return -(-amount // 15)
