"""Executing a stream of instructions on a VTA that is not there: `csrc/vta_simulator.c`, compiled at its first use."""

from __future__ import annotations

import ctypes
import os
import platform
import tempfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from inception_deploy.errors import DeployError
from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.profiles import Profile
from inception_deploy.targets.link import CSRC, compile_c, link_shared

from .memory import Dram

SOURCE = "vta_simulator.c"
BUILTIN = "vta_builtin.c"

_MESSAGE = 240  # VTA_MESSAGE of the header
_MEMORIES = ("uop", "wgt", "inp", "acc", "out", "acc_8bit")
_HOSTS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
_MACHINE = (
    *("batch", "block", "uop_depth", "inp_depth", "wgt_depth", "acc_depth"),
    *("uop_bytes", "inp_bytes", "wgt_bytes", "acc_bytes"),
    *(
        "acc_8bit",
        "mul",
        "shift",
        "own_output",
        "reset_writes",
        "immediate_src",
        "distance",
        "stale_alu",
        "empty_loops",
    ),
    *("strict_memory", "flat_uops", "store_pads", "commands", "tokens", "poisoned", "ordered"),
)


class _Machine(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in _MACHINE]


class _Place(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("word", "shift", "width", "is_signed")]


class _Region(ctypes.Structure):
    _fields_ = [
        ("address", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("data", "stored", "read")),
    ]


class _Counts(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("instructions", "gemm_steps", "reset_steps", "alu_steps")),
        ("bytes", ctypes.c_uint64 * len(_MEMORIES)),
    ]


class Fault(DeployError):
    """The hardware would go wrong: the stream hangs, leaves its buffers, or relies on what is not there.

    Attributes:
        instruction: the number of the one at fault.
        why: what it did, without the instruction itself.
    """

    def __init__(self, instruction: int, text: str, why: str) -> None:
        super().__init__(f"instruction {instruction} ({text}) {why}", kind="vta", got=why)
        self.instruction, self.why = instruction, why


@dataclass(frozen=True)
class Counts:
    """What a stream did.

    Attributes:
        instructions: executed. gemm_steps, reset_steps, alu_steps: of their loops.
        bytes: moved between DRAM and SRAM, by memory: ``uop``, ``wgt``, ``inp``, ``acc``, ``acc_8bit``, ``out``.
    """

    instructions: int
    gemm_steps: int
    reset_steps: int
    alu_steps: int
    bytes: dict[str, int]


def depths(config: Config, profile: Profile) -> dict[str, int]:
    """The machine's numbers: the configuration's, within the profile's limits."""
    found = {name: getattr(config, name) for name in _MACHINE if hasattr(config, name)}
    if profile.uop_depth:
        found["uop_depth"] = min(found["uop_depth"], profile.uop_depth)
    return found


def simulate(stream: bytes, config: Config, profile: Profile, dram: Dram, where: str = "the stream") -> Counts:
    """Execute a stream of instructions; what it stores is in `dram` afterwards, also after a fault.

    Args:
        stream: whole instructions. where: what messages call it.
        dram: whose granule is the configuration's `inp_bytes`.

    Raises:
        Fault: it does what the profile's hardware does not survive; names the instruction.
        DeployError: (kind ``vta``) it is no whole number of instructions; (kind ``link``) no compiler.
    """
    count = sum(1 for _ in isa.instructions(stream, where))
    library = _library()
    rows = asdict(profile) | depths(config, profile)
    machine = _Machine(**{name: int(rows[name]) for name in _MACHINE})
    places = (_Place * len(isa.layout(config)))(*(_Place(*place) for place in isa.layout(config)))
    regions = (_Region * max(1, len(dram.regions)))(
        *(_Region(r.address, len(r.data), *(_at(a) for a in (r.data, r.stored, r.read))) for r in dram.regions)
    )
    counts, at_fault, message = _Counts(), ctypes.c_uint32(), ctypes.create_string_buffer(_MESSAGE)
    arguments: tuple[Any, ...] = (
        ctypes.byref(machine), places, stream, count, regions, len(dram.regions), dram.granule,
        ctypes.byref(counts), ctypes.byref(at_fault), message,
    )  # fmt: skip
    if library.vta_simulate(*arguments) != 0:
        raise fault(stream, config, at_fault.value, message.value.decode())
    moved = dict(zip(_MEMORIES, counts.bytes, strict=True))
    return Counts(counts.instructions, counts.gemm_steps, counts.reset_steps, counts.alu_steps, moved)


def fault(stream: bytes, config: Config, number: int, why: str) -> Fault:
    """The error of an instruction of a stream."""
    piece = stream[number * isa.WORDS : (number + 1) * isa.WORDS]
    try:
        text = " ".join(isa.disassemble(isa.decode(piece, config)).split())
    except ValueError as error:
        text = str(error)
    return Fault(number, text, why)


def _at(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def objects(config: Config, profile: Profile, triple: str, *, coherent: bool = False) -> list[bytes]:
    """Object files of the ten functions of a driver (`csrc/vta_driver.h`) over the simulator of one accelerator; they
    need ``common.c``. `coherent`: it sees memory that nobody has flushed.
    """
    rows = asdict(profile) | depths(config, profile)
    places = ", ".join(f"{{{', '.join(map(str, place))}}}" for place in isa.layout(config))
    text = [
        '#include "vta_simulator.h"',
        f"const vta_machine id_vta_machine = {{{', '.join(f'.{name} = {int(rows[name])}' for name in _MACHINE)}}};",
        f"const int32_t id_vta_coherent = {int(coherent)};",
        f"const vta_place id_vta_fields[] = {{{places}}};",
        "",
    ]
    driver = (CSRC / BUILTIN).read_text(encoding="utf-8")
    return [_compiled(triple), compile_c(driver, BUILTIN, triple), compile_c("\n".join(text), "vta_machine.c", triple)]


def _compiled(triple: str) -> bytes:
    source = isa.header() + (CSRC / SOURCE).read_text(encoding="utf-8")
    return compile_c(source, SOURCE, triple, flags=("-O3",))


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    machine = platform.machine()
    if machine not in _HOSTS:
        message = f"the VTA simulator is not made for a machine such as this ({machine})"
        raise DeployError(message, kind="vta", got=machine, allowed=sorted(_HOSTS))
    triple = _HOSTS[machine]
    # Not link_shared's destination in the cache: a library that is mapped must not change.
    handle, name = tempfile.mkstemp(prefix="inception-deploy-", suffix=".so")
    os.close(handle)
    try:
        link_shared([_compiled(triple)], ["vta_simulate"], Path(name), triple)
        return ctypes.CDLL(name)
    finally:
        os.unlink(name)
