"""The command line: parses, calls one function of the front door, prints its result or its error. Loads nothing heavy.

Exit status: 0 done, 1 a check failed or the work could not be done, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM. With
``--json`` stdout holds exactly one JSON document, of the result or of the error; everything else, of other libraries
too, goes to stderr.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import Any, NoReturn

from . import __version__, artifact, progress, supervise
from .commands import COMMANDS, completion, config
from .commands.base import Command, Outcome
from .errors import DeployError, UsageError, nearest

PROGRAM = "inception-deploy"
TRACEBACK = "INCEPTION_DEPLOY_TRACEBACK"
"""An environment variable: where it is set, an error that is our own fault prints its traceback."""

_WIDE = 1000
"""Columns of what is no terminal: a table in a file or a pipe is as wide as its content, and nothing is folded."""

_STATUS = """

exit status:
  0    done
  1    a check failed (verify, compare --fail-if), or the work could not be done; nothing half-written is left
  2    wrong usage: an unknown command, option, model or target, or options that do not go together
  130  Ctrl-C          143  SIGTERM"""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
"""An error is one line, whatever a file's name or another library's message holds."""


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: raised, so that `--json` holds for them too, and with the nearest names."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help", kind="usage")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        near = nearest(str(value), choices)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        what = {"part": f"part of {self.prog}"}.get(action.dest, action.dest)
        raise UsageError(f"there is no {what} '{value}'{hint}", kind="usage", got=value, allowed=choices)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`; the exit status. Where None, the process's own, in a child that can be stopped."""
    if argv is None:
        arguments = sys.argv[1:]
        return supervise.run(lambda: main(arguments), lambda error, status: _fail(error, "--json" in arguments, status))
    arguments = list(argv)
    as_json = "--json" in arguments
    try:
        with _stop_on_signals(as_json):
            return _run(arguments, as_json)
    except DeployError as error:
        return _fail(error, as_json)
    except KeyboardInterrupt:
        return _fail(supervise.interrupted(), as_json, 128 + signal.SIGINT)
    except BrokenPipeError:  # the reader of stdout, e.g. `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except MemoryError:
        return _fail(DeployError("out of memory", kind="memory"), as_json)
    except OSError as error:
        return _fail(DeployError(_describe(error), kind="io", got=error.filename), as_json)
    except Exception as error:  # no traceback for a user, whatever happens
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        where = f"set {TRACEBACK}=1 for the traceback, and please report it"
        return _fail(
            DeployError(f"internal error: {type(error).__name__}: {error} ({where})", kind="internal"), as_json
        )


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    result = _Parser(
        prog=PROGRAM,
        description="Convolutional networks from PyTorch to verified, compiled bundles.",
        epilog=_example(
            f"{PROGRAM} export --model irv2 --target cpu -o irv2-cpu\n{PROGRAM} run irv2-cpu --image photo.jpg"
        )
        + _STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    shells = "print a script that completes commands and options: bash, zsh or fish"
    result.add_argument("--print-completion", metavar="SHELL", choices=completion.SHELLS, help=shells)
    _add_common(result)
    result.set_defaults(json=False, verbosity=0)
    commands = result.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=_Parser)
    for command in COMMANDS:
        _add(commands, command)
    return result


def _add_common(parser: argparse.ArgumentParser) -> None:
    """What every command takes. No defaults: those of a command would undo what stands before it."""
    json_help = "print one JSON document on stdout and nothing else there"
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=json_help)
    volume = parser.add_mutually_exclusive_group()
    for flag, name, value, text in (
        ("-v", "--verbose", 1, "say what each stage is working on"),
        ("-q", "--quiet", -1, "say nothing but errors on stderr"),
    ):
        volume.add_argument(
            flag, name, dest="verbosity", action="store_const", const=value, default=argparse.SUPPRESS, help=text
        )


def _add(commands: argparse._SubParsersAction[_Parser], command: Command) -> None:
    """The parser of a command, and of its parts."""
    one = commands.add_parser(
        command.name,
        help=command.summary,
        description=command.summary,
        epilog=_example(command.example),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.arguments(one)
    _add_common(one)
    if command.parts:
        parts = one.add_subparsers(dest="part", metavar="PART", title="parts", required=True, parser_class=_Parser)
        for part in command.parts:
            _add(parts, part)
    one.set_defaults(execute=command.execute, flags=[flag for action in one._actions for flag in action.option_strings])


def _run(arguments: list[str], as_json: bool) -> int:
    whole = parser()
    options, unknown = whole.parse_known_args(config.expanded(arguments, whole))
    if options.print_completion is not None:
        print(completion.script(options.print_completion, whole), end="")
        return 0
    if options.command is None:
        names = [command.name for command in COMMANDS]
        raise UsageError(f"no command given; see {PROGRAM} --help", kind="usage", allowed=names)
    if unknown:
        raise _unknown(unknown[0], options)
    with _stdout_is_stderr(), progress.terminal(options.verbosity) as bar:
        outcome: Outcome = options.execute(options, bar)
    if as_json:
        print(json.dumps(outcome.document, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        from rich.console import Console

        # Not a terminal: as wide as the content, so that a table in a file or a pipe is not folded.
        outcome.show(Console() if sys.stdout.isatty() else Console(width=_WIDE))
    sys.stdout.flush()
    return 0 if outcome.ok else 1


def _unknown(text: str, options: argparse.Namespace) -> UsageError:
    where = f"{PROGRAM} {options.command}"
    if not text.startswith("-"):
        return UsageError(f"{where} takes no argument '{text}' here; see {where} --help", kind="usage", got=text)
    flag = text.split("=")[0]
    near = nearest(flag, options.flags, count=1)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return UsageError(f"{where} has no option '{flag}'{hint}", kind="usage", got=text, allowed=sorted(options.flags))


def _fail(error: DeployError, as_json: bool, status: int | None = None) -> int:
    """Tell the user; the exit status, the error's own where None."""
    status = error.exit_code if status is None else status
    if as_json:
        print(json.dumps(error.as_dict(), indent=2, ensure_ascii=False, default=str), flush=True)
        return status
    text = error.message
    if error.allowed is not None:
        allowed = error.allowed
        listed = ", ".join(str(item) for item in allowed) if isinstance(allowed, (list, tuple)) else str(allowed)
        if listed not in text:
            text += f"; allowed: {listed}"
    print(f"{PROGRAM}: error: {_CONTROL.sub(' ', text)}", file=sys.stderr, flush=True)
    return status


def _describe(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _example(text: str) -> str:
    lines = [f"  {line}" for line in text.splitlines()]
    return "\n".join(["example:" if len(lines) == 1 else "examples:", *lines])


@contextmanager
def _stdout_is_stderr() -> Iterator[None]:
    """While it lasts, what anybody writes to stdout, C++ libraries too, goes to stderr."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C's own buffers still hold was meant for the old stdout
        os.dup2(saved, 1)
        os.close(saved)


@contextmanager
def _stop_on_signals(as_json: bool) -> Iterator[None]:
    """Ctrl-C and SIGTERM undo what is half-written and end the process at once, with status 130 or 143.

    An exception would not do: raised while torch or TVM is being imported, or below TVM's C++ frames, it aborts the
    process, or is lost.
    """

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        for number in supervise.STOPPING:
            signal.signal(number, signal.SIG_IGN)
        artifact.abandon()
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # a progress bar hides the cursor
        os.dup2(stdout, 1)
        sys.stdout = sys.__stdout__
        os._exit(_fail(supervise.interrupted(), as_json, 128 + signum))

    stdout = os.dup(1)
    try:
        before = {number: signal.signal(number, stop) for number in supervise.STOPPING}
    except ValueError:  # not in the main thread: the program that called us handles its own signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(stdout)
