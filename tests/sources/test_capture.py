"""Modules of every awkward kind through the exporter, and the user's own files through `load_callable`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from inception_deploy.errors import DeployError, UsageError
from inception_deploy.sources import capture
from inception_deploy.verify import require_ok

RNG = np.random.default_rng(0)


class ConvUnit(nn.Module):
    """Convolution, batch normalisation, ReLU, as every Inception has them."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Small(nn.Module):
    """A residual Inception block with a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.branch0 = ConvUnit(3, 4, 1)
        self.branch1 = nn.Sequential(ConvUnit(3, 4, 1), ConvUnit(4, 6, 3, 1))
        self.project = nn.Conv2d(10, 3, 1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(3, 7)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.branch0(x), self.branch1(x)], 1)
        x = torch.relu(x + 0.17 * self.project(joined))
        return self.fc(self.dropout(x.mean((2, 3))))


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, onnx.ModelProto]:
    module = Small()
    return module, capture.to_onnx(module, (1, 3, 8, 8))


def photo(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


# -- to_onnx --------------------------------------------------------------------------------------------------------


def test_the_exported_model_computes_what_torch_does(small) -> None:
    module, model = small
    require_ok(capture.check_against_torch(module, model, photo(1, 3, 8, 8)))


def test_its_interface_and_its_names(small) -> None:
    _, model = small
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["logits"]
    assert model.opset_import[0].version == capture.OPSET
    assert [node.name for node in model.graph.node] == [
        "branch0/conv",
        "branch0/bn",
        "branch0/relu",
        "branch1/0/conv",
        "branch1/0/bn",
        "branch1/0/relu",
        "branch1/1/conv",
        "branch1/1/bn",
        "branch1/1/relu",
        "concat",
        "project",
        "mul",
        "add",
        "relu",
        "reducemean",
        "fc",
    ]
    inner = [name for node in model.graph.node[:-1] for name in node.output]
    assert inner == [node.name for node in model.graph.node[:-1]]
    assert {value.name for value in model.graph.value_info} >= set(inner)
    assert capture.exporter_of(model) == "torch.export"


def test_the_bytes_depend_on_the_network_alone(small, tmp_path: Path) -> None:
    """The same network from another process, another folder and another hash seed."""
    _, model = small
    expected = hashlib.sha256(model.SerializeToString()).hexdigest()
    script = f"""
        import hashlib, importlib.util, sys
        spec = importlib.util.spec_from_file_location("elsewhere", {__file__!r})
        tests = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tests)
        from inception_deploy.sources import capture
        model = capture.to_onnx(tests.Small(), (1, 3, 8, 8))
        print(hashlib.sha256(model.SerializeToString()).hexdigest())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    run = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONHASHSEED": "7", "PATH": ""}, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == expected
    assert run.stderr == "", "an export is quiet"
    assert b"site-packages" not in model.SerializeToString()
    assert str(Path(__file__).parent).encode() not in model.SerializeToString()


def test_a_symbolic_batch_stays_symbolic() -> None:
    module = Small()
    model = capture.to_onnx(module, (1, 3, 8, 8), dynamic_batch=True)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for batch in (1, 3):
        require_ok(capture.check_against_torch(module, model, photo(batch, 3, 8, 8)))


def test_modes_are_put_back_and_the_generator_is_left_alone() -> None:
    module = Small().train()
    module.branch0.eval()
    before = [child.training for child in module.modules()]
    state = torch.random.get_rng_state()
    model = capture.to_onnx(module, (1, 3, 8, 8))
    assert [child.training for child in module.modules()] == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert "Dropout" not in {node.op_type for node in model.graph.node}


def test_of_several_outputs_the_first_counts() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.logits = nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"main": (self.a(x), self.logits(x)), "aux": self.logits(x)}

    module = Two().eval()
    model = capture.to_onnx(module, (1, 4))
    assert [value.name for value in model.graph.output] == ["logits"]
    assert [node.name for node in model.graph.node] == ["a"]
    require_ok(capture.check_against_torch(module, model, photo(1, 4)))


def test_modules_called_logits_and_input_do_not_collide() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.logits = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.logits(self.input(x)))

    module = Named()
    model = capture.to_onnx(module, (1, 4))
    names = [name for node in model.graph.node for name in node.output]
    assert len(set(names)) == len(names)
    require_ok(capture.check_against_torch(module, model, photo(1, 4)))


def test_a_module_used_twice_has_two_names() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.relu(self.fc(x)))

    module = Twice()
    model = capture.to_onnx(module, (1, 4))
    assert [node.name for node in model.graph.node] == ["fc", "relu", "fc_1"]
    require_ok(capture.check_against_torch(module, model, photo(1, 4)))


def test_progress_is_told(small) -> None:
    heard: list[str] = []
    capture.to_onnx(nn.Linear(4, 2), (1, 4), progress=heard.append)
    assert heard == ["running the module once", "exporting with torch.export", "simplifying"]


# -- what cannot be exported ----------------------------------------------------------------------------------------


def test_an_input_too_small_is_the_modules_own_error() -> None:
    with pytest.raises(DeployError, match=r"running the module on an input of shape \[1, 3, 2, 2\] raised") as caught:
        capture.to_onnx(nn.Sequential(nn.Conv2d(3, 4, 3)), (1, 3, 2, 2))
    assert "kernel size" in caught.value.message.lower()


@pytest.mark.parametrize("shape", [(), (1, 0, 8, 8), (1, -3, 8, 8)])
def test_an_impossible_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="not an input shape"):
        capture.to_onnx(Small(), shape)


def test_half_precision_modules_are_refused() -> None:
    with pytest.raises(DeployError, match="not float32"):
        capture.to_onnx(nn.Linear(4, 2).half(), (1, 4))


def test_an_output_that_is_no_float_tensor() -> None:
    class Label(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.argmax(1)

    with pytest.raises(DeployError, match="not a float32 tensor") as caught:
        capture.to_onnx(Label(), (1, 4))
    assert caught.value.got == "torch.int64"


def test_a_path_that_depends_on_the_data_is_refused_not_frozen() -> None:
    class Moody(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum() > 0 else x - 1

    heard: list[str] = []
    with pytest.raises(DeployError, match="depends on its data"):
        capture.to_onnx(Moody(), (1, 4), progress=heard.append)
    assert heard[-1] == "torch.export failed; exporting by tracing (the legacy exporter)"


def test_what_torch_export_cannot_capture_is_traced_and_says_so() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch wants no new scripts; users still have old ones
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval())
    model = capture.to_onnx(scripted, (1, 3, 8, 8))
    assert capture.exporter_of(model) == "torch.jit.trace"
    require_ok(capture.check_against_torch(scripted, model, photo(1, 3, 8, 8)))


# -- load_onnx ------------------------------------------------------------------------------------------------------


def test_a_users_file_is_simplified_and_fixed(tmp_path: Path) -> None:
    module = Small()
    exported = capture.to_onnx(module, (1, 3, 8, 8), dynamic_batch=True)
    del exported.metadata_props[:]
    exported.graph.node[0].name = ""
    (tmp_path / "a.onnx").write_bytes(exported.SerializeToString())
    model = capture.load_onnx(tmp_path / "a.onnx", batch=1, input_size=(8, 8))
    assert capture.exporter_of(model) == "onnx"
    assert all(node.name for node in model.graph.node)
    require_ok(capture.check_against_torch(module, model, photo(1, 3, 8, 8)))


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07 nothing")
    with pytest.raises(DeployError, match=r"a\.onnx"):
        capture.load_onnx(tmp_path / "a.onnx")


# -- load_callable --------------------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def make(source: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text("import torch\nfrom torch import nn\n" + textwrap.dedent(source))
        return str(path)

    return make


@pytest.mark.parametrize(
    "source",
    [
        "def net(): return nn.Linear(4, 2)",
        "class net(nn.Linear):\n    def __init__(self): super().__init__(4, 2)",
        "net = nn.Linear(4, 2)",
        "import helper\nnet = helper.net",
    ],
)
def test_functions_classes_and_modules_are_taken(write, tmp_path: Path, source: str) -> None:
    (tmp_path / "helper.py").write_text("from torch import nn\ndef net(): return nn.Linear(4, 2)\n")
    path = list(sys.path)
    module = capture.load_callable(write(source) + ":net")
    sys.modules.pop("helper", None)
    assert isinstance(module, nn.Linear)
    assert not module.training
    assert sys.path == path


def test_a_dotted_name_is_taken() -> None:
    assert isinstance(capture.load_callable("torch.nn:Identity"), nn.Identity)


@pytest.mark.parametrize("text", ["", ":", "mine.py", "mine.py:", ":net", "mine.py:a-b", "a:b:c-d"])
def test_text_of_another_form(text: str) -> None:
    with pytest.raises(UsageError, match="does not name a callable"):
        capture.load_callable(text)


def test_a_file_or_a_module_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"no such file: nowhere/mine\.py"):
        capture.load_callable("nowhere/mine.py:net")
    for name in ("no_such_package", "no_such_package.inner", "torch.no_such_part"):
        with pytest.raises(UsageError, match=f"there is no Python module '{name}'"):
            capture.load_callable(f"{name}:net")


def test_a_name_that_is_not_there_suggests_its_neighbours(write) -> None:
    with pytest.raises(UsageError, match=r"has no 'nett'; did you mean net\?") as caught:
        capture.load_callable(write("def net(): return nn.Linear(4, 2)") + ":nett")
    assert "net" in caught.value.allowed


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def net(:", r"importing .* raised SyntaxError"),
        (
            "raise RuntimeError('no weights here')\ndef net(): ...",
            r"RuntimeError: no weights here \(mine\.py, line 3\)",
        ),
        ("import no_such_thing", r"raised ModuleNotFoundError"),
        ("def net(): return 1 / 0", r"calling .* raised ZeroDivisionError: division by zero \(mine\.py, line 3\)"),
        ("def net(size): return nn.Linear(size, 2)", r"raised TypeError: .*missing 1 required positional argument"),
        ("import sys\nsys.exit(3)", r"raised SystemExit: 3"),
        ("def net(): return 'resnet'", r"gave str, not a torch\.nn\.Module"),
        ("net = 5", r"gave int, not a torch\.nn\.Module"),
    ],
)
def test_what_the_users_code_does_wrong_is_said_with_its_line(write, source: str, words: str) -> None:
    with pytest.raises(DeployError, match=words) as caught:
        capture.load_callable(write(source) + ":net")
    assert caught.value.exit_code == 1


def test_ctrl_c_in_the_users_code_is_still_ctrl_c(write) -> None:
    with pytest.raises(KeyboardInterrupt):
        capture.load_callable(write("def net(): raise KeyboardInterrupt") + ":net")
