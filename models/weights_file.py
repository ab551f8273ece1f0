"""Weights files as people have them: found out by content, unwrapped, and refused by name where they hold no weights.

A file's suffix says nothing: .pth.tar, .ckpt and .bin are torch's as well. What training scripts wrap around a state
dict is taken off (`PLAIN`, `AVERAGED`), what they put beside it is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from inception_deploy.errors import DeployError

from . import pickles

ALLOWED = "a .safetensors file, or a state dict that torch.save wrote, of the network's tensors"
PLAIN = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "model_weights", "module", "params")
AVERAGED = (
    "model_ema", "ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "params_ema",
    "averaged_model",
)  # fmt: skip
_BESIDE = ("optim", "sched", "scaler", "args", "config", "hyper", "callbacks", "loops")
"""How the names of what lies beside the weights begin."""

_SHOWN = 12
_KNOWN_FORMATS = (
    (b"\x89HDF", "an HDF5 file, as Keras writes it"),
    (b"version https://git-lfs", "a Git LFS pointer: `git lfs pull` gets the file itself"),
    (b"\x1f\x8b", "packed by gzip; unpack it first"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
)


@dataclass(frozen=True)
class Weights:
    """The tensors of a file by their names in it, on the CPU.

    Attributes:
        notes: lines for the user: what was chosen and what was left out.
    """

    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()


def read(path: str | os.PathLike[str], *, ema: bool = False) -> Weights:
    """The state dict of a .safetensors file or of what torch.save wrote.

    Args:
        ema: take the averaged weights, where there are plain ones too.

    Raises:
        DeployError: (kind ``weights``) not found, of another format, damaged, or without what was asked for.
    """
    file = Path(path)
    if not file.is_file():
        raise wrong(
            f"weights file {file} does not exist" if not file.exists() else f"{file} is not a file", got=str(file)
        )
    content = _read_safetensors(file) if _format(file) == "safetensors" else pickles.load(file, wrong)
    notes: list[str] = []
    tensors = _without_copies(*_state_dict(content, file, ema, notes), file, notes)
    for key, tensor in tensors.items():
        if kind := _unreadable(tensor):
            message = f"{file}: tensor '{key}' is {kind}"
            raise wrong(message, got=kind, allowed="dense tensors of numbers, e.g. tensor.to_dense(), dequantize()")
    return Weights(tensors, tuple(f"{file}: {note}" for note in notes))


def wrong(message: str, *, got: object, allowed: object = ALLOWED) -> DeployError:
    """The error of a weights file."""
    return DeployError(message, kind="weights", got=got, allowed=allowed)


def listed(found: list[str]) -> str:
    """Names for a message, the first few of many."""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _format(file: Path) -> str:
    """``safetensors`` or ``pickle``, by the first bytes."""
    with file.open("rb") as source:
        head = source.read(32)
    for start, what in _KNOWN_FORMATS:
        if head.lower().startswith(start.lower()):
            raise wrong(f"{file} is no weights file but {what}", got=what)
    if head[8:9] == b"{" or file.suffix.lower() == ".safetensors":
        return "safetensors"
    if head.startswith((b"PK\3\4", b"\x80")):
        return "pickle"
    what = repr(head[:8]) if head else "nothing"
    raise wrong(f"{file} is no weights file that is known here: it begins with {what}", got=what)


def _read_safetensors(file: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise wrong(f"{file} cannot be read as safetensors: {error}", got=str(error)) from error


def _state_dict(content: object, file: Path, ema: bool, notes: list[str]) -> tuple[dict[str, Tensor], bool]:
    """The tensors of `content` below what scripts wrap around them; and whether averaged ones are yet to be found."""
    if not isinstance(content, Mapping) or not content:
        raise wrong(f"{file} holds no state dict but a {type(content).__name__}", got=type(content).__name__)
    plain = [key for key in PLAIN if isinstance(content.get(key), Mapping)]
    averaged = [key for key in AVERAGED if isinstance(content.get(key), Mapping)]
    if averaged and (ema or not plain):
        notes.append(f"the averaged weights, '{averaged[0]}', are taken{'' if plain else ': it has no others'}")
        return _state_dict(content[averaged[0]], file, False, notes)
    if averaged:
        notes.append(f"'{plain[0]}' is taken; --ema takes the averaged weights, '{averaged[0]}'")
    if plain:
        return _state_dict(content[plain[0]], file, ema, notes)
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    others = [str(key) for key in content if key not in tensors]
    inner = list(_inner(content))
    if len(inner) == 1 and not any("." in key for key in tensors):
        notes.append(f"'{inner[0]}' is taken")
        return _state_dict(content[inner[0]], file, ema, notes)
    if not tensors:
        raise wrong(f"{file} holds no state dict: not a tensor: {listed(others)}", got=others[:_SHOWN])
    if others:
        notes.append(f"left out what is no tensor: {listed(others)}")
    return tensors, ema


def _inner(content: Mapping[object, object]) -> Iterator[str]:
    """The entries that look like state dicts themselves."""
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping) and not key.lower().startswith(_BESIDE):
            keys = [inner for inner, tensor in value.items() if isinstance(tensor, (Tensor, Mapping))]
            if keys and all(isinstance(inner, str) for inner in keys):
                yield key


def _without_copies(tensors: dict[str, Tensor], ema: bool, file: Path, notes: list[str]) -> dict[str, Tensor]:
    """One of the two sets of names where a flat state dict holds averaged copies beside the plain tensors."""
    copies = {key: tail for key in tensors if (tail := _tail(key, AVERAGED)) is not None}
    rest = {key: value for key, value in tensors.items() if key not in copies}
    plain = {_tail(key, PLAIN) or key for key in rest}
    matched = [tail for tail in copies.values() if (_tail(tail, PLAIN) or tail) in plain]
    if copies and rest and len(matched) * 10 >= len(plain) * 9:
        taken = "averaged ones are taken" if ema else "plain ones are taken, --ema takes the others"
        notes.append(f"holds {len(matched)} averaged tensors beside the plain ones; the {taken}")
        return {tail: tensors[key] for key, tail in copies.items()} if ema else rest
    if ema and not copies:
        message = f"{file} holds no averaged weights, which --ema asks for"
        raise wrong(message, got=sorted(tensors)[:_SHOWN], allowed=f"an entry {' or '.join(AVERAGED)}")
    return tensors


def _tail(key: str, heads: tuple[str, ...]) -> str | None:
    """`key` without its first word, where that is one of `heads`."""
    head, dot, tail = key.partition(".")
    return tail if dot and head in heads else None


def _unreadable(tensor: Tensor) -> str:
    """Why a tensor holds no numbers that can be copied; empty where it does."""
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_meta:
        return "a meta tensor, which has a shape and no numbers"
    if tensor.is_nested:
        return "nested"
    if tensor.layout is not torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    return ""
