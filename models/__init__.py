"""The zoo: networks by name, their exact sizes, their preprocessing; nothing here loads torch until a network is built.

>>> names(), specs(), resolve("InceptionV4"), spec("irv2")  # no torch
>>> module = build("irv2", num_classes=10, width=0.25)

A network takes (N, C, H, W) float32 and gives (N, classes) float32 logits; `build` returns it in eval mode.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from inception_deploy import front
from inception_deploy.errors import UsageError, nearest
from inception_deploy.runtime.labels import imagenet as labels
from inception_deploy.runtime.preprocessing import Preprocessing

from .spec import ModelSpec, Option
from .table import TABLE

if TYPE_CHECKING:
    import os

    from .base import Network
    from .trained import TrainedInfo

__all__ = [
    "ModelSpec",
    "Option",
    "Preprocessing",
    "build",
    "labels",
    "load_trained",
    "names",
    "resolve",
    "spec",
    "specs",
]

front(__name__)

_BY_NAME = {entry.name: entry for entry in TABLE}


def _squash(text: str) -> str:
    """Names are compared without case and without separators: Inception-v4, inception_v4 and InceptionV4 are one."""
    return re.sub(r"[-_. ]", "", text).lower()


_BY_SPELLING = {_squash(spelling): entry.name for entry in TABLE for spelling in (entry.name, *entry.aliases)}


def names() -> list[str]:
    """The canonical names, in the order of the table."""
    return list(_BY_NAME)


def specs() -> tuple[ModelSpec, ...]:
    """All networks, in the order of the table."""
    return TABLE


def resolve(text: str) -> str:
    """The canonical name for a name or an alias, in any case and with any separators.

    Raises:
        UsageError: (kind ``model``) when there is no such network; names the nearest.
    """
    found = _BY_SPELLING.get(_squash(text))
    if found is not None:
        return found
    spellings = {spelling: entry.name for entry in TABLE for spelling in (entry.name, *entry.aliases)}
    near = list(dict.fromkeys(spellings[spelling] for spelling in nearest(text, spellings)))
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(f"there is no model '{text}'{hint}", kind="model", got=text, allowed=names())


def spec(name: str) -> ModelSpec:
    """The `ModelSpec` for a name or an alias; UsageError as `resolve`."""
    return _BY_NAME[resolve(name)]


def build(
    name: str,
    *,
    num_classes: int | None = None,
    width: float = 1.0,
    input_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    seed: int = 0,
    weights: str | os.PathLike[str] | None = None,
    ema: bool = False,
    **options: Any,
) -> Network:
    """The network as an nn.Module in eval mode: (N, C, H, W) float32 -> (N, num_classes) float32 logits.

    Args:
        name: a name or an alias.
        num_classes: outputs of the classifier; the published number where None.
        width: every channel count is multiplied by this and rounded to a multiple of 8, at least 8.
        input_size: height and width; the published size where None.
        in_channels: colour channels of the input; the published number where None.
        seed: of the initial weights where `weights` is None. Same seed, same numbers.
        weights: a file of trained weights, see `checkpoint.load`.
        ema: take that file's averaged weights, where it has plain ones too.
        options: of this network, see `ModelSpec.options`.

    Returns:
        A module with `trained` (whether weights were loaded), `notes` (what loading them chose and changed),
        `input_shape` (C, H, W), `preprocessing` and `spec`.

    Raises:
        UsageError: an unknown name or option, or a value out of range.
        DeployError: weights that do not fit.
    """
    from .assemble import assemble

    module = assemble(
        spec(name),
        num_classes=num_classes,
        width=width,
        input_size=input_size,
        in_channels=in_channels,
        options=options,
    )
    if weights is None:
        from .initialise import initialise

        initialise(module, module.input_shape, seed)
    else:
        from .checkpoint import load

        module.notes = load(module, weights, module.spec.name, ema=ema).notes
        module.trained = True
    return module.eval()


def load_trained(path: str | os.PathLike[str]) -> tuple[Network, TrainedInfo]:
    """A network that `trained.save` wrote (examples/train_digits.py does): rebuilt from the file's own metadata, eval
    mode.

    Raises:
        DeployError: (kind ``weights``) when the file is not one of those.
    """
    from .trained import load

    return load(path)
