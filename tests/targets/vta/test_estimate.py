"""The estimate of a bundle's time: what its streams take together, each step, and each engine over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import inception_deploy as idp
from inception_deploy.runtime import bundle as bundles
from inception_deploy.targets.vta.estimate import estimate

from ...lower.test_integers import model_of, tables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Streams with the host between them."""
    import onnx

    folder = tmp_path_factory.mktemp("vta")
    model, pictures = model_of(tables)
    onnx.save(model, str(folder / "model.onnx"))
    np.savez(folder / "pictures.npz", inputs=pictures)
    idp.export(folder / "model.onnx", folder / "out", target="vta:zcu104", calibration=folder / "pictures.npz")
    return folder / "out"


def test_streams_add_up(made: Path) -> None:
    with bundles.open(made) as opened:
        found = estimate(opened)
    assert found is not None
    assert (found["board"], found["estimate"]) == ("zcu104", True)
    assert found["streams"] > 1
    apart = sum(step["cycles"] for step in found["steps"])
    assert apart <= found["cycles"] <= apart + 100 * found["streams"]  # a stream begins and ends with something, too
    assert found["bound"] == sum(step["bound"] for step in found["steps"]) > 0
    assert found["ms"] == pytest.approx(found["cycles"] / 333e3)
    assert found["compulsory"] <= sum(found["moved"].values()) * 2
    shares = np.array([*found["timeline"].values()])
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert shares.sum(0).min() > 0  # somebody is always busy


def test_inspect_tells_it_with_the_hosts_reasons(made: Path) -> None:
    vta = idp.inspect(made)["vta"]
    assert vta["macs_percent"] == 100
    assert [step["op"] for step in vta["steps"]].count("conv") == 3
    assert {row["reason"] for row in vta["kept"]} == {"a VTA has no instruction for 'table'"}


def test_a_bundle_without_a_vta_has_none(tmp_path: Path) -> None:
    assert estimate(bundles.Bundle(tmp_path, tmp_path, {"files": {"model.onnx": ""}})) is None
