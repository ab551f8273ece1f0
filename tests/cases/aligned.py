"""Arrays that begin where vectors may be loaded from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy at a multiple of 64 bytes."""
    raw = np.zeros(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    kept = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    kept[...] = array
    return kept
