"""What GPUs can do, as their makers' data sheets say: a row each, of which the first choice of a kernel's tile asks.

Sources: NVIDIA's architecture whitepapers (Turing, Ampere GA100 and GA102, Ada, Hopper, Blackwell), the data sheets of
the cards, and the CUDA programming guide's table of compute capabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

_REGISTERS = 65536
"""Of a multiprocessor, on all of them."""

_OF_A_THREAD = 128
"""What kernels here take, about."""


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: what follows the colon of a target.
        arch: its architecture.
        multiprocessors: how many there are.
        shared_bytes: shared memory of a multiprocessor.
        level2_bytes: the second-level cache.
        bandwidth: of device memory, in bytes a second.
        hertz: the clock that the peak below is stated at.
        adds: fp32 multiply-adds of a multiprocessor in a cycle.
        products: of its tensor cores in a cycle, 16 bits summed in fp32, without sparsity.
    """

    name: str
    arch: str
    multiprocessors: int
    shared_bytes: int
    level2_bytes: int
    bandwidth: float
    hertz: float
    adds: int
    products: int

    @property
    def bytes_a_cycle(self) -> float:
        """That device memory gives."""
        return self.bandwidth / self.hertz

    @property
    def peak(self) -> float:
        """Operations a second of the tensor cores in 16 bits."""
        return 2.0 * self.products * self.multiprocessors * self.hertz

    def resident(self, threads: int, shared: int) -> int:
        """Blocks of so many threads and bytes of shared memory that a multiprocessor holds at a time."""
        return max(1, min(self.shared_bytes // max(1, shared), _REGISTERS // (threads * _OF_A_THREAD)))


def _card(name: str, arch: str, multiprocessors: int, kib: int, mib: int, gb: float, mhz: int, *rates: int) -> Card:
    return Card(name, arch, multiprocessors, kib << 10, mib << 20, 1e9 * gb, 1e6 * mhz, *rates)


CARDS: tuple[Card, ...] = (
    _card("t4", "sm_75", 40, 64, 4, 320, 1590, 64, 512),
    _card("a100", "sm_80", 108, 164, 40, 1555, 1410, 64, 1024),
    _card("a10", "sm_86", 72, 100, 6, 600, 1695, 128, 512),
    _card("rtx3090", "sm_86", 82, 100, 6, 936, 1695, 128, 256),
    _card("l4", "sm_89", 58, 100, 48, 300, 2040, 128, 512),
    _card("l40s", "sm_89", 142, 100, 96, 864, 2520, 128, 512),
    _card("rtx4090", "sm_89", 128, 100, 72, 1008, 2520, 128, 256),
    _card("h100", "sm_90", 132, 228, 50, 3350, 1830, 128, 2048),
    _card("h200", "sm_90", 132, 228, 50, 4800, 1830, 128, 2048),
    _card("b200", "sm_100", 148, 228, 126, 8000, 1855, 128, 4096),
    _card("rtx5090", "sm_120", 170, 100, 96, 1792, 2407, 128, 256),
)
"""The first of an architecture stands for it where none is named."""


def card_of(arch: str) -> Card:
    """What an architecture's code is first cut for: its own first card, or that of the newest one before it."""
    number = int(arch.removeprefix("sm_"))
    older = [card for card in CARDS if int(card.arch.removeprefix("sm_")) <= number]
    newest = older[-1].arch if older else CARDS[0].arch
    return next(card for card in CARDS if card.arch == newest)


def named(name: str) -> Card | None:
    """The card of a name."""
    return next((card for card in CARDS if card.name == name), None)
