"""`export --config FILE.toml`: its keys are options, the command line goes over them, and the manifest keeps both."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from inception_deploy import cli
from inception_deploy.commands import config
from inception_deploy.errors import DeployError, UsageError


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return cli.parser()


def parsed(parser: argparse.ArgumentParser, path: Path, text: str, *argv: str) -> argparse.Namespace:
    path.write_text(text)
    return parser.parse_args(config.expanded(["-q", "export", *argv, "--config", str(path)], parser))


def test_every_kind_of_option(parser, tmp_path: Path) -> None:
    text = """
        model = "irv2"
        output = "out"
        input-size = [240, 320]
        num_classes = 7
        width = 0.5
        no-verify = true
        keep-stages = false
        seed = 3
        calibration = "photos"
        [preprocessing]
        mean = [-0.5, 0.5, 0.5]
        scale = "1/255"
        crop = [240, 320]
        [option]
        scales = [0.1, 0.1, 0.2]
        blocks = 4
        """
    options = parsed(parser, tmp_path / "net.toml", text)
    got = {name: getattr(options, name) for name in
           ("model", "output", "input_size", "num_classes", "width", "no_verify", "keep_stages", "seed", "calibration",
            "mean", "scale", "crop", "option")}  # fmt: skip
    assert got == {
        "model": "irv2", "output": tmp_path / "out", "input_size": (240, 320), "num_classes": 7, "width": 0.5,
        "no_verify": True, "keep_stages": False, "seed": 3, "calibration": tmp_path / "photos", "mean": "-0.5,0.5,0.5",
        "scale": "1/255", "crop": "240x320", "option": ["scales=0.1,0.1,0.2", "blocks=4"],
    }  # fmt: skip


def test_the_command_line_wins_wherever_it_stands(parser, tmp_path: Path) -> None:
    text = 'model = "irv2"\noutput = "out"\nbatch = 4\nseed = 1\n[option]\na = 1\nb = 2\n'
    argv = ["--batch", "8", "-o", "here", "--option", "b=3"]
    before = parsed(parser, tmp_path / "net.toml", text, *argv)
    after = parser.parse_args(config.expanded(["export", f"--config={tmp_path / 'net.toml'}", *argv], parser))
    for options in (before, after):
        assert (options.batch, options.seed, options.model, options.output) == (8, 1, "irv2", Path("here"))
        assert options.option == ["a=1", "b=2", "b=3"]


def test_a_model_beside_the_file(parser, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("")
    for written, meant in (("net.py:build", f"{tmp_path}/net.py:build"), ("resnet50", "resnet50"), ("a.b:c", "a.b:c")):
        assert parsed(parser, tmp_path / "net.toml", f'model = "{written}"\noutput = "o"\n').model == meant


def test_an_option_of_several_words(parser, tmp_path: Path) -> None:
    text = 'model = "irv2"\noutput = "o"\nkeep-fp32 = {}\n'
    for written, meant in (('["a,b", "c"]', ["a,b", "c"]), ("[]", []), ('"one"', ["one"])):
        assert parsed(parser, tmp_path / "net.toml", text.format(written)).keep_fp32 == meant
    text = text.format('["a", "b"]')
    assert parsed(parser, tmp_path / "net.toml", text, "--keep-fp32", "c").keep_fp32 == ["c"]


def test_other_commands_have_their_own_config(parser) -> None:
    argv = ["vta", "simulate", "--config", "nowhere.json", "--insns", "x"]
    assert config.expanded(argv, parser) == argv
    assert config.expanded(["export", "--model", "x"], parser) == ["export", "--model", "x"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('modle = "irv2"', "there is no option 'modle'; did you mean model?"),
        ("config = 'x.toml'", "there is no option 'config'"),
        ("json = true", "there is no option 'json'"),
        ("[target]\nname = 'cpu'", "'target' is {'name': 'cpu'}"),
        ("verify = true", "there is no option 'verify'; did you mean no-verify?"),
        ("no-verify = 1", "'no-verify' is 1"),
        ("seed = 2024-01-01", "'seed' is datetime.date(2024, 1, 1)"),
        ("[preprocessing]\nmeans = 1", "there is no option 'means'; did you mean mean?"),
    ],
)
def test_keys_that_are_none(parser, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(parser, tmp_path / "net.toml", text)
    assert caught.value.kind == "config"
    assert caught.value.message.startswith(f"{tmp_path / 'net.toml'}: {message}")


def test_files_that_are_none(call, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="does not exist"):
        config.read(tmp_path / "nothing.toml")
    for content in (b"model =", b"\xff\xfe", b"a = 1\na = 2"):
        (tmp_path / "x.toml").write_bytes(content)
        done = call("export", "--config", tmp_path / "x.toml")
        assert (done.status, done.err.count("\n"), "x.toml cannot be read" in done.err) == (1, 1, True)
    (tmp_path / "x.toml").write_text("batch = 0\n")
    done = call("export", "--config", tmp_path / "x.toml")
    assert (done.status, "--batch is '0'" in done.err) == (2, True)
    (tmp_path / "x.toml").write_text("batch = 2\n")
    assert "are required: --model, -o/--output" in call("export", "--config", tmp_path / "x.toml").err


def test_the_manifest_keeps_what_was_said(call, branchy: str, tmp_path: Path) -> None:
    source, _, what = branchy.rpartition(":")
    manifests = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "mine.py").write_text(Path(source).read_text())
        text = (
            f'model = "mine.py:{what}"\ninput-size = 16\nbatch = 4\nno-verify = true\n[preprocessing]\nmean = [0.5]\n'
        )
        (folder / "net.toml").write_text(text)
        argv = ["export", "--config", folder / "net.toml", "--onnx-only", "--batch", 1, "-o", folder / "out"]
        assert call(*argv).status == 0
        manifests.append((folder / "out" / "manifest.json").read_bytes())
    manifest = json.loads(manifests[0])
    assert manifest["config"] == {
        "model": f"mine.py:{what}", "target": "cpu", "input-size": [16, 16], "batch": 1, "seed": 0, "mean": [0.5],
        "no-verify": True, "onnx-only": True,
    }  # fmt: skip
    assert manifest["inputs"][0]["shape"] == [1, 3, 16, 16]
    assert manifests[0] == manifests[1], "where the file lies leaves no trace"
