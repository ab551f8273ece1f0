"""Weights files: read safely, recognise whose names they use, fit them or say exactly what does not.

A .safetensors file holds numbers only. A .pth or .pt file is a pickle: torch loads it with `weights_only`, which runs
no code of the file. Names may be this project's, or those of a library that has the same network (`KEYS` in the
family's file); whichever explains most of the file's keys is taken. `num_batches_tracked` has no meaning here and is
ignored, as are auxiliary heads that were not built.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from inception_deploy.errors import DeployError

from .keys import KeyMap

OURS = KeyMap("this project", (), ignore=r"^aux\.")
SUFFIXES = (".safetensors", ".pth", ".pt")
# What training scripts wrap a state dict in.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
_SHOWN = 12


def load(module: nn.Module, path: str | os.PathLike[str], name: str) -> str:
    """Fill `module`, the zoo's network `name`, from a file; in place.

    Returns:
        Whose names the file uses: ``"this project"``, ``"timm"`` or ``"torchvision"``.

    Raises:
        DeployError: (kind ``weights``) the file cannot be read, is not weights, or does not fit; what does not fit is
            listed.
    """
    return fit(module, read(path), name, source=str(path))


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth or .pt file by their names in it, on the CPU.

    Raises:
        DeployError: (kind ``weights``) not found, not of these kinds, damaged, or a pickle of something else.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise _wrong(
            f"{file} is not a weights file that is known here: its name ends in '{file.suffix}'", got=file.suffix
        )
    if not file.is_file():
        raise _wrong(
            f"weights file {file} does not exist" if not file.exists() else f"{file} is not a file", got=str(file)
        )
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise _wrong(f"{file} holds no state dict but a {type(content).__name__}", got=type(content).__name__)
    strange = [str(key) for key, value in content.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if strange:
        raise _wrong(f"{file} holds no state dict: not a tensor: {_listed(strange)}", got=strange[:_SHOWN])
    # DistributedDataParallel and torch.compile put a word before every name.
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in content):
            content = {key.removeprefix(prefix): value for key, value in content.items()}
    return dict(content)


def fit(module: nn.Module, tensors: Mapping[str, Tensor], name: str, *, source: str = "the weights") -> str:
    """Fill `module` from tensors by name; `load` without the file.

    Args:
        source: what the tensors came from, for the messages.
    """
    tensors = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    ours = {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    keys, wanted = _recognise(ours, tensors, key_maps(name))
    missing = [theirs for theirs in wanted if theirs not in tensors]
    extra = [theirs for theirs in tensors if theirs not in wanted and not keys.ignores(theirs)]
    shapes = [
        f"{theirs} (file {_shape(tensors[theirs])}, network {_shape(ours[own])})"
        for theirs, own in wanted.items()
        if theirs in tensors and not _fits(tensors[theirs], ours[own])
    ]
    problems = {"missing": missing, "unexpected": extra, "of the wrong shape": shapes}
    if any(problems.values()):
        text = "; ".join(f"{len(found)} {what}: {_listed(found)}" for what, found in problems.items() if found)
        known = " or ".join(candidate.library for candidate in key_maps(name))
        raise _wrong(
            f"{source} does not fit {name} (its names read as those of {keys.library}): {text}",
            got={what.replace(" ", "_"): found[:_SHOWN] for what, found in problems.items() if found},
            allowed=f"the {len(wanted)} tensors of {name}, named as in {known}",
        )
    bad = [theirs for theirs in wanted if not bool(torch.isfinite(tensors[theirs]).all())]
    if bad:
        raise _wrong(f"{source} holds infinities or NaN: {_listed(bad)}", got=bad[:_SHOWN])
    with torch.no_grad():
        for theirs, own in wanted.items():
            ours[own].copy_(tensors[theirs].reshape(ours[own].shape))
    return keys.library


def key_maps(name: str) -> tuple[KeyMap, ...]:
    """Whose names are understood for a network: this project's first."""
    from . import spec

    family = importlib.import_module(f".{spec(name).family}", __package__)
    return (OURS, *(known for known in family.KEYS if known.covers(name)))


def _recognise(
    ours: Iterable[str], tensors: Mapping[str, Tensor], known: Iterable[KeyMap]
) -> tuple[KeyMap, dict[str, str]]:
    """The key map that explains most of the file, and with it their name -> ours."""
    candidates = [(keys, {keys.theirs(own): own for own in ours}) for keys in known]
    return max(candidates, key=lambda candidate: len(candidate[1].keys() & tensors.keys()))


def _fits(theirs: Tensor, ours: Tensor) -> bool:
    """The same shape, or a linear layer's matrix written as a convolution that covers the whole map (timm's VGG)."""
    as_matrix = ours.dim() == 2 and theirs.dim() == 4 and theirs.shape[0] == ours.shape[0]
    return theirs.is_floating_point() and (
        theirs.shape == ours.shape or (as_matrix and math.prod(theirs.shape[1:]) == ours.shape[1])
    )


def _read_safetensors(file: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise _wrong(f"{file} cannot be read as safetensors: {error}", got=str(error)) from error


def _read_pickle(file: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol: the file is read whole or refused below
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # the unpickler fails on foreign bytes with almost any exception there is
        # Only what was found: torch's text goes on to recommend loading it unsafely.
        patterns = (r"Unsupported (?:global|class): \w+ \S+", r"(?<=WeightsUnpickler error: )[^\n]*")
        found = next(filter(None, (re.search(pattern, str(error)) for pattern in patterns)), None)
        reason = found.group() if found else type(error).__name__
        raise _wrong(
            f"{file} is not a checkpoint of plain tensors (pickles that hold anything else are refused): {reason}",
            got=reason,
        ) from error


def _shape(tensor: Tensor) -> str:
    text = "x".join(map(str, tensor.shape)) or "scalar"
    return text if tensor.is_floating_point() else f"{text} {str(tensor.dtype).removeprefix('torch.')}"


def _listed(found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _wrong(
    message: str, *, got: object, allowed: object = "a .safetensors, .pth or .pt file of the network's tensors"
) -> DeployError:
    return DeployError(message, kind="weights", got=got, allowed=allowed)
