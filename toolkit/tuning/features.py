"""A choice as numbers for the cost model: what the machine will notice of it, on scales where a step of one matters."""

from __future__ import annotations

import math

import numpy as np

from ..kernels.spec import Spec
from ..targets.base import Target
from .space import Choice, main_spec

WIDTH = 20
"""Features of every choice, whatever its family; the last three are of Winograd's tile."""


def features(spec: Spec, choice: Choice, target: Target, threads: int) -> np.ndarray:
    """`(WIDTH,)` float64."""
    found = np.zeros(WIDTH)
    main = main_spec(spec, choice.outputs)
    values = target.family(main).family.features(main, choice.schedule, threads)
    found[: len(values)] = values
    if choice.outputs is not None:
        found[-3:] = 1.0, *(math.log2(1 + pixels) for pixels in choice.outputs)
    return found
