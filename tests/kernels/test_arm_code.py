"""The inner loops for ARM, read as assembly: the instructions that they are written for are there, and their number beside the
loads. Whether they compute the right thing other tests run."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from inception_deploy.kernels.bytes import conv as bytes_conv
from inception_deploy.kernels.elements import BRAIN, BYTE, HALF, Rounding
from inception_deploy.kernels.isa import ISAS
from inception_deploy.kernels.spec import Conv
from inception_deploy.kernels.vector import conv, halves, squares
from inception_deploy.targets.cpu import Cpu
from inception_deploy.targets.objects import assembly

BYTES = {"in_element": BYTE, "out_element": BYTE, "rounding": Rounding(0, 0, 255), "pairs_fit": True}


def loop(core: str, instruction: str, family: Any, **more: Any) -> Counter[str]:
    """The instructions of the innermost loop of a 1x1 convolution that has most of one of them."""
    isa = next(isa for isa in ISAS if isa.name == core)
    spec = Conv(1, 256, 14, 14, 64, 14, 14, (1, 1), activation=(0.0, 6.0) if not more else None, **more)
    text = assembly(family.emit(spec, family.choose(spec, isa), "k")[0], Cpu(f"arm:{core}", isa).tvm_target())
    found: list[Counter[str]] = []
    places: dict[str, int] = {}
    names: list[str] = []
    for line in text.splitlines():
        code = line.split("//")[0].split("@")[0].strip()
        if label := re.fullmatch(r"(\.?L\w+):", code):
            places[label[1]] = len(names)
        elif code and code[0] not in ".#" and not code.endswith(":"):
            parts = [part.split()[0] for part in code.split(";") if part.split()]  # what is inline may be one line
            names += parts
            target = re.search(r"(\.L\w+)$", code)
            if target and parts[0].startswith("b") and target[1] in places:
                found.append(Counter(names[places[target[1]] :]))
    inner = [counts for counts in found if counts[instruction]]
    assert inner, f"no loop of {core} has {instruction}:\n{text[:2000]}"
    return min(inner, key=lambda counts: counts.total() / counts[instruction])


@pytest.mark.parametrize(
    ("core", "instruction", "family", "more", "share"),
    [
        ("cortex-a72", "fmla", conv.CONV, {}, 0.85),
        ("cortex-a9", "vmla.f32", conv.CONV, {}, 0.55),
        ("cortex-a76", "fmla", halves.CONV, {"in_element": HALF, "out_element": HALF}, 0.7),
        ("neoverse-v1", "bfmmla", squares.CONV, {"in_element": BRAIN, "out_element": BRAIN}, 0.63),
        ("cortex-a72", "sadalp", bytes_conv.CONV, BYTES, 0.26),
        ("cortex-a76", "sdot", bytes_conv.CONV, BYTES, 0.75),
        ("neoverse-v1", "smmla", bytes_conv.CONV, BYTES, 0.55),
        ("cortex-a9", "vmlal.s16", bytes_conv.CONV, BYTES, 0.3),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_inner_loop(core: str, instruction: str, family: Any, more: dict[str, Any], share: float) -> None:
    counts = loop(core, instruction, family, **more)
    assert counts[instruction] / counts.total() > share, counts.most_common(8)
    if core == "cortex-a9":
        assert not counts["vadd.f32"], "products are added by the instruction that multiplies"
    if instruction == "sadalp":
        assert counts["smull"] == counts["smlal2"] == counts["sadalp"]
    assert counts["stp"] + counts["vstmia"] == 0, "no sum leaves the registers"
