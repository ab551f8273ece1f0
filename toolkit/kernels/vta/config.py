"""A VTA's configuration: upstream's JSON file of log2 values, and all limits that follow from it.

Source: the public VTA hardware specification (hardware version 0.0.2) and the field names of its `vta_config.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from inception_deploy.errors import DeployError

HARDWARE = "0.0.2"
"""The hardware version whose instructions these are."""

INDEX_BITS = 16
"""Of an address in SRAM, in a memory instruction."""

LOOP_BITS = 14
"""Of an iteration count."""

_NAMES = {
    "log_inp_width": "LOG_INP_WIDTH",
    "log_wgt_width": "LOG_WGT_WIDTH",
    "log_acc_width": "LOG_ACC_WIDTH",
    "log_batch": "LOG_BATCH",
    "log_block": "LOG_BLOCK",
    "log_uop_buffer": "LOG_UOP_BUFF_SIZE",
    "log_inp_buffer": "LOG_INP_BUFF_SIZE",
    "log_wgt_buffer": "LOG_WGT_BUFF_SIZE",
    "log_acc_buffer": "LOG_ACC_BUFF_SIZE",
}
"""Our names and the file's."""

_RANGES = {
    "log_inp_width": (3, 3),
    "log_wgt_width": (3, 3),
    "log_acc_width": (5, 5),
    "log_batch": (0, 3),
    "log_block": (3, 6),
    "log_uop_buffer": (4, 20),
    "log_inp_buffer": (4, 24),
    "log_wgt_buffer": (4, 24),
    "log_acc_buffer": (4, 24),
}
"""Both ends belong to it. Widths are int8, int8 and int32: the only ones that upstream's hardware was built with."""


@dataclass(frozen=True)
class Config:
    """What one bitstream has. Refuses what no instruction could address.

    Attributes:
        log_batch, log_block: of the tile that GEMM multiplies: 2^log_batch rows, 2^log_block inputs and outputs.
        log_inp_width, log_wgt_width, log_acc_width: bits of a number, log2.
        log_uop_buffer, log_inp_buffer, log_wgt_buffer, log_acc_buffer: bytes of each SRAM, log2.
        target: what upstream's tools build for (``pynq``, ``ultra96``, ``sim`` ...); not needed for anything here.

    Raises:
        DeployError: (kind ``vta``) an impossible value; names the field as the file spells it.
    """

    log_inp_width: int = 3
    log_wgt_width: int = 3
    log_acc_width: int = 5
    log_batch: int = 0
    log_block: int = 4
    log_uop_buffer: int = 15
    log_inp_buffer: int = 15
    log_wgt_buffer: int = 18
    log_acc_buffer: int = 17
    target: str = "sim"

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                message = f"{_NAMES[name]} of the VTA configuration is {value!r}"
                allowed = str(low) if low == high else f"{low} to {high}"
                raise DeployError(f"{message}; allowed: {allowed}", kind="vta", got=value, allowed=allowed)
        for memory in ("uop", "inp", "wgt", "acc"):
            depth = getattr(self, f"{memory}_depth")
            field = _NAMES[f"log_{memory}_buffer"]
            if depth < 2:
                raise _impossible(field, f"holds {depth} elements of {getattr(self, f'{memory}_bytes')} bytes", "two")
            if depth > 1 << INDEX_BITS:
                raise _impossible(field, f"holds {depth} elements", f"at most {1 << INDEX_BITS}, which are addressable")
        # Micro-operations and the second words of GEMM and ALU have room for so many index bits.
        acc, inp, wgt, uop = (
            _log2(depth) for depth in (self.acc_depth, self.inp_depth, self.wgt_depth, self.uop_depth)
        )
        for name, used, room in (
            ("a micro-operation", acc + inp + wgt, 32),
            ("GEMM", 2 * (acc + inp + wgt), 64),
            ("ALU", 2 * (acc + inp) + 20, 64),
            ("GEMM and ALU's bounds", 8 + uop + uop + 1 + 2 * LOOP_BITS, 64),
        ):
            if used > room:
                fields_ = "LOG_UOP_BUFF_SIZE" if "bounds" in name else "LOG_INP_, LOG_WGT_ or LOG_ACC_BUFF_SIZE"
                raise _impossible(fields_, f"needs {used} bits in {name}", f"{room}: make a buffer smaller")

    # -- what follows ------------------------------------------------------------------------------------------------
    @property
    def batch(self) -> int:
        """Rows of a tile."""
        return 1 << self.log_batch

    @property
    def block(self) -> int:
        """Input and output channels of a tile."""
        return 1 << self.log_block

    @property
    def uop_bytes(self) -> int:
        """Of one micro-operation."""
        return 4

    @property
    def inp_bytes(self) -> int:
        """Of an input tile, int8 `[batch][block]`; an output tile and one of ACC_8BIT has as many."""
        return self.batch * self.block << self.log_inp_width >> 3

    @property
    def wgt_bytes(self) -> int:
        """Of a weight tile, int8 `[block outputs][block inputs]`."""
        return self.block * self.block << self.log_wgt_width >> 3

    @property
    def acc_bytes(self) -> int:
        """Of an accumulator tile, int32 `[batch][block]`."""
        return self.batch * self.block << self.log_acc_width >> 3

    @property
    def uop_depth(self) -> int:
        """Micro-operations that the buffer holds."""
        return (1 << self.log_uop_buffer) // self.uop_bytes

    @property
    def inp_depth(self) -> int:
        """Input tiles that the buffer holds."""
        return (1 << self.log_inp_buffer) // self.inp_bytes

    @property
    def wgt_depth(self) -> int:
        """Weight tiles that the buffer holds."""
        return (1 << self.log_wgt_buffer) // self.wgt_bytes

    @property
    def acc_depth(self) -> int:
        """Accumulator tiles that the buffer holds; the output buffer has as many."""
        return (1 << self.log_acc_buffer) // self.acc_bytes

    @property
    def macs_per_step(self) -> int:
        """Multiply-adds of one GEMM step, which the hardware does in a cycle."""
        return self.batch * self.block * self.block

    def document(self) -> dict[str, Any]:
        """The JSON that upstream's tools read."""
        return {"TARGET": self.target, "HW_VER": HARDWARE, **{_NAMES[name]: getattr(self, name) for name in _NAMES}}


def _log2(power: int) -> int:
    return power.bit_length() - 1


def _impossible(field: str, what: str, allowed: str) -> DeployError:
    message = f"{field} of the VTA configuration {what}; allowed: {allowed}"
    return DeployError(message, kind="vta", got=what, allowed=allowed)


def load(path: Path) -> Config:
    """The configuration in a JSON file.

    Raises:
        DeployError: (kind ``vta``) no such file, no JSON object, a missing field, an impossible value, another hardware
            version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeployError(f"{path} cannot be read: {error.strerror}", kind="vta", got=str(path)) from error
    except ValueError as error:
        raise DeployError(
            f"{path} is no JSON: {error}", kind="vta", got=str(path), allowed="a VTA configuration"
        ) from error
    return parse(document, str(path))


def parse(document: object, where: str = "the VTA configuration") -> Config:
    """The configuration of a JSON document; fields that upstream's tools have beside these are ignored.

    Raises:
        DeployError: (kind ``vta``) as `load`.
    """
    if not isinstance(document, Mapping):
        raise DeployError(f"{where} is no JSON object", kind="vta", got=type(document).__name__, allowed="an object")
    version = document.get("HW_VER", HARDWARE)
    if version != HARDWARE:
        message = f"HW_VER of {where} is {version!r}; allowed: {HARDWARE}"
        raise DeployError(message, kind="vta", got=version, allowed=HARDWARE)
    if missing := [spelled for spelled in _NAMES.values() if spelled not in document]:
        message = f"{where} lacks {missing[0]}"
        raise DeployError(message, kind="vta", got=sorted(document), allowed=[*_NAMES.values()])
    target = document.get("TARGET", "sim")
    values = {name: document[spelled] for name, spelled in _NAMES.items()}
    return Config(**values, target=str(target))


assert {*_NAMES, "target"} == {field.name for field in fields(Config)}
