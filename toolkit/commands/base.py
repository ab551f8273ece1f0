"""What a command is, and the argument types that several share."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from inception_deploy.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from inception_deploy.progress import Progress


_SHORT, _LEAST = 14, 8
"""A column of no more than so many letters is not narrowed, and no other one further than that."""

Show: TypeAlias = "Callable[[Console], None]"
"""Prints a result for a person."""


@dataclass(frozen=True)
class Outcome:
    """What a command gives back.

    Attributes:
        document: what `--json` prints.
        show: prints the same for a person.
        ok: False where a check failed; the exit status is 1 then.
    """

    document: object
    show: Show
    ok: bool = True


@dataclass(frozen=True)
class Command:
    """One command: its words, its arguments, and the one library function it calls.

    Attributes:
        name: as typed.
        summary: one line for the list of commands.
        example: a command line that works, for `--help`.
        arguments: adds its arguments to a parser.
        execute: does the work; of a command with parts, the part's own does.
        parts: the second words that it has, each with arguments of its own.
    """

    name: str
    summary: str
    example: str
    arguments: Callable[[argparse.ArgumentParser], None]
    execute: Callable[[argparse.Namespace, Progress], Outcome]
    parts: tuple[Command, ...] = ()


def positive(flag: str, most: int = 1_000_000, least: int = 1) -> Callable[[str], int]:
    """An argument type: a whole number from 1, or from `least`, to `most`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not text.isascii() or not least <= int(text[:20]) <= most:
            allowed = f"a whole number from {least} to {most}"
            raise UsageError(f"{flag} is '{text}'", kind="usage", got=text, allowed=allowed)
        return int(text)

    return parse


def seed(text: str) -> int:
    """An argument type: a whole number from 0 to 2^32 - 1."""
    if not text.isdecimal() or not text.isascii() or int(text[:20]) >= 1 << 32:
        raise UsageError(f"--seed is '{text}'", kind="usage", got=text, allowed="a whole number from 0 to 4294967295")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """An argument type: ``299`` or ``240x320``, height and width."""
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(p.isdecimal() and p.isascii() and 1 <= int(p[:9]) <= 16384 for p in parts):
        allowed = "H or HxW, each from 1 to 16384, e.g. 299 or 240x320"
        raise UsageError(f"--input-size is '{text}'", kind="input-size", got=text, allowed=allowed)
    return int(parts[0]), int(parts[-1])


def width(text: str) -> float:
    """An argument type: the factor on every channel count."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.01 <= value <= 16:
        raise UsageError(f"--width is '{text}'", kind="usage", got=text, allowed="a number from 0.01 to 16")
    return value


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """The argument BUNDLE."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle folder or .zip that export wrote")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The option --threads."""
    help = "threads to compute with (default: every core this process may use)"
    parser.add_argument("--threads", type=positive("--threads", 1024), metavar="N", help=help)


def add_driver(parser: argparse.ArgumentParser) -> None:
    """The option --driver."""
    help = "the shared library that drives the bundle's accelerator (default: the simulator, or the bundle's libvta.so)"
    parser.add_argument("--driver", type=Path, metavar="FILE.so", help=help)


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option --device."""
    help = "run programs on another machine: ssh://[user@]host[:port]; nothing is installed or left there"
    parser.add_argument("--device", metavar="URL", help=help)


def add_network(parser: argparse.ArgumentParser) -> None:
    """The options that shape a network: --input-size, --width, --batch, --num-classes."""
    parser.add_argument("--input-size", type=size, metavar="H[xW]", help="height and width of the input")
    parser.add_argument("--width", type=width, metavar="A", help="factor on every channel count, rounded to 8")
    many = "images at once (default: 1); export makes a plan for each of several, 1,8,32, on one copy of the weights"
    parser.add_argument("--batch", type=batches, metavar="N[,N...]", help=many)
    parser.add_argument("--num-classes", type=positive("--num-classes"), metavar="N", help="classes to tell apart")


def batches(text: str) -> int | tuple[int, ...]:
    """One number of images, or several with commas."""
    found = tuple(dict.fromkeys(positive("--batch", 4096)(part) for part in text.split(",")))
    return found[0] if len(found) == 1 else found


def add_source(parser: argparse.ArgumentParser) -> None:
    """The options that name a network, shape it, and say what it is for: what `network_of` reads."""
    model = (
        "a network of the zoo, an .onnx file, or file.py:callable or package.module:callable that gives an nn.Module"
    )
    parser.add_argument("--model", required=True, metavar="M", help=model)
    target = "what to compile for; `targets` lists them (default: cpu)"
    parser.add_argument("--target", default="cpu", metavar="T", help=target)
    weights = "trained weights: a .safetensors file or what torch.save wrote, whatever its name"
    parser.add_argument("--weights", type=Path, metavar="FILE", help=weights)
    parser.add_argument("--ema", action="store_true", help="of a weights file that has both, take the averaged weights")
    add_network(parser)
    own = "an option of the network itself, e.g. scales=0.1,0.1,0.2; `models --json` lists them"
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help=own)
    random = "of the untrained weights and the random input (default: 0)"
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help=random)
    how = "how a picture becomes the network's input, where that is not known or is to be another"
    group = parser.add_argument_group("preprocessing", how)
    add_preprocessing(group)
    taken = "the network takes the pixels themselves, uint8 (N, H, W, C), and normalises them: a quarter of the bytes"
    group.add_argument("--uint8-input", action="store_true", help=taken)


_PREPROCESSING = (
    ("mean", "R,G,B", "taken from every channel after --scale, in the order of --color"),
    ("std", "R,G,B", "what every channel is then divided by"),
    ("scale", "S", "what pixels of 0..255 are multiplied with, e.g. 1/255, 1, 1/127.5"),
    ("color", "C", "the order of the channels: rgb, bgr, or gray for one channel"),
    ("resize", "N", "pixels of the shorter side before the crop"),
    ("crop", "N", "the crop at the centre, N or HxW: the network's input size"),
    ("interpolation", "I", "of the resize: nearest, bilinear, bicubic or lanczos, as Pillow does it"),
    ("layout", "L", "of the input: nchw or nhwc"),
)


def add_preprocessing(parser: argparse._ActionsContainer) -> None:
    """The options that say how a picture becomes the network's input: what `preprocessing_of` reads."""
    for name, metavar, text in _PREPROCESSING:
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    file = "a JSON file with the same keys, e.g. the part 'preprocessing' of a manifest"
    parser.add_argument("--preprocessing", type=Path, metavar="FILE.json", help=file)


def preprocessing_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the options of `add_preprocessing` say, as the front door takes it."""
    return {"file": options.preprocessing, **{name: getattr(options, name) for name, *_ in _PREPROCESSING}}


def network_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the options of `add_source` say, as the front door takes it.

    Raises:
        UsageError: an --option is no NAME=VALUE.
    """
    return {
        "model": options.model,
        "target": options.target,
        "weights": options.weights,
        "ema": options.ema,
        "input_size": options.input_size,
        "width": options.width,
        "batch": options.batch,
        "num_classes": options.num_classes,
        "options": dict(parse_option(text) for text in options.option),
        "seed": options.seed,
        "preprocessing": preprocessing_of(options),
        "uint8_input": options.uint8_input,
    }


def parse_option(text: str) -> tuple[str, Any]:
    """``"scales=0.1,0.1,0.2"`` as a name and a Python value: numbers, tuples of them, true, false, or a word.

    Raises:
        UsageError: it has no ``=``.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(
            f"--option is '{text}'", kind="option", got=text, allowed="NAME=VALUE, e.g. scales=0.1,0.1,0.2"
        )
    try:
        return name, ast.literal_eval({"true": "True", "false": "False"}.get(value.lower(), value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return name, value


def add_quantization(parser: argparse._ActionsContainer) -> None:
    """The options that say how a float model becomes int8: what `quantize` and `export` have in common."""
    pictures = "a folder of pictures (JPEG, PNG, WebP, BMP, TIFF), or an .npz of pictures or of prepared inputs"
    parser.add_argument("--calibration", type=Path, metavar="DIR|FILE.npz", help=pictures)
    schemes = (
        "what the integers mean: float-scale (default), float-scale-reduced (cpu:avx2), float-scale-int8, power-of-two"
        " (vta), power-of-two-tensor"
    )
    parser.add_argument("--scheme", metavar="S", help=schemes)
    effort = (
        "normal (default) finds how by measuring on pictures held back; fast takes the defaults; best takes longest"
    )
    parser.add_argument("--effort", metavar="E", help=effort)
    wide = "so many tensors, those that 8 bits hold worst, have 16 bits; 0 for none (default: as --effort finds)"
    parser.add_argument("--sixteen-bit", type=positive("--sixteen-bit", least=0), metavar="N", help=wide)
    parser.add_argument("--images", type=positive("--images"), metavar="N", help="calibrate on the first N only")
    limit = "of top-1; layers go back to float until it holds"
    parser.add_argument("--max-drop", type=float, metavar="POINTS", help=limit)
    parser.add_argument("--evaluate", type=Path, metavar="DIR|FILE.npz", help="labelled pictures for --max-drop")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> Show:
    """A `show` that prints a table; the columns whose numbers are in `right` are aligned right.

    Where the terminal is too narrow, numbers and short words keep their width, and the other columns share what is
    left: their cells take several lines, broken where a word or a part of a name ends.
    """
    content = [[_text(cell) for cell in row] for row in rows]
    right = frozenset(right)

    def show(console: Console) -> None:
        from rich.table import Table
        from rich.text import Text

        heads, widths = list(columns), [max(map(len, cells)) for cells in zip(columns, *content, strict=True)]
        if sum(widths) + 2 * len(widths) > console.width:
            heads, widths = _narrowed(columns, content, right, console.width)
        result = Table(box=None, header_style="bold", pad_edge=False)
        for index, head in enumerate(heads):
            justify: Literal["right", "left"] = "right" if index in right else "left"
            result.add_column(head, justify=justify, no_wrap=True)
        for row in content:
            result.add_row(*[Text(_broken(cell, width)) for cell, width in zip(row, widths, strict=True)])
        console.print(result)

    return show


def _narrowed(
    columns: Sequence[str], content: Sequence[Sequence[str]], right: Container[int], room: int
) -> tuple[list[str], list[int]]:
    """Heads and widths of a table's columns that fit into `room`, if that can be."""
    cells = [max((len(row[index]) for row in content), default=0) for index in range(len(columns))]
    fixed = [index in right or widest <= _SHORT for index, widest in enumerate(cells)]
    words = [max(map(len, column.split()), default=0) for column in columns]
    widths = [max(pair) for pair in zip(cells, words, strict=True)]
    left = room - 2 * len(columns) - sum(width for width, keeps in zip(widths, fixed, strict=True) if keeps)
    wanted = sum(width for width, keeps in zip(widths, fixed, strict=True) if not keeps)
    for index, keeps in enumerate(fixed):
        if not keeps and wanted > left:
            widths[index] = max(words[index], _LEAST, widths[index] * left // wanted)
    return [_broken(column, width) for column, width in zip(columns, widths, strict=True)], widths


def _broken(text: str, width: int) -> str:
    """`text` in lines of at most `width` letters, broken after a space or a separator, in a word if it has to be."""
    lines = [""]
    for part in re.findall(r"[^\s/_|,:-]*[\s/_|,:-]*", text):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        while len(part.rstrip()) > width:
            lines[-1], part = part[:width], part[width:]
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def _text(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return "-" if cell is None else str(cell)


def sequence(*shows: Show) -> Show:
    """A `show` of several, one after the other."""

    def show(console: Console) -> None:
        for one in shows:
            one(console)

    return show


def line(text: str) -> Show:
    """A `show` of one line, printed as it is."""
    return lambda console: console.print(text, markup=False, highlight=False, soft_wrap=True)


def top1_of(quantization: Mapping[str, Any]) -> str:
    """What the accuracy gate measured, in words."""
    top1, lost = quantization["top1"], quantization["drop_points"]
    return f"{top1['fp32']:.2f} % -> {top1['int8']:.2f} % on {top1['images']} pictures ({lost:+.2f} points lost)"
