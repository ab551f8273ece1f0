"""VTA's instructions as bits: there and back, for every configuration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_deploy.errors import DeployError
from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.isa import Instruction, Memory, Opcode

CONFIGS = [
    Config(),
    Config(log_block=5, log_acc_buffer=16),
    Config(log_batch=1, log_block=3, log_inp_buffer=12, log_wgt_buffer=16),
]


@st.composite
def instruction(draw: st.DrawFn) -> tuple[Config, Instruction]:
    config, opcode = draw(st.sampled_from(CONFIGS)), draw(st.sampled_from(Opcode))
    table = isa.places(isa.KINDS[opcode], config)
    values = {name: draw(st.integers(p.low, p.high)) for name, p in table.items() if name != "opcode"}
    return config, Instruction(opcode, values)


@given(instruction())
def test_decoding_gives_what_was_encoded(case: tuple[Config, Instruction]) -> None:
    config, made = case
    again = isa.decode(isa.encode(made, config), config)
    assert (again.opcode, dict(again.values)) == (made.opcode, dict(made.values))


@given(st.sampled_from(CONFIGS), st.data())
def test_micro_operations_too(config: Config, data: st.DataObject) -> None:
    values = {name: data.draw(st.integers(p.low, p.high)) for name, p in isa.places("uop", config).items()}
    assert isa.decode_uop(isa.encode_uop(config, **values), config) == values


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("kind", isa.FORMATS)
def test_fields_fill_words_without_overlap(kind: str, config: Config) -> None:
    size = 32 if kind == "uop" else 64
    for number in range(len(isa.FORMATS[kind])):
        bits = [
            b for p in isa.places(kind, config).values() if p.word == number for b in range(p.shift, p.shift + p.width)
        ]
        assert bits == list(range(len(bits)))
        assert len(bits) <= size


def test_bits_lie_where_the_hardware_has_them() -> None:
    """Written out by hand from the specification, for the default configuration."""
    load = Instruction(
        Opcode.LOAD,
        {"pop_next": 1, "push_prev": 1, "memory_type": Memory.ACC, "sram_base": 0x1234, "dram_base": 0xCAFEBABE,
         "y_size": 3, "x_size": 5, "x_stride": 7, "y_pad_0": 1, "y_pad_1": 2, "x_pad_0": 3, "x_pad_1": 4},
    )  # fmt: skip
    first = 0 | 1 << 4 | 1 << 5 | 3 << 7 | 0x1234 << 10 | 0xCAFEBABE << 26
    second = 3 | 5 << 16 | 7 << 32 | 1 << 48 | 2 << 52 | 3 << 56 | 4 << 60
    assert isa.encode(load, Config()) == first.to_bytes(8, "little") + second.to_bytes(8, "little")
    alu = Instruction(
        Opcode.ALU,
        {
            "uop_bgn": 1,
            "uop_end": 2,
            "iter_out": 3,
            "iter_in": 4,
            "dst_in": 5,
            "alu_opcode": 3,
            "use_imm": 1,
            "imm": -2,
        },
    )
    first = 4 | 1 << 8 | 2 << 21 | 3 << 35 | 4 << 49
    second = 5 << 11 | 3 << 44 | 1 << 47 | (0xFFFE << 48)
    assert isa.encode(alu, Config()) == first.to_bytes(8, "little") + second.to_bytes(8, "little")
    assert isa.encode_uop(Config(), 1, 2, 3) == (1 | 2 << 11 | 3 << 22).to_bytes(4, "little")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="sram_base is 65536, which does not fit its 16 bits"):
        isa.encode(Instruction(Opcode.LOAD, {"sram_base": 1 << 16}), Config())
    with pytest.raises(ValueError, match="imm is 32768"):
        isa.encode(Instruction(Opcode.ALU, {"imm": 1 << 15}), Config())
    with pytest.raises(ValueError, match="FINISH has no field imm"):
        isa.encode(Instruction(Opcode.FINISH, {"imm": 1}), Config())
    with pytest.raises(ValueError, match="6 is no opcode"):
        isa.decode(bytes([6, *[0] * 15]), Config())


@given(instruction(), instruction())
def test_no_two_instructions_read_alike(one: tuple[Config, Instruction], two: tuple[Config, Instruction]) -> None:
    (config, a), (_, b) = one, two
    b = Instruction(b.opcode, {n: min(v, isa.places(b.kind, config)[n].high) for n, v in b.values.items()})
    if isa.encode(a, config) != isa.encode(b, config):
        assert isa.disassemble(a) != isa.disassemble(b)


def test_a_listing_numbers_every_line_and_shows_what_is_no_instruction() -> None:
    finish = isa.encode(Instruction(Opcode.FINISH, {"pop_next": 1}), Config())
    lines = isa.listing(finish + bytes([7, *[0] * 15]), Config(), "s.bin", isa.encode_uop(Config(), 1, 2, 3), "u.bin")
    assert lines == [
        "     0  compute FINISH <-next",
        "     1  ?       07000000000000000000000000000000 (7 is no opcode)",
        "uop      0  dst 1 src 2 wgt 3",
    ]


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_file_of_a_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(DeployError, match=f"s.bin has {length} bytes, no whole number of instructions of 16 bytes"):
        isa.listing(bytes(length), Config(), "s.bin")
