"""The CPU's kernels in one table: what computes which spec. A new kernel is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from . import spec
from .bytes import conv as bytes_conv
from .bytes import simple as bytes_simple
from .matrix import conv as matrix_conv
from .matrix import layout as matrix_layout
from .vector import conv, extern, simple, window, winograd


@dataclass(frozen=True)
class Template:
    """What a file of kernels gives.

    choose(spec, lanes=, registers=) -> schedule. units(spec, schedule) -> int. emit(spec, schedule, name) -> PrimFunc.
    pack(weight, spec, schedule) -> the weight as the kernel reads it.
    space(spec, lanes=, registers=) -> what a search tries: schedules, each with the values that some of its fields may
    take instead; none where there is nothing to tune.
    """

    choose: Callable[..., Any]
    units: Callable[[Any, Any], int]
    emit: Callable[[Any, Any, str], Any]
    pack: Callable[[Any, Any, Any], Any] = conv.pack_weight
    space: Callable[..., Iterable[tuple[Any, dict[str, tuple[int, ...]]]]] = lambda _spec, **_machine: ()


def _simple(units: Callable[[Any], int], emit: Callable[[Any, Any, str], Any]) -> Template:
    def choose(_spec: Any, *, lanes: int, registers: int) -> simple.SimpleSchedule:
        return simple.SimpleSchedule(lanes)

    return Template(choose, lambda s, _schedule: units(s), emit)


_REAL: dict[type, Template] = {
    spec.Conv: Template(conv.choose, conv.units, conv.emit, space=conv.space),
    spec.Window: Template(window.choose, window.units, window.emit, space=window.space),
    spec.GlobalAverage: _simple(simple.average_units, simple.emit_average),
    spec.Map: _simple(simple.map_units, simple.emit_map),
    spec.Pack: _simple(simple.pack_units, simple.emit_pack),
    spec.Softmax: _simple(simple.softmax_units, simple.emit_softmax),
    spec.Extern: Template(extern.choose, extern.units, extern.emit),
    spec.Unpack: _simple(simple.unpack_units, simple.emit_unpack),
    spec.WinogradInput: _simple(winograd.input_units, winograd.emit_input),
    spec.WinogradOutput: _simple(winograd.output_units, winograd.emit_output),
    spec.Frame: _simple(matrix_layout.frame_units, matrix_layout.emit_frame),
    spec.Pixels: _simple(matrix_layout.pixel_units, matrix_layout.emit_pixels),
}

_BYTES: dict[type, Template] = {
    spec.Conv: Template(bytes_conv.choose, bytes_conv.units, bytes_conv.emit, bytes_conv.pack_weight),
    spec.Window: _simple(bytes_simple.window_units, bytes_simple.emit_window),
    spec.Map: _simple(bytes_simple.map_units, bytes_simple.emit_map),
    spec.Pixels: _simple(bytes_simple.input_units, bytes_simple.emit_input),
}

_TILES = Template(matrix_conv.choose, matrix_conv.units, matrix_conv.emit, matrix_conv.pack_weight, matrix_conv.space)


def template(which: spec.Spec) -> Template:
    """What computes a spec."""
    if which.quantised and type(which) in _BYTES:
        return _BYTES[type(which)]
    return _TILES if isinstance(which, spec.Conv) and which.tiled else _REAL[type(which)]
