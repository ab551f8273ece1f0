"""What is known of a network without building it: frozen data, no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the network's input, in this order.

    The picture is converted to as many colour channels as `mean` has (3: RGB, 1: grey), resized with `interpolation` so
    that its short side is `resize`, cropped at its centre to `crop` (height, width), scaled to 0..1, and normalised as
    ``(x - mean) / std``. The result is float32, (C, H, W).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int
    crop: tuple[int, int]
    interpolation: str = "bilinear"

    def at(self, height: int, width: int) -> Preprocessing:
        """The same for another input size; the ratio of resize to crop is kept."""
        ratio = self.resize / min(self.crop)
        return replace(self, resize=round(max(height, width) * ratio), crop=(height, width))

    def channels(self, count: int) -> Preprocessing:
        """The same for another number of input channels (1: the mean and deviation of grey are those of the colours,
        averaged).
        """
        if count == len(self.mean):
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return replace(self, mean=(round(mean, 4),) * count, std=(round(std, 4),) * count)


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
