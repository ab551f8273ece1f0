"""The target's name, what it says of itself, and what it says where something is missing."""

from __future__ import annotations

import math

import pytest

from inception_deploy.errors import UsageError
from inception_deploy.kernels.spec import Conv, GlobalAverage
from inception_deploy.targets import cuda, cuda_compile, cuda_library


def test_names():
    assert cuda.parse("cuda", "").archs == ("sm_80", "sm_90")
    assert cuda.parse("cuda", "sm_90").archs == ("sm_90",)
    assert cuda.parse("cuda", "sm_90,sm_80,sm_90").archs == ("sm_80", "sm_90")
    assert cuda.parse("cuda", "sm_90").name == "cuda:sm_90"
    assert cuda.names("cuda")[0] == "cuda"
    for name in cuda.names("cuda")[1:]:
        assert cuda.parse(*name.split(":")).name == name


@pytest.mark.parametrize("suffix", ["sm_70", "sm_9", "90", "sm_90,", "sm_90a", "hopper", "sm_80,cpu"])
def test_no_such_architecture(suffix):
    with pytest.raises(UsageError, match="is not an architecture from sm_75 on") as caught:
        cuda.parse("cuda", suffix)
    assert "cuda:sm_90" in caught.value.allowed


def test_a_manifest_leads_back_to_the_target(monkeypatch):
    monkeypatch.setattr(cuda_compile, "find", lambda: cuda_compile.Nvcc("nvcc", "nvcc 13.0", ("sm_80", "sm_90")))
    for suffix in ("", "sm_90"):
        target = cuda.parse("cuda", suffix)
        details = target.describe()
        assert details["compiler"] == "nvcc 13.0"
        assert cuda.parse(details["kind"], details["variant"]).archs == target.archs
    assert target.needs() == "an NVIDIA GPU of sm_90 and its driver"
    assert target.unbuildable() is None
    assert cuda.parse("cuda", "sm_120").unbuildable() == "nvcc 13.0 does not compile for sm_120"


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(cuda_compile, "find", lambda: None)
    assert cuda.parse("cuda", "").unbuildable() == "needs NVIDIA's compiler: pip install 'inception-deploy[cuda]'"


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("no NVIDIA driver (libcuda.so.1) on this machine", "no NVIDIA driver (libcuda.so.1) on this machine"),
        ((7, 5), "the GPU here is sm_75, which does not run code for sm_80, sm_90"),
        ((10, 0), "the GPU here is sm_100, which does not run code for sm_80, sm_90"),
        ((8, 0), None),
        ((8, 9), None),
        ((9, 0), None),
    ],
)
def test_what_is_missing_here(monkeypatch, found, reason):
    monkeypatch.setattr(cuda, "device_capability", lambda: found)
    assert cuda.parse("cuda", "").missing() == reason


def test_the_driver_is_asked(simulated):
    """The simulated driver is the one that ctypes finds."""
    simulated.library.fake_device(1, 86)
    assert cuda.device_capability() == (8, 6)
    simulated.library.fake_device(0, 86)
    assert cuda.device_capability() == "the NVIDIA driver finds no GPU"
    simulated.library.fake_device(1, 90)


def test_architectures_as_the_driver_numbers_them():
    assert [cuda_library.version(arch) for arch in ("sm_80", "sm_89", "sm_120")] == [(8, 0), (8, 9), (12, 0)]


def test_units_are_the_blocks_of_threads():
    target = cuda.parse("cuda", "")
    average = GlobalAverage(2, 3, 64)
    assert target.units(average, target.schedule(average)) == 6
    small = Conv(1, 2080, 8, 8, 192, 8, 8, (1, 1))
    schedule = target.schedule(small)
    program = target.family(small).family.program(small, schedule)
    (launch,) = program.launches
    assert launch.grid[2] == schedule.split > 1
    assert program.counters == math.prod(launch.grid[:2]), "one for each tile whose parts meet"
    assert target.units(small, schedule) == math.prod(launch.grid)
