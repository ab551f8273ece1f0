"""Convolution of numbers of 16 bits whose sums 32 bits may not hold: those of some input blocks, which they do
hold, are put together in two int32.

With ``a = 2^16 (a >> 16) + (a & 65535)`` every partial sum adds its high part to one and its low part to the other,
whose distance the low parts of 2^15 of them do not fill. Both go into float64, which holds their sum exactly, and leave
it as the float32 next to it: as `arith` rounds a sum of any length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ..emit import Expr, load
from .direct import Direct
from .math import gathered, whole

_LOW_BITS = 16


class Long(Direct):
    """`Direct` for `Conv.sum_blocks`."""

    def started(self, _group: Expr, _y: Expr, _x: int | Expr, width: int) -> Any:
        """Sums of nothing yet: the bias is in the two that they are put into."""
        acc = self.emitter.local(width * self.wide, "int32")
        self._clear(acc, width)
        return acc

    def over(
        self, summed: Callable[[Expr, Expr], None], acc: Any, _blocks: tuple[int, int], where: tuple[Any, ...]
    ) -> Any:
        """See `Direct.over`; the sums are float32."""
        em, spec, lanes = self.emitter, self.spec, self.schedule.lanes
        group, y, x, width = where
        behind = spec.row_sets * spec.column_sets * spec.out_channels
        high, low = (self.biases(group, y, x, width, at) for at in (0, behind))
        with em.loop(-(-self.in_blocks // spec.sum_blocks), "part") as part:
            first = em.let(part * spec.sum_blocks, "first")
            summed(first, tirx.min(self.in_blocks - first, spec.sum_blocks))
            for at in range(0, width * self.wide, lanes):
                value = load(acc, at, lanes)
                em.store(high, at, load(high, at, lanes) + tirx.shift_right(value, whole(_LOW_BITS, lanes)))
                em.store(low, at, load(low, at, lanes) + (value & whole((1 << _LOW_BITS) - 1, lanes)))
            self._clear(acc, width)
        total = em.local(width * self.wide, "float32", "total")
        for at in range(0, width * self.wide, lanes):
            em.store(total, at, gathered(load(high, at, lanes), load(low, at, lanes)))
        return total

    def _clear(self, acc: Any, width: int) -> None:
        for at in range(0, width * self.wide, self.schedule.lanes):
            self.emitter.store(acc, at, whole(0, self.schedule.lanes))
