"""A board's bundle on a machine without the board: the simulator in it, the simulator as a library, another's driver."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import numpy as np
import pytest

from inception_deploy.targets import link
from inception_deploy.targets.vta import driver

from ..targets.conftest import TRIPLES

C = Path(__file__).parent.parent / "targets/vta/c"
TRIPLE = TRIPLES.get(platform.machine(), "")


@pytest.fixture(scope="module")
def board(branchy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`branchy` for a PYNQ-Z1."""
    from inception_deploy import cli

    folder = tmp_path_factory.mktemp("board")
    random = np.random.default_rng(8)
    np.savez(folder / "pictures.npz", images=random.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    argv = ["export", "--model", branchy, "--input-size", 32, "--target", "vta:pynq", "--effort", "fast"]
    argv += ["--calibration", folder / "pictures.npz", "-o", folder / "bundle"]
    assert cli.main([str(word) for word in argv]) == 0
    return folder / "bundle"


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The simulator, an executor that shares nothing with it, a host whose cache nobody keeps coherent around the
    simulator; and one that lacks a function.
    """
    folder = tmp_path_factory.mktemp("drivers")
    paths = {name: folder / f"lib{name}.so" for name in ("simulator", "second", "noncoherent", "lacking")}
    driver.build(paths["simulator"], profile_name="hls")
    compiled = link.compile_c((C / "second.c").read_text(), "second.c", TRIPLE)
    driver.link([compiled], paths["second"], TRIPLE)
    link.link_shared([compiled], driver.FUNCTIONS[1:], paths["lacking"], TRIPLE)
    around = link.compile_c((C / "noncoherent.c").read_text(), "noncoherent.c", TRIPLE)
    driver.link([around], paths["noncoherent"], TRIPLE, ["mock_around"])
    assert ctypes.CDLL(str(paths["noncoherent"])).mock_around(str(paths["simulator"]).encode())
    return paths


def test_every_driver_gives_the_same_bits(call, board: Path, drivers: dict[str, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32))
    for name, more in (
        ("own", []),
        *((name, ["--driver", drivers[name]]) for name in ("simulator", "second", "noncoherent")),
    ):
        out = tmp_path / f"{name}.npy"
        assert call("run", board, "--input", tmp_path / "x.npy", "--output", out, *more).status == 0
    first = (tmp_path / "own.npy").read_bytes()
    for name in ("simulator", "second", "noncoherent"):
        assert first == (tmp_path / f"{name}.npy").read_bytes(), name


def test_verify_and_bench_take_a_driver(call, board: Path, drivers: dict[str, Path]) -> None:
    done = call("verify", board, "--driver", drivers["second"], "--json")
    assert done.status == 0
    (row,) = (row for row in done.document["stages"] if row["stage"] == "compiled-int8")
    assert (row["ok"], row["max_abs"], row.get("recorded", False)) == (True, 0, False)
    done = call("bench", board, "--driver", drivers["second"], "--runs", 2, "--json")
    assert done.status == 0
    assert done.document["results"][0]["engine"] == "compiled"


def test_the_bundles_own_stream(call, board: Path) -> None:
    document = call("vta", "simulate", "--bundle", board, "--json").document
    assert (document["timing"]["board"], document["profile"]) == ("pynq", "hls")
    assert document["gemm_steps"] > 0
    assert sum(step["cycles"] for step in document["steps"]) <= document["timing"]["cycles"]


@pytest.mark.parametrize("command", [["verify"], ["bench", "--runs", "1"]])
def test_a_driver_that_lacks_a_function(call, board: Path, drivers: dict[str, Path], command: list[str]) -> None:
    done = call(*command, board, "--driver", drivers["lacking"])
    assert done.status == 1
    assert done.err.splitlines()[-1].endswith(f"the VTA's driver {drivers['lacking']} lacks VTADeviceAlloc")


def test_what_has_no_driver(call, board: Path, exported: Path, drivers: dict[str, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 32, 32), np.float32))
    more = ["--input", tmp_path / "x.npy", "--driver", drivers["second"]]
    done = call("run", board, *more, "--runtime", "onnxruntime")
    assert done.status == 2
    assert "onnxruntime drives no accelerator" in done.err
    done = call("run", exported, *more)
    assert done.status == 1
    assert "has no accelerator whose driver can be chosen" in done.err
