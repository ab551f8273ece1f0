"""`vta simulate --bundle`: a bundle's own streams, executed from its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inception_deploy import cli
from inception_deploy.kernels.vta.profiles import PROFILES
from inception_deploy.lower.plan import Ref
from inception_deploy.runtime import bundle
from inception_deploy.targets import vta_library

from . import products

MANIFEST: dict[str, Any] = {
    "model": "products",
    "target": "vta:zcu104",
    "target_details": {"kind": "vta", "variant": "zcu104", "profile": "hls"},
    "memory": {"arena_bytes": 64, "weights_bytes": 64},
    "precision": "int8",
    "inputs": [{"name": "input", "shape": [1, 128], "dtype": "float32"}],
    "outputs": [{"name": "logits", "shape": [1, 128], "dtype": "float32"}],
    "preprocessing": None,
    "tools": {},
}


@pytest.fixture
def made(tiny, tmp_path):
    """`made(*streams)`: a sealed bundle of that many products; the second one's weights lie in an allocation of their own."""

    def make(*streams: products.Stream, **manifest: Any) -> Path:
        far = 30 << 20
        weights = bytearray(products.CASE.wgt.tobytes())
        if len(streams) > 1:
            weights += bytes(far - 512) + weights + bytes(4 << 20)
        plan = products.plan(len(streams), bytes(weights))
        if len(streams) > 1:
            args = (plan.steps[3].args[0], Ref("vta weights", far), plan.steps[3].args[2])
            plan = replace(plan, steps=(*plan.steps[:3], replace(plan.steps[3], args=args), *plan.steps[4:]))
        folder = tmp_path / "bundle"
        folder.mkdir()
        here = vta_library.Host(tiny.triple, products.kernels(tiny.triple))
        vta_library.write(plan, streams, products.CONFIG, PROFILES["hls"], folder, here=here)
        (folder / "model.onnx").write_bytes(b"onnx")
        (folder / "verify.json").write_text('{"ok": true, "stages": [], "not_run": []}')
        bundle.seal(folder, MANIFEST | manifest)
        return folder

    return make


def reseal(folder: Path, **manifest: Any) -> None:
    (folder / "manifest.json").unlink()
    bundle.seal(folder, MANIFEST | manifest)


def told(capsys: pytest.CaptureFixture[str], *options: object) -> Any:
    assert cli.main(["vta", "simulate", *map(str, options), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_stream_is_executed_and_timed_on_the_bundles_board(made, capsys, tmp_path):
    folder = made(products.stream(), products.stream(30 << 20))
    for number in range(2):
        document = told(capsys, "--bundle", folder, "--stream", number, "--trace", tmp_path / "t.json")
        assert (document["stream"], document["streams"], document["profile"]) == (number, 2, "hls")
        assert (document["gemm_steps"], document["bytes"]["wgt"]) == (16, 512)
        assert (document["timing"]["board"], document["timing"]["estimate"]) == ("zcu104", True)
        (step,) = document["steps"]
        assert (step["name"], step["first"], step["end"]) == (f"product{number}", 0, 10)
        assert step["cycles"] == document["timing"]["cycles"]
    assert json.loads((tmp_path / "t.json").read_text())["otherData"]["board"] == "zcu104"
    assert told(capsys, "--bundle", folder, "--board", "pynq")["timing"]["board"] == "pynq"
    assert cli.main(["vta", "simulate", "--bundle", str(folder), "--stats"]) == 0
    assert "product0" in capsys.readouterr().out


def test_a_stream_that_hangs(made, capsys):
    folder = made(products.stream(wgt={"push_next": 0}))
    assert cli.main(["vta", "simulate", "--bundle", str(folder)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "instruction 3 (compute GEMM" in error
    assert error.endswith("waits for a token that never comes: the stream hangs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stream", "1"], "has 1 streams"),
        (["--config", "c.json"], "--config goes with files of instructions"),
        (["--load", "x@0x10"], "--load goes with files of instructions"),
        (["--board", "arty"], "there is no VTA board 'arty'"),
    ],
)
def test_what_does_not_go_together(made, capsys, options, message):
    folder = made(products.stream())
    assert cli.main(["vta", "simulate", "--bundle", str(folder), *options]) == 2
    assert message in capsys.readouterr().err


def test_neither_a_bundle_nor_files(capsys):
    assert cli.main(["vta", "simulate"]) == 2
    assert "takes --config and --insns, or --bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m["streams"][0].update(instructions="../../etc/passwd"), "which its manifest does not"),
        (lambda m: m["allocations"][0].update(bytes=1 << 40), "allocates 1099511627776 bytes"),
        (lambda m: m["streams"][0].update(relocations="vta/config.json"), "is cut short|is no instruction"),
        (lambda m: m.pop("streams"), "streams"),
    ],
)
def test_a_map_that_is_damaged_or_hostile(made, capsys, edit, message):
    folder = made(products.stream())
    document = json.loads((folder / "vta/memory.json").read_text())
    edit(document)
    (folder / "vta/memory.json").write_text(json.dumps(document))
    reseal(folder)
    assert cli.main(["vta", "simulate", "--bundle", str(folder)]) == 1
    error = capsys.readouterr().err
    assert any(part in error for part in message.split("|")), error


def test_a_bundle_for_something_else(made, capsys, tmp_path):
    folder = made(products.stream())
    for path in (folder / "vta").iterdir():
        path.unlink()
    reseal(folder, target="cpu:avx2")
    assert cli.main(["vta", "simulate", "--bundle", str(folder)]) == 2
    assert "is for cpu:avx2 and has no streams of a VTA" in capsys.readouterr().err
