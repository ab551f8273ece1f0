"""What an ONNX file says of itself beside its graph: who made it, how pictures become its input, what its classes are.

All of it stands in the file's own fields (``producer_name``, ``producer_version``, the graph's name) and in
``metadata_props``, so that Netron shows it and other runtimes' programs can read it:

    inception_deploy.model           the network's name
    inception_deploy.preprocessing   JSON, the fields of `Preprocessing`
    inception_deploy.labels          JSON, the names of the classes in the order of the outputs

A file that was exported once and comes back keeps its own. Labels are read as Ultralytics writes them, too.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import DeployError
from ..runtime.labels import known
from ..runtime.preprocessing import Preprocessing, from_dict

if TYPE_CHECKING:
    import onnx

PRODUCER = "inception-deploy"
MODEL, PREPROCESSING, LABELS = (f"inception_deploy.{name}" for name in ("model", "preprocessing", "labels"))
_ULTRALYTICS = "names"
_LONGEST = 1 << 24


def write(
    model: onnx.ModelProto, name: str, preprocessing: Mapping[str, Any] | None, labels: Sequence[str] | None
) -> None:
    """Write into the file what it says of itself, in place of what it said before.

    Args:
        name: of the network.
        preprocessing: as in the manifest; None for a network that takes no pictures.
        labels: that the network brought along.
    """
    model.producer_name, model.producer_version, model.graph.name = PRODUCER, __version__, name
    says = {MODEL: name}
    if preprocessing is not None:
        short = {key: value for key, value in preprocessing.items() if key != "steps"}
        says[PREPROCESSING] = json.dumps(short, sort_keys=True)
    shape = [size.dim_value for size in model.graph.output[0].type.tensor_type.shape.dim]
    if names := known(labels, shape):
        says[LABELS] = json.dumps(list(names), ensure_ascii=False)
    kept = [entry for entry in model.metadata_props if entry.key not in (MODEL, PREPROCESSING, LABELS)]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    for key, value in says.items():
        model.metadata_props.add(key=key, value=value)


def preprocessing(model: onnx.ModelProto, name: str) -> Preprocessing | None:
    """What the file says of its preprocessing; None where it says nothing.

    Raises:
        DeployError: (kind ``onnx``) it says something that cannot be read.
    """
    text = _says(model, PREPROCESSING)
    return None if text is None else from_dict(_json(text, PREPROCESSING, name), _where(PREPROCESSING, name))


def labels(model: onnx.ModelProto, name: str) -> tuple[str, ...] | None:
    """The names of the classes, as this project or Ultralytics writes them; None where the file has none.

    Raises:
        DeployError: (kind ``onnx``) ours cannot be read.
    """
    text = _says(model, LABELS)
    if text is not None:
        found = _json(text, LABELS, name)
        if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
            message = f"{_where(LABELS, name)} is no list of names"
            raise DeployError(message, kind="onnx", got=text[:200], allowed='["tench", "goldfish", ...]')
        return tuple(found)
    return _ultralytics(_says(model, _ULTRALYTICS))


def _ultralytics(text: str | None) -> tuple[str, ...] | None:
    """The names in ``{0: 'tench', 1: 'goldfish'}``; None where it is anything else, which only has the same key."""
    try:
        found = ast.literal_eval((text or "")[:_LONGEST])
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    if not isinstance(found, dict) or list(found) != list(range(len(found))):
        return None
    return tuple(map(str, found.values())) or None


def _says(model: onnx.ModelProto, key: str) -> str | None:
    return next((entry.value for entry in model.metadata_props if entry.key == key), None)


def _where(key: str, name: str) -> str:
    return f"{name}: metadata '{key}'"


def _json(text: str, key: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{_where(key, name)} is no JSON: {error}"
        raise DeployError(message, kind="onnx", got=text[:200], allowed="JSON") from error
