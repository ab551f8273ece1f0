"""``--print-completion``: scripts that complete the command line in bash, zsh and fish.

One table is read from the parser: each command's words, its options, and what an option takes. The scripts hold it, so
that completing starts no Python. zsh takes bash's through its own `bashcompinit`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = "inception-deploy"
SHELLS = ("bash", "zsh", "fish")
_FILES = "@files"
"""In place of words: the names of files."""


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        flags: its spellings.
        words: what it takes: words, `_FILES`, or nothing to choose from; None where it takes nothing.
        help: one line.
    """

    flags: tuple[str, ...]
    words: tuple[str, ...] | None
    help: str


@dataclass(frozen=True)
class Words:
    """A command, or a command and its part, e.g. ``("vta", "simulate")``; () is the program itself."""

    path: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    arguments: tuple[str, ...]


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for a shell of `SHELLS`."""
    return {"bash": bash, "zsh": zsh, "fish": fish}[shell](list(words(parser)))


def words(parser: argparse.ArgumentParser, path: tuple[str, ...] = (), help: str = "") -> Iterator[Words]:
    """Everything that can be typed: a row a command."""
    options, arguments, inner = [], [], {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {choice.dest: choice.help or "" for choice in action._choices_actions}
            inner = {name: (sub, told.get(name, "")) for name, sub in action.choices.items()}
            arguments += list(action.choices)
        elif action.option_strings:
            taken = None if action.nargs == 0 else _taken(action)
            options.append(Option(tuple(action.option_strings), taken, (action.help or "").split(";")[0]))
        else:
            arguments += _taken(action)
    yield Words(path, help, tuple(options), tuple(dict.fromkeys(arguments)))
    for name, (sub, summary) in inner.items():
        yield from words(sub, (*path, name), summary)


def _taken(action: argparse.Action) -> tuple[str, ...]:
    if action.choices is not None:
        return tuple(map(str, action.choices))
    if action.dest in _KNOWN:
        return _KNOWN[action.dest]()
    is_file = action.type is not None and action.type is not int and action.type is not float
    return (_FILES,) if action.type is Path or (is_file and "FILE" in str(action.metavar)) else ()


def _models() -> tuple[str, ...]:
    from inception_deploy import models

    return (*(name for row in models() for name in (row["name"], *row["aliases"])), _FILES)


def _targets() -> tuple[str, ...]:
    from inception_deploy.targets import names

    return tuple(names())


def _precisions() -> tuple[str, ...]:
    from inception_deploy.targets.precision import names

    return tuple(names())


def _peers() -> tuple[str, ...]:
    from inception_deploy.bundles.engines import PEERS

    return PEERS


_KNOWN: dict[str, Callable[[], tuple[str, ...]]] = {
    "model": _models,
    "target": _targets,
    "precision": _precisions,
    "against": _peers,
    "runtime": lambda: ("compiled", "onnxruntime"),
    "scheme": lambda: ("float-scale", "float-scale-reduced", "float-scale-int8", "power-of-two", "power-of-two-tensor"),
    "classes": lambda: ("label", "wnid", "number", "order"),
    "color": lambda: ("rgb", "bgr", "gray"),
    "layout": lambda: ("nchw", "nhwc"),
    "interpolation": lambda: ("nearest", "bilinear", "bicubic", "lanczos"),
}
"""By an option's destination: words that argparse does not know, because the library checks them."""


def bash(rows: Sequence[Words]) -> str:
    """The script for bash."""
    cases, taken = [], []
    for row in rows:
        key = "/".join(row.path)
        flags = [flag for option in row.options for flag in option.flags]
        names = [word for word in row.arguments if word != _FILES]
        cases.append(f"    '{key}') flags='{' '.join(flags)}' names='{' '.join(names)}' ;;")
        for option in row.options:
            if option.words is not None:
                where = "|".join(f"'{key} {flag}'" for flag in option.flags)
                taken.append(f"    {where}) taken='{' '.join(option.words) or '-'}' ;;")
    commands = " ".join("/".join(row.path) for row in rows if row.path)
    return _BASH.format(
        program=PROGRAM, commands=commands, cases="\n".join(cases), taken="\n".join(taken), files=_FILES
    )


_BASH = """# bash completion of {program}: put this into ~/.local/share/bash-completion/completions/{program}
_inception_deploy() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  local path='' start='' i flags='' names='' taken=''
  if [[ $word == '=' ]]; then word=''; elif [[ $before == '=' ]]; then before=${{COMP_WORDS[COMP_CWORD-2]}}; fi
  # bash takes a colon for the end of a word: cuda:sm_90 is three
  if [[ $word == ':' ]]; then
    start=$before: word='' before=${{COMP_WORDS[COMP_CWORD-2]}}
  elif [[ $before == ':' ]]; then
    start=${{COMP_WORDS[COMP_CWORD-2]}}: before=${{COMP_WORDS[COMP_CWORD-3]}}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case " {commands} " in
      *" ${{path:+$path/}}${{COMP_WORDS[i]}} "*) path=${{path:+$path/}}${{COMP_WORDS[i]}} ;;
    esac
  done
  case $path in
{cases}
  esac
  case "$path $before" in
{taken}
  esac
  local IFS=$' \\t\\n'
  if [[ -n $taken ]]; then
    COMPREPLY=($(compgen -W "${{taken//{files}/}}" -- "$start$word"))
    COMPREPLY=("${{COMPREPLY[@]#"$start"}}")
    [[ $taken == *{files}* ]] || return
  elif [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
    return
  else
    COMPREPLY=($(compgen -W "$names" -- "$word"))
    [[ -z $path || -n $names ]] && return
  fi
  IFS=$'\\n'
  COMPREPLY+=($(compgen -f -- "$word"))
  compopt -o filenames 2>/dev/null
}}
complete -F _inception_deploy {program}
"""


def zsh(rows: Sequence[Words]) -> str:
    """The script for zsh."""
    head = f"#compdef {PROGRAM}\n# zsh completion of {PROGRAM}: source this from ~/.zshrc after compinit\n"
    return f"{head}autoload -U +X bashcompinit && bashcompinit\n{bash(rows)}"


def fish(rows: Sequence[Words]) -> str:
    """The script for fish."""
    lines = [f"# fish completion of {PROGRAM}: put this into ~/.config/fish/completions/{PROGRAM}.fish"]
    tops = [row.path[0] for row in rows if len(row.path) == 1]
    for row in rows:
        inner = [other for other in rows if len(other.path) == len(row.path) + 1 and other.path[:-1] == row.path]
        seen = " and ".join(f"__fish_seen_subcommand_from {name}" for name in row.path).replace(" and ", "; and ")
        where = seen or f"not __fish_seen_subcommand_from {' '.join(tops)}"
        for other in inner:
            lines.append(f"complete -c {PROGRAM} -f -n {_quoted(where)} -a {other.path[-1]} -d {_quoted(other.help)}")
        for option in row.options:
            names = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
            entry = f"complete -c {PROGRAM} -n {_quoted(where)} {' '.join(names)} -d {_quoted(option.help)}"
            if option.words is not None:
                known = " ".join(word for word in option.words if word != _FILES)
                files = _FILES in option.words
                entry += f" -r{'' if files else ' -f'}" + (f" -a {_quoted(known)}" if known else "")
            lines.append(entry)
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
