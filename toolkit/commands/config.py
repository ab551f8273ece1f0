"""``--config FILE.toml``: options of a command from a file. What is typed on the command line goes over it.

model = "net.py:build"            # keys are the options' names, paths are relative to the file
input-size = [240, 320]
precision = "int8"
calibration = "photos/"

[preprocessing]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]

[option]
scales = [0.1, 0.1, 0.2]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inception_deploy.errors import DeployError, UsageError, nearest

FLAG = "--config"
_NOT_IN_A_FILE = {"config", "help", "json", "verbosity"}
_NOT_KEPT = {*_NOT_IN_A_FILE, "output", "force", "command", "execute", "flags"}
_SIDES = ("input-size", "crop")
"""Options whose list in a file is a size: [240, 320] is 240x320."""


def expanded(arguments: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """The command line with what its ``--config`` says before what else is typed, so that the latter wins.

    Raises:
        UsageError: (kind ``config``) the file has a key that is no option, or a value that no option takes.
        DeployError: (kind ``config``) the file cannot be read.
    """
    arguments = list(arguments)
    place = next((index for index, word in enumerate(arguments) if not word.startswith("-")), None)
    path = _given(arguments)
    if place is None or path is None:
        return arguments
    command = _parsers(parser).get(arguments[place])
    if command is None or not hasattr(command.get_default("execute"), "configurable"):
        return arguments
    return [*arguments[: place + 1], *_words(read(path), command, path), *arguments[place + 1 :]]


def configurable(execute: Any) -> Any:
    """Mark what executes a command whose options may come from a file."""
    execute.configurable = True
    return execute


def add_config(parser: argparse.ArgumentParser) -> None:
    """The option --config."""
    text = "options from a TOML file, by their names; what is typed here goes over it, and the manifest keeps both"
    parser.add_argument(FLAG, type=Path, metavar="FILE.toml", help=text)


def kept(options: argparse.Namespace) -> dict[str, Any] | None:
    """What the manifest keeps of options that came from a file and from the command line; None where no file was named.

    What the file says stands as it is written there, so that a bundle does not depend on where the file lies.
    """
    if options.config is None:
        return None
    document = read(options.config)
    flat = {key: value for key, value in document.items() if not isinstance(value, Mapping)}
    flat |= document.get("preprocessing", {}) if isinstance(document.get("preprocessing"), Mapping) else {}
    said = {key.replace("_", "-"): value for key, value in flat.items()}
    found: dict[str, Any] = {}
    for name, value in vars(options).items():
        key = name.replace("_", "-")
        if name in _NOT_KEPT or value is None or value is False or value == []:
            continue
        found[key] = plain = _plain(value)
        if key in said:
            is_path = isinstance(value, Path) or key == "model"
            found[key] = said[key] if _text(key, said[key], options.config.parent, is_path) == plain else plain
    return found


def read(path: Path) -> dict[str, Any]:
    """The document of a TOML file.

    Raises:
        DeployError: (kind ``config``) it cannot be read.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _wrong(f"{FLAG} {path} does not exist", str(path)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _wrong(f"{FLAG} {path} cannot be read: {error}", str(path)) from error
    return document


def _given(arguments: Sequence[str]) -> Path | None:
    """The file that the command line names."""
    for index, word in enumerate(arguments):
        if word == FLAG and index + 1 < len(arguments):
            return Path(arguments[index + 1])
        if word.startswith(f"{FLAG}="):
            return Path(word.partition("=")[2])
    return None


def _parsers(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found: Mapping[str, argparse.ArgumentParser] = action.choices
            return found
    return {}


def _words(document: Mapping[str, Any], command: argparse.ArgumentParser, path: Path) -> Iterator[str]:
    """The file as words of a command line."""
    actions = {
        flag[2:]: action
        for action in command._actions
        for flag in action.option_strings
        if flag.startswith("--") and action.dest not in _NOT_IN_A_FILE
    }
    for written, value in document.items():
        key = written.replace("_", "-")
        if key == "option" and isinstance(value, Mapping):
            yield from (f"--option={name}={_text('', one, path.parent, False)}" for name, one in value.items())
        elif key == "preprocessing" and isinstance(value, Mapping):
            yield from _words(value, command, path)
        elif key not in actions:
            near = nearest(key, actions, count=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"{path}: there is no option '{written}'{hint}"
            raise UsageError(message, kind="config", got=written, allowed=sorted(actions))
        elif not isinstance(value, bool if actions[key].nargs == 0 else (str, int, float, list)):
            allowed = "true or false" if actions[key].nargs == 0 else "a text, a number, or a list of them"
            raise UsageError(f"{path}: '{written}' is {value!r}", kind="config", got=repr(value), allowed=allowed)
        elif actions[key].nargs == 0:
            yield from [f"--{key}"] if value else []
        elif actions[key].nargs == "+" and isinstance(value, list):
            yield from (f"--{key}", *map(str, value)) if value else ()
        else:
            yield f"--{key}={_text(key, value, path.parent, actions[key].type is Path or key == 'model')}"


def _text(key: str, value: Any, folder: Path, is_path: bool) -> str:
    """A value as it would be typed."""
    if isinstance(value, list):
        return ("x" if key in _SIDES else ",").join(map(str, value))
    text = str(value)
    if not is_path or not isinstance(value, str):
        return text
    if key == "model":  # a name of the zoo is none of a file
        return str(folder / text) if (folder / text.partition(":")[0]).exists() else text
    return str(folder / text)


def _plain(value: Any) -> Any:
    """An option's value as JSON has it."""
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (bool, int, float)) else str(value)


def _wrong(message: str, got: str) -> DeployError:
    return DeployError(message, kind="config", got=got, allowed="a TOML file with the names of options as keys")
