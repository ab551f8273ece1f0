"""The machine's limits: the loops compile, do what they say, and are timed until nothing is faster."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from inception_deploy.kernels.isa import ISAS
from inception_deploy.reports import peak
from inception_deploy.targets.cpu import lacking

HERE = [isa for isa in ISAS if not isa.gpu and not lacking(isa)]
pytestmark = pytest.mark.skipif(not HERE, reason="no instruction set of kernels/isa.py runs on this machine")


@pytest.mark.parametrize("isa", HERE[:2], ids=lambda isa: isa.name)
def test_the_loops_do_what_they_say(isa) -> None:
    loops = peak.Peak(isa, 1)
    chains = 24 if isa.registers >= 32 else 12
    assert loops.flops % (2 * isa.lanes * chains) == 0
    # read_all adds every lane of whole rounds of vectors; lane 0 of ones is how many vectors it has read.
    vectors = 10 * chains
    buffer = np.ones((vectors + 1) * isa.lanes, np.float32)
    skip = -buffer.ctypes.data % (4 * isa.lanes) // 4
    assert loops._read(vectors, ctypes.c_void_p(buffer[skip:].ctypes.data)) == vectors
    # a = a * 0.75 + 0.25, from i + 0.25 on, ends at 1; the sum over all chains is their number.
    assert loops._add(1000, 0.25) == pytest.approx(chains)


@pytest.mark.parametrize(
    "isa", [isa for isa in HERE if isa.dots and isa.dots[0].name in peak.DOTS], ids=lambda isa: isa.name
)
def test_the_loop_of_bytes_is_of_the_instruction(isa) -> None:
    dot = isa.dots[0]
    loops = peak.Peak(isa, 1, dot.name)
    chains = 24 if isa.registers >= 32 else 12
    # x = 1: one product of 1 and 1 a lane, its other bytes are 0; a chain starts at 1 + its number.
    assert loops._dot(1000, 1) == sum(1 + i for i in range(chains)) + 1000 * chains
    found = peak.limits(isa, 1, integers=True)
    assert (found.of, dot.name in found.how) == ("bytes", True)


def test_limits_are_those_of_a_machine() -> None:
    found = peak.limits(HERE[0], 1)
    assert 0.1 < found.gmacs < 1e4
    assert found.of == "fp32"
    assert 0.1 < found.gbytes < 1e4
    assert "on 1 threads" not in found.how
    assert "rounds on 1 thread:" in found.how
