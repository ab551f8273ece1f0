"""The front door: what `import inception_deploy as idp` gives."""

from __future__ import annotations

import argparse
import inspect
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest

import inception_deploy as idp
from inception_deploy import api
from inception_deploy.commands import COMMANDS
from inception_deploy.errors import DeployError, UsageError

ROOT = Path(__file__).resolve().parents[1]
TWICE = {"models", "quantize", "targets", "verify"}
"""Names of modules, too; such a module can be called."""


def test_every_name_is_there_and_every_command_is_a_function() -> None:
    assert set(idp.__all__) <= set(dir(idp))
    functions = {name for name in idp.__all__ if name in vars(api)}
    assert all(callable(getattr(idp, name)) for name in functions)
    commands = {command.name for command in COMMANDS if not command.parts}
    assert commands <= functions
    with pytest.raises(AttributeError, match="module 'inception_deploy' has no attribute 'exprot'"):
        _ = idp.exprot


def test_no_module_has_the_name_of_a_function_unless_it_is_callable() -> None:
    modules = {path.stem for folder in ("toolkit", "models", "targets", "quantize") for path in [ROOT / folder]}
    modules |= {path.stem for path in (ROOT / "toolkit").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert modules & set(idp.__all__) == TWICE
    for name in idp.__all__:
        found = getattr(idp, name)
        assert isinstance(found, ModuleType) == (name in TWICE)


@pytest.mark.parametrize(
    "first", ["", "import inception_deploy.models, inception_deploy.verify, inception_deploy.quantize"]
)
def test_functions_stay_functions_whatever_is_imported(first: str) -> None:
    script = f"""
{first}
import inception_deploy as idp
from inception_deploy import export, models, quantize, targets, verify
assert callable(export) and not hasattr(export, "__path__")
assert [row["name"] for row in models()] == models.names() == [row["name"] for row in idp.models()]
assert targets()[0]["name"] == targets.parse("cpu:avx2").kind
import inception_deploy.pipeline
assert idp.export is export
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_module_shows_its_functions_signature() -> None:
    assert inspect.signature(idp.quantize) == inspect.signature(api.quantize)
    assert isinstance(idp.export, FunctionType)


def test_the_command_line_adds_nothing() -> None:
    """What a command's options can say, the function of its name takes."""
    from inception_deploy.cli import parser
    from inception_deploy.commands.base import _PREPROCESSING

    actions = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    parts = dict.fromkeys((name for name, *_ in _PREPROCESSING), "preprocessing")
    renamed = parts | {"model": "model", "bundle": "bundle", "image": "given", "input": "given", "option": "options",
               "no_verify": "verified", "no_program": "program", "no_shipped_records": "shipped_records",
               "key": "key", "path": "path"}  # fmt: skip
    for command in COMMANDS:
        if command.parts or command.name == "bench":  # bench is two functions
            continue
        takes = set(inspect.signature(getattr(api, command.name)).parameters)
        says = {
            a.dest if a.dest in takes else renamed.get(a.dest, a.dest) for a in actions.choices[command.name]._actions
        }
        assert says - {"help", "json", "verbosity"} <= takes, command.name
        assert takes - {"progress"} <= says, command.name


def test_a_missing_package_of_the_builder_is_named(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeployError) as caught:
        idp.load(tiny_bundle, runtime="onnxruntime")
    assert caught.value.kind == "install"
    assert caught.value.message == (
        "load needs the packages of inception-deploy[build]: pip install 'inception-deploy[build]'"
    )


def test_a_missing_package_of_the_users_is_the_users(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import no_such_package\ndef build(): pass\n")
    with pytest.raises(DeployError, match="no_such_package") as caught:
        idp.export(f"{tmp_path / 'net.py'}:build", tmp_path / "out")
    assert caught.value.kind != "install"


def test_another_engine_is_a_model_too(tiny_bundle: Path) -> None:
    net = idp.load(tiny_bundle, runtime="onnxruntime", labels=list("abcdefg"))
    assert net(np.zeros((9, 9, 3), np.uint8)).top(1)[0].label in "abcdefg"


def test_a_module_of_the_users_is_exported_and_left_alone(tmp_path: Path) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).half()
    document = idp.export(module, tmp_path / "out", input_size=16)
    assert document["model"] == "Sequential"
    assert any("it is converted to float32" in note for note in document["notes"])
    assert module.training
    assert next(module.parameters()).dtype == torch.float16
    with idp.load(tmp_path / "out", threads=1) as net:
        x = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
        got = np.asarray(net(x))
    with torch.no_grad():
        want = module.float().eval()(torch.from_numpy(x)).numpy()
    assert verify_ok(want, got)
    with pytest.raises(DeployError, match="the model was closed"):
        net(x)
    with pytest.raises(UsageError, match="int"):
        idp.export(3, tmp_path / "other")  # type: ignore[arg-type]


def verify_ok(want: np.ndarray, got: np.ndarray) -> bool:
    from inception_deploy.verify import compare

    return bool(compare(want, got, "compiled")["ok"])
