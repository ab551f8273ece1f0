"""Plans of matrix products on a VTA between kernels of the host (`c/host.c`): streams that are written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inception_deploy.kernels.spec.base import Operand, Spec, constant, result, source
from inception_deploy.kernels.vta.boards import BOARDS, Board
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.profiles import PROFILES, Profile
from inception_deploy.lower.plan import Kernel, Memory, MemoryKind, Plan, Port, Ref, Step, memories
from inception_deploy.targets import cpu_library, library, link, vta_library
from inception_deploy.targets.vta import pieces

from .conftest import Matmul

_HOST = ("v_take", "v_turn", "v_give")
C = Path(__file__).parent / "c"
ROWS = 8
COUNT = 16 * ROWS
CONFIG = Config()
CASE = Matmul(CONFIG, ROWS)
PIXELS, OUT = Port("pixels", (1, COUNT)), Port("out0", (COUNT,))
IN_AT, OUT_AT = 64, 512
"""Where in the arena each product reads and writes."""


@dataclass(frozen=True)
class Bytes(Spec):
    """What a kernel of `c/host.c` computes, as far as the runtime asks."""

    what: str

    @property
    def operands(self) -> tuple[Operand, ...]:
        first = "float32" if self.what == "v_take" else "int8"
        return (source(COUNT, first), result(COUNT, "float32" if self.what == "v_give" else "int8"))


@dataclass(frozen=True)
class Product(Spec):
    """What a stream computes, as far as the runtime asks."""

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (source(COUNT, "int8"), constant("tiles", 512, "int8"), result(COUNT, "int8"))


_PRODUCT = Kernel("vta_product", Product(), None, 3, 1)


class Rows(NamedTuple):
    first: int
    end: int


@dataclass(frozen=True)
class Stream:
    instructions: bytes
    uops: bytes
    relocations: tuple[tuple[int, str, int], ...]
    steps: tuple[Rows, ...]


def stream(weights_at: int = 0, **changes: dict[str, int]) -> Stream:
    """The product of `conftest.Matmul`, with addresses in the plan's memories; `changes` as there."""
    places = {
        "uops": {"dram_base": 0},
        "inp": {"dram_base": IN_AT // 16},
        "wgt": {"dram_base": weights_at // 256},
        "store": {"dram_base": OUT_AT // 16},
    }
    for name, change in changes.items():
        places[name] = {**places.get(name, {}), **change}
    if "push_next" not in places["wgt"]:
        places["wgt"]["push_next"] = 1
    store = {"pop_prev": 1, "push_prev": 1, **places["store"]}
    code = CASE.stream(**{**places, "store": store}).bytes
    uops = CASE.contents[0][1]
    relocations = ((0, "uops", 4), (1, "vta", 16), (2, "vta weights", 256), (8, "vta", 16))
    return Stream(code, uops, relocations, (Rows(0, len(code) // 16),))


def plan(products: int = 1, weights: bytes = b"", weights_at: int = 0, cpu_weights: int = 64) -> Plan:
    """Floats to bytes, then `products` products with a turn between two, then floats."""
    arena, goal = Ref("vta", IN_AT), Ref("vta", OUT_AT)
    steps = [Step("v_take", (Ref("input:0", 0), arena), 0, ("take",), "take", "taken")]
    for number in range(products):
        if number:
            steps.append(Step("v_turn", (goal, arena), len(steps), (f"turn{number}",), "turn", f"turned{number}"))
        args = (arena, Ref("vta weights", weights_at), goal)
        name = f"product{number}"
        steps.append(Step("vta_product", args, len(steps), (name,), "conv", name, 4096, device="vta"))
    steps.append(Step("v_give", (goal, Ref("output:0", 0)), len(steps), ("give",), "give", "out0"))
    table_ = {name: Kernel(name, Bytes(name), None, 2, 1) for name in _HOST}
    table_["vta_product"] = _PRODUCT
    data = weights or CASE.wgt.tobytes()
    table = (
        *memories((PIXELS,), (OUT,), arena=64, weights=cpu_weights),
        Memory("vta", "vta", MemoryKind.ARENA, 1024),
        Memory("vta weights", "vta", MemoryKind.WEIGHTS, len(data), first=cpu_weights),
    )
    return Plan("vta:sim", (PIXELS,), (OUT,), table_, tuple(steps), bytes(cpu_weights) + data, table)


def alone() -> tuple[Plan, Stream]:
    """One product that reads the input and writes the output, and its stream."""
    taken, given = Port("pixels", (1, COUNT), "int8"), Port("out0", (COUNT,), "int8")
    table = memories((taken,), (given,), arena=64, weights=512, device="vta")
    step = Step("vta_product", (Ref("input:0", 0), Ref("weights", 0), Ref("output:0", 0)), 0, ("product",), "conv", "out0",
                4096, device="vta")  # fmt: skip
    made = Plan("vta:sim", (taken,), (given,), {"vta_product": _PRODUCT}, (step,), CASE.wgt.tobytes(), table)
    code = stream(inp={"dram_base": 0}, store={"dram_base": 0})
    names = {"vta weights": "weights", "uops": "uops"}
    ports = {1: "input:0", 8: "output:0"}
    moved = tuple((n, ports.get(n, names.get(name, name)), size) for n, name, size in code.relocations)
    return made, replace(code, relocations=moved)


def kernels(triple: str) -> dict[str, bytes]:
    """The host's kernels, by symbol."""
    return dict.fromkeys(_HOST, link.compile_c((C / "host.c").read_text(), "host.c", triple))


def write(
    made: Plan,
    folder: Path,
    triple: str,
    streams: Sequence[Stream] = (),
    *,
    simulated: Profile | None = PROFILES["hls"],
    board: Board | None = None,
) -> Path:
    """The plan's library in a fresh folder."""
    folder.mkdir()
    every = list(streams) or [stream() for _ in pieces.spans(made)]
    whole = pieces.with_streams(made, every, CONFIG)
    parts = [vta_library.part(whole, every, CONFIG, triple, simulated=simulated, board=board)]
    if "cpu" in whole.devices:
        parts.append(cpu_library.part(whole, kernels(triple)))
    library.write_library(whole, parts, folder, triple=triple)
    return folder


def expected(pixels: np.ndarray, products: int = 1) -> np.ndarray:
    """What such a plan computes."""
    value = pixels.reshape(-1).astype(np.int8)
    for number in range(products):
        if number:
            value = ~value[::-1]
        sums = np.einsum("ri,toi->ro", value.reshape(ROWS, 16).astype(np.int32), CASE.wgt.astype(np.int32))
        value = (np.maximum(sums, 0) >> 3).astype(np.int8).reshape(-1)
    return value.astype(np.float32)


def for_pynq(made: Plan, folder: Path, triple: str) -> Path:
    """As for a board: its driver is a library beside the weights."""
    return write(replace(made, target="vta:pynq"), folder, triple, simulated=None, board=BOARDS["pynq"])
