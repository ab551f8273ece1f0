"""What is known of a network without building it: frozen data, no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from inception_deploy.runtime.preprocessing import Preprocessing

HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Option:
    """One keyword that `build` takes for this network beyond the common ones; its type is that of `default`."""

    name: str
    default: Any
    help: str
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """One network of the zoo at its published size.

    Attributes:
        name: the canonical name.
        family: the file of this package that builds it.
        aliases: other names it is known by.
        input: (channels, height, width) of one image.
        minimum: the smallest height and width it accepts.
        parameters: trainable numbers, exact, without auxiliary heads.
        macs: multiply-accumulates of the convolutions and linear layers for one image at `input`, exact.
        num_classes: outputs of the classifier.
        preprocessing: what its published weights expect.
        top1: ImageNet top-1 in percent that was published for it, or None.
        weights_source: whose checkpoints `weights=` reads, beside this project's own.
        options: what else `build` takes.
    """

    name: str
    family: str
    aliases: tuple[str, ...]
    input: tuple[int, int, int]
    minimum: int
    parameters: int
    macs: int
    preprocessing: Preprocessing
    top1: float | None = None
    weights_source: str = "this project only"
    options: tuple[Option, ...] = ()
    num_classes: int = 1000

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
