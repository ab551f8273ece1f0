"""A `Plan` as a shared library: generated tables, the C runtime and what its devices execute, linked; the weights
beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from inception_deploy.errors import DeployError
from inception_deploy.lower.plan import ALIGNMENT, HOST, Memory, MemoryKind, Plan, Port, Step

from .link import CSRC, compile_c, data_object, link_shared, platform
from .tables import WEIGHTS_SYMBOL, Built, Part, sources

LIBRARY = "model.so"
WEIGHTS = "weights.bin"
HEADER = "inception_deploy.h"

EXPORTS = (
    *("id_close", "id_describe", "id_describe_plan", "id_detail", "id_error", "id_failed_step", "id_missing_feature"),
    *("id_open", "id_open_at", "id_open_plan", "id_open_with_driver", "id_phases", "id_plans", "id_profile", "id_run"),
    *("id_run_async", "id_threads", "id_watch"),
)
"""The C interface, `csrc/inception_deploy.h`."""

RUNTIME = ("api.c", "common.c", "cpu_features.c")
"""The parts of `csrc` that every library has; a `Part` names those of its device."""

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


_PORTS = (MemoryKind.INPUT, MemoryKind.OUTPUT)


def write_library(
    plan: Plan,
    parts: Sequence[Part],
    folder: Path,
    *,
    triple: str,
    features: Sequence[str] = (),
    name: str = LIBRARY,
    others: Sequence[Built] = (),
    embed: bool = False,
) -> list[str]:
    """Write `model.so`, `weights.bin` and the C header into `folder`. Equal arguments give equal bytes.

    Args:
        plan: what to run.
        parts: one for every device of the plan (`cpu_library.part`, `cuda_library.part`).
        folder: an existing folder.
        triple: the machine that the library runs on, a key of `link.PLATFORMS`.
        features: the CPU features that the kernels use, as /proc/cpuinfo spells them; `id_open` refuses a CPU without
            them.
        name: of the library.
        others: further plans of the same network, with the same devices and weights.
        embed: the library holds the weights itself as well.

    Returns:
        The names of the files written.

    Raises:
        DeployError: ``plan``, where the plan contradicts itself; ``link``, where zig is missing or fails.
    """
    for one in (plan, *(other for other, _ in others)):
        check(one, features)
    if missing := sorted(set(plan.devices) - {part.device for part in parts}):
        raise DeployError(f"there is no code for the device {missing[0]}", kind="plan", got=missing[0])
    every = [*parts, *(part for _, those in others for part in those)]
    files = dict.fromkeys([*RUNTIME, *(file for part in every for file in part.sources), *platform(triple).sources])
    runtime = [compile_c((CSRC / file).read_text(encoding="utf-8"), file, triple) for file in files]
    texts = sources([(plan, parts), *others], features, embed=embed)
    tables = [compile_c(text, file, triple) for file, text in texts.items()]
    objects = list(dict.fromkeys(data for part in every for data in part.objects))
    held = weights_objects(plan, triple, embed=embed)
    link_shared([*tables, *runtime, *objects, *held], EXPORTS, folder / name, triple, dl=any(part.dl for part in every))
    (folder / WEIGHTS).write_bytes(plan.weights)
    shutil.copyfile(CSRC / HEADER, folder / HEADER)
    return [name, WEIGHTS, HEADER]


def weights_objects(plan: Plan, triple: str, *, embed: bool) -> list[bytes]:
    """What has the weights where they are linked in; nothing where they are not."""
    return [data_object(plan.weights, WEIGHTS_SYMBOL, triple)] if embed else []


def check(plan: Plan, features: Sequence[str] = ()) -> None:
    """Refuse what the runtime would crash on. DeployError ``plan`` says which step or memory and why."""
    memories = {memory.name: memory for memory in plan.memories}
    if len(memories) < len(plan.memories):
        raise DeployError("the plan has two memories of one name", kind="plan", got=[m.name for m in plan.memories])
    for memory in plan.memories:
        _check_memory(plan, memory)
    taken = sorted((memory.kind.value, memory.port) for memory in plan.memories if memory.kind in _PORTS)
    ports = {MemoryKind.INPUT: plan.inputs, MemoryKind.OUTPUT: plan.outputs}
    if taken != sorted((kind.value, number) for kind, those in ports.items() for number in range(len(those))):
        message = "the plan has not one memory for every input and output"
        raise DeployError(message, kind="plan", got=[f"{kind}:{number}" for kind, number in taken])
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
            found = memories.get(ref.memory)
            if found is None or not 0 <= ref.offset < max(1, found.bytes):
                raise _contradiction(step, f"{ref} lies outside of its memory")
            if not _reaches(step.device, found):
                raise _contradiction(step, f"{step.device} does not reach {found.name} of {found.device}")
    if unknown := sorted(set(features) - CPU_FEATURES):
        raise DeployError(
            f"the runtime cannot check for the CPU feature {unknown[0]}", kind="plan", got=unknown[0],
            allowed=", ".join(sorted(CPU_FEATURES)),
        )  # fmt: skip


def _check_memory(plan: Plan, memory: Memory) -> None:
    """What a row of the table says has to fit what it is of."""
    ports = {MemoryKind.INPUT: plan.inputs, MemoryKind.OUTPUT: plan.outputs}.get(memory.kind)
    if ports is not None:
        fits = 0 <= memory.port < len(ports) and memory.bytes == ports[memory.port].bytes
        if fits and ports[memory.port].copy is not None:
            _check_copy(plan, ports[memory.port], memory.device)
    elif memory.kind is MemoryKind.WEIGHTS:
        fits = 0 <= memory.first <= len(plan.weights) - memory.bytes and memory.first % ALIGNMENT == 0
    else:
        fits = True
    if not fits or memory.bytes < 0:
        message = f"the plan's memory {memory.name} is no {memory.kind.value} of it"
        raise DeployError(message, kind="plan", got=str(memory))


def _check_copy(plan: Plan, port: Port, device: str) -> None:
    """The copy of an input lies in the first arena of the device that takes it."""
    arenas = (m.bytes for m in plan.memories if m.device == device and m.kind is MemoryKind.ARENA)
    room = next(arenas, 0)
    if port.copy is not None and (port.copy % ALIGNMENT or not 0 <= port.copy <= room - port.bytes):
        raise DeployError(f"the copy of input {port.name} lies outside of the arena", kind="plan", got=port.copy)


def _reaches(device: str, memory: Memory) -> bool:
    """A device works on its own memories, and the host looks into those of the others. A port is its device's alone."""
    return memory.device == device or (device == HOST and memory.kind not in _PORTS)


def _contradiction(step: Step, why: str) -> DeployError:
    return DeployError(f"the plan contradicts itself at step {step.name}: {why}", kind="plan", got=why)
