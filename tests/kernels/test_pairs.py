"""Instructions that add two products in 16 bits are used for weights with which no inputs leave them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inception_deploy.kernels.dots import DOTS, Dot

PAIRS = [dot for dot in DOTS.values() if dot.pairs]


@pytest.mark.parametrize("dot", PAIRS, ids=lambda dot: dot.name)
@given(data=st.data())
def test_weights_fit_where_no_inputs_leave_16_bits(dot: Dot, data: st.DataObject) -> None:
    """Next to the worst inputs of every sum of two products, one by one."""
    values = st.one_of(st.sampled_from([-128, -127, -65, -64, 0, 1, 63, 64, 65, 127]), st.integers(-128, 127))
    weight = data.draw(arrays(np.int8, (2, 2 * dot.depth, 1, 2), elements=values))
    ends = (np.iinfo(dot.first).min, np.iinfo(dot.first).max)
    sums = []
    for word in weight.reshape(2, -1, dot.depth, 2).transpose(0, 1, 3, 2).reshape(-1, dot.depth).tolist():
        for one, other in [(0, 2), (1, 3)] if dot.run else [(0, 1), (2, 3)]:
            sums += [x * word[one] + y * word[other] for x in ends for y in ends]
    assert dot.pairs_fit(weight) == (min(sums) >= -(2**15) and max(sums) < 2**15)
