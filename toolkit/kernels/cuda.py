"""The GPU's kernels in one table: what computes which spec. A new kernel is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import cuda_conv, cuda_dense, cuda_extern, cuda_simple, spec
from .cuda_emit import Program


@dataclass(frozen=True)
class Template:
    """choose(spec) -> schedule; program(spec, schedule) -> Program; emit(spec, schedule, symbol) -> a PrimFunc for
    each launch.
    """

    choose: Callable[[Any], Any]
    program: Callable[[Any, Any], Program]
    emit: Callable[[Any, Any, str], list[Any]]


def _simple(program: Callable[[Any, Any], Program], emit: Callable[[Any, Any, str], list[Any]]) -> Template:
    return Template(lambda _spec: cuda_simple.SimpleSchedule(), program, emit)


def _choose_conv(conv: spec.Conv) -> Any:
    return cuda_dense.DenseSchedule() if cuda_dense.fits(conv) else cuda_conv.choose(conv)


def _conv_program(conv: spec.Conv, schedule: Any) -> Program:
    if isinstance(schedule, cuda_dense.DenseSchedule):
        return cuda_dense.program(conv, schedule)
    return cuda_conv.program(conv, schedule)


def _conv_emit(conv: spec.Conv, schedule: Any, symbol: str) -> list[Any]:
    if isinstance(schedule, cuda_dense.DenseSchedule):
        return cuda_dense.emit(conv, schedule, symbol)
    return cuda_conv.emit(conv, schedule, symbol)


TEMPLATES: dict[type, Template] = {
    spec.Conv: Template(_choose_conv, _conv_program, _conv_emit),
    spec.Window: _simple(cuda_simple.window_program, cuda_simple.emit_window),
    spec.GlobalAverage: _simple(cuda_simple.average_program, cuda_simple.emit_average),
    spec.Map: _simple(cuda_simple.map_program, cuda_simple.emit_map),
    spec.Pack: _simple(cuda_simple.pack_program, cuda_simple.emit_pack),
    spec.Softmax: _simple(cuda_simple.softmax_program, cuda_simple.emit_softmax),
    spec.Extern: Template(cuda_extern.choose, cuda_extern.program, cuda_extern.emit),
    spec.Unpack: _simple(cuda_simple.unpack_program, cuda_simple.emit_unpack),
}


def pack_weight(weight: np.ndarray, conv: spec.Conv, schedule: Any) -> np.ndarray:
    """A convolution's weight `[O, I, r, s]` in the order of its kernel."""
    if isinstance(schedule, cuda_dense.DenseSchedule):
        return cuda_dense.pack_weight(weight)
    return cuda_conv.pack_weight(weight, conv, schedule)


def device_symbols(symbol: str, program: Program) -> list[str]:
    """The device function of each launch: the kernel's own symbol, then that with a number."""
    return [symbol if number == 0 else f"{symbol}_{number}" for number in range(len(program.launches))]
