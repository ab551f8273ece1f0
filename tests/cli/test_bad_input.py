"""Everything a user can get wrong: one clear error that names the file or the field and what is allowed, and nothing written."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent


@pytest.fixture
def refused(call, tmp_path: Path):
    """Export with these arguments must fail; the error as JSON and as one line say the same, and nothing is left."""
    out = tmp_path / "out"

    def run(status: int, kind: str, *argv: object) -> str:
        result = call("export", "-o", out, *argv, "--json")
        assert result.status == status, result
        assert result.error["kind"] == kind, result.error
        assert not out.exists()
        assert not list(tmp_path.glob(".*"))
        plain = call("export", "-o", out, *argv)
        assert (plain.status, plain.out) == (status, "")
        lines = plain.err.splitlines()
        assert lines[-1].startswith("inception-deploy: error: ")
        assert "Traceback" not in plain.err
        return lines[-1].removeprefix("inception-deploy: error: ")

    return run


# -- names and options ----------------------------------------------------------------------------------------------


def test_an_unknown_model(refused) -> None:
    line = refused(2, "model", "--model", "inception_resnet_v3")
    assert line.startswith(
        "there is no model 'inception_resnet_v3'; did you mean inception_resnet_v2 or inception_resnet_v1"
    )
    assert "allowed: lenet5, alexnet" in line


def test_an_unknown_target(refused) -> None:
    assert refused(2, "target", "--model", "lenet5", "--target", "cpuu").startswith(
        "there is no target 'cpuu'; did you mean cpu"
    )
    assert "did you mean cpu:avx512" in refused(2, "target", "--model", "lenet5", "--target", "cpu:avx51")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cortex-a73", "cortex-a73 runs what is built for arm:cortex-a72"),
        ("arm:cortex-x1", "cortex-x1 runs what is built for arm:cortex-a78"),
        ("jetson-nano", "jetson-nano runs what is built for arm:cortex-a72"),
        (
            "neoverse-v9",
            "did you mean arm:neoverse-v2 or arm:neoverse-v1 or arm:neoverse-n2? every 64-bit core runs what",
        ),
        ("arm:m7", "every 64-bit core runs what is built for arm:cortex-a53"),
    ],
)
def test_a_core_without_kernels_of_its_own(refused, name: str, says: str) -> None:
    """Spelled alike is not built alike: a Cortex-A73 has not the instructions of an A76."""
    line = refused(2, "target", "--model", "lenet5", "--target", name)
    assert line.startswith(f"there is no target '{'' if ':' in name else 'arm:'}{name}'; {says}")
    assert "allowed: arm, arm:cortex-a72, arm:cortex-a53" in line


def test_a_precision_that_no_target_has(refused) -> None:
    line = refused(2, "precision", "--model", "lenet5", "--precision", "fp8")
    assert line.startswith("target cpu does not compute in 'fp8'; allowed: fp32, int8")


def test_an_input_that_is_too_small(refused) -> None:
    line = refused(2, "input-size", "--model", "irv2", "--input-size", "64", "--width", "0.125")
    assert line == "input size 64x64 is too small for inception_resnet_v2: at least 75x75"


def test_an_option_the_network_does_not_have(refused) -> None:
    assert refused(2, "option", "--model", "resnet18", "--option", "scale=1").startswith(
        "resnet18 has no option 'scale'"
    )
    assert refused(2, "option", "--model", "resnet18", "--option", "scale").startswith(
        "--option is 'scale'; allowed: NAME=VALUE"
    )


def test_options_of_the_zoo_on_a_users_model(refused, branchy: str) -> None:
    line = refused(2, "usage", "--model", branchy, "--width", "0.5")
    assert line.startswith(f"--width shapes networks of the zoo; {branchy} is a callable")


# -- the user's code ------------------------------------------------------------------------------------------------


def test_a_callable_that_is_not_there(refused, branchy: str, tmp_path: Path) -> None:
    path = branchy.rpartition(":")[0]
    assert refused(2, "model", "--model", f"{path}:biuld").startswith(f"{path} has no 'biuld'; did you mean build")
    missing = tmp_path / "none.py"
    assert refused(2, "model", "--model", f"{missing}:build").startswith(f"no such file: {missing}")
    assert refused(2, "model", "--model", path).startswith(f"'{path}' does not name a callable")
    assert refused(2, "model", "--model", "no.such.package:f").startswith("there is no Python module 'no.such.package'")


def test_a_callable_that_fails_names_its_line(refused, branchy: str) -> None:
    path = branchy.rpartition(":")[0]
    line = refused(1, "model", "--model", f"{path}:broken")
    assert line.startswith(f"calling {path}:broken raised ZeroDivisionError: division by zero (branchy.py, line ")


def test_a_callable_that_gives_no_module(refused, branchy: str) -> None:
    path = branchy.rpartition(":")[0]
    assert refused(1, "model", "--model", f"{path}:number").startswith(f"{path}:number gave int, not a torch.nn.Module")


def test_a_callable_that_does_not_take_the_size(refused, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))\n"
    )
    line = refused(1, "model", "--model", f"{tmp_path / 'net.py'}:net", "--input-size", "8")
    assert line.startswith("running the module on an input of shape [1, 3, 8, 8] raised RuntimeError")


# -- weights --------------------------------------------------------------------------------------------------------


def weights(path: Path, change: Callable[[dict], None]) -> Path:
    """A lenet5 checkpoint, changed."""
    import torch

    from inception_deploy import models

    state = dict(models.build("lenet5").state_dict())
    change(state)
    torch.save(state, path)
    return path


def test_weights_that_do_not_fit_are_listed(refused, tmp_path: Path) -> None:
    import torch

    def spoil(state: dict) -> None:
        first, second = list(state)[:2]
        del state[first]
        state[second] = torch.zeros(3, 5)
        state["surplus.weight"] = torch.zeros(1)

    path = weights(tmp_path / "w.pth", spoil)
    line = refused(1, "weights", "--model", "lenet5", "--weights", path)
    assert line.startswith(f"{path} does not fit lenet5")
    assert "1 missing: " in line
    assert "1 unexpected: surplus.weight" in line
    assert "1 of the wrong shape: " in line
    assert "(file 3x5, network " in line


class Evil:
    """A pickle that would run code when loaded carelessly."""

    def __reduce__(self):
        return (os.mkdir, (str(HERE / "evil"),))


def test_a_pickle_that_is_not_weights_is_not_run(refused, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(Evil()))
    assert refused(1, "weights", "--model", "lenet5", "--weights", path).startswith(
        f"{path} is not a checkpoint of plain tensors"
    )
    assert not (HERE / "evil").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"\x10\0\0\0\0\0\0\0nonsense", "cannot be read as safetensors"),
        ("w.pth", b"hello", "is no weights file that is known here"),
        ("w.bin", b"hello", "is no weights file that is known here"),
    ],
)
def test_a_file_that_is_not_weights(refused, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refused(1, "weights", "--model", "lenet5", "--weights", tmp_path / name)


def test_weights_that_are_not_there(refused, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    assert refused(1, "weights", "--model", "lenet5", "--weights", path).startswith(
        f"weights file {path} does not exist"
    )


# -- ONNX files -----------------------------------------------------------------------------------------------------


def conv_model(nodes=None, initializers=None, shape=(1, 3, 8, 8)) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        nodes or [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers if initializers is not None else [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def outside() -> onnx.ModelProto:
    model = conv_model()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../../../../etc/passwd"), ("offset", "0"), ("length", "432")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    return model


def cycle() -> onnx.ModelProto:
    return conv_model([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
                       helper.make_node("Relu", ["b"], ["y"])])  # fmt: skip


def unknown_operator() -> onnx.ModelProto:
    return conv_model([helper.make_node("Frobnicate", ["x"], ["y"])])


def overflowing_shape() -> onnx.ModelProto:
    return conv_model(shape=(1, 3, 2**40, 2**40))


def huge_weight() -> onnx.ModelProto:
    weight = TensorProto(data_type=TensorProto.FLOAT, dims=[2**31, 2**31, 3, 3], name="w")
    return conv_model(initializers=[weight])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (outside, "outside"),
        (cycle, "cycle"),
        (unknown_operator, "Frobnicate"),
        (overflowing_shape, ""),
        (huge_weight, "w"),
    ],
)
def test_a_hostile_onnx(refused, tmp_path: Path, make: Callable[[], onnx.ModelProto], says: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(make().SerializeToString())
    line = refused(1, "onnx", "--model", path)
    assert str(path) in line
    assert says in line


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_onnx(refused, tmp_path: Path, keep: float) -> None:
    path = tmp_path / "net.onnx"
    whole = conv_model().SerializeToString()
    path.write_bytes(whole[: int(keep if keep > 1 else keep * len(whole))])
    assert str(path) in refused(1, "onnx", "--model", path)


def test_an_onnx_that_is_not_there_or_is_something_else(refused, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    assert str(path) in refused(1, "onnx", "--model", path)
    path.write_text("hello")
    assert str(path) in refused(1, "onnx", "--model", path)


def test_weights_do_not_go_with_an_onnx(refused, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(conv_model().SerializeToString())
    assert refused(2, "usage", "--model", path, "--weights", "w.pth").startswith(
        "--weights does not go with an ONNX file"
    )


# -- the bundle's place ---------------------------------------------------------------------------------------------


def test_a_folder_that_exists_is_left_alone(call, branchy: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    for argv in (["-o", tmp_path], ["-o", tmp_path / "mine"]):
        result = call("export", "--model", branchy, *argv, "--json")
        assert (result.status, result.error["kind"]) == (1, "exists")
        assert result.error["message"] == f"{argv[1]} already exists; --force replaces it, or choose another --output"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "x"


def test_a_place_that_cannot_be_written(call, branchy: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = call("export", "--model", branchy, "-o", tmp_path / "file" / "out", "--json")
    assert (result.status, result.error["kind"]) == (1, "io")
    assert str(tmp_path / "file") in result.error["message"]


def export(branchy: str, out: Path, **options) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "inception_deploy",
        "export",
        "--model",
        branchy,
        "--input-size",
        "32",
        "-o",
        str(out),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_full_disk_leaves_nothing(branchy: str, tmp_path: Path) -> None:
    """A limit on the size of a file is met like a full disk: in the middle of writing."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    process = export(branchy, tmp_path / "out", preexec_fn=limit)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (1, "")
    assert err.splitlines()[-1].startswith(
        f"inception-deploy: error: no space left on the disk of {tmp_path}; nothing was written"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(branchy: str, tmp_path: Path, number: signal.Signals) -> None:
    process = export(branchy, tmp_path / "out")
    wait_for_work(tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (128 + number, "")
    assert err.splitlines()[-1] == "inception-deploy: error: interrupted"
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_leaves_no_bundle_and_the_next_one_cleans_up(call, branchy: str, tmp_path: Path) -> None:
    process = export(branchy, tmp_path / "out")
    wait_for_work(tmp_path)
    process.kill()
    process.communicate(timeout=120)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    assert call("export", "--model", branchy, "--input-size", 32, "-o", tmp_path / "out").status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def wait_for_work(folder: Path) -> None:
    """Until the export in another process has begun to fill its folder."""
    end = time.monotonic() + 120
    while not list(folder.glob(".out.*.partial/content")):
        assert time.monotonic() < end, "the export did not begin"
        time.sleep(0.02)
    time.sleep(0.5)


# -- bundles and pictures -------------------------------------------------------------------------------------------


def test_a_wrong_image(call, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("hello")
    result = call("run", exported, "--image", path, "--json")
    assert (result.status, result.error["kind"]) == (1, "image")
    assert result.error["message"] == f"image {path} is no picture"
    assert result.error["allowed"] == "a JPEG, PNG, WebP, BMP or TIFF file"


@pytest.mark.parametrize("command", ["run", "verify", "bench", "inspect", "report"])
def test_a_bundle_that_is_not_there(call, tmp_path: Path, command: str) -> None:
    rest = {"run": ["--input", "x.npy"], "report": ["-o", "x.html"]}.get(command, [])
    result = call(command, tmp_path / "none", *rest, "--json")
    assert (result.status, result.error["kind"]) == (1, "bundle")
    assert result.error["message"] == f"bundle {tmp_path / 'none'} does not exist"


def test_a_damaged_library_is_never_loaded(
    call, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from inception_deploy.runtime import compiled

    shutil.copytree(exported, tmp_path / "b")
    library = tmp_path / "b" / "model.so"
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    library.write_bytes(content)
    monkeypatch.setattr(compiled, "load", lambda *a, **k: pytest.fail("loaded before it was checked"))
    result = call("verify", tmp_path / "b", "--json")
    assert (result.status, result.error["kind"]) == (1, "bundle")
    assert result.error["message"].endswith("b is damaged: model.so has not the SHA-256 of its manifest")
