"""Train a small network of the zoo on handwritten digits and save it, ready to be exported.

    python examples/train_digits.py                          # a small Inception-ResNet v2, about two minutes on a CPU
    python examples/train_digits.py --model mobilenet_v1     # any other network of the zoo
    python examples/train_digits.py --data fashion-mnist/    # your IDX files, or a folder of pictures for each class
    inception-deploy export --model digits_irv2.safetensors --target cpu -o digits-cpu

The file holds the weights and what they belong to (network, width, options, classes, preprocessing, accuracy), so that
`inception_deploy.models.load_trained` and `export --model` need nothing else.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import torch

from inception_deploy import models
from inception_deploy.errors import DeployError
from inception_deploy.models import Preprocessing, trained
from inception_deploy.models.train import Recipe, accuracy, jitter, train


@dataclass(frozen=True)
class Small:
    """A network's size that learns digits in minutes on a CPU."""

    width: float
    input_size: int
    epochs: int = 20
    learning_rate: float = 3e-3
    options: dict[str, Any] = field(default_factory=dict)


# Side lengths are near each network's minimum: the pictures have 8 x 8 pixels.
SMALL = {
    "lenet5": Small(1.0, 32),
    "alexnet": Small(0.25, 63),
    "googlenet": Small(0.25, 64, options={"aux": True}),
    "googlenet-textbook": Small(0.25, 56, learning_rate=1e-3, options={"aux": True}),
    "inception_v2": Small(0.25, 64),
    "inception_v3": Small(0.125, 75, epochs=25, learning_rate=1e-2, options={"aux": True}),
    "inception_v4": Small(0.125, 75, options={"blocks": (1, 2, 1)}),
    "inception_resnet_v1": Small(0.125, 75, options={"blocks": (2, 3, 2)}),
    "inception_resnet_v2": Small(0.125, 75, options={"blocks": (2, 3, 2)}),
    "mobilenet_v1": Small(0.25, 64, epochs=30, learning_rate=1e-2),  # no shortcuts: slow at first
    "resnet18": Small(0.125, 64),
    "xception": Small(0.125, 71, options={"blocks": 2}),
}
OTHERS = Small(0.25, 64)


def main(arguments: list[str] | None = None) -> int:
    """Train, measure, save; 0 when it did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="irv2", help="a network of the zoo (default: irv2)")
    parser.add_argument(
        "--data", type=Path, help="folder of MNIST-style IDX files, or of one folder a class (default: digits)"
    )
    parser.add_argument(
        "--output", "-o", type=Path, help="the .safetensors file to write (default: digits_MODEL.safetensors)"
    )
    parser.add_argument(
        "--held-out", type=Path, help="also write the held-out pictures, as an .npz of `images` and `labels`"
    )
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--width", type=float)
    parser.add_argument("--input-size", type=int)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument(
        "--colour", action="store_true", help="keep the pictures' colours: three input channels instead of one"
    )
    parser.add_argument("--limit", type=int, help="use only so many pictures to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=int, default=1, help="maps this small gain nothing from more than one (default: 1)"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        run(options)
    except DeployError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


def run(options: argparse.Namespace) -> None:
    """What `main` does, with errors as exceptions."""
    name = models.resolve(options.model)
    small = SMALL.get(name, OTHERS)
    size = options.input_size or small.input_size
    width = options.width or small.width
    epochs = options.epochs or small.epochs
    training, held_out = pictures.digits() if options.data is None else pictures.read(options.data)
    if options.limit:
        training = training.take(np.arange(min(options.limit, len(training.labels))))
    channels = 3 if options.colour else 1
    half = (0.5,) * channels
    preprocessing = Preprocessing(half, half, resize=size, crop=(size, size))
    module = models.build(
        name,
        num_classes=len(training.classes),
        width=width,
        input_size=size,
        in_channels=channels,
        seed=options.seed,
        **small.options,
    )
    parameters = sum(parameter.numel() for parameter in module.parameters())
    print(
        f"{name}: {parameters:,} parameters, {len(training.labels)} {training.title}, {len(held_out.labels)} held out"
    )
    recipe = Recipe(
        epochs,
        batch=options.batch,
        learning_rate=options.learning_rate or small.learning_rate,
        seed=options.seed,
        augment=jitter,
    )
    start = time.perf_counter()
    for epoch in train(module, pictures.Prepared(training, preprocessing), recipe):
        print(
            f"epoch {epoch.number:>3}/{epochs}  loss {epoch.loss:.4f}  {time.perf_counter() - start:6.1f} s", flush=True
        )
    top1 = accuracy(module, pictures.Prepared(held_out, preprocessing))
    print(f"held-out top-1 {top1:.2%} ({round(top1 * len(held_out.labels))} of {len(held_out.labels)})")

    alias = min((name, *models.spec(name).aliases), key=len)
    output = options.output or Path(f"digits_{alias}.safetensors")
    info = trained.TrainedInfo(
        name=name,
        classes=training.classes,
        input=module.input_shape,
        preprocessing=preprocessing,
        width=width,
        options={key: value for key, value in small.options.items() if key != "aux"},
        accuracy=top1,
        data=training.title,
    )
    trained.save(output, module, info)
    print(f"wrote {output} ({output.stat().st_size / 1e6:.2f} MB)")
    if options.held_out:
        grey = [np.asarray(source) for source in held_out.sources if not isinstance(source, Path)]
        if len(grey) != len(held_out.labels):
            raise DeployError(
                "--held-out writes pictures of one size only, not a folder's", kind="data", got=str(options.data)
            )
        np.savez_compressed(options.held_out, images=np.stack(grey), labels=held_out.labels)
        print(f"wrote {options.held_out}")


if __name__ == "__main__":
    sys.exit(main())
