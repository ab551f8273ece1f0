"""The CPU's kernels in one table: what computes which spec. A new kernel is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from . import (
    cpu_amx,
    cpu_amx_simple,
    cpu_conv,
    cpu_extern,
    cpu_int8_conv,
    cpu_int8_simple,
    cpu_simple,
    cpu_window,
    cpu_winograd,
    spec,
    spec_amx,
    spec_int8,
)


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
    pack: Callable[[Any, Any, Any], Any] = cpu_conv.pack_weight
    space: Callable[..., Iterable[tuple[Any, dict[str, tuple[int, ...]]]]] = lambda _spec, **_machine: ()


def _simple(units: Callable[[Any], int], emit: Callable[[Any, Any, str], Any]) -> Template:
    def choose(_spec: Any, *, lanes: int, registers: int) -> cpu_simple.SimpleSchedule:
        return cpu_simple.SimpleSchedule(lanes)

    return Template(choose, lambda s, _schedule: units(s), emit)


TEMPLATES: dict[type, Template] = {
    spec.Conv: Template(cpu_conv.choose, cpu_conv.units, cpu_conv.emit, space=cpu_conv.space),
    spec.Window: Template(cpu_window.choose, cpu_window.units, cpu_window.emit, space=cpu_window.space),
    spec.GlobalAverage: _simple(cpu_simple.average_units, cpu_simple.emit_average),
    spec.Map: _simple(cpu_simple.map_units, cpu_simple.emit_map),
    spec.Pack: _simple(cpu_simple.pack_units, cpu_simple.emit_pack),
    spec.Softmax: _simple(cpu_simple.softmax_units, cpu_simple.emit_softmax),
    spec.Extern: Template(cpu_extern.choose, cpu_extern.units, cpu_extern.emit),
    spec.Unpack: _simple(cpu_simple.unpack_units, cpu_simple.emit_unpack),
    spec.WinogradInput: _simple(cpu_winograd.input_units, cpu_winograd.emit_input),
    spec.WinogradOutput: _simple(cpu_winograd.output_units, cpu_winograd.emit_output),
    spec_int8.ConvInt8: Template(
        cpu_int8_conv.choose, cpu_int8_conv.units, cpu_int8_conv.emit, cpu_int8_conv.pack_weight
    ),
    spec_amx.ConvTiles: Template(cpu_amx.choose, cpu_amx.units, cpu_amx.emit, cpu_amx.pack_weight, cpu_amx.space),
    spec_amx.Frame: _simple(cpu_amx_simple.frame_units, cpu_amx_simple.emit_frame),
    spec_amx.PackPixels: _simple(cpu_amx_simple.pixel_units, cpu_amx_simple.emit_pixels),
    spec_int8.WindowInt8: _simple(cpu_int8_simple.window_units, cpu_int8_simple.emit_window),
    spec_int8.MapInt8: _simple(cpu_int8_simple.map_units, cpu_int8_simple.emit_map),
    spec_int8.QuantizeInput: _simple(cpu_int8_simple.input_units, cpu_int8_simple.emit_input),
}
