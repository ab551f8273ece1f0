"""The names of classes, in the order of a network's outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib import resources


@cache
def imagenet() -> tuple[str, ...]:
    """ImageNet's 1000 class names in the order of the logits (ILSVRC 2012)."""
    return _lines("imagenet_labels.txt")


@cache
def wnids() -> tuple[str, ...]:
    """WordNet's number of each, e.g. ``n01440764``, which the folders of ImageNet's pictures are named by."""
    return _lines("imagenet_wnids.txt")


def class_count(shape: Sequence[int]) -> int | None:
    """How many classes an output of this shape tells; None where it tells none."""
    return shape[1] if len(shape) >= 2 and math.prod(shape[2:]) == 1 else None


def known(labels: Sequence[str] | None, shape: Sequence[int]) -> Sequence[str]:
    """The names of a network's classes: its own, or ImageNet's of 1000 classes; none where nobody knows them.

    Args:
        labels: those that the network brought along.
        shape: of its first output.
    """
    names = labels or imagenet()
    return names if class_count(shape) == len(names) else ()


def _lines(name: str) -> tuple[str, ...]:
    return tuple(resources.files(__package__).joinpath("data").joinpath(name).read_text(encoding="utf-8").splitlines())
