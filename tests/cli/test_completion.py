"""Completion scripts: what bash offers when it runs them, and what every shell's script must hold."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from inception_deploy import cli
from inception_deploy.commands import COMMANDS, completion


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "inception-deploy.bash"
    path.write_text(completion.script("bash", cli.parser()))
    return path


def offered(script: Path, *typed: str, cwd: Path | None = None) -> list[str]:
    """What bash offers for the last of the typed words."""
    words = " ".join(f"'{word}'" for word in ("inception-deploy", *typed))
    code = (
        f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; "
        "_inception_deploy; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=cwd, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_commands_and_their_parts(script: Path) -> None:
    assert offered(script, "") == [command.name for command in COMMANDS]
    assert offered(script, "ex") == ["export"]
    assert offered(script, "-q", "comp") == ["compare"]
    assert {"simulate", "disassemble"} <= set(offered(script, "vta", ""))


def test_options(script: Path) -> None:
    assert set(offered(script, "export", "--pre")) == {"--preprocessing", "--precision"}
    assert "--top-k" in offered(script, "run", "bundle", "--")
    assert "--insns" in offered(script, "vta", "simulate", "--")
    assert "--model" not in offered(script, "run", "--")
    assert "--version" in offered(script, "--v")


def test_what_options_take(script: Path, tmp_path: Path) -> None:
    (tmp_path / "irvine.onnx").write_text("")
    (tmp_path / "photos").mkdir()
    assert offered(script, "export", "--target", "cu")[:1] == ["cuda"]
    assert offered(script, "export", "--target", "cuda", ":", "sm_9") == ["sm_90"]
    assert "sm_80" in offered(script, "export", "--target", "cuda", ":")
    assert set(offered(script, "export", "--precision", "")) >= {"fp32", "int8", "bf16"}
    models = offered(script, "export", "--model", "irv", cwd=tmp_path)
    assert {"irv1", "irv2", "irvine.onnx"} <= set(models)
    assert offered(script, "export", "--calibration", "ph", cwd=tmp_path) == ["photos"]
    assert offered(script, "run", "photos", "--runtime", "o") == ["onnxruntime"]
    assert offered(script, "run", "--runtime", "=", "o") == ["onnxruntime"]
    assert offered(script, "run", "ph", cwd=tmp_path) == ["photos"]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_command_and_option_is_in_every_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--print-completion", shell]) == 0
    text = capsys.readouterr().out
    for row in completion.words(cli.parser()):
        assert not row.path or row.path[-1] in text
        for option in row.options:
            for flag in option.flags:
                assert (flag if shell != "fish" else flag.lstrip("-")) in text, (row.path, flag)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_script_is_one_of_that_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(completion.script(shell, cli.parser()))
    done = subprocess.run([shell, "-n", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_another_shell(call) -> None:
    done = call("--print-completion", "csh")
    assert (done.status, "csh" in done.err) == (2, True)


def test_the_exit_status_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for status in ("  0    ", "  1    ", "  2    ", "  130  ", "143"):
        assert status in text[text.index("exit status:") :]
