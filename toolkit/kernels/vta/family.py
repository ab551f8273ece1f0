"""The family of a VTA's steps: what a table of kernels asks. Its code is made of a whole span at once (targets/vta)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..family import Family
from ..isa import Isa
from ..spec.vta import Vta
from . import tiling
from .accelerator import Accelerator
from .tiling import Tiling

_CUTS = 16
"""Of each split."""

_KNOBS: dict[str, tuple[int, ...]] = {"snake": (False, True), "uops": (8, 24, 64), "piece": (16, 32, 64, 128)}


def _serves(spec: Vta, isa: Isa | Accelerator) -> str | None:
    if not isinstance(isa, Accelerator):
        return f"{isa.name} is no VTA"
    config = isa.config
    if (spec.block, spec.rows) != (config.block, config.batch):
        return f"its tiles are {spec.rows} x {spec.block}, {isa.name} multiplies {config.batch} x {config.block}"
    if spec.batch % config.batch:
        return f"{spec.batch} images are no whole number of {config.batch}"
    return tiling.refused(spec, isa)


def _choose(spec: Vta, isa: Isa | Accelerator) -> Tiling:
    assert isinstance(isa, Accelerator)
    return tiling.choose(spec, isa)


def _units(_spec: Vta, _tiling: Tiling) -> int:
    return 1


def _emit(_spec: Vta, _tiling: Tiling, _symbol: str) -> list[Any]:
    return []


def _space(spec: Vta, isa: Isa | Accelerator) -> Iterable[tuple[Tiling, dict[str, tuple[int, ...]]]]:
    """The best cuts by the model, with two contexts of all memories and with one of each, the best of all first."""
    assert isinstance(isa, Accelerator)
    splits = ({}, *({name: 1} for name in tiling.CONTEXTS))
    cuts = [cut for split in splits for cut in tiling.best(spec, isa, _CUTS, **split)]
    return [(cut, _KNOBS) for cut in sorted(cuts, key=lambda cut: tiling.cost(spec, isa, cut))]


STEP: Family[Vta, Tiling] = Family("vta.step", Vta, _serves, _choose, _units, _emit, space=_space)
