"""What the functions of the front door share: types of arguments, and the error where the builder is not installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar

from ..errors import DeployError

PathLike: TypeAlias = "str | os.PathLike[str]"
Preparing: TypeAlias = "PathLike | Mapping[str, Any] | None"
Document: TypeAlias = "dict[str, Any]"

P = ParamSpec("P")
R = TypeVar("R")

# fmt: off
BUILDERS = frozenset({
    "torch", "tvm", "tvm_ffi", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "onnxsim", "safetensors", "ziglang",
    "cloudpickle", "psutil",
})
# fmt: on
"""The modules of what ``inception-deploy[build]`` installs."""


def needs_builder(function: Callable[P, R]) -> Callable[P, R]:
    """Where a package of the builder is missing, the error says what to install."""

    @wraps(function)
    def guarded(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return function(*arguments, **options)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in BUILDERS:
                raise
            raise DeployError(
                f"{function.__name__.replace('_', ' ')} needs the packages of inception-deploy[build]: "
                "pip install 'inception-deploy[build]'",
                kind="install",
                got=f"no {error.name}",
            ) from error

    return guarded


def size_of(given: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Height and width."""
    return (given, given) if isinstance(given, int) else given


def path_of(given: PathLike | None) -> Path | None:
    """A path, however it was given."""
    return None if given is None else Path(given)
