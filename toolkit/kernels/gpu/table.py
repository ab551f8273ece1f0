"""The GPU's kernels in one table: what computes which spec. A new kernel is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import spec
from . import conv, dense, extern, simple
from .emit import Program


@dataclass(frozen=True)
class Template:
    """choose(spec) -> schedule; program(spec, schedule) -> Program; emit(spec, schedule, symbol) -> a PrimFunc for
    each launch.
    """

    choose: Callable[[Any], Any]
    program: Callable[[Any, Any], Program]
    emit: Callable[[Any, Any, str], list[Any]]


def _simple(program: Callable[[Any, Any], Program], emit: Callable[[Any, Any, str], list[Any]]) -> Template:
    return Template(lambda _spec: simple.SimpleSchedule(), program, emit)


def _choose_conv(which: spec.Conv) -> Any:
    return dense.DenseSchedule() if dense.fits(which) else conv.choose(which)


def _conv_program(which: spec.Conv, schedule: Any) -> Program:
    if isinstance(schedule, dense.DenseSchedule):
        return dense.program(which, schedule)
    return conv.program(which, schedule)


def _conv_emit(which: spec.Conv, schedule: Any, symbol: str) -> list[Any]:
    if isinstance(schedule, dense.DenseSchedule):
        return dense.emit(which, schedule, symbol)
    return conv.emit(which, schedule, symbol)


TEMPLATES: dict[type, Template] = {
    spec.Conv: Template(_choose_conv, _conv_program, _conv_emit),
    spec.Window: _simple(simple.window_program, simple.emit_window),
    spec.GlobalAverage: _simple(simple.average_program, simple.emit_average),
    spec.Map: _simple(simple.map_program, simple.emit_map),
    spec.Pack: _simple(simple.pack_program, simple.emit_pack),
    spec.Softmax: _simple(simple.softmax_program, simple.emit_softmax),
    spec.Extern: Template(extern.choose, extern.program, extern.emit),
    spec.Unpack: _simple(simple.unpack_program, simple.emit_unpack),
}


def pack_weight(weight: np.ndarray, which: spec.Conv, schedule: Any) -> np.ndarray:
    """A convolution's weight `[O, I, r, s]` in the order of its kernel."""
    if isinstance(schedule, dense.DenseSchedule):
        return dense.pack_weight(weight)
    return conv.pack_weight(weight, which, schedule)


def device_symbols(symbol: str, program: Program) -> list[str]:
    """The device function of each launch: the kernel's own symbol, then that with a number."""
    return [symbol if number == 0 else f"{symbol}_{number}" for number in range(len(program.launches))]
