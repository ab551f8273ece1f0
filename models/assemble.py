"""From a `ModelSpec` and the user's wishes to a module without values: everything a user can get wrong is checked here,
once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from inception_deploy.errors import UsageError, nearest

from .base import Network
from .spec import ModelSpec, Option


def assemble(
    spec: ModelSpec,
    *,
    num_classes: int | None = None,
    width: float = 1.0,
    input_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Network:
    """The module with torch's default values; `build` gives it its own. Works on the meta device, where it costs
    nothing.

    Raises:
        UsageError: kinds ``num-classes``, ``width``, ``input-size``, ``in-channels``, ``option``.
    """
    chosen = {option.name: option.default for option in spec.options}
    for key, value in (options or {}).items():
        chosen[key] = _checked(spec, key, value)
    channels, height, columns = spec.input
    channels = _at_least(1, "in_channels", channels if in_channels is None else in_channels)
    classes = _at_least(1, "num_classes", spec.num_classes if num_classes is None else num_classes)
    if not isinstance(width, (int, float)) or not 0.0 < width <= 16.0:
        raise UsageError(f"width {width} is out of range", kind="width", got=width, allowed="0 < width <= 16")
    if input_size is None:
        rho = float(chosen.get("rho", 1.0))
        height, columns = round(height * rho), round(columns * rho)
    else:
        height, columns = (input_size, input_size) if isinstance(input_size, int) else input_size
    if min(height, columns) < spec.minimum:
        raise UsageError(
            f"input size {height}x{columns} is too small for {spec.name}: at least {spec.minimum}x{spec.minimum}",
            kind="input-size",
            got=f"{height}x{columns}",
            allowed=f"at least {spec.minimum}x{spec.minimum}",
        )
    family = importlib.import_module(f".{spec.family}", __package__)
    module: Network = family.build(
        spec.name, num_classes=classes, in_channels=channels, width=float(width), input_size=(height, columns), **chosen
    )
    module.spec = spec
    module.input_shape = (channels, height, columns)
    pictures = channels in (1, 3)
    module.preprocessing = spec.preprocessing.at(height, columns).channels(channels) if pictures else None
    return module


def _at_least(least: int, name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        kind = name.replace("_", "-")
        raise UsageError(
            f"{name} must be a whole number of at least {least}, not {value!r}",
            kind=kind,
            got=value,
            allowed=f">= {least}",
        )
    return value


def _checked(spec: ModelSpec, key: str, value: Any) -> Any:
    """`value`, if the network has this option and the value is of its kind."""
    known = {option.name: option for option in spec.options}
    if key not in known:
        near = nearest(key, known)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"{spec.name} has no option '{key}'{hint}", kind="option", got=key, allowed=sorted(known))
    option = known[key]
    problem = _problem(option, value)
    if problem:
        raise UsageError(
            f"{spec.name}: option {key} must be {problem}, not {value!r}", kind="option", got=value, allowed=problem
        )
    return tuple(value) if isinstance(option.default, tuple) else type(option.default)(value)


def _problem(option: Option, value: Any) -> str | None:
    """What the value should have been, or None when it is right."""
    default = option.default
    if option.choices:
        return None if value in option.choices else "one of " + ", ".join(map(str, option.choices))
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, tuple):
        length = len(default) or 4  # the residual networks have four stages and an empty default
        whole = not (default and isinstance(default[0], float))
        right = isinstance(value, (tuple, list)) and all(_positive(item, whole) for item in value)
        kind = "whole numbers" if whole else "numbers"
        return None if right and len(value) in (length, len(default)) else f"{length} {kind} above 0"
    if isinstance(default, int):
        return None if isinstance(value, int) and value > 0 else "a whole number above 0"
    if option.name == "dropout":
        return None if isinstance(value, (int, float)) and 0.0 <= value < 1.0 else "a number from 0 to below 1"
    return None if isinstance(value, (int, float)) and 0.0 < value <= 16.0 else "a number above 0"


def _positive(value: Any, whole: bool) -> bool:
    return isinstance(value, int if whole else (int, float)) and not isinstance(value, bool) and bool(value > 0)
