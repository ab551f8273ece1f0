"""Convolutions of bytes for CPUs: the family. Its schedules are those of `schedule`, its code that of `direct`, or of
`squares`.
"""

from __future__ import annotations

from tvm import tirx

from ..family import Family
from ..isa import Isa
from ..spec import Conv
from .direct import Direct
from .long import Long
from .schedule import DotSchedule, choose, dot_for, features, pack_weight, space, units
from .squares import Squares


def emit(spec: Conv, schedule: DotSchedule, name: str) -> list[tirx.PrimFunc]:
    """The convolution as a TIR function of the emitter's C signature."""
    kind = Squares if schedule.row.rows > 1 else Long if spec.sum_blocks else Direct
    return [kind(spec, schedule, name).emit()]


def serves(spec: Conv, isa: Isa) -> str | None:
    """Bytes, with an instruction that multiplies them."""
    if not spec.quantized:
        return f"it multiplies {spec.in_element}, not quantized numbers"
    if spec.weighed:
        return "its windows count differently, for which there is no code"
    if dot_for(spec, isa) is None:
        return f"{isa.name} has no instruction that multiplies bytes" + " by 16 bits" * (spec.weight_element != "int8")
    return None


CONV: Family[Conv, DotSchedule] = Family(
    "bytes.conv",
    Conv,
    serves,
    choose,
    units,
    emit,
    pack_weight,
    space,
    features,
    layout=lambda schedule: schedule.vectors,
    version=2,
)
