"""Sums of a `spec.Vta` from numbers: tiles, biases, shifts, and the proof that nothing leaves int32.

A `Sum` is built a stage at a time. It knows the least and the largest value that every channel's accumulator can have,
from the weights and from the range of each input, so that a clamp that can never act is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import DeployError
from ..kernels.elements import BLOCK
from ..kernels.spec import Stage, Term
from ..kernels.vta import constants
from .layers import Param, Storage
from .reader import Refuse

Ends = tuple[int, int]
"""The least and the largest byte of an input."""

Wide = NDArray[np.int64]

LARGEST_DIAGONAL = 6
"""A tile multiplies by a power of two up to this one."""

_CHANNEL_SHIFT = 15
"""The largest amount that an accumulator's own register is shifted by on every hardware."""

_MOST_BIAS_TILES = 4
"""With more of them, adding int32 words is faster."""


@dataclass
class Sum:
    """One step's stages and operands so far.

    Attributes:
        name: of the layer, for errors.
        slots: channels of the output in whole blocks.
        low, high: what each channel's accumulator lies between.
    """

    name: str
    slots: int
    operands: list[tuple[Storage, str] | Param] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    low: Wide = field(init=False)
    high: Wide = field(init=False)
    _terms: list[Term] = field(default_factory=list)
    _lead: int = 0
    _number: int = 0

    def __post_init__(self) -> None:
        self.low = self.high = np.zeros(self.slots, np.int64)

    def lead(self, shift: int) -> None:
        """The accumulators go left before the stage's first term."""
        self._lead = shift
        self._reach(self.low << shift, self.high << shift)

    def term(self, term: Term, source: Storage, tiles: NDArray[np.int8], ends: Ends) -> None:
        """Add a product. `tiles` as a `Vta` has them; `ends`: of the input's bytes."""
        self._terms.append(term)
        self.operands += [(source, f"in_stride{self._number}"), Param("raw", tiles)]
        self._number += 1
        weight = tiles.astype(np.int64).transpose(0, 4, 1, 2, 3, 5).reshape(-1, term.steps * BLOCK)
        least = np.minimum(np.minimum(weight * ends[0], weight * ends[1]), 0).sum(1)
        most = np.maximum(np.maximum(weight * ends[0], weight * ends[1]), 0).sum(1)
        if term.shared:
            least, most = (np.tile(end, self.slots // BLOCK) for end in (least, most))
        self._reach(self.low + least, self.high + most)
        self._reach(self.low << term.shift, self.high << term.shift)

    def times(self, term: Term, source: Storage, factor: int, ends: Ends) -> None:
        """Add the input's own channels, each `factor` times. A large factor is taken in digits, which shifts what was
        there before: then this is the stage's first.
        """
        parts = digits(factor)
        assert parts == [(factor, 0)] or not (self._terms or self._lead or self.stages)
        for digit, shift in parts:
            tile = constants.diagonal(np.full((BLOCK, *term.kernel), digit, np.int8), BLOCK)
            part = Term(
                term.blocks, term.height, term.width, term.kernel, term.stride, term.pad, reads=term.reads,
                span=1, shared=True, shift=shift,
            )  # fmt: skip
            self.term(part, source, tile, ends)

    def close(
        self, bias: NDArray[np.int32], shift: NDArray[np.int32], ends: Ends, used: NDArray[np.int64] | None = None
    ) -> None:
        """End a stage.

        Args:
            bias: int32 ``[slots]``, with what rounds in it.
            shift: to the right, ``[slots]``.
            ends: of the clamp.
            used: the slots that hold channels; None for all.

        Raises:
            Refuse: the shifts differ by more than registers hold.
        """
        self._reach(self.low + bias, self.high + bias)
        bias, shift = self._settled(bias, shift, used)
        known = shift if used is None else shift[used]
        common, rest = split_shift(known)
        each = np.full(self.slots, common, np.int64)
        kind, count = "", 0
        if bias.any():
            tiles = constants.bias_tiles(bias, BLOCK)
            kind, count = ("tiles", tiles.shape[1]) if tiles.shape[1] <= _MOST_BIAS_TILES else ("words", 0)
            if kind == "tiles":
                self.operands += [Param("raw", constants.ones(BLOCK)), Param("raw", tiles)]
            else:
                self.operands.append(Param("raw", np.ascontiguousarray(bias, np.int32)))
        if rest is not None:
            register = np.full(self.slots, int(rest.min()), np.int32)
            register[slice(None) if used is None else used] = rest
            each = each + register
            self.operands.append(Param("raw", register))
        self.low, self.high = self.low >> each, self.high >> each
        low = ends[0] if int(self.low.min(initial=0)) < ends[0] else None
        high = ends[1] if int(self.high.max(initial=0)) > ends[1] else None
        self.low, self.high = self.low.clip(*ends), self.high.clip(*ends)
        terms, lead, self._terms, self._lead = tuple(self._terms), self._lead, [], 0
        self.stages.append(Stage(terms, lead, kind, count, common, rest is not None, low, high))

    def _settled(
        self, bias: NDArray[np.int32], shift: NDArray[np.int32], used: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Channels that are shifted by more than registers hold beside the others come to one number, whatever is put
        in: their bias is that number then, and their weights are 0.
        """
        most = int(shift.min() if used is None else shift[used].min()) + _CHANNEL_SHIFT
        far = shift > most
        value = self.low >> shift
        if not far.any() or self._lead or self.stages or ((self.high >> shift) != value)[far].any():
            return bias, shift
        if any(term.shared for term in self._terms):
            return bias, shift
        for number, operand in enumerate(self.operands):
            if isinstance(operand, Param):
                array = operand.array.copy()
                blocks, lanes = np.divmod(np.flatnonzero(far), BLOCK)
                array[blocks, ..., lanes, :] = 0
                self.operands[number] = Param("raw", array)
        bias, shift = bias.copy(), shift.copy()
        shift[far] = most
        bias[far] = value[far] << most
        self.low, self.high = (np.where(far, bias, end) for end in (self.low, self.high))
        return bias, shift

    def accumulators(self, bias: NDArray[np.int32]) -> None:
        """End the last stage without a shift: its int32 leave as they are."""
        self._reach(self.low + bias, self.high + bias)
        low, high = self.low, self.high
        self.close(bias, np.zeros(self.slots, np.int32), (-(2**31), 2**31 - 1))
        self.low, self.high = low, high

    def _reach(self, low: Wide, high: Wide) -> None:
        """Raise where an accumulator could leave int32."""
        if int(low.min(initial=0)) < -(2**31) or int(high.max(initial=0)) > 2**31 - 1:
            worst = int(max(-low.min(initial=0), high.max(initial=0)))
            message = f"a sum of '{self.name}' may reach {worst}, which a VTA's accumulators of 32 bits do not hold"
            allowed = "weights and scales with smaller sums; quantize with 'power-of-two'"
            raise DeployError(message, kind="vta", got=worst, allowed=allowed)
        self.low, self.high = low, high


def split_shift(shift: NDArray[np.int32]) -> tuple[int, NDArray[np.int32] | None]:
    """Shifts of channels as one for all, and what each has beside it; None where that is nothing.

    As much as can be is in the registers: one shift costs half of two.

    Raises:
        Refuse: they are no shifts to the right, or too far apart.
    """
    least, most = int(shift.min(initial=0 if not shift.size else shift.flat[0])), int(shift.max(initial=0))
    if least < 0 or most > 31:
        raise Refuse(f"a shift to the right by {least if least < 0 else most}")
    if least == most:
        return least, None
    if most - least > _CHANNEL_SHIFT:
        raise Refuse(f"its channels are shifted by {least} to {most}, which is more than {_CHANNEL_SHIFT} apart")
    common = max(0, most - _CHANNEL_SHIFT)
    return common, (shift - common).astype(np.int32)


def digits(factor: int) -> list[tuple[int, int]]:
    """A positive factor in Horner's form: what to multiply by, and how far the sum goes left after it, in order.

    >>> digits(96), digits(29127)
    ([(96, 0)], [(114, 8), (-57, 0)])
    """
    zeros = (factor & -factor).bit_length() - 1
    if factor <= 127:
        return [(factor, 0)]
    if factor >> zeros <= 127:
        large = min(zeros, LARGEST_DIAGONAL) if factor >> zeros == 1 else 0
        return [(factor >> zeros << large, zeros - large)]
    for bits in (8, 9, 7, 10, 6, 11):
        low = (factor + 128) % (1 << bits) - 128
        high = (factor - low) >> bits
        if low <= 127 and high <= 127:
            return [(high, bits), (low, 0)]
    low = (factor + 128) % 256 - 128
    *first, (digit, shift) = digits((factor - low) >> 8)
    return [*first, (digit, shift + 8), (low, 0)]


def half(shift: NDArray[np.int32] | int, slots: int) -> NDArray[np.int32]:
    """What rounds a shift, for every slot."""
    amounts = np.broadcast_to(np.asarray(shift, np.int32), (slots,))
    return np.where(amounts > 0, 1 << np.maximum(amounts - 1, 0), 0).astype(np.int32)
