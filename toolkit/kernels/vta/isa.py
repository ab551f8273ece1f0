"""VTA's instructions: one declaration of every bit field gives encoding, decoding, disassembly and the C header.

An instruction is 128 bits, two little-endian 64-bit words; fields fill a word from bit 0 up, and none straddles the
words. Widths of indices follow the configuration's depths. Source: the public VTA hardware specification, 0.0.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property, lru_cache

from inception_deploy.errors import DeployError

from .config import LOOP_BITS, Config

WORDS = 16
"""Bytes of an instruction."""


class Opcode(IntEnum):
    """What an instruction does."""

    LOAD = 0
    STORE = 1
    GEMM = 2
    FINISH = 3
    ALU = 4


class Memory(IntEnum):
    """What a memory instruction moves; an element's size is the memory's own."""

    UOP = 0
    WGT = 1
    INP = 2
    ACC = 3
    OUT = 4
    ACC_8BIT = 5


class AluOp(IntEnum):
    """What the ALU does to an accumulator tile."""

    MIN = 0
    MAX = 1
    ADD = 2
    SHR = 3
    MUL = 4


@dataclass(frozen=True)
class Field:
    """Some bits of a word. `width` is a number, or the memory whose depth decides it: ``acc``, ``inp``, ``wgt`` or
    ``uop``; ``uop+1`` is one bit more, for an end that lies behind the last.
    """

    name: str
    width: int | str
    signed: bool = False

    def bits(self, config: Config) -> int:
        """How many bits it has."""
        if isinstance(self.width, int):
            return self.width
        memory, _, more = self.width.partition("+")
        depth: int = getattr(config, f"{memory}_depth")
        return depth.bit_length() - 1 + int(more or 0)


_START = (
    Field("opcode", 3), Field("pop_prev", 1), Field("pop_next", 1), Field("push_prev", 1), Field("push_next", 1),
)  # fmt: skip
_LOOPS = (Field("uop_bgn", "uop"), Field("uop_end", "uop+1"), Field("iter_out", LOOP_BITS), Field("iter_in", LOOP_BITS))

FORMATS: Mapping[str, tuple[tuple[Field, ...], ...]] = {
    "memory": (
        (*_START, Field("memory_type", 3), Field("sram_base", 16), Field("dram_base", 32)),
        (
            Field("y_size", 16), Field("x_size", 16), Field("x_stride", 16),
            Field("y_pad_0", 4), Field("y_pad_1", 4), Field("x_pad_0", 4), Field("x_pad_1", 4),
        ),
    ),
    "gemm": (
        (*_START, Field("reset", 1), *_LOOPS),
        (
            Field("dst_out", "acc"), Field("dst_in", "acc"), Field("src_out", "inp"), Field("src_in", "inp"),
            Field("wgt_out", "wgt"), Field("wgt_in", "wgt"),
        ),
    ),
    "alu": (
        (*_START, Field("reset", 1), *_LOOPS),
        (
            Field("dst_out", "acc"), Field("dst_in", "acc"), Field("src_out", "inp"), Field("src_in", "inp"),
            Field("alu_opcode", 3), Field("use_imm", 1), Field("imm", 16, signed=True),
        ),
    ),
    "finish": (_START, ()),
    "uop": ((Field("dst", "acc"), Field("src", "inp"), Field("wgt", "wgt")),),
}  # fmt: skip
"""By the kind of a word (or of two): the fields of each word, from bit 0 up. A `uop` has 32 bits, all others 2 x 64."""

KINDS: Mapping[Opcode, str] = {
    Opcode.LOAD: "memory",
    Opcode.STORE: "memory",
    Opcode.GEMM: "gemm",
    Opcode.ALU: "alu",
    Opcode.FINISH: "finish",
}
"""The format of each opcode."""


@dataclass(frozen=True)
class Place:
    """Where a field lies: the word, the lowest bit, how many bits."""

    field: Field
    word: int
    shift: int
    width: int

    @property
    def low(self) -> int:
        """The least value."""
        return -(1 << self.width - 1) if self.field.signed else 0

    @property
    def high(self) -> int:
        """The greatest value."""
        return (1 << self.width - self.field.signed) - 1

    def read(self, words: Sequence[int]) -> int:
        """The field's value."""
        value = words[self.word] >> self.shift & (1 << self.width) - 1
        return value - (1 << self.width) if value > self.high else value

    def write(self, value: int) -> int:
        """The word's bits of a value."""
        return (value & (1 << self.width) - 1) << self.shift


@lru_cache(maxsize=64)
def places(kind: str, config: Config) -> dict[str, Place]:
    """Every field of a format by its name, in order."""
    found = {}
    for number, word in enumerate(FORMATS[kind]):
        shift = 0
        for part in word:
            width = part.bits(config)
            found[part.name] = Place(part, number, shift, width)
            shift += width
    return found


@dataclass(frozen=True)
class Instruction:
    """An instruction as the values of its fields; those that are not given are 0.

    A GEMM or ALU does, for ``i < iter_out``, ``j < iter_in`` and every micro-operation ``uop_bgn <= u < uop_end``, one
    step on the tiles ``dst = uop.dst + i * dst_out + j * dst_in``, and likewise ``src`` and ``wgt``.
    """

    opcode: Opcode
    values: Mapping[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Its format."""
        return KINDS[self.opcode]

    @cached_property
    def engine(self) -> str:
        """``load``, ``compute`` or ``store``: who executes it."""
        if self.opcode is Opcode.STORE:
            return "store"
        loads = self.opcode is Opcode.LOAD and self["memory_type"] in (Memory.INP, Memory.WGT)
        return "load" if loads else "compute"

    def __getitem__(self, name: str) -> int:
        return self.values.get(name, 0)


def encode(instruction: Instruction, config: Config) -> bytes:
    """The 16 bytes of an instruction.

    Raises:
        ValueError: a field does not exist, or its value does not fit.
    """
    table = places(instruction.kind, config)
    if unknown := set(instruction.values) - set(table):
        raise ValueError(f"{instruction.opcode.name} has no field {sorted(unknown)[0]}")
    return struct.pack("<2Q", *_words(table, {**instruction.values, "opcode": instruction.opcode}, 2))


def encode_uop(config: Config, dst: int = 0, src: int = 0, wgt: int = 0) -> bytes:
    """The 4 bytes of a micro-operation. ValueError where an index does not fit."""
    return struct.pack("<I", *_words(places("uop", config), {"dst": dst, "src": src, "wgt": wgt}, 1))


def _words(table: Mapping[str, Place], values: Mapping[str, int], count: int) -> list[int]:
    words = [0] * count
    for name, value in values.items():
        place = table[name]
        if not place.low <= value <= place.high:
            raise ValueError(f"{name} is {value}, which does not fit its {place.width} bits")
        words[place.word] |= place.write(value)
    return words


def decode(data: bytes, config: Config) -> Instruction:
    """The instruction in 16 bytes. ValueError where the opcode is none; bits that no field names are ignored."""
    words = struct.unpack("<2Q", data)
    number = _START_OPCODE.read(words)
    try:
        opcode = Opcode(number)
    except ValueError:
        raise ValueError(f"{number} is no opcode") from None
    values = {name: place.read(words) for name, place in places(KINDS[opcode], config).items() if name != "opcode"}
    return Instruction(opcode, values)


_START_OPCODE = Place(_START[0], 0, 0, 3)


def decode_uop(data: bytes, config: Config) -> dict[str, int]:
    """The indices ``dst``, ``src`` and ``wgt`` in 4 bytes."""
    words = struct.unpack("<I", data)
    return {name: place.read(words) for name, place in places("uop", config).items()}


def instructions(data: bytes, where: str) -> Iterator[bytes]:
    """The 16 bytes of each instruction of a file.

    Raises:
        DeployError: (kind ``vta``) the file is no whole number of instructions, or empty.
    """
    return _pieces(data, WORDS, where, "instructions")


def uops(data: bytes, where: str) -> Iterator[bytes]:
    """The 4 bytes of each micro-operation of a file. DeployError as `instructions`."""
    return _pieces(data, 4, where, "micro-operations")


def _pieces(data: bytes, size: int, where: str, what: str) -> Iterator[bytes]:
    if not data or len(data) % size:
        message = f"{where} has {len(data)} bytes, no whole number of {what} of {size} bytes"
        raise DeployError(message, kind="vta", got=len(data), allowed=f"a multiple of {size}")
    return (data[start : start + size] for start in range(0, len(data), size))


# -- for people -------------------------------------------------------------------------------------------------------
_TOKENS = (("pop_prev", "<-prev"), ("pop_next", "<-next"), ("push_prev", "->prev"), ("push_next", "->next"))


def disassemble(instruction: Instruction) -> str:
    """One line: engine, operation, what it moves or the loops it runs, tokens. Two instructions give two lines."""
    at = instruction.__getitem__
    if instruction.kind == "memory":
        text = f"{instruction.opcode.name} {_name(Memory, at('memory_type'))}"
        text += f" sram {at('sram_base'):#x} dram {at('dram_base'):#x}"
        text += f" {at('y_size')}x{at('x_size')} stride {at('x_stride')}"
        pads = [at(name) for name in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")]
        text += f" pad {','.join(map(str, pads))}" if any(pads) else ""
    elif instruction.kind == "finish":
        text = "FINISH"
    else:
        text = _loops(instruction)
    tokens = [arrow for name, arrow in _TOKENS if at(name)]
    return " ".join([f"{instruction.engine:<7}", text, *tokens])


def _name(kind: type[IntEnum], number: int) -> str:
    """A member's name; the number where there is none."""
    return next((member.name for member in kind if member == number), str(number))


def _loops(instruction: Instruction) -> str:
    at = instruction.__getitem__
    name = instruction.opcode.name
    if instruction.opcode is Opcode.ALU:
        name = f"ALU {_name(AluOp, at('alu_opcode'))}"
    factors = ["dst", "src", *(["wgt"] if instruction.opcode is Opcode.GEMM else [])]
    steps = " ".join(f"{index} {at(f'{index}_out')},{at(f'{index}_in')}" for index in factors)
    text = f"{name} {at('iter_out')}x{at('iter_in')} uops {at('uop_bgn')}:{at('uop_end')} {steps}"
    text += " reset" if at("reset") else ""
    if instruction.opcode is Opcode.ALU:
        text += f" imm {at('imm')}" if at("use_imm") else f" no imm ({at('imm')})" if at("imm") else ""
    return text


def listing(data: bytes, config: Config, where: str, micro: bytes | None = None, micro_where: str = "") -> list[str]:
    """The lines of ``vta disassemble``: each instruction with its number; then each micro-operation.

    Raises:
        DeployError: (kind ``vta``) a file of a wrong length.
    """
    lines = []
    for number, piece in enumerate(instructions(data, where)):
        try:
            text = disassemble(decode(piece, config))
        except ValueError as error:
            text = f"?       {piece.hex()} ({error})"
        lines.append(f"{number:>6}  {text}")
    for number, piece in enumerate(uops(micro, micro_where) if micro is not None else ()):
        values = decode_uop(piece, config)
        lines.append(f"uop {number:>6}  " + " ".join(f"{name} {value}" for name, value in values.items()))
    return lines


def header() -> str:
    """C: an enumerator a field and format, in the order of `layout`, and the opcodes."""
    lines = ["/* Generated from inception_deploy.targets.vta.isa. */"]
    for enum in (Opcode, Memory, AluOp):
        prefix = {"Opcode": "VTA_", "Memory": "VTA_MEM_", "AluOp": "VTA_ALU_"}[enum.__name__]
        lines.append("enum { " + ", ".join(f"{prefix}{member.name} = {member.value}" for member in enum) + " };")
    names = [f"VTA_{kind}_{part.name}".upper() for kind, part in _all_fields()]
    lines.append(
        "enum { " + ", ".join(f"{name} = {number}" for number, name in enumerate([*names, "VTA_FIELDS"])) + " };"
    )
    return "\n".join([*lines, ""])


def layout(config: Config) -> list[tuple[int, int, int, int]]:
    """Of every field in `header`'s order: word, lowest bit, bits, and whether it is signed."""
    found = (places(kind, config)[part.name] for kind, part in _all_fields())
    return [(place.word, place.shift, place.width, int(place.field.signed)) for place in found]


def _all_fields() -> Iterable[tuple[str, Field]]:
    return ((kind, part) for kind, words in FORMATS.items() for word in words for part in word)
