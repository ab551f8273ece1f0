"""VTA, an open accelerator for FPGAs, with its host: a board, or its simulator on this machine.

What a VTA computes becomes streams of instructions (`vta.assemble`); the rest are kernels of the host, as for a CPU.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from inception_deploy.errors import DeployError, UsageError, nearest
from inception_deploy.kernels.elements import BLOCK
from inception_deploy.kernels.isa import ISAS, Isa
from inception_deploy.kernels.spec import Spec, Vta
from inception_deploy.kernels.vta import config as configurations
from inception_deploy.kernels.vta.accelerator import DEPTHWISE, FASTER, Accelerator
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.kernels.vta.config import Config

from . import cpu, lacking_packages
from .base import Progress, Target
from .precision import Precision

if TYPE_CHECKING:
    from inception_deploy.lower.plan import Kernel, Plan
    from inception_deploy.quantize.scheme import Choices

SIMULATED = "sim"
"""The target that runs on this machine: a pynq's VTA, simulated."""

_CONFIG = Config(target="pynq")
"""Upstream's bitstreams all have this configuration."""


@dataclass(frozen=True)
class VtaTarget(Target):
    """A VTA and the host beside it; `isa` is the host's.

    Attributes:
        vta: the configuration on a board.
        board: its row's name; ``sim`` for the simulator on this machine.
    """

    several: ClassVar[bool] = False

    vta: Accelerator = field(kw_only=True)
    board: str = field(kw_only=True)

    @property
    def kind(self) -> str:
        return "vta"

    @property
    def accelerator(self) -> Accelerator:
        return self.vta

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "variant": f"{self.board}:{self.isa.name}" if self.board == SIMULATED else self.board,
            "machine": self.isa.machine,
            "triple": self.isa.triple,
            "mcpu": self.isa.mcpu,
            "features": list(self.isa.features),
            "profile": self.vta.board.executes,
            "mhz": self.vta.board.mhz,
            "configuration": self.vta.config.document(),
        }

    def configured(self, name: str, file: Path) -> VtaTarget:
        config = configurations.load(file)
        if (config.block, config.batch) != (BLOCK, 1):
            got = f"LOG_BLOCK {config.log_block}, LOG_BATCH {config.log_batch}"
            message = f"networks lie in blocks of {BLOCK} channels, an image at a time, and {file} has {got}"
            raise DeployError(message, kind="vta", got=got, allowed="LOG_BLOCK 4, LOG_BATCH 0")
        accelerator = replace(self.vta, config=config)
        for memory, half in (
            ("INP", accelerator.inp_room()),
            ("WGT", accelerator.wgt_room()),
            ("ACC", accelerator.acc_room()),
        ):
            if half < 1:
                message = f"LOG_{memory}_BUFF_SIZE of {file} holds no tile in each of two halves"
                raise DeployError(message, kind="vta", got=half, allowed="a larger buffer")
        return replace(self, name=name, vta=accelerator)

    def needs(self) -> str:
        if self.board == SIMULATED:
            return f"{self.isa.machine}, {self.isa.mcpu} or newer; no board: the VTA is simulated"
        return f"the board {self.board} with upstream's bitstream; elsewhere the VTA is simulated"

    def unbuildable(self) -> str | None:
        return lacking_packages("tvm", "ziglang")

    def prepared(self) -> AbstractContextManager[None]:
        from .link import prepared

        return prepared(self.isa.triple) if self.programs else nullcontext()

    def missing(self) -> str | None:
        """A board's bundle runs here too: it has a library with the simulator for the machine that built it."""
        here = self._simulating() if platform.machine() != self.isa.machine else self.isa
        short = cpu.lacking(here)
        return f"this machine ({platform.machine()}) lacks {', '.join(short)}" if short else None

    def _simulating(self) -> Isa:
        """What this machine runs a simulated VTA's host with."""
        return self.isa if self.board == SIMULATED else _this_machine()

    def serves(self, row: Precision) -> bool:
        return row.name == "int8" and row.integers

    @property
    def precision_by_default(self) -> str | None:
        return "int8"

    @property
    def scheme_by_default(self) -> str:
        return "power-of-two"

    def check_scheme(self, name: str) -> None:
        from inception_deploy.quantize.scheme import SCHEMES, scheme

        if not scheme(name).power_of_two:
            allowed = [row.name for row in SCHEMES.values() if row.power_of_two]
            message = f"target {self.name} shifts, which the scales of '{name}' do not allow"
            raise UsageError(message, kind="scheme", got=name, allowed=allowed)

    def choices_by_default(self) -> Choices:
        from inception_deploy.quantize.scheme import Choices

        # One whose windows count fewer pixels at a border would be a step for each border, which reads all weights.
        return Choices(add="accumulator", average="alike")

    @property
    def byte_offset(self) -> int:
        """A VTA takes signed bytes."""
        return 128

    @property
    def host_offset(self) -> int:
        return super().byte_offset

    def machine(self, spec: Spec) -> Isa | Accelerator:
        return self.vta if isinstance(spec, Vta) else self.isa

    @property
    def modelled(self) -> bool:
        return True

    def judge(self) -> dict[str, Any]:
        board, config = self.vta.board, self.vta.config
        sizes = (config.log_uop_buffer, config.log_inp_buffer, config.log_wgt_buffer, config.log_acc_buffer)
        return {
            "configuration": f"{1 << config.log_batch}x{config.block}_i8w8a32_{'_'.join(map(str, sizes))}",
            "hardware": f"{board.executes} at {board.mhz:g} MHz with a bus of {8 * board.bus_bytes} bits",
            "intervals": f"{board.gemm_interval} and {board.alu_interval}",
            "assumed": f"{board.overhead}, {board.latency}, {board.row_latency} and {board.drain} cycles",
        }

    def build_all(self, plans: Sequence[Plan], folder: Path, progress: Progress | None = None) -> list[str]:
        from . import vta_library
        from .objects import compile_kernels
        from .vta.streams import streams

        self.check_several(len(plans))
        plan = plans[0]
        kernels = [kernel for kernel in plan.kernels.values() if not isinstance(kernel.spec, Vta)]

        def host(isa: Isa) -> vta_library.Host:
            own = [_for(kernel, isa) for kernel in kernels]
            objects = compile_kernels(own, cpu.Cpu(isa.name, isa).tvm_target(), progress)
            return vta_library.Host(isa.triple, objects, isa.features)

        board = None if self.board == SIMULATED else self.vta.board
        return vta_library.write(
            plan, streams(plan, self.vta), self.vta.config, self.vta.board.profile, folder,
            here=host(self._simulating()), board=board, there=None if board is None else host(self.isa),
            programs=self.programs,
        )  # fmt: skip


def _for(kernel: Kernel, isa: Isa) -> Kernel:
    """A kernel of the host as another machine computes it best, where constants and units are the same there."""
    from inception_deploy.kernels.family import as_it_is
    from inception_deploy.kernels.table import BY_NAME

    family = BY_NAME[kernel.family]
    if kernel.spec is None or family.pack is not as_it_is:
        return kernel
    schedule = family.choose(kernel.spec, isa)
    return replace(kernel, schedule=schedule) if family.units(kernel.spec, schedule) == kernel.units else kernel


def _this_machine() -> Isa:
    """The instruction set of this machine that multiplies bytes.

    Raises:
        DeployError: no kernels are made for this machine.
    """
    found = cpu.parse("arm" if platform.machine().startswith(("aarch64", "arm")) else "cpu", "")
    return found.at("int8").isa


def names(kind: str) -> list[str]:
    """The kind alone, which is the simulator, and each board."""
    return [kind, f"{kind}:{SIMULATED}", *(f"{kind}:{board}" for board in BOARDS)]


def parse(kind: str, suffix: str) -> VtaTarget:
    """`vta`, `vta:sim`, `vta:pynq`, ...; `vta:sim:avx2` says what the simulator's host is, `vta:pynq,depthwise=host`
    who does depthwise and grouped convolutions, of `accelerator.DEPTHWISE`.

    Raises:
        UsageError: (kind ``target``) no such board. DeployError: `vta:sim` on a machine that no kernels are made for.
    """
    where, _, option = (suffix or SIMULATED).partition(",")
    board, _, host = where.partition(":")
    name, _, who = option.partition("=")
    hosts = {isa.name: isa for isa in ISAS if not isa.gpu}
    if board not in (SIMULATED, *BOARDS) or (host and (board != SIMULATED or host not in hosts)):
        name = f"{kind}:{suffix}"
        near = nearest(name, names(kind))
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"there is no target '{name}'{hint}", kind="target", got=name, allowed=names(kind))
    if "," in suffix and (name != "depthwise" or who not in DEPTHWISE):
        message = f"'{option}' is no option of target {kind}:{where}"
        raise UsageError(message, kind="target", got=option, allowed=[f"depthwise={each}" for each in DEPTHWISE])
    isa = hosts[host] if host else hosts[BOARDS[board].processor] if board in BOARDS else _this_machine()
    row = BOARDS["pynq" if board == SIMULATED else board]
    accelerator = Accelerator(board, _CONFIG, row, depthwise=who or FASTER)
    return VtaTarget(f"{kind}:{suffix}" if suffix else kind, isa, vta=accelerator, board=board)
