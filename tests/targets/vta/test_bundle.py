"""What a bundle for a VTA holds: a library for the board and one that simulates it here, and files that others read."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from inception_deploy.errors import DeployError
from inception_deploy.kernels.isa import ISAS, Isa
from inception_deploy.kernels.vta import config as configurations
from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.kernels.vta.profiles import PROFILES
from inception_deploy.runtime import compiled
from inception_deploy.targets import vta_library
from inception_deploy.targets.vta import driver, pieces
from inception_deploy.targets.vta.memory import Dram
from inception_deploy.targets.vta.simulator import simulate

from ...cases.emulator import emulator, run_library
from . import products

HOSTS: dict[str, Isa] = {
    name: next(row for row in ISAS if row.name == core)
    for name, core in (("pynq", "cortex-a9"), ("zcu104", "cortex-a53"), ("de10nano", "cortex-a9"))
}
HLS = PROFILES["hls"]


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(6).integers(-128, 128, (1, products.COUNT)).astype(np.float32)


def host(triple: str) -> vta_library.Host:
    return vta_library.Host(triple, products.kernels(triple))


@pytest.fixture
def export(tiny, tmp_path):
    """`export(board)`: the files for a board, or for the simulator where it is None."""

    def make(name: str | None, products_: int = 2) -> tuple[Path, list[str]]:
        made = products.plan(products_)
        streams = [products.stream() for _ in pieces.spans(made)]
        folder = tmp_path / (name or "sim")
        folder.mkdir()
        more = {} if name is None else {"board": BOARDS[name], "there": host(HOSTS[name].triple)}
        profile = HLS if name is None else BOARDS[name].profile
        written = vta_library.write(
            made, streams, products.CONFIG, profile, folder, here=host(tiny.triple), programs=False, **more
        )
        return folder, written

    return make


@pytest.mark.parametrize("name", [None, *HOSTS])
def test_it_runs_here_without_a_board(export, pixels, name):
    folder, written = export(name)
    assert sorted(written) == sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    with compiled.load(folder, threads=2) as model:
        np.testing.assert_array_equal(model.run(pixels)[0], products.expected(pixels, 2))
    if name is not None:
        assert {f"model-{platform.machine()}.so", "libvta.so"} <= set(written)
        (folder / f"model-{platform.machine()}.so").unlink()
        with pytest.raises(DeployError, match=f"was compiled for {HOSTS[name].machine} and this is"):
            compiled.load(folder)


def test_a_machine_like_the_boards_is_taken_for_the_board(tiny, export, pixels):
    """Unless the simulator is asked for, as an export does that looks at its own bundle."""
    folder, _ = export("zcu104")
    products.for_pynq(products.plan(2), folder / "native", tiny.triple)
    shutil.copyfile(folder / "native/model.so", folder / "model.so")
    with pytest.raises(DeployError, match=r"libvta\.so"):  # which is another machine's
        compiled.load(folder, threads=1)
    with compiled.load(folder, threads=1, simulated=True) as model:
        np.testing.assert_array_equal(model.run(pixels)[0], products.expected(pixels, 2))


@pytest.mark.parametrize("name", HOSTS)
def test_the_boards_own_library_runs_on_its_processor(export, tmp_path, pixels, name):
    """Under an emulator of that processor, with the simulator as its driver: 32-bit and 64-bit physical addresses."""
    folder, _ = export(name)
    row = HOSTS[name]
    board = BOARDS[name]
    coherent = not board.wiring.flushed
    driver.write_simulator(products.CONFIG, board.profile, folder / "libvta.so", row.triple, coherent=coherent)
    got = run_library(row, folder, pixels, products.COUNT)
    np.testing.assert_array_equal(got, products.expected(pixels, 2))


def test_equal_plans_give_equal_files(export, tmp_path):
    first, names = export("pynq")
    kept = {name: (first / name).read_bytes() for name in names}
    shutil.rmtree(first)
    second, again = export("pynq")
    assert kept == {name: (second / name).read_bytes() for name in again}


def test_others_run_it_from_its_files(export, pixels):
    """Nothing of the product but its simulator, which could be anybody's: the map says what lies where."""
    folder, _ = export(None, 1)
    told = json.loads((folder / "vta/memory.json").read_text())
    config = configurations.load(folder / told["configuration"])
    memories = {row["number"]: row for row in told["memories"]}
    place, at = {}, 0x8000
    for row in told["allocations"]:
        assert row["offset"] == 0  # small enough for one piece each
        place[row["memory"]] = at
        at += -(-row["bytes"] // 4096) * 4096 + 4096
    contents = []
    for row in told["memories"]:
        if row["name"] in place:
            data = bytes(row["bytes"])
            if "file" in row:
                data = (folder / row["file"]).read_bytes()[row["offset"] :][: row["bytes"]]
            contents.append((place[row["name"]], data))
    (stream,) = told["streams"]
    (step,) = stream["steps"]
    assert (step["name"], step["first"], step["end"], stream["count"]) == ("product0", 0, 10, 10)
    given, weights, result = step["operands"]
    assert [o["role"] for o in (given, weights, result)] == ["input", "constant", "output"]
    code = bytearray((folder / stream["instructions"]).read_bytes())
    for start in range(0, len(entries := (folder / stream["relocations"]).read_bytes()), told["relocation"]["bytes"]):
        fields = [entries[start + a : start + b] for a, b in ((0, 4), (4, 6), (6, 8))]
        number, memory, size = (int.from_bytes(field, "little") for field in fields)
        it = isa.decode(bytes(code[16 * number : 16 * number + 16]), config)
        moved = {**it.values, "dram_base": it["dram_base"] + place[memories[memory]["name"]] // size}
        code[16 * number : 16 * number + 16] = isa.encode(isa.Instruction(it.opcode, moved), config)
    dram = Dram.of(contents, [], config.inp_bytes)
    region = dram.region(place[given["memory"]])
    first = place[given["memory"]] + given["offset"] - region.address
    region.data[first : first + given["bytes"]] = pixels.astype(np.int8).reshape(-1).view(np.uint8)
    simulate(bytes(code), config, HLS, dram)
    got = np.frombuffer(dram.read(place[result["memory"]] + result["offset"], result["bytes"]), np.int8)
    np.testing.assert_array_equal(got, products.expected(pixels).astype(np.int8))
    assert stream["flush_before"] == [{"memory": "vta", "offset": products.IN_AT, "bytes": products.COUNT}]
    assert stream["invalidate_after"] == [
        {"memory": "vta", "offset": products.IN_AT, "bytes": products.COUNT},
        {"memory": "vta", "offset": products.OUT_AT, "bytes": products.COUNT},
    ]


@pytest.mark.slow  # musl is built once for each machine
@pytest.mark.parametrize("name", [None, "pynq", "zcu104"])
def test_a_program_has_its_driver_inside(tiny, tmp_path, pixels, name):
    """The simulator's runs here. A board's is run under an emulator, without a board: it says what it lacks."""
    made = products.plan(2)
    streams = [products.stream() for _ in pieces.spans(made)]
    more = {} if name is None else {"board": BOARDS[name], "there": host(HOSTS[name].triple)}
    written = vta_library.write(made, streams, products.CONFIG, HLS, tmp_path, here=host(tiny.triple), **more)
    assert {"run_model", "model.a", "model.c"} <= set(written)
    np.save(tmp_path / "x.npy", pixels)
    command = [] if name is None else emulator(HOSTS[name])[:3]
    command += [tmp_path / "run_model", tmp_path / "x.npy", "--output", tmp_path / "y.npy"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)
    if name is None:
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), products.expected(pixels, 2))
    else:
        assert done.returncode == 1
        said = done.stderr.splitlines()
        assert said[0].startswith("libvta: "), said
        assert "the VTA's driver" in said[-1], said
