"""What a network is computed in: one row a way of computing.

A precision is what ``--precision`` takes. It may have several rows, the best first: a target takes the first that it
has kernels for (`Target.serves`), and where the result is outside of the row's tolerance and the row is `approximate`,
the next one. Everything that depends on a precision is in its row; to add one is to add a row, its tolerance to
`verify.TOLERANCES`, and what it needs to the target that has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inception_deploy.errors import UsageError
from inception_deploy.kernels.elements import BF16, BRAIN, HALF, PAIR, PAIRS, TF32
from inception_deploy.kernels.isa import BRAIN_SQUARES, HALF_VECTORS
from inception_deploy.verify import TOLERANCES

if TYPE_CHECKING:
    from .base import Target


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One way of computing.

    Attributes:
        name: the precision, as ``--precision`` takes it.
        arithmetic: how numbers are multiplied and summed, in a few words for a report.
        stage: the row of `verify.TOLERANCES` that the compiled library is held to.
        element: what float activations are kept in, of `kernels.elements.ELEMENTS`.
        needs: what the target must have, e.g. ``"tiles"``; empty where every target can.
        integers: a quantized network is computed in its integers; else in floats that hold the same numbers.
        approximate: products lose what is small. Where that is too much, or where every bit counts (next to a tie of a
            quantized network's roundings), the precision's next row is taken.
    """

    name: str
    arithmetic: str
    stage: str
    element: str = "float32"
    needs: str = ""
    integers: bool = False
    approximate: bool = False

    def __post_init__(self) -> None:
        if self.stage not in TOLERANCES:
            raise ValueError(f"{self.name}: there is no tolerance for stage {self.stage!r}")


PRECISIONS: tuple[Precision, ...] = (
    Precision(
        name="fp32",
        arithmetic="fp32 as pairs of bf16 on matrix tiles, three products each, summed in fp32",
        stage="compiled",
        element=PAIR,
        needs="tiles",
        approximate=True,
    ),
    Precision(
        name="fp32",
        arithmetic="fp32 as pairs of bf16 on tensor cores, three products each, summed in fp32",
        stage="compiled",
        needs=PAIRS,
        approximate=True,
    ),
    Precision(name="fp32", arithmetic="fp32 multiply-adds", stage="compiled"),
    Precision(name="fp32-exact", arithmetic="fp32 multiply-adds on every GPU", stage="compiled", needs="exact"),
    Precision(
        name="tf32",
        arithmetic="products of TF32, eleven bits of fp32, on tensor cores, summed in fp32; everything else in fp32",
        stage="compiled-tf32",
        needs=TF32,
    ),
    Precision(
        name="int8",
        arithmetic="8-bit integers, summed in 32 bits",
        stage="compiled-int8",
        needs="integers",
        integers=True,
    ),
    Precision(name="int8", arithmetic="fp32 multiply-adds", stage="emulated-int8"),
    Precision(
        name="bf16",
        arithmetic="products of bf16 on matrix tiles, summed in fp32",
        stage="compiled-bf16",
        element=BF16,
        needs="tiles",
    ),
    Precision(
        name="bf16",
        arithmetic="products of bf16 on tensor cores, summed in fp32; everything else in fp32, kept in bf16",
        stage="compiled-bf16",
        element=BRAIN,
        needs=BRAIN,
    ),
    Precision(
        name="bf16",
        arithmetic="products of bf16 by bfmmla, summed in fp32; everything else in fp32, kept in bf16",
        stage="compiled-bf16",
        element=BRAIN,
        needs=BRAIN_SQUARES,
    ),
    Precision(
        name="fp16",
        arithmetic="products of fp16 on tensor cores, summed in fp32; everything else in fp32, kept in fp16",
        stage="compiled-fp16",
        element=HALF,
        needs=HALF,
    ),
    Precision(
        name="fp16",
        arithmetic="products of fp16 in vectors, a few summed in fp16 and those sums in fp32; everything else in fp32, "
        "kept in fp16",
        stage="compiled-fp16",
        element=HALF,
        needs=HALF_VECTORS,
    ),
)
"""Of one name the best first."""

MULTIPLY_ADDS = next(row for row in PRECISIONS if row.name == "fp32" and not row.needs)
"""What a target computes in before anything else is asked of it."""


def names() -> list[str]:
    """What ``--precision`` takes."""
    return list(dict.fromkeys(row.name for row in PRECISIONS))


def rows(name: str) -> list[Precision]:
    """The ways of computing in a precision, the best first; none where there is no such precision."""
    return [row for row in PRECISIONS if row.name == name]


def of(manifest: Mapping[str, Any]) -> Precision:
    """The row that a bundle was compiled by, as far as its manifest tells.

    Raises:
        UsageError: (kind ``precision``) this version has no such precision.
    """
    name, integers = manifest["precision"], bool(manifest.get("integers"))
    alike = [row for row in rows(name) if row.integers == integers] or rows(name)
    if not alike:
        message = f"the bundle's precision '{name}' is not known to this version"
        raise UsageError(message, kind="precision", got=name, allowed=names())
    return next((row for row in alike if row.arithmetic == manifest.get("arithmetic")), alike[0])


@dataclass(frozen=True)
class Settled:
    """What a network is compiled for.

    Attributes:
        target: computes in `target.precision`.
        exact: what to compile for instead, where the result is outside of its tolerance; None where there is nothing.
    """

    target: Target
    exact: Target | None = None


def settle(target: Target, wanted: str | None, *, quantized: bool) -> Settled:
    """Decide, once and before lowering, what a network is compiled for.

    Args:
        target: as the user named it.
        wanted: a precision; None for int8 where the network is a quantized one, and fp32 otherwise.
        quantized: the network is a quantized ONNX, which bf16 cannot hold.

    Raises:
        UsageError: (kind ``precision``) the target does not compute in that, or the network cannot be.
        DeployError: (kind ``target``) this machine, which the target stands for, does not.
    """
    name = wanted or ("int8" if quantized else "fp32")
    if quantized and name not in ("int8", "fp32"):
        message = f"the ONNX is quantized, and {name} cannot hold its numbers"
        raise UsageError(message, kind="precision", got=name, allowed=["int8", "fp32"])
    target.at(name)  # refuses what it does not compute in
    every_bit_counts = quantized and name == "fp32"
    able = [row for row in rows(name) if target.serves(row) and not (every_bit_counts and row.approximate)]
    exact = target.computing(able[1]) if able[0].approximate and len(able) > 1 else None
    return Settled(target.computing(able[0]), exact)
