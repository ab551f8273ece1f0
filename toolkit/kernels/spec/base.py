"""What every spec is asked, whatever it computes: its pointers, where images lie, a few words, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import Any, Literal, TypeVar, get_args, get_type_hints

import numpy as np

from ..elements import QUANTIZED, element_of

Frame4 = tuple[int, int, int, int]
"""Pixels at the top, the left, the bottom and the right."""

NONE: Frame4 = (0, 0, 0, 0)

Role = Literal["input", "constant", "output"]


@dataclass(frozen=True)
class Operand:
    """What a pointer of a kernel points to.

    Attributes:
        name: of the pointer.
        element: a name in `ELEMENTS`, or a dtype.
        size: of all images, in what the pointer counts.
        stride: the spec's field that says how far the next image is; "" where there is none.
    """

    name: str
    element: str
    size: int
    role: Role
    stride: str = ""

    @property
    def dtype(self) -> str:
        """What the pointer counts."""
        return element_of(self.element).stored

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return self.size * np.dtype(self.dtype).itemsize


def source(size: int, element: str = "float32", stride: str = "in_stride", name: str = "src") -> Operand:
    """An input."""
    return Operand(name, element, size, "input", stride)


def constant(name: str, size: int, element: str = "float32") -> Operand:
    """Something of the weights."""
    return Operand(name, element, size, "constant")


def result(size: int, element: str = "float32", stride: str = "out_stride", name: str = "dst") -> Operand:
    """An output."""
    return Operand(name, element, size, "output", stride)


def mapped(element: str, batch: int, blocks: int, pixels: int) -> int:
    """The size of images in blocks of channels."""
    return batch * blocks * pixels * element_of(element).cell


def framed(height: int, width: int, frame: Frame4) -> int:
    """Pixels of a map with its frame."""
    return (frame[0] + height + frame[2]) * (frame[1] + width + frame[3])


def window_words(kernel: tuple[int, int], stride: tuple[int, int], size: tuple[int, int]) -> str:
    """Kernel, stride and the result's size, e.g. ``3x3/2 @17x17``."""
    step = f"/{stride[0]}" if stride != (1, 1) else ""
    return f"{'x'.join(map(str, kernel))}{step} @{size[0]}x{size[1]}"


_Spec = TypeVar("_Spec", bound="Spec")


@dataclass(frozen=True)
class Spec:
    """What a kernel computes. A subclass's fields say all of it; `*_element` are names in `ELEMENTS` or dtypes, and
    `*_stride` the distance from one image of a tensor to the next, in what its pointer counts: 0 where there is one
    image, so that equal layers of different slices share a kernel.
    """

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The kernel's pointers, in its order; sizes are those of dense storage."""
        raise NotImplementedError

    @property
    def pointers(self) -> list[tuple[str, str]]:
        """Name and element of every pointer, as an emitter takes them."""
        return [(operand.name, operand.element) for operand in self.operands]

    @property
    def quantized(self) -> bool:
        """It takes or gives quantized numbers."""
        return any(operand.element in QUANTIZED for operand in self.operands if operand.role != "constant")

    @property
    def macs(self) -> int:
        """Multiply-adds done, padded channels included."""
        return 0

    def told(self: _Spec, **values: Any) -> _Spec:
        """With these values of fields; those that it does not have are left out."""
        known = {field.name for field in fields(self)}
        return replace(self, **{name: value for name, value in values.items() if name in known})

    def with_strides(self: _Spec, inputs: Mapping[str, int], outputs: Sequence[int]) -> _Spec:
        """With the distances between images: of the inputs by field, of the outputs in order."""
        return self.told(**{**inputs, "out_stride": outputs[0]})

    def stride_of(self, operand: Operand) -> int:
        """The distance between images of one of its operands."""
        return int(getattr(self, operand.stride, 0)) if operand.stride else 0

    def dense(self: _Spec) -> _Spec:
        """With the strides of storages in which nothing else lies."""
        batch = getattr(self, "batch", 1)
        if batch == 1:
            return self.canonical()
        strides = {o.stride: o.size // batch for o in self.operands if o.role == "input" and o.stride}
        return self.with_strides(strides, [o.size // batch for o in self.operands if o.role == "output"])

    def canonical(self: _Spec) -> _Spec:
        """Without strides: where a tensor lies does not matter to what is computed."""
        return self.told(**{field.name: 0 for field in fields(self) if field.name.endswith("_stride")})

    def describe(self) -> str:
        """A few words for a person."""
        return type(self).__name__.lower()

    def encode(self) -> dict[str, Any]:
        """As JSON: what differs from the defaults, so that a new field leaves old documents what they are."""
        document = _plain(self)
        assert isinstance(document, dict)
        return {"kind": type(self).__name__.lower(), **document}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        kept = {field.name: getattr(value, field.name) for field in fields(value)}
        return {f.name: _plain(kept[f.name]) for f in fields(value) if kept[f.name] != f.default}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value.value if isinstance(value, Enum) else value


def built(cls: type[Any], document: Mapping[str, Any]) -> Any:
    """The dataclass that a document of `Spec.encode` is of. KeyError, TypeError or ValueError for anything else."""
    hints = get_type_hints(cls)
    return cls(**{name: _restored(hints[name], value) for name, value in document.items()})


def _restored(hint: Any, value: Any) -> Any:
    """A value of JSON as the type that a field has."""
    options = [option for part in (hint, *get_args(hint)) for option in (part, *get_args(part))]
    if isinstance(value, list):
        return tuple(_restored(hint, part) for part in value)
    if isinstance(value, dict):
        return built(next(option for option in options if is_dataclass(option)), value)  # type: ignore[arg-type]
    enum = next((option for option in options if isinstance(option, type) and issubclass(option, Enum)), None)
    return value if enum is None else enum(value)
