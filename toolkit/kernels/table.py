"""Every family of kernels in order of preference: of those of a spec's kind, the first that serves it computes it.

A new family is one file and one line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import DeployError
from .bytes import border as bytes_border
from .bytes import conv as bytes_conv
from .bytes import pick as bytes_pick
from .bytes import simple as bytes_simple
from .bytes import winograd as bytes_winograd
from .family import Family
from .gpu import conv as gpu_conv
from .gpu import dense as gpu_dense
from .gpu import extern as gpu_extern
from .gpu import integers as gpu_integers
from .gpu import mma as gpu_mma
from .gpu import simple as gpu_simple
from .isa import ISAS, Isa
from .matrix import conv as matrix_conv
from .matrix import layout as matrix_layout
from .spec import Conv, Spec
from .vector import conv, extern, halves, product, simple, squares, window, winograd
from .vta import family as vta
from .vta.accelerator import Accelerator

FAMILIES: tuple[Family[Any, Any], ...] = (
    matrix_conv.CONV,
    *matrix_layout.FAMILIES,
    bytes_conv.CONV,
    *bytes_simple.FAMILIES,
    *bytes_winograd.FAMILIES,
    bytes_pick.PICK,
    *bytes_border.FAMILIES,
    halves.CONV,
    squares.CONV,
    conv.CONV,
    window.WINDOW,
    *simple.FAMILIES,
    *winograd.FAMILIES,
    product.PRODUCT,
    extern.EXTERN,
    gpu_dense.DENSE,
    gpu_mma.CONV,
    gpu_conv.CONV,
    *gpu_integers.FAMILIES,
    *gpu_simple.FAMILIES,
    gpu_extern.EXTERN,
    vta.STEP,
)

BY_NAME = {family.name: family for family in FAMILIES}

VERSIONS = {family.name: family.version for family in FAMILIES}
"""What records of tuning are of."""


@dataclass(frozen=True)
class Found:
    """The family that computes a spec, and why those before it did not: reasons by the family's name."""

    family: Family[Any, Any]
    refused: tuple[tuple[str, str], ...]


def find(spec: Spec, isa: Isa | Accelerator) -> Found:
    """What computes a spec on an instruction set.

    Raises:
        DeployError: ``kernel``: nothing does; with every family's reason.
    """
    machine: Any = isa
    refused: list[tuple[str, str]] = []
    for family in FAMILIES:
        if family.kind is type(spec):
            reason = family.serves(spec, machine)
            if reason is None:
                return Found(family, tuple(refused))
            refused.append((family.name, reason))
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refused) or "there is no family of such kernels"
    message = f"no kernel of {isa.name} computes a {spec.describe()} ({reasons})"
    raise DeployError(message, kind="kernel", got=spec.describe(), allowed=[name for name, _ in refused])


def versions_of(spec: Spec, eligible: bool, *, gpu: bool = False) -> dict[str, int]:
    """The families that the choices for a layer are made of, with their versions.

    Args:
        eligible: Winograd's transforms may be among the choices.
        gpu: of a GPU, where all families of such specs are stated: what multiplies fp32 is the target's to say.
    """
    if gpu:
        return {f.name: VERSIONS[f.name] for f in FAMILIES if f.kind is type(spec) and f.program is not None}
    # a spec names its elements, and so the family; which machine it is for does not matter
    kin = [family for family in FAMILIES if family.kind is type(spec)]
    serving = (f for f in kin if len(kin) == 1 or any(f.serves(spec, isa) is None for isa in ISAS))
    own = next(serving, None)
    if own is None:
        raise DeployError(f"no family of kernels computes a {spec.describe()}", kind="kernel", got=spec.describe())
    stages = own.name.partition(".")[0] + ".winograd"
    transforms = [f for f in FAMILIES if f.name.startswith(stages)]
    found = [own, *(transforms if eligible and isinstance(spec, Conv) else [])]
    return {family.name: VERSIONS[family.name] for family in found}
