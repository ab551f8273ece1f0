"""Numbers for a network's inputs: the first one, a picture mostly, varies; the others get the same seeded ones.

An input is a row of the manifest's ``inputs``: ``name``, ``shape`` and ``dtype``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    Port = Mapping[str, Any]


def ports(model: onnx.ModelProto, *, open_size: int = 2) -> list[Port]:
    """The inputs of a model that are no initialisers; a symbolic size is `open_size`."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return described([value for value in model.graph.input if value.name not in constants], open_size=open_size)


def described(values: Iterable[onnx.ValueInfoProto], *, open_size: int = 2) -> list[Port]:
    """Name, shape and type of a model's inputs or outputs; a symbolic size is `open_size`."""
    from onnx import helper

    found: list[Port] = []
    for value in values:
        kind = value.type.tensor_type
        shape = [size.dim_value if size.HasField("dim_value") else open_size for size in kind.shape.dim]
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
        found.append({"name": value.name, "shape": shape, "dtype": dtype})
    return found


def numbers(port: Port, random: np.random.Generator) -> NDArray[Any]:
    """Standard normal floats, whole bytes, truth values, or 0 and 1 of wider integers: those are sizes or indices."""
    dtype, shape = np.dtype(port["dtype"]), tuple(port["shape"])
    if dtype.kind == "f":
        return random.standard_normal(shape, dtype=np.float32).astype(dtype, copy=False)
    if dtype.itemsize == 1 and dtype.kind != "b":
        lowest = -128 if dtype.kind == "i" else 0
        return random.integers(lowest, lowest + 256, shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def feed(inputs: Sequence[Port], first: NDArray[Any] | None = None, *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """An array for every input, in order, by its name: `first`, and seeded numbers for the others."""
    random = np.random.default_rng(seed)
    given = {port["name"]: numbers(port, random) for port in inputs[1 if first is not None else 0 :]}
    return given if first is None else {inputs[0]["name"]: first, **given}
