"""VGG: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (1409.1556), table 1:
A, B, D and E.
"""

from __future__ import annotations

from .fully_connected import FullyConnected
from .keys import KeyMap, Rule
from .layers import Conv, Convs, MaxPool, Step

GRID = 7
# 3x3 convolutions in each of the five stages.
DEPTHS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)


def build(
    name: str, *, num_classes: int, in_channels: int, width: float, input_size: tuple[int, int], dropout: float
) -> FullyConnected:
    """(N, C, H, W) -> (N, classes); 224 -> 7 pixels in five stages."""
    c = Convs(width, norm=False)
    features = c.chain(in_channels, *_words(name))
    return FullyConnected(features, input_size, GRID, c.channels(4096), num_classes, dropout)


def _words(name: str) -> list[Step]:
    words: list[Step] = []
    for channels, depth in zip(CHANNELS, DEPTHS[name], strict=True):
        words += [Conv(channels, 3)] * depth + [MaxPool(2, 2)]
    return words


def _features(name: str) -> Rule:
    """torchvision and timm count the activations as layers of their own: a convolution moves by as many as there are
    before it.
    """
    convs = [index for index, word in enumerate(_words(name)) if isinstance(word, Conv)]
    return r"^features\.(\d+)\.conv\.", lambda match: f"features.{int(match[1]) + convs.index(int(match[1]))}."


_TORCHVISION: tuple[Rule, ...] = (
    (r"^hidden1\.", "classifier.0."),
    (r"^hidden2\.", "classifier.3."),
    (r"^classifier\.(?=[wb])", "classifier.6."),
)
# timm writes the hidden layers as convolutions of 7x7 and 1x1: the same numbers in another shape.
_TIMM: tuple[Rule, ...] = (
    (r"^hidden1\.", "pre_logits.fc1."),
    (r"^hidden2\.", "pre_logits.fc2."),
    (r"^classifier\.", "head.fc."),
)
KEYS = tuple(
    KeyMap(library, (_features(name), *rules), networks=(name,))
    for name in DEPTHS
    for library, rules in (("torchvision", _TORCHVISION), ("timm", _TIMM))
)
