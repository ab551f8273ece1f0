"""Signal and noise of what was rounded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Ratio:
    """Signal and noise, summed over pictures: decibels and cosine come from the sums."""

    signal: float = 0.0
    noise: float = 0.0
    other: float = 0.0
    product: float = 0.0

    def add(self, reference: NDArray[Any], got: NDArray[Any]) -> None:
        """Count one tensor."""
        a, b = reference.astype(np.float64).reshape(-1), got.astype(np.float64).reshape(-1)
        self.signal += float(a @ a)
        self.other += float(b @ b)
        self.product += float(a @ b)
        self.noise += float((a - b) @ (a - b))

    @property
    def db(self) -> float:
        """Signal-to-quantization-noise ratio; 200 where there is no noise, as if it were of float64."""
        if self.noise == 0:
            return 200.0
        return min(200.0, max(-200.0, 10 * math.log10(max(self.signal, 1e-300) / self.noise)))

    @property
    def cosine(self) -> float:
        """1 where both are zero."""
        norms = math.sqrt(self.signal) * math.sqrt(self.other)
        return self.product / norms if norms else float(self.signal == self.other)
