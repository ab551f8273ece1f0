"""A folder as the Hugging Face hub holds timm's networks: ``config.json``, which names the architecture and says how
pictures are prepared, beside ``model.safetensors``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import inception_deploy.models as models

from ..errors import DeployError, UsageError
from ..runtime.preprocessing import Preprocessing
from .preparing import of_timm

CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Folder:
    """What such a folder says.

    Attributes:
        name: of the zoo's network.
        weights: the file.
        preprocessing: what the weights want.
        classes: how many the classifier tells apart; None where it does not say.
        labels: their names; None where it does not say.
    """

    name: str
    weights: Path
    preprocessing: Preprocessing
    classes: int | None
    labels: tuple[str, ...] | None


def is_folder(path: Path) -> bool:
    """Whether `path` looks like one."""
    return (path / CONFIG).is_file()


def read(path: Path) -> Folder:
    """Read a folder's description.

    Raises:
        DeployError: (kind ``weights``) the description cannot be read, the weights are missing, or the zoo has no such
            network.
    """
    config = _config(path / CONFIG)
    weights = next((path / name for name in _WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        raise _wrong(f"{path} holds no weights", got=sorted(p.name for p in path.iterdir())[:12], allowed=_WEIGHTS)
    architecture = config.get("architecture")
    try:
        name = models.resolve(str(architecture).partition(".")[0])
    except UsageError as error:
        message = f"{path / CONFIG} is of the architecture '{architecture}', which the zoo does not have"
        raise _wrong(message, got=architecture, allowed=models.names()) from error
    pretrained = config.get("pretrained_cfg")
    about = pretrained if isinstance(pretrained, dict) else config
    classes, labels = config.get("num_classes", about.get("num_classes")), config.get("label_names")
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        classes = None
    named = tuple(map(str, labels)) if isinstance(labels, list) and len(labels) == classes else None
    return Folder(name, weights, of_timm(about, str(path / CONFIG)), classes, named)


def _config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _wrong(f"{file} cannot be read: {error}", got=str(file), allowed="JSON") from error
    if not isinstance(config, dict):
        raise _wrong(f"{file} is no JSON object", got=type(config).__name__, allowed="JSON as timm writes it")
    return config


def _wrong(message: str, *, got: object, allowed: object) -> DeployError:
    return DeployError(message, kind="weights", got=got, allowed=allowed)
