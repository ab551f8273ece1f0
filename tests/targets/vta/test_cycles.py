"""The cycle model, on streams whose time can be counted by hand."""

from __future__ import annotations

import json

import pytest

from inception_deploy.errors import DeployError, UsageError
from inception_deploy.kernels.vta import boards
from inception_deploy.kernels.vta.boards import Board, board
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.isa import AluOp, Memory
from inception_deploy.targets.vta.cycles import measure
from inception_deploy.targets.vta.simulator import Fault

from .conftest import Matmul, Stream

PLAIN = Board("plain", "hls", 100, 8, overhead=0, latency=0, row_latency=0)
"""Nothing but work."""


def test_compute_is_steps_times_intervals() -> None:
    stream = Stream(Config()).gemm(iter_out=3, iter_in=5, uop_end=7).alu(AluOp.ADD, iter_in=10).finish()
    timing = measure(stream.bytes, Config(), PLAIN)
    assert (timing.cycles, timing.steps) == (105 + 20, {"gemm": 105, "alu": 10})
    assert timing.utilization == 105 / 125
    assert timing.milliseconds == 125 / 100e3


def test_instructions_and_passes_have_their_price() -> None:
    dear = Board("dear", "hls", 100, 8, overhead=20, drain=4)
    stream = Stream(Config()).gemm(iter_out=3, iter_in=5, uop_end=7, reset=1).finish()
    timing = measure(stream.bytes, Config(), dear)
    assert timing.cycles == 20 + 105 + 15 * 4 + 20
    assert timing.steps == {"reset": 105}


def test_a_transfer_waits_for_memory_and_moves_so_many_bytes_a_cycle() -> None:
    slow = Board("slow", "hls", 100, 8, overhead=20, latency=48, row_latency=24)
    stream = Stream(Config()).load(Memory.WGT, 0, 3, y_size=2).finish()
    timing = measure(stream.bytes, Config(), slow)
    assert max(span.end for span in timing.spans) == 20 + 48 + 6 * 256 // 8 + 2 * 24
    assert timing.moved == {"wgt": 6 * 256}


def test_engines_overlap_and_share_the_bus() -> None:
    """Both transfers start at once; the second gets the bus when the first is done."""
    stream = Stream(Config()).load(Memory.INP, 0, 10).load(Memory.ACC, 0, 10).finish()
    timing = measure(stream.bytes, Config(), PLAIN)
    ends = {span.instruction: span.end for span in timing.spans}
    assert (ends[0], ends[1]) == (20, 100)
    assert timing.stalls == {("compute", "bus"): 20}


def test_tokens_are_waited_for_and_the_wait_is_told() -> None:
    stream = Stream(Config()).load(Memory.INP, 0, 10, push_next=1).gemm(pop_prev=1).finish()
    timing = measure(stream.bytes, Config(), PLAIN)
    assert timing.cycles == 21
    assert timing.stalls == {("compute", "tokens from load"): 20}


def test_two_contexts_hide_the_loads() -> None:
    """With one buffer each load waits for the products before; with two it runs beside them."""

    def cycles(contexts: int) -> int:
        stream = Stream(Config())
        for number in range(8):
            again = number >= contexts
            stream.load(Memory.INP, 0, 100, push_next=1, pop_next=int(again))
            stream.gemm(iter_in=200, pop_prev=1, push_prev=int(number < 8 - contexts))
        return measure(stream.finish().bytes, Config(), PLAIN).cycles

    assert cycles(1) == 8 * (200 + 200)
    assert cycles(2) == 200 + 8 * 200


def test_a_full_queue_holds_up_the_others() -> None:
    stream = Stream(Config())
    for _ in range(600):
        stream.alu(AluOp.ADD)
    stream.load(Memory.INP, 0, 1, push_next=1).gemm(pop_prev=1).finish()
    timing = measure(stream.bytes, Config(), PLAIN)
    start = next(span.start for span in timing.spans if span.engine == "load")
    assert start == 2 * (600 - 512 - 1)  # when the last of those before it leaves the queue


def test_a_stream_that_hangs_is_named() -> None:
    with pytest.raises(Fault, match="never comes") as caught:
        measure(Stream(Config()).gemm(pop_prev=1).finish().bytes, Config(), PLAIN)
    assert caught.value.instruction == 0


def test_the_timeline_is_chromes_format(matmul: Matmul) -> None:
    stream = matmul.stream().bytes
    timing = measure(stream, matmul.config, board("pynq"))
    trace = json.loads(json.dumps(timing.trace(stream, matmul.config)))
    names = {e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M"}
    spans = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert names == {"load", "compute", "store"}
    assert len(spans) == 10
    assert max(e["ts"] + e["dur"] for e in spans) == pytest.approx(timing.cycles / 100)
    assert timing.document()["estimate"] is True


def test_boards_are_checked_rows() -> None:
    assert {row.profile.name for row in boards.BOARDS.values()} == {"hls", "chisel"}
    with pytest.raises(UsageError, match="there is no VTA board 'pinq'"):
        board("pinq")
    with pytest.raises(ValueError, match="executes as rtl, which is no profile"):
        Board("x", "rtl", 100, 8)
    with pytest.raises(ValueError, match="less than no time"):
        Board("x", "hls", 100, 8, drain=-1)


def test_what_is_no_instruction_is_refused() -> None:
    with pytest.raises(DeployError, match="instruction 0 of the stream: 6 is no opcode"):
        measure(bytes([6, *[0] * 15]), Config(), PLAIN)
