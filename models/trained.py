"""A trained network in one .safetensors file: the tensors, and in the file's metadata everything that is needed to
build it again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inception_deploy import artifact, schema
from inception_deploy.errors import DeployError
from inception_deploy.runtime.preprocessing import Preprocessing, from_dict
from inception_deploy.schema import Maybe, Missing, NotEmpty, Whole

from . import spec
from .assemble import assemble
from .base import Network
from .checkpoint import fit
from .weights_file import read

# One metadata entry that holds JSON: safetensors does not keep the order of several.
_ENTRY = "inception_deploy"
_SCHEMA = 1
_FIELDS = {
    "name": str,
    "classes": NotEmpty(str),
    "input": [Whole(1, 1 << 16)],
    "preprocessing": dict,
    "width": float,
    "options": dict,
    "accuracy": Maybe(float),
    "data": Missing(str),
}


@dataclass(frozen=True)
class TrainedInfo:
    """What a trained network is.

    Attributes:
        name: the network's canonical name in the zoo.
        classes: the class names in the order of the logits.
        input: (C, H, W).
        preprocessing: from a picture to that input.
        width: the width it was built with.
        options: the options it was built with, as for `build`; auxiliary heads are not kept.
        accuracy: held-out top-1, 0 to 1; None where it was not measured.
        data: what it was trained on, for people.
    """

    name: str
    classes: tuple[str, ...]
    input: tuple[int, int, int]
    preprocessing: Preprocessing
    width: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    accuracy: float | None = None
    data: str = ""


def save(path: str | os.PathLike[str], module: Network, info: TrainedInfo) -> None:
    """Write the network without its auxiliary heads; the file appears whole or not at all, and the same content gives
    the same bytes.

    Raises:
        DeployError: (kind ``disk``) the disk is full.
        OSError: the folder cannot be written.
    """
    from safetensors.torch import save as to_bytes

    tensors = {
        key: value.detach().contiguous()
        for key, value in module.state_dict().items()
        if not key.startswith("aux.") and not key.endswith("num_batches_tracked")
    }
    metadata = {_ENTRY: json.dumps({"schema": _SCHEMA, **asdict(info)}, sort_keys=True)}
    with artifact.atomic_file(Path(path)) as partial:
        partial.write_bytes(to_bytes(tensors, metadata))


def read_info(path: str | os.PathLike[str]) -> TrainedInfo:
    """The metadata alone.

    Raises:
        DeployError: (kind ``weights``) the file is no .safetensors, or was not written by `save`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _wrong(f"{path} cannot be read as safetensors: {error}", got=str(error)) from error
    if _ENTRY not in metadata:
        raise _wrong(
            f"{path} does not say which network it is: it has no metadata entry '{_ENTRY}'", got=sorted(metadata)
        )
    try:
        fields = json.loads(metadata[_ENTRY])
        if isinstance(fields, dict) and fields.get("schema") != _SCHEMA:
            raise ValueError(f"its schema is not {_SCHEMA}")
        schema.check(fields, _FIELDS)
        fields = {key: fields[key] for key in _FIELDS if key in fields}
        preprocessing = from_dict(fields.pop("preprocessing"), f"{path}: 'preprocessing' in '{_ENTRY}'")
        fields["classes"] = tuple(fields["classes"])
        channels, height, columns = fields["input"]
        return TrainedInfo(**{**fields, "input": (channels, height, columns)}, preprocessing=preprocessing)
    except (ValueError, RecursionError) as error:
        raise _wrong(
            f"{path}: the metadata entry '{_ENTRY}' cannot be understood: {error}", got=metadata[_ENTRY][:200]
        ) from error


def load(path: str | os.PathLike[str]) -> tuple[Network, TrainedInfo]:
    """The network of a file that `save` wrote, in eval mode, and what it is.

    Raises:
        DeployError: (kind ``weights``) as `read_info`, or the tensors do not fit.
        UsageError: the metadata names a network or options that do not exist.
    """
    info = read_info(path)
    module = assemble(
        spec(info.name),
        num_classes=len(info.classes),
        width=info.width,
        input_size=info.input[1:],
        in_channels=info.input[0],
        options=info.options,
    )
    fit(module, read(path), info.name, source=str(path))
    module.preprocessing = info.preprocessing
    module.trained = True
    module.eval()
    return module, info


def _wrong(message: str, *, got: object) -> DeployError:
    return DeployError(message, kind="weights", got=got, allowed="a file written by examples/train_digits.py")
