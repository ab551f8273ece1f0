"""The shell of the command line: help, usage errors, `--json`, exit codes, where text goes. No network is built here."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from inception_deploy import cli
from inception_deploy.commands import COMMANDS
from inception_deploy.errors import DeployError, UsageError

NAMES = [command.name for command in COMMANDS]


def process(argv: Sequence[str], **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "inception_deploy", *argv], capture_output=True, text=True, **options)


def test_help_is_light() -> None:
    code = (
        "import sys\nfrom inception_deploy import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'tvm', 'onnx', 'onnxruntime', 'numpy', 'PIL', 'rich') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0
    assert f"  inception-deploy {name}" in text[text.index("example") :]
    assert "--json" in text


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_the_examples_of_the_help_parse(command) -> None:
    for example in command.example.splitlines():
        shell = shlex.shlex(example, posix=True, punctuation_chars=True)  # a bare > is a word of its own
        shell.whitespace_split = True
        program, *arguments = shell
        assert not any(set(word) <= set("()<>|&;") for word in arguments), f"a shell reads more than words: {example}"
        assert program == "inception-deploy"
        assert cli.parser().parse_args(arguments).command == command.name


def test_the_module_and_the_script_are_the_same_program() -> None:
    script = Path(sys.executable).with_name("inception-deploy")
    assert subprocess.run([script, "--version"], capture_output=True, text=True).stdout == process(["--version"]).stdout


def test_no_command(call) -> None:
    status, out, err = call()
    assert (status, out) == (2, "")
    assert (
        err == f"inception-deploy: error: no command given; see inception-deploy --help; allowed: {', '.join(NAMES)}\n"
    )


def test_an_unknown_command_names_the_nearest(call) -> None:
    status, out, err = call("exprot")
    assert (status, out) == (2, "")
    assert err.startswith(
        "inception-deploy: error: there is no command 'exprot'; did you mean export or report?; allowed: "
    )


def test_an_unknown_option_names_the_nearest(call) -> None:
    status, _, err = call("export", "--modle", "irv2", "--model", "irv2", "-o", "x")
    assert status == 2
    assert err.startswith(
        "inception-deploy: error: inception-deploy export has no option '--modle'; did you mean --model?"
    )


@pytest.mark.parametrize(
    ("argv", "kind", "message"),
    [
        (["exprot"], "usage", "there is no command 'exprot'; did you mean export or report?"),
        (["export", "--target", "cpu"], "usage", "the following arguments are required: --model, -o/--output; see inception-deploy export --help"),
        (["run", "b"], "usage", "one of the arguments --image --input is required; see inception-deploy run --help"),
        (["run", "b", "--input", "x", "--runtime", "tensorrt"], "usage", "there is no runtime 'tensorrt'"),
        (["run", "b", "--input", "x", "--top-k", "0"], "usage", "--top-k is '0'"),
        (["run", "b", "--input", "x", "--threads", "two"], "usage", "--threads is 'two'"),
        (["export", "--model", "irv2", "-o", "x", "--input-size", "0"], "input-size", "--input-size is '0'"),
        (["export", "--model", "irv2", "-o", "x", "--width", "nan"], "usage", "--width is 'nan'"),
        (["export", "--model", "irv2", "-o", "x", "--seed", "-1"], "usage", "--seed is '-1'"),
        (["bench"], "usage", "bench takes bundles, or --model with --framework torch"),
        (["bench", "--model", "vgg16"], "usage", "--model needs --framework"),
        (["bench", "b", "--against", "onnxruntme"], "engine", "there is no engine 'onnxruntme'; did you mean onnxruntime?"),
    ],
)  # fmt: skip
def test_usage_errors_are_one_json_document(call, argv: list[str], kind: str, message: str) -> None:
    status, out, err = call(*argv, "--json")
    document = json.loads(out)
    assert (status, err) == (2, "")
    assert document["error"]["kind"] == kind
    assert document["error"]["message"] == message
    assert set(document["error"]) == {"kind", "message", "got", "allowed"}


def test_json_may_stand_before_the_command(call) -> None:
    status, out, _ = call("--json", "exprot")
    assert status == 2
    assert json.loads(out)["error"]["kind"] == "usage"


def fake(monkeypatch: pytest.MonkeyPatch, work) -> None:
    """Make `targets` do `work`; the shell around it is what is under test."""
    import dataclasses

    from inception_deploy.commands import targets

    command = dataclasses.replace(targets.COMMAND, execute=work)
    monkeypatch.setattr(cli, "COMMANDS", (command,))


@pytest.mark.parametrize(
    ("error", "status", "kind", "message"),
    [
        (DeployError("x failed", kind="weights", got="a", allowed=["b"]), 1, "weights", "x failed"),
        (UsageError("x is wrong", kind="model"), 2, "model", "x is wrong"),
        (KeyboardInterrupt(), 130, "interrupted", "interrupted"),
        (MemoryError(), 1, "memory", "out of memory"),
        (PermissionError(13, "Permission denied", "/x/y"), 1, "io", "/x/y: Permission denied"),
        (ZeroDivisionError("oops"), 1, "internal", "internal error: ZeroDivisionError: oops"),
    ],
)
def test_every_failure_is_one_line_or_one_document(
    monkeypatch, call, error, status: int, kind: str, message: str
) -> None:
    def work(options, progress):
        raise error

    fake(monkeypatch, work)
    got, out, err = call("targets")
    assert (got, out) == (status, "")
    assert err.startswith(f"inception-deploy: error: {message}")
    assert err.count("\n") == 1
    got, out, err = call("targets", "--json")
    assert (got, err) == (status, "")
    assert json.loads(out)["error"]["kind"] == kind


def test_a_message_stays_on_one_line(monkeypatch, call) -> None:
    def work(options, progress):
        raise DeployError("a\nb\x1b[31mc")

    fake(monkeypatch, work)
    assert call("targets")[2] == "inception-deploy: error: a b [31mc\n"


def test_what_libraries_print_never_reaches_stdout(monkeypatch, call) -> None:
    def work(options, progress):
        print("from Python")
        os.write(1, b"from a system call\n")
        ctypes.CDLL(None).puts(b"from C")
        progress.note("a note")
        return base.Outcome({"x": 1}, base.line("shown"))

    import ctypes

    from inception_deploy.commands import base

    fake(monkeypatch, work)
    status, out, err = call("targets", "--json")
    assert (status, json.loads(out)) == (0, {"x": 1})
    assert sorted(err.splitlines()) == ["a note", "from C", "from Python", "from a system call"]
    assert call("targets")[1] == "shown\n"


def test_a_failed_check_is_exit_status_one(monkeypatch, call) -> None:
    from inception_deploy.commands import base

    fake(monkeypatch, lambda options, progress: base.Outcome({"ok": False}, base.line("no"), ok=False))
    assert call("targets", "--json")[:2] == (1, '{\n  "ok": false\n}\n')


STOPPED = """
import os, signal, sys
from inception_deploy import artifact, cli
from inception_deploy.commands.base import Command

def work(options, progress):
    with artifact.atomic_folder(artifact.Path(sys.argv[2])):
        os.kill(os.getpid(), int(sys.argv[1]))
        signal.pause()

cli.COMMANDS = (Command("work", "", "", lambda parser: None, work),)
sys.exit(cli.main(["work", "--json"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_undoes_what_is_half_written_and_ends_the_process(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", STOPPED, str(int(number)), str(tmp_path / "new" / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 128 + number
    assert json.loads(done.stdout)["error"]["message"] == "interrupted"
    assert list(tmp_path.iterdir()) == []


def test_signal_handlers_are_given_back(call) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    call("targets", "--json")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_no_bar_and_no_control_characters_without_a_terminal() -> None:
    done = process(["models"])
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m inception_deploy models --json | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[", "")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_table_breaks_no_word_that_fits(width: int) -> None:
    import io

    from rich.console import Console

    from inception_deploy.commands.base import table

    name = "mixed6e/branch7x7dbl/2/activation"
    rows = [(name, "conv", 1975808.25, "this machine lacks amx_bf16", f"{name}/more")] * 2
    screen = io.StringIO()
    table(("slowest steps", "op", "time in ms", "why not", "written into"), rows, right=(2,))(
        Console(file=screen, width=width)
    )
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    shown = screen.getvalue()
    for word in ("1.976e+06", "conv", "machine", "lacks", "branch7x7dbl/", "activation", "slowest"):
        assert word in shown, word
    assert "…" not in shown
