"""The integer arithmetic in its parts."""

from __future__ import annotations

import numpy as np

from inception_deploy.kernels.bytes.math import ROUNDER, ROUNDER_BITS


def test_an_addition_rounds_to_the_nearest_and_ties_to_even() -> None:
    """Every tie between the bounds of a byte, and the floats next to it."""
    ties = np.arange(-255.5, 256, 0.5, np.float32)
    values = np.concatenate([ties, np.nextafter(ties, np.float32(-1e9)), np.nextafter(ties, np.float32(1e9))])
    bits = (values + np.float32(ROUNDER)).view(np.int32)
    assert np.array_equal(bits - np.int32(ROUNDER_BITS), np.rint(values))
