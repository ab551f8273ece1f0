"""The VTA simulator: right on what hardware executes, a named instruction where it would go wrong."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from inception_deploy.errors import DeployError, UsageError
from inception_deploy.kernels.vta import isa, profiles
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.isa import AluOp, Memory, Opcode
from inception_deploy.kernels.vta.profiles import PROFILES
from inception_deploy.targets.vta import reference, simulator
from inception_deploy.targets.vta.memory import Dram

from .conftest import ACC, INP, OUT, SMALL, UOPS, Matmul, Stream, random_stream

BOTH = pytest.mark.parametrize("simulate", [simulator.simulate, reference.simulate], ids=["c", "python"])
NAMES = list(PROFILES)
ORDER = ["uops", "inp", "wgt", "reset", "first", "second", "max", "shr", "store", "finish"]
"""The instructions of `Matmul.stream`."""


@BOTH
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "config",
    [Config(), Config(log_block=5), Config(log_batch=1, log_block=3, log_wgt_buffer=16)],
    ids=["16", "32", "2x8"],
)
def test_a_matrix_product_is_right_in_every_profile(simulate, name: str, config: Config) -> None:
    case = Matmul(config)
    dram = case.dram()
    simulate(case.stream().bytes, config, PROFILES[name], dram)
    assert np.array_equal(case.answer(dram), case.expected)


def test_it_counts_what_was_done(matmul: Matmul) -> None:
    counts = simulator.simulate(matmul.stream().bytes, matmul.config, PROFILES["hls"], matmul.dram())
    assert (counts.instructions, counts.gemm_steps, counts.reset_steps, counts.alu_steps) == (10, 16, 8, 16)
    assert counts.bytes == {"uop": 8, "wgt": 512, "inp": 128, "acc": 0, "out": 128, "acc_8bit": 0}


@BOTH
@pytest.mark.parametrize("name", ["hls", "chisel"])
@pytest.mark.parametrize(
    ("changes", "at", "why"),
    [
        ({"reset": {"pop_prev": 0}}, "first", "ordered after"),  # nobody waits for the inputs
        ({"store": {"pop_prev": 0}, "shr": {"push_next": 0}}, "store", "reads out|nothing has written"),
        ({"wgt": {"push_next": 0}}, "reset", "a token that never comes"),
        ({"finish": {"pop_next": 0}}, "finish", "tokens left|leaves something over"),
        (
            {"finish": {"pop_next": 0}, "store": {"push_prev": 0}},
            "finish",
            "wait for the last STORE|leaves something over",
        ),
        ({"inp": {"dram_base": 1 << 20}}, "inp", "DRAM"),
        ({"inp": {"x_size": 7, "x_stride": 7}}, "first", "nothing has written"),
        ({"first": {"dst_in": 2}}, "first", "nothing has written"),
        ({"reset": {"dst_in": 2047}}, "reset", r"addresses (ACC|acc)\[2047|addresses"),
        ({"inp": {"sram_base": 2047}}, "inp", "fills"),
        ({"wgt": {"push_prev": 1}}, "wgt", "neighbour"),
        ({"store": {"x_size": 9}}, "store", "DRAM|nothing has written"),
        ({"store": {"memory_type": Memory.ACC}}, "store", "stores"),
        ({"inp": {"memory_type": Memory.OUT}}, "inp", "loads"),
        ({"max": {"alu_opcode": AluOp.MUL}}, "max", "lacks"),
        ({"uops": {"x_size": 1}}, "second", "nothing has (loaded|written)"),
    ],
)
def test_what_goes_wrong_names_its_instruction(simulate, name: str, changes, at: str, why: str, matmul: Matmul) -> None:
    with pytest.raises(simulator.Fault, match=why) as caught:
        simulate(matmul.stream(**changes).bytes, matmul.config, PROFILES[name], matmul.dram())
    if "pop_prev" not in str(changes.get("store")):
        assert caught.value.instruction == ORDER.index(at)
    assert caught.value.message.startswith(f"instruction {caught.value.instruction} (")


@BOTH
def test_a_load_of_acc_8bit_widens_where_it_exists(simulate) -> None:
    config = Config()
    data = np.arange(-8, 8, dtype=np.int8)
    contents = [(UOPS, isa.encode_uop(config)), (INP, data.tobytes())]
    stream = Stream(config).load(Memory.UOP, UOPS // 4, 1).load(Memory.ACC_8BIT, INP // 16, 1)
    stream.alu(AluOp.MUL, use_imm=1, imm=3, push_next=1).store(OUT // 16, 1, pop_prev=1, push_prev=1).finish(pop_next=1)
    dram = Dram.of(contents, [(OUT, 16)], 16)
    simulate(stream.bytes, config, PROFILES["fsim"], dram)
    assert np.array_equal(np.frombuffer(dram.read(OUT, 16), np.int8), data * 3)
    for name in ("hls", "chisel"):
        with pytest.raises(simulator.Fault, match="loads ACC_8BIT") as caught:
            simulate(stream.bytes, config, PROFILES[name], Dram.of(contents, [(OUT, 16)], 16))
        assert caught.value.instruction == 1


@BOTH
@pytest.mark.parametrize(
    ("name", "imm", "factor"),
    [("hls", 2, 0.25), ("hls", -2, 4), ("hls", 31, 2), ("hls", -17, 2.0**-15), ("hls", 16, 65536), ("chisel", 31, 2.0**-31),
     ("chisel", -3, 8), ("fsim", 16, 2.0**-16), ("fsim", -4, 16)],
)  # fmt: skip
def test_shifts_are_each_profiles_own(simulate, name: str, imm: int, factor: float) -> None:
    config = Config()
    values = np.arange(-8, 8, dtype=np.int32) * 5001
    stream = Stream(config).load(Memory.UOP, UOPS // 4, 1).load(Memory.ACC, ACC // 64, 1)
    stream.alu(AluOp.SHR, use_imm=1, imm=imm, push_next=1).store(OUT // 16, 1, pop_prev=1, push_prev=1).finish(
        pop_next=1
    )
    dram = Dram.of([(UOPS, isa.encode_uop(config)), (ACC, values.tobytes())], [(OUT, 16)], 16)
    simulate(stream.bytes, config, PROFILES[name], dram)
    expected = np.floor(values.astype(np.float64) * factor).astype(np.int64).astype(np.int8)
    assert np.array_equal(np.frombuffer(dram.read(OUT, 16), np.int8), expected)


@BOTH
@pytest.mark.parametrize(("apart", "fine"), [(1, False), (2, False), (3, True)])
def test_hls_needs_steps_between_two_updates_of_an_element(simulate, apart: int, fine: bool, matmul: Matmul) -> None:
    """`apart` elements take turns."""
    changes = {"first": {"iter_out": 2, "iter_in": apart}}
    if fine:
        simulate(matmul.stream(**changes).bytes, matmul.config, PROFILES["hls"], matmul.dram())
        return
    with pytest.raises(simulator.Fault, match=r"again after|too soon") as caught:
        simulate(matmul.stream(**changes).bytes, matmul.config, PROFILES["hls"], matmul.dram())
    assert caught.value.instruction == ORDER.index("first")
    simulate(matmul.stream(**changes).bytes, matmul.config, PROFILES["fsim"], matmul.dram())


@BOTH
@pytest.mark.parametrize(("name", "taken"), [("hls", 0), ("chisel", 4), ("fsim", 0)])
def test_an_immediate_takes_the_source_on_chisel(simulate, name: str, taken: int) -> None:
    config = Config()
    values = np.random.default_rng(0).integers(-9, 9, (8, 16), np.int32)
    stream = Stream(config).load(Memory.UOP, UOPS // 4, 1).load(Memory.ACC, ACC // 64, 8)
    stream.alu(AluOp.MAX, iter_in=4, dst_in=1, src_in=1, use_imm=1, push_next=1)
    stream.store(OUT // 16, 4, pop_prev=1, push_prev=1).finish(pop_next=1)
    dram = Dram.of([(UOPS, isa.encode_uop(config, src=4)), (ACC, values.tobytes())], [(OUT, 64)], 16)
    simulate(stream.bytes, config, PROFILES[name], dram)
    got = np.frombuffer(dram.read(OUT, 64), np.int8).reshape(4, 16)
    assert np.array_equal(got, np.maximum(values[taken : taken + 4], 0))


@BOTH
def test_an_empty_loop_is_nothing_or_never_ends(simulate, matmul: Matmul) -> None:
    stream = matmul.stream(second={"iter_out": 0}).bytes
    for name in ("hls", "fsim"):
        simulate(stream, matmul.config, PROFILES[name], matmul.dram())
    with pytest.raises(simulator.Fault, match="empty loop"):
        simulate(stream, matmul.config, PROFILES["chisel"], matmul.dram())


@BOTH
def test_a_full_command_queue_blocks_the_others(simulate, matmul: Matmul) -> None:
    """The token that 600 instructions of compute wait for comes after them: fetching never gets there."""
    c = matmul.config
    stream = Stream(c).load(Memory.UOP, UOPS // 4, 1, pop_prev=1)
    for _ in range(600):
        stream.load(Memory.UOP, UOPS // 4, 1)
    stream.load(Memory.INP, INP // c.inp_bytes, 1, push_next=1).finish()
    simulate(stream.bytes, c, PROFILES["fsim"], matmul.dram())
    for hardware in ("hls", "chisel"):
        with pytest.raises(simulator.Fault, match="never comes") as caught:
            simulate(stream.bytes, c, PROFILES[hardware], matmul.dram())
        assert caught.value.instruction == 0


@BOTH
def test_a_queue_holds_so_many_tokens(simulate, matmul: Matmul) -> None:
    c = matmul.config
    stream = Stream(c)
    for _ in range(256):
        stream.load(Memory.INP, INP // c.inp_bytes, 1, push_next=1)
    for _ in range(256):
        stream.load(Memory.UOP, 0, 0, y_size=0, pop_prev=1)
    stream.finish()
    simulate(stream.bytes, c, PROFILES["hls"], matmul.dram())
    # compute takes tokens as they come: only a queue that nobody empties fills up
    slow = Stream(c)
    for _ in range(256):
        slow.load(Memory.INP, INP // c.inp_bytes, 1, push_next=1)
    slow.finish()
    with pytest.raises(simulator.Fault, match=r"into a (queue of 255|full queue)") as caught:
        simulate(slow.bytes, c, PROFILES["chisel"], matmul.dram())
    assert caught.value.instruction == 255


@BOTH
def test_a_stream_without_finish_is_never_done(simulate, matmul: Matmul) -> None:
    stream = Stream(matmul.config).load(Memory.UOP, UOPS // 4, 1)
    with pytest.raises(simulator.Fault, match="no FINISH"):
        simulate(stream.bytes, matmul.config, PROFILES["hls"], matmul.dram())


@pytest.mark.parametrize("name", NAMES)
def test_c_and_python_agree_on_random_streams(name: str) -> None:
    """Results where there are some, and the instruction at fault where not."""
    faults = 0
    for seed in range(150):
        stream, contents, spaces = random_stream(seed)
        drams = [Dram.of(contents, spaces, SMALL.inp_bytes) for _ in range(2)]
        outcomes: list[int | None] = []
        for simulate, dram in zip((simulator.simulate, reference.simulate), drams, strict=True):
            try:
                simulate(stream, SMALL, PROFILES[name], dram)
                outcomes.append(None)
            except simulator.Fault as fault:
                outcomes.append(fault.instruction)
        assert outcomes[0] == outcomes[1], f"seed {seed}"
        faults += outcomes[0] is not None
        if outcomes[0] is None:
            for one, two in zip(drams[0].regions, drams[1].regions, strict=True):
                assert np.array_equal(one.data, two.data), f"seed {seed}"
                assert np.array_equal(one.stored, two.stored), f"seed {seed}"
    assert 0 < faults < 150  # both kinds were there


def test_inputs_are_not_changed(matmul: Matmul) -> None:
    dram = matmul.dram()
    before = copy.deepcopy(dram.region(INP).data)
    simulator.simulate(matmul.stream().bytes, matmul.config, PROFILES["hls"], dram)
    assert np.array_equal(dram.region(INP).data, before)


@pytest.mark.parametrize(
    ("contents", "spaces", "message"),
    [
        ([(0, b"ab"), (1, b"c")], [], "the contents at 0x0 and at 0x1 overlap"),
        ([(0, b"")], [], "no buffer can lie at 0x0 and have 0 bytes"),
        ([], [(-16, 16)], "no buffer can lie at"),
        ([], [(1 << 36, 16)], "no buffer can lie at 0x1000000000"),
    ],
)
def test_impossible_memory_is_refused(contents, spaces, message: str) -> None:
    with pytest.raises(DeployError, match=message):
        Dram.of(contents, spaces, 16)


def test_spaces_may_lie_in_contents_and_beside_them() -> None:
    dram = Dram.of([(0x20, b"x" * 32)], [(0x30, 0x40), (0x1003, 5)], 16)
    assert [(r.address, r.end) for r in dram.regions] == [(0x20, 0x70), (0x1000, 0x1008)]
    assert dram.regions[0].stored.tolist() == [0, 0, *[2**32 - 1] * 3]


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no VTA profile 'tsim'"):
        profiles.profile("tsim")


def test_an_opcode_that_is_none_is_a_fault(matmul: Matmul) -> None:
    stream = bytes([5, *[0] * 15])
    with pytest.raises(simulator.Fault, match="opcode"):
        simulator.simulate(stream, matmul.config, PROFILES["hls"], matmul.dram())
    assert Opcode(4) is Opcode.ALU
