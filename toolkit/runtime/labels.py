"""The names of classes, in the order of a network's outputs."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def imagenet() -> tuple[str, ...]:
    """ImageNet's 1000 class names in the order of the logits (ILSVRC 2012)."""
    text = resources.files(__package__).joinpath("data").joinpath("imagenet_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
