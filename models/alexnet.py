"""AlexNet: Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (1404.5997), the single-tower
form of Krizhevsky, Sutskever & Hinton (2012), as in torchvision: no local response normalisation.
"""

from __future__ import annotations

from .fully_connected import FullyConnected
from .keys import KeyMap
from .layers import Conv, Convs, MaxPool

GRID = 6


def build(
    name: str, *, num_classes: int, in_channels: int, width: float, input_size: tuple[int, int], dropout: float
) -> FullyConnected:
    """(N, C, H, W) -> (N, classes); 224 -> 55 -> 27 -> 13 -> 6 pixels."""
    c = Convs(width, norm=False)
    features = c.chain(
        in_channels,
        Conv(64, 11, 4, pad=2),
        MaxPool(),
        Conv(192, 5),
        MaxPool(),
        Conv(384, 3),
        Conv(256, 3),
        Conv(256, 3),
        MaxPool(),
    )
    return FullyConnected(features, input_size, GRID, c.channels(4096), num_classes, dropout)


# torchvision counts the activations as layers of their own.
_FEATURES = {"0": 0, "2": 3, "4": 6, "5": 8, "6": 10}
KEYS = (
    KeyMap(
        "torchvision",
        (
            (r"^features\.(\d)\.conv\.", lambda match: f"features.{_FEATURES[match[1]]}."),
            (r"^hidden1\.", "classifier.1."),
            (r"^hidden2\.", "classifier.4."),
            (r"^classifier\.(?=[wb])", "classifier.6."),
        ),
    ),
)
