"""The names of classes, in the order of a network's outputs."""

from __future__ import annotations

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


def _lines(name: str) -> tuple[str, ...]:
    return tuple(resources.files(__package__).joinpath("data").joinpath(name).read_text(encoding="utf-8").splitlines())
