"""Records that come with the package: whom they are for, and that every one of them can be used today."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from inception_deploy import targets
from inception_deploy.kernels import table
from inception_deploy.targets import cores
from inception_deploy.targets.cpu import Cpu
from inception_deploy.tuning import shipped
from inception_deploy.tuning.space import Space, default
from inception_deploy.tuning.tuned import Better

CPUINFO = "processor\t: 0\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: A CPU: of its kind\n\nprocessor\t: 1\n"


@pytest.mark.parametrize(
    ("vendor", "family", "model", "name"),
    [
        ("AuthenticAMD", 25, 1, "zen3"),
        ("AuthenticAMD", 25, 33, "zen3"),
        ("AuthenticAMD", 25, 17, "zen4"),
        ("AuthenticAMD", 26, 1, None),
        ("GenuineIntel", 6, 143, "sapphire-rapids"),
        ("GenuineIntel", 6, 25, None),
    ],
)
def test_a_core_is_known_by_its_numbers(tmp_path: Path, vendor: str, family: int, model: int, name: str | None) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(vendor, family, model))
    assert cores.here(tmp_path / "cpuinfo") == name


def test_a_machine_without_such_a_file(tmp_path: Path) -> None:
    assert cores.here(tmp_path / "cpuinfo") is None
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50.0\n")
    assert cores.here(tmp_path / "cpuinfo") is None


@pytest.fixture
def found(tasks, target: Cpu) -> list[Better]:
    """For each task two choices, the better one second."""
    drawn = [(task, Space(task, target).sample(Random(1), 2)) for task in tasks]
    return [Better(task, choice, ratio) for task, two in drawn for choice, ratio in zip(two, (0.9, 0.8), strict=True)]


@pytest.fixture
def folder(found: list[Better], target: Cpu, tmp_path: Path) -> Path:
    """Records of a core called `mine`."""
    (tmp_path / "mine.json").write_text(json.dumps(shipped.document("mine", target, found)))
    return tmp_path


def test_the_best_of_each_layer_is_taken(folder: Path, found: list[Better], target: Cpu) -> None:
    known = shipped.for_this_machine(replace(target, name="cpu"), folder, "mine")
    assert known is not None
    assert {key: one.choice for key, one in known.choices.items()} == {one.task.key: one.choice for one in found[1::2]}
    for one in found[1::2]:
        spec = one.task.spec
        assert known.winograd(spec) == one.choice.outputs
        if one.choice.outputs is None:
            assert known.schedule(spec) == one.choice.schedule
    said = known.manifest()
    assert said["shipped"] == "mine"
    assert {row["task"] for row in said["kernels"]} <= {one.task.key for one in found}
    assert known.note().endswith("from the records shipped for mine")


def test_they_are_for_this_machine_alone(folder: Path, target: Cpu) -> None:
    """A named instruction set gives the same bundle everywhere; another core has records of its own, or none."""
    assert target.name == "cpu:avx2"
    assert shipped.for_this_machine(target, folder, "mine") is None
    assert shipped.for_this_machine(replace(target, name="cpu"), folder, "other") is None
    assert shipped.for_this_machine(targets.parse("arm:cortex-a72"), folder, "mine") is None
    wider = replace(targets.parse("cpu:avx512"), name="cpu")
    assert shipped.for_this_machine(wider, folder, "mine") is None, "code for other instructions has other times"


def test_records_of_other_kernels_are_passed_over(folder: Path, target: Cpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.VERSIONS, "vector.conv", table.VERSIONS["vector.conv"] + 1)
    assert shipped.for_this_machine(replace(target, name="cpu"), folder, "mine") is None


@pytest.mark.parametrize("path", sorted(shipped.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_what_is_shipped_is_of_today(path: Path) -> None:
    """Each record is of a core that is known and of the kernels of today, and says something else than the default."""
    content = json.loads(path.read_text())
    assert path.stem == content["core"]
    assert content["core"] in {core.name for core in cores.CORES}
    name = {"x86-64-v3": "cpu:avx2", "x86-64-v4": "cpu:avx512"}[content["machine"]["mcpu"]]
    target = targets.parse(name)
    known = shipped.choices(content, target)
    assert len(known) == len(content["records"]) > 0
    for one in known.values():
        assert one.choice != default(one.task, target)
        assert one.ratio < 0.98
