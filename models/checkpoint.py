"""A network filled from a weights file: recognise whose names it uses, fit them or say exactly what does not.

Names may be this project's, or those of a library that has the same network (`KEYS` in the family's file); whichever
explains most of the file's keys is taken, up to the words that wrappers put into names (`matching`). Counters have no
meaning here and are ignored, as are auxiliary heads that were not built. What is not float32 is converted, and said.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from .keys import KeyMap
from .matching import COUNTERS, Match, match, unwrapped
from .weights_file import Weights, listed, read, wrong

OURS = KeyMap("this project", (), ignore=r"^aux\.")
_SHOWN = 12


@dataclass(frozen=True)
class Fitted:
    """What came of filling a network.

    Attributes:
        library: whose names the file uses: ``"this project"``, ``"timm"``, ``"torchvision"``, ``"the module"``.
        notes: lines for the user: what was chosen, renamed and converted on the way.
    """

    library: str
    notes: tuple[str, ...]


def load(module: nn.Module, path: str | os.PathLike[str], name: str | None = None, *, ema: bool = False) -> Fitted:
    """Fill `module` from a file; in place.

    Args:
        name: of the network in the zoo; None for a user's module, whose own names are the only ones.
        ema: take the averaged weights, where the file has both.

    Raises:
        DeployError: (kind ``weights``) the file cannot be read, is not weights, or does not fit; what does not fit is
            listed.
    """
    return fit(module, read(path, ema=ema), name, source=str(path))


def fit(
    module: nn.Module, weights: Weights | Mapping[str, Tensor], name: str | None, *, source: str = "the weights"
) -> Fitted:
    """Fill `module` from tensors by name; `load` without the file.

    Args:
        source: what the tensors came from, for the messages.
    """
    if not isinstance(weights, Weights):
        weights = Weights(weights)
    tensors = {key: value for key, value in weights.tensors.items() if not COUNTERS.search(key)}
    ours = {key: value for key, value in module.state_dict().items() if _counts(key, value)}
    maps = key_maps(name) if name is not None else (KeyMap("the module", ()),)
    keys, wanted, found = _recognise(ours, tensors, maps)
    problems = {
        "missing": [theirs for theirs in wanted if theirs not in found.pairs],
        "unexpected": [key for key in found.left if not keys.ignores(key) and not keys.ignores(unwrapped(key))],
        "of the wrong shape": [
            f"{theirs} (file {_shape(tensors[theirs])}, network {_shape(ours[wanted[key]])})"
            for key, theirs in found.pairs.items()
            if not _fits(tensors[theirs], ours[wanted[key]])
        ],
    }
    if any(problems.values()):
        text = "; ".join(f"{len(bad)} {what}: {listed(bad)}" for what, bad in problems.items() if bad)
        read_as = f" (its names read as those of {keys.library})" if name is not None else ""
        raise wrong(
            f"{source} does not fit {name or 'the module'}{read_as}: {text}",
            got={what.replace(" ", "_"): bad[:_SHOWN] for what, bad in problems.items() if bad},
            allowed=f"the {len(wanted)} tensors of {name or 'the module'}, named as in "
            + " or ".join(candidate.library for candidate in maps),
        )
    filled = {wanted[key]: tensors[theirs].to(ours[wanted[key]].dtype) for key, theirs in found.pairs.items()}
    bad = [theirs for key, theirs in found.pairs.items() if not bool(torch.isfinite(filled[wanted[key]]).all())]
    if bad:
        raise wrong(f"{source} holds infinities or NaN: {listed(bad)}", got=bad[:_SHOWN])
    with torch.no_grad():
        module.load_state_dict(
            {own: value if _lazy(ours[own]) else value.reshape(ours[own].shape) for own, value in filled.items()},
            strict=False,
        )
    notes = [*weights.notes]
    if found.changed:
        notes.append(f"{source}: {found.changed}")
    if converted := _converted(tensors[theirs] for theirs in found.pairs.values()):
        notes.append(f"{source}: {converted}")
    return Fitted(keys.library, tuple(notes))


def key_maps(name: str) -> tuple[KeyMap, ...]:
    """Whose names are understood for a network: this project's first."""
    from . import spec

    family = importlib.import_module(f".{spec(name).family}", __package__)
    return (OURS, *(known for known in family.KEYS if known.covers(name)))


def _counts(key: str, value: object) -> bool:
    """Whether an entry of a state dict is wanted: extra state is none, nor is a counter."""
    return isinstance(value, Tensor) and not COUNTERS.search(key)


def _recognise(
    ours: Iterable[str], tensors: Mapping[str, Tensor], known: Iterable[KeyMap]
) -> tuple[KeyMap, dict[str, str], Match]:
    """The key map that explains most of the file; with it their name -> ours, and their name -> the file's."""
    candidates = []
    for keys in known:
        wanted = {keys.theirs(own): own for own in ours}
        candidates.append((keys, wanted, match(wanted, tensors)))
    return max(candidates, key=lambda candidate: len(candidate[2].pairs))


def _fits(theirs: Tensor, ours: Tensor) -> bool:
    """The same shape, or a linear layer's matrix written as a convolution that covers the whole map (timm's VGG)."""
    if theirs.is_floating_point() != ours.is_floating_point() or theirs.is_complex() != ours.is_complex():
        return False
    if _lazy(ours):
        return True
    as_matrix = ours.dim() == 2 and theirs.dim() == 4 and theirs.shape[0] == ours.shape[0]
    return theirs.shape == ours.shape or (as_matrix and math.prod(theirs.shape[1:]) == ours.shape[1])


def _lazy(tensor: Tensor) -> bool:
    """Whether a tensor takes its shape from what is loaded into it."""
    return isinstance(tensor, (UninitializedBuffer, UninitializedParameter))


def _converted(tensors: Iterable[Tensor]) -> str:
    """``3 tensors are float16, converted to float32``; empty where all are."""
    counts: dict[str, int] = {}
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            counts[kind] = counts.get(kind, 0) + 1
    what = " and ".join(f"{count} tensors are {kind}" for kind, count in counts.items())
    return f"{what}; they are converted to float32" if what else ""


def _shape(tensor: Tensor) -> str:
    text = "x".join(map(str, tensor.shape)) or "scalar"
    return text if tensor.is_floating_point() else f"{text} {str(tensor.dtype).removeprefix('torch.')}"
