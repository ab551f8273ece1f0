"""What the sections are written from: read from the bundle, measured here, or missing for a stated reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...runtime.model import Guess
from ..peak import Limits
from .layers import Layer
from .network import Network


@dataclass(frozen=True)
class Photo:
    """A picture that was classified.

    Attributes:
        name: of its file.
        jpeg: a small copy of it.
        guesses: the best classes, best first; none where the first output is not (rows, classes).
        own: the user gave it.
    """

    name: str
    jpeg: bytes
    guesses: Sequence[Guess]
    own: bool


@dataclass(frozen=True)
class Range:
    """A quantized tensor and what it held.

    Attributes:
        tensor: its name in the float network.
        dtype, scale, zero: of its integers.
        low, high: the ends of what they can hold, in reals.
        least, most: of what it held in the float network; None where that was not looked at.
        clipped: the share of its values outside of `low` to `high`.
    """

    tensor: str
    dtype: str
    scale: float
    zero: int
    low: float
    high: float
    least: float | None = None
    most: float | None = None
    clipped: float | None = None


@dataclass(frozen=True)
class Facts:
    """Everything that a section may say.

    Attributes:
        manifest, plan, verified, refusals: documents of the bundle; `refusals` with measured shares, where the target
            runs here.
        inspected: what `inspect` gives.
        layers: the plan's steps by the layer they do the work of.
        machine, threads, when: what was measured on, with how many threads, at what time.
        runs: how often each step was timed.
        latency: rows of ``bench``, ours first, of the first plan.
        plans: images at once, and rows as `latency`'s, of each plan after the first.
        throughput: rows of `throughput.throughput`, ours first, of the first plan.
        photo: of the check of all that one sees at once.
        network: the graph.
        limits: of this machine.
        errors, first_fall: of an int8 network, as `verify` gives them, on the inputs that `judged_on` names.
        ranges: of an int8 network.
        evaluation, exported: documents of ``evaluate`` and ``export``.
        simulated: what times do not mean here, where the bundle's accelerator is not there; None where they mean it.
        missing: why a part is not there, by the name of the attribute, or of an engine.
    """

    manifest: Mapping[str, Any]
    plan: Mapping[str, Any]
    verified: Mapping[str, Any]
    refusals: Sequence[Mapping[str, Any]]
    inspected: Mapping[str, Any]
    layers: Sequence[Layer]
    machine: str
    threads: int
    when: str
    runs: int
    latency: Sequence[Mapping[str, Any]] = ()
    plans: Sequence[tuple[int, Sequence[Mapping[str, Any]]]] = ()
    throughput: Sequence[Mapping[str, Any]] = ()
    photo: Photo | None = None
    network: Network | None = None
    limits: Limits | None = None
    errors: Sequence[Mapping[str, Any]] = ()
    first_fall: str | None = None
    judged_on: Sequence[str] = ()
    ranges: Sequence[Range] = ()
    evaluation: Mapping[str, Any] | None = None
    exported: Mapping[str, Any] | None = None
    simulated: str | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Images that are computed at once."""
        return int(self.manifest["inputs"][0]["shape"][0])

    @property
    def total_ms(self) -> float | None:
        """All layers, each step alone; None where nothing was measured."""
        known = [layer.ms for layer in self.layers if layer.ms is not None]
        return sum(known) if known else None

    @property
    def untrained(self) -> bool:
        """The weights are random numbers."""
        return (self.manifest.get("zoo") or {}).get("trained") is False
