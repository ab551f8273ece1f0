"""`vta simulate`, `vta disassemble` and `vta driver`, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inception_deploy import cli
from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.isa import AluOp, Instruction, Memory, Opcode
from inception_deploy.targets.vta.driver import FUNCTIONS


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A stream that shifts 16 numbers right by one, its micro-operation, its input and the configuration."""
    config = Config()
    rows = [
        (Opcode.LOAD, {"memory_type": Memory.UOP, "dram_base": 0x400, "y_size": 1, "x_size": 1, "x_stride": 1}),
        (Opcode.LOAD, {"memory_type": Memory.ACC, "dram_base": 0x80, "y_size": 1, "x_size": 1, "x_stride": 1}),
        (
            Opcode.ALU,
            {
                "alu_opcode": AluOp.SHR,
                "use_imm": 1,
                "imm": 1,
                "uop_end": 1,
                "iter_out": 1,
                "iter_in": 1,
                "push_next": 1,
            },
        ),
        (
            Opcode.STORE,
            {
                "memory_type": Memory.OUT,
                "dram_base": 0x300,
                "y_size": 1,
                "x_size": 1,
                "x_stride": 1,
                "pop_prev": 1,
                "push_prev": 1,
            },
        ),
        (Opcode.FINISH, {"pop_next": 1}),
    ]
    (tmp_path / "insns.bin").write_bytes(b"".join(isa.encode(Instruction(*row), config) for row in rows))
    (tmp_path / "uop.bin").write_bytes(isa.encode_uop(config))
    (tmp_path / "acc.bin").write_bytes(np.arange(-8, 8, dtype="<i4").tobytes())
    (tmp_path / "vta.json").write_text(json.dumps(config.document()))
    return tmp_path


def simulate(files: Path, *more: str) -> int:
    base = ["vta", "simulate", "--config", f"{files}/vta.json", "--insns", f"{files}/insns.bin"]
    return cli.main([*base, "--load", f"{files}/uop.bin@0x1000", "--load", f"{files}/acc.bin@8192", *more])


def test_a_stream_is_executed_and_memory_read_back(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(files, "--dump", f"{files}/out.bin@0x3000:16", "--json", "--profile", "chisel") == 0
    assert np.array_equal(np.fromfile(files / "out.bin", np.int8), np.arange(-8, 8) >> 1)
    document = json.loads(capsys.readouterr().out)
    assert (document["profile"], document["instructions"], document["alu_steps"]) == ("chisel", 5, 1)
    assert document["bytes"]["acc"] == 64


def test_stats_are_printed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(files, "--dump", f"{files}/out.bin@0x3000:16", "--stats") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines() if "alu" in line] == [["alu", "steps", "1"]]


def test_a_fault_names_the_instruction_and_writes_nothing(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(files, "--dump", f"{files}/out.bin@0x5000:16") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "inception-deploy: error: instruction 3 (store STORE OUT sram 0x0 dram 0x300 1x1 stride 1 <-prev ->prev) "
        "writes 16 bytes of DRAM at 0x3000, outside of every buffer"
    )
    assert not (files / "out.bin").exists()


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--dump", "out.bin"], 2, "--dump is 'out.bin'; allowed: FILE@0xADDR:LENGTH, numbers as 4096 or 0x1000"),
        (["--load", "x@12z"], 2, "--load is 'x@12z'; allowed: FILE@0xADDR, numbers as 4096 or 0x1000"),
        (["--load", "none.bin@0x9000"], 1, "none.bin cannot be read: No such file or directory"),
        (["--profile", "rtl"], 2, "there is no VTA profile 'rtl'; allowed: hls (the Xilinx boards"),
    ],
)
def test_what_is_wrong_is_told(files: Path, capsys, more: list[str], status: int, message: str) -> None:
    assert simulate(files, *more) == status
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_listing(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vta", "disassemble", f"{files}/insns.bin", "--uops", f"{files}/uop.bin"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[2] == "     2  compute ALU SHR 1x1 uops 0:1 dst 0,0 src 0,0 imm 1 ->next"


def test_a_part_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vta"]) == 2
    assert "see inception-deploy vta --help" in capsys.readouterr().err
    assert cli.main(["vta", "simulat"]) == 2
    assert "did you mean simulate?" in capsys.readouterr().err


def test_a_board_gives_an_estimate_and_a_timeline(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = ["--dump", f"{files}/out.bin@0x3000:16"]
    assert simulate(files, *dump, "--board", "pynq", "--trace", f"{files}/trace.json") == 0
    assert "estimate for pynq: " in capsys.readouterr().out
    assert json.loads((files / "trace.json").read_text())["otherData"] == {"board": "pynq"}
    assert simulate(files, *dump, "--board", "de10nano", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["profile"], document["timing"]["board"]) == ("chisel", "de10nano")
    assert simulate(files, *dump, "--trace", f"{files}/trace.json") == 2
    assert "--trace needs a board" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "machine", "drives"),
    [
        (["--board", "pynq"], "armv7l", "pynq"),
        (["--board", "zcu104"], "aarch64", "zcu104"),
        (["--board", "de10nano", "--machine", "x86_64"], "x86_64", "de10nano"),
        (["--simulate", "hls", "--machine", "armv7l"], "armv7l", "simulator (hls)"),
        (["--simulate", "chisel", "--machine", "x86_64"], "x86_64", "simulator (chisel)"),
    ],
)
def test_a_driver_is_written_for_its_machine(tmp_path: Path, capsys, options, machine, drives) -> None:
    path = tmp_path / "libvta.so"
    assert cli.main(["vta", "driver", str(path), *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(path), "machine": machine, "drives": drives}
    head = path.read_bytes()
    assert int.from_bytes(head[18:20], "little") == {"x86_64": 62, "aarch64": 183, "armv7l": 40}[machine]
    for name in FUNCTIONS:
        assert name.encode() + b"\0" in head


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "takes --board, or --simulate"),
        (["--board", "pynq", "--simulate", "hls"], "takes --board, or --simulate"),
        (["--board", "arty"], "there is no VTA board 'arty'"),
        (["--simulate", "rtl"], "there is no VTA profile 'rtl'"),
        (["--simulate", "hls", "--machine", "riscv64"], "there are no libraries for 'riscv64'"),
        (["--board", "pynq", "--config", "c.json"], "--config is the simulator's"),
    ],
)
def test_a_driver_of_nothing(tmp_path: Path, capsys, options, message) -> None:
    assert cli.main(["vta", "driver", str(tmp_path / "libvta.so"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "libvta.so").exists()
