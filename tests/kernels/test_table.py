"""Which kernels compute what, and what the others say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inception_deploy import targets
from inception_deploy.errors import DeployError
from inception_deploy.kernels.dots import VPDPBUSD
from inception_deploy.kernels.elements import BF16, BYTE, PAIR, WIDE
from inception_deploy.kernels.isa import ISAS, Isa, gpu
from inception_deploy.kernels.spec import Conv, Map, Pixels, Softmax, Spec, Window, WindowOp
from inception_deploy.kernels.table import BY_NAME, FAMILIES, find

BY = {isa.name: isa for isa in ISAS}
CONV = Conv(1, 32, 9, 9, 32, 9, 9, (1, 1))
DENSE = Conv(1, 64, 1, 1, 32, 1, 1, (1, 1))


def kept(spec: Conv, element: str, out: str | None = None) -> Conv:
    return replace(spec, in_element=element, out_element=out or element)


@pytest.mark.parametrize(
    ("spec", "isa", "family"),
    [
        (CONV, "avx2", "vector.conv"),
        (CONV, "avx512-amx", "vector.conv"),
        (kept(CONV, PAIR), "avx512-amx", "matrix.conv"),
        (kept(CONV, BF16, WIDE), "avx512-amx", "matrix.conv"),
        (kept(DENSE, WIDE), "avx512-amx", "vector.conv"),
        (kept(CONV, BYTE), "avx512-vnni", "bytes.conv"),
        (CONV, "sm_80", "gpu.conv"),
        (DENSE, "sm_90", "gpu.dense"),
        (replace(DENSE, batch=9), "sm_80", "gpu.conv"),
        (Softmax(1, 10), "cortex-a72", "vector.softmax"),
        (Map("clip", 1, 1, 4, in_element=BYTE, out_element=BYTE), "avx512-vnni", "bytes.map"),
        (Map("clip", 1, 1, 4), "avx512-vnni", "vector.map"),
        (Pixels(1, 3, 4, 9, 9, out_element=BYTE), "avx512-vnni", "bytes.pixels"),
        (Window(WindowOp.MAX, 1, 1, 9, 9, 4, 4, (2, 2), (2, 2), (0,) * 4), "sm_80", "gpu.window"),
    ],
)
def test_the_first_family_that_serves(spec: Spec, isa: str, family: str) -> None:
    assert find(spec, BY[isa]).family.name == family


def test_the_others_say_why_not() -> None:
    assert find(CONV, BY["avx2"]).refused == (
        ("matrix.conv", "avx2 has no tiles of float32"), ("bytes.conv", "it multiplies float32, not quantized numbers"),
        ("bytes.winograd_products", "it multiplies float32, not int16"),
        ("vector.halves", "it multiplies float32, not fp16"),
        ("vector.squares", "it multiplies float32, not bfloat16 in blocks of 16"),
    )  # fmt: skip
    assert dict(find(CONV, BY["sm_80"]).refused)["vector.conv"] == "sm_80 is a GPU"
    assert dict(find(CONV, BY["sm_80"]).refused)["gpu.dense"] == "it is no fully connected layer of at most 8 images"


def test_nobody_serves() -> None:
    with pytest.raises(DeployError) as caught:
        find(kept(CONV, BYTE), BY["avx512"])
    assert caught.value.kind == "kernel"
    assert "no kernel of avx512 computes a 32-32 1x1 @9x9 (matrix.conv: avx512 has no tiles of uint8; " in str(
        caught.value
    )
    assert "bytes.conv: avx512 has no instruction that multiplies bytes" in caught.value.message


def test_names_are_their_modules() -> None:
    assert len(BY_NAME) == len(FAMILIES)
    for family in FAMILIES:
        folder = family.name.split(".")[0]
        assert f".kernels.{folder}." in family.emit.__module__
        assert family.version >= 1


def test_a_plan_says_whose_its_kernels_are() -> None:
    from inception_deploy.lower.lower import kernel_of

    kernel = kernel_of(targets.parse("cpu:avx2"), CONV)
    assert kernel.family == "vector.conv"
    assert dict(kernel.refused)["bytes.conv"] == "it multiplies float32, not quantized numbers"


GOOD = BY["avx512-vnni"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "vax"}, "avx512-vnni: there is no kind of target 'vax'"),
        ({"lanes": 5}, "is no whole number of vectors of 5"),
        ({"registers": 8}, "8 registers are too few"),
        ({"triple": ""}, "a CPU has machine, mtriple, triple and mcpu"),
        ({"features": ("avx2",)}, "vpdpbusd needs avx512_vnni, which it has not"),
        ({"lanes": 8, "dots": (replace(VPDPBUSD, lanes=12, depth=4),)}, "vpdpbusd has 12 lanes, a vector has 8"),
    ],
)
def test_an_instruction_set_that_contradicts_itself(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(GOOD, **change)


def test_what_an_instruction_set_has() -> None:
    assert [isa.name for isa in ISAS if isa.has("tiles")] == ["avx512-amx"]
    assert all(isa.has("") and not isa.has("a quantum") for isa in ISAS)
    assert replace(gpu("sm_99"), card=None) == Isa("sm_99", "cuda", 1, 255)
    assert len({(isa.kind, isa.name) for isa in ISAS}) == len(ISAS)
