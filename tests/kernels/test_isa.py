"""The table of instruction sets, where something else knows better: LLVM's own table of cores."""

from __future__ import annotations

import pytest

from inception_deploy.kernels.isa import ISAS, Isa

ARM = [isa for isa in ISAS if isa.kind == "arm"]

TAKEN = {"neon", "fp-armv8", "fp16", "vfp3", "dotprod", "fullfp16", "i8mm", "bf16", "lse", "rdm", "crc", "rcpc"}
"""Of LLVM's features, what its code for a core may use; others say how it is scheduled, or are the system's."""


def features(isa: Isa, core: str) -> set[str]:
    import tvm
    from tvm.target import codegen

    target = tvm.target.Target({"kind": "llvm", "mtriple": isa.mtriple, "mcpu": core})
    return {str(feature) for feature in codegen.llvm_get_cpu_features(target)}


@pytest.mark.parametrize("isa", [isa for isa in ARM if isa.stands_for], ids=lambda isa: isa.name)
def test_what_a_core_stands_for_has_its_instructions(isa: Isa) -> None:
    from tvm.target import codegen

    own = features(isa, isa.mcpu) & TAKEN
    assert own
    known = [core for core in isa.stands_for if codegen.llvm_is_valid_cpu(core, isa.mtriple)]
    assert known
    for core in known:
        assert own <= features(isa, core), core


def test_every_name_is_of_one_core() -> None:
    names = [name for isa in ARM for name in (isa.name, *isa.boards, *isa.stands_for)]
    assert len(set(names)) == len(names)
