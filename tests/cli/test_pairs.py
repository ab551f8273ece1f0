"""fp32 on a CPU with matrix tiles: what the bundle says of its arithmetic, and what becomes of a network that loses too
much by it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inception_deploy import targets
from inception_deploy.kernels.elements import PAIR
from inception_deploy.runtime import compiled
from inception_deploy.targets import cpu
from inception_deploy.verify import bound

Export = Callable[..., dict[str, Any]]


@pytest.fixture
def export(call: Any, branchy: str, tmp_path: Path) -> Export:
    """`export(*more)`: the manifest of a bundle of `branchy`."""
    if targets.parse("cpu").at("fp32").element != PAIR:
        pytest.skip("this machine has no matrix tiles")

    def made(*more: str) -> dict[str, Any]:
        result = call("export", "--model", branchy, "--input-size", 32, "-o", tmp_path / "b", "--json", *more)
        assert result.status == 0
        manifest: dict[str, Any] = json.loads((tmp_path / "b" / "manifest.json").read_text())
        return manifest

    return made


def test_fp32_is_computed_on_tiles_where_there_are_some(export: Export, call: Any, tmp_path: Path) -> None:
    manifest = export()
    assert manifest["target_details"]["variant"] == "avx512-amx"
    assert "three products" in manifest["arithmetic"]
    assert manifest["arithmetic"] in call("inspect", tmp_path / "b").out.replace("\n", " ")
    rows = {row["stage"]: row for row in call("verify", tmp_path / "b", "--json").document["stages"]}
    assert 0 < rows["compiled"]["max_rel"] < bound("pairs")


def test_a_target_without_tiles_computes_with_multiply_adds(export: Export) -> None:
    manifest = export("--target", "cpu:avx512")
    assert (manifest["target_details"]["variant"], manifest["arithmetic"]) == ("avx512", "fp32 multiply-adds")


def test_a_network_that_loses_too_much_is_compiled_again(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = compiled.CompiledModel.run, []

    def lossy(self: compiled.CompiledModel, *x: Any) -> Any:
        seen.append("amx_tile" in self.features)
        return [1.01 * y if seen[-1] else y for y in run(self, *x)]

    monkeypatch.setattr(compiled.CompiledModel, "run", lossy)
    manifest = export()
    assert seen[0]
    assert not seen[-1], "the second library is not the first one"
    assert (manifest["target"], manifest["target_details"]["variant"]) == ("cpu", "avx512")
    assert manifest["arithmetic"] == "fp32 multiply-adds"


def test_linux_may_keep_the_tiles_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_tiles_permitted", lambda: False)
    assert not any(feature.startswith("amx") for feature in cpu.host_features())
    assert targets.parse("cpu:avx512-amx").missing() is not None
    assert targets.parse("cpu").at("fp32").element == "float32"
