"""A `Plan` as a shared library: generated tables, the C runtime and the kernels, linked; the weights beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inception_deploy.errors import DeployError
from inception_deploy.lower.plan import ALIGNMENT, Plan, Port, Space, Step

from .link import CSRC, compile_c, link_shared, platform

LIBRARY = "model.so"
WEIGHTS = "weights.bin"
HEADER = "inception_deploy.h"

EXPORTS = (
    *("id_close", "id_describe", "id_error", "id_failed_step", "id_missing_feature", "id_open", "id_profile", "id_run"),
    "id_threads",
)
"""The C interface, `csrc/inception_deploy.h`."""

RUNTIME = ("common.c", "cpu_features.c", "schedule.c", "threads.c", "runtime.c", "tvm_hooks.c")
"""The parts of `csrc` that run a model on a CPU."""

CPU_FEATURES = frozenset(
    # x86-64
    (
        *("pni", "ssse3", "fma", "sse4_1", "sse4_2", "movbe", "popcnt", "avx", "f16c", "bmi1", "avx2", "bmi2", "abm"),
        *("avx512f", "avx512dq", "avx512ifma", "avx512cd", "avx512bw", "avx512vl", "avx512vbmi", "avx512_vbmi2"),
        *("avx512_vnni", "avx512_bitalg", "avx512_vpopcntdq", "avx512_fp16", "avx512_bf16", "avx_vnni"),
        *("amx_bf16", "amx_tile", "amx_int8"),
        # AArch64 and ARMv7
        *("fp", "asimd", "crc32", "atomics", "fphp", "asimdhp", "asimdrdm", "asimddp", "asimdfhm", "sve", "sve2"),
        *("i8mm", "bf16", "neon", "vfpv3", "vfpv4", "idiva", "idivt"),
    )
)
"""What `csrc/cpu_features.c` can check, as /proc/cpuinfo spells it."""

_MACS_PER_BYTE = 8
"""How many multiply-adds a core does while it writes one byte of a step that computes next to nothing."""

SPACES = {Space.ARENA: 0, Space.WEIGHTS: 1, Space.INPUT: 2, Space.OUTPUT: 3}
"""`ID_SPACE_*` of `csrc/model_tables.h`."""


def write_library(
    plan: Plan,
    objects: Mapping[str, bytes | Path],
    folder: Path,
    *,
    triple: str,
    features: Sequence[str] = (),
) -> list[str]:
    """Write `model.so`, `weights.bin` and the C header into `folder`. Equal arguments give equal bytes.

    Args:
        plan: what to run.
        objects: an ELF object file (its content, or where it lies) for every symbol of `plan.kernels`; several symbols
            may name the same one.
        folder: an existing folder.
        triple: the machine, a key of `link.PLATFORMS`.
        features: the CPU features that the kernels use, as /proc/cpuinfo spells them; `id_open` refuses a CPU without
            them.

    Returns:
        The names of the files written.

    Raises:
        DeployError: ``plan``, where the plan contradicts itself; ``link``, where zig is missing or fails.
    """
    check(plan, features)
    if missing := sorted(plan.kernels.keys() - objects.keys()):
        raise DeployError(f"no compiled kernel for {', '.join(missing[:3])}", kind="plan", got=len(objects))
    sources = [*RUNTIME, *platform(triple).sources]
    runtime = [compile_c((CSRC / name).read_text(), name, triple) for name in sources]
    tables = compile_c(model_c(plan, features), "model.c", triple)
    distinct = dict.fromkeys(_content(objects[symbol]) for symbol in sorted(plan.kernels))
    link_shared([tables, *runtime, *distinct], EXPORTS, folder / LIBRARY, triple)
    (folder / WEIGHTS).write_bytes(plan.weights)
    shutil.copyfile(CSRC / HEADER, folder / HEADER)
    return [LIBRARY, WEIGHTS, HEADER]


def _content(item: bytes | Path) -> bytes:
    return item if isinstance(item, bytes) else Path(item).read_bytes()


def check(plan: Plan, features: Sequence[str] = ()) -> None:
    """Refuse what the runtime would crash on. DeployError ``plan`` says which step and why."""
    sizes = {Space.ARENA: [plan.arena_bytes], Space.WEIGHTS: [len(plan.weights)]}
    sizes[Space.INPUT] = [port.bytes for port in plan.inputs]
    sizes[Space.OUTPUT] = [port.bytes for port in plan.outputs]
    for port in plan.inputs:
        if port.copy is not None and (port.copy % ALIGNMENT or not 0 <= port.copy <= plan.arena_bytes - port.bytes):
            raise DeployError(f"the copy of input {port.name} lies outside of the arena", kind="plan", got=port.copy)
    wave = 0
    for step in plan.steps:
        kernel = plan.kernels.get(step.kernel)
        if kernel is None:
            raise _contradiction(step, f"its kernel {step.kernel} is not in the plan")
        if len(step.args) != kernel.pointers:
            raise _contradiction(step, f"{len(step.args)} arguments for {kernel.pointers} pointers")
        if not 1 <= kernel.units < 2**31:
            raise _contradiction(step, f"{kernel.units} work units")
        if step.wave < wave:
            raise _contradiction(step, f"it is of wave {step.wave} and comes after wave {wave}")
        wave = step.wave
        for ref in step.args:
            inside = ref.index < len(sizes[ref.space]) and 0 <= ref.offset < max(1, sizes[ref.space][ref.index])
            if not inside or ref.index < 0:
                raise _contradiction(step, f"{ref} lies outside of its memory")
    if unknown := sorted(set(features) - CPU_FEATURES):
        raise DeployError(
            f"the runtime cannot check for the CPU feature {unknown[0]}", kind="plan", got=unknown[0],
            allowed=", ".join(sorted(CPU_FEATURES)),
        )  # fmt: skip


def _contradiction(step: Step, why: str) -> DeployError:
    return DeployError(f"the plan contradicts itself at step {step.layers[-1]}: {why}", kind="plan", got=why)


def content_tag(data: bytes) -> int:
    """The checksum that the library expects of its weights: `id_content_tag` of `csrc/common.h` in numpy."""
    tag = 0
    words = np.frombuffer(data + bytes(-len(data) % 8), dtype="<u8")
    block = 1 << 20
    for start in range(0, len(words), block):
        part = words[start : start + block]
        index = np.arange(start, start + len(part), dtype=np.uint64)
        tag += int(_mix(part ^ (index * np.uint64(0x9E3779B97F4A7C15))).sum(dtype=np.uint64))
    return tag % 2**64


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x: npt.NDArray[np.uint64] = words
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return x


def costs(plan: Plan) -> list[int]:
    """How long each step takes compared with the others, in multiply-adds. The runtime balances the threads with it."""
    written = {placement.value: placement.bytes for placement in plan.placements}
    written.update({port.name: port.bytes for port in plan.outputs})
    return [max(step.macs, _MACS_PER_BYTE * written.get(step.output, 0), 1) for step in plan.steps]


def model_c(plan: Plan, features: Sequence[str] = ()) -> str:
    """The C source of the tables that `csrc/model_tables.h` declares. It depends on the arguments only."""
    lines = [
        "/* Generated; the model's tables. */",
        "#include <stddef.h>",
        '#include "model_tables.h"',
        "",
    ]
    for symbol in sorted({step.kernel for step in plan.steps}):
        lines.append(f"extern int32_t {symbol}(void *const *, int32_t, int32_t);")
    described, fields = info_c(plan, features)
    lines += ["", *described]
    args: list[str] = []
    calls: list[str] = []
    for step, cost in zip(plan.steps, costs(plan), strict=True):
        kernel = plan.kernels[step.kernel]
        calls.append(f"{{{step.kernel}, {len(args)}u, {kernel.pointers}u, {kernel.units}, UINT64_C({cost})}}")
        args += [f"{{UINT64_C({ref.offset}), {SPACES[ref.space]}, {ref.index}}}" for ref in step.args]
    nowhere = 2**64 - 1
    places = [nowhere if port.copy is None else port.copy for port in plan.inputs]
    lines += table("const uint64_t", "copies", [f"UINT64_C({place})" for place in places])
    lines += table("const id_arg", "args", args)
    lines += table("const id_call", "calls", calls)
    members = [f"    .{name} = {name}," for name in ("calls", "args", "copies")]
    return "\n".join([*lines, "const id_tables id_model_tables = {", *fields, *members, "};", ""])


def info_c(plan: Plan, features: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """What `id_describe` gives of a plan, whatever it runs on: the tables, and the initialisers of `id_tables.info`."""
    lines = [*_ports("inputs", plan.inputs), *_ports("outputs", plan.outputs)]
    lines += table("const char *const", "features", [string(name) for name in features])
    lines += table(
        "const id_step",
        "steps",
        [f"{{{string(s.name)}, {string(s.op)}, {s.wave}u, UINT64_C({s.macs})}}" for s in plan.steps],
    )
    fields = {
        "abi_version": "ID_ABI_VERSION",
        "target": string(plan.target),
        "features": "features",
        "feature_count": len(features),
        "arena_bytes": f"UINT64_C({plan.arena_bytes})",
        "weights_bytes": f"UINT64_C({len(plan.weights)})",
        "weights_tag": f"UINT64_C({content_tag(plan.weights)})",
        "input_count": len(plan.inputs),
        "output_count": len(plan.outputs),
        "step_count": len(plan.steps),
        "wave_count": plan.waves,
        "inputs": "inputs",
        "outputs": "outputs",
        "steps": "steps",
    }
    return lines, [f"    .info.{name} = {value}," for name, value in fields.items()]


def _ports(name: str, ports: Sequence[Port]) -> list[str]:
    lines, rows = [], []
    for number, port in enumerate(ports):
        shape = f"{name}_{number}_shape"
        lines += table("const int64_t", shape, [f"INT64_C({extent})" for extent in port.shape])
        rows.append(
            f"{{{string(port.name)}, {string(port.dtype)}, {shape}, {len(port.shape)}u, UINT64_C({port.bytes})}}"
        )
    return lines + table("const id_port", name, rows)


def table(ctype: str, name: str, rows: Sequence[str]) -> list[str]:
    """The lines of a static array."""
    if not rows:  # C has no empty arrays; one element more than the count says
        rows = ["{0}"] if "id_" in ctype else ["0"]
    return [f"static {ctype} {name}[] = {{", *(f"    {row}," for row in rows), "};"]


def string(text: str) -> str:
    """A C literal of any text, in UTF-8. Octal escapes end after three digits; a \\x would swallow what follows."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'
