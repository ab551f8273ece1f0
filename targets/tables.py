"""The generated C source of a library: a `Plan` as the tables that `csrc/model_tables.h` declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from inception_deploy.lower.plan import MemoryKind, Plan, Port, Ref

KINDS = tuple(MemoryKind)
"""`ID_MEMORY_*` in order."""

_NOWHERE = 2**64 - 1

_ABOUT = """\
/* model.c - the tables of a network: what it takes and gives, its memories, the calls of an inference. Generated.
 *
 * A step is a call of a kernel, a function compiled for the network that does any of its units of work on some
 * addresses. The steps of one wave do not depend on each other. `memories` says where things lie; `spans`, `calls` and
 * `args` what is called with what, in order. */
""".splitlines()


@dataclass(frozen=True)
class Part:
    """What a library has of one device.

    Attributes:
        device: its name in the plan.
        sources: the files of `csrc` that only it needs.
        include: its header.
        symbol: its `id_device`.
        declared: C, what `code` and `tables` refer to.
        code: of every step of the device, by its place in the plan, the C expression of what it does.
        tables: the C expression of what else the device is told.
        objects: object files to link.
        dl: they use `dlopen` and its like.
    """

    device: str
    sources: tuple[str, ...]
    include: str
    symbol: str
    declared: Sequence[str]
    code: Mapping[int, str]
    tables: str = "NULL"
    objects: Sequence[bytes] = field(default=(), repr=False)
    dl: bool = False


Built = tuple[Plan, Sequence[Part]]
"""A plan, and what a library has of each of its devices."""


WEIGHTS_SYMBOL = "id_embedded_weights"
"""What the weights are called where they are linked in."""


def sources(plans: Sequence[Built], features: Sequence[str] = (), *, embed: bool = False) -> dict[str, str]:
    """The C sources of a network's tables, by their names: `model_c` of every plan.

    Args:
        plans: of one network and the same weights, for the fewest images first.
        embed: an object file has the weights under `WEIGHTS_SYMBOL`.
    """
    tag = content_tag(plans[0][0].weights)
    return {
        f"model_{number}.c" if number else "model.c": model_c(
            plan, parts, features, number, len(plans), tag, embed=embed
        )
        for number, (plan, parts) in enumerate(plans)
    }


def model_c(
    plan: Plan,
    parts: Sequence[Part],
    features: Sequence[str] = (),
    number: int = 0,
    count: int = 1,
    tag: int | None = None,
    *,
    embed: bool = False,
) -> str:
    """The C source of a model's tables, with comments for people. It depends on the arguments only.

    Args:
        number, count: of the plan, and of all plans of the library: the first one's source lists them.
        tag: `content_tag` of the weights, where it is known.
        embed: as `sources` takes it.
    """
    tag = content_tag(plan.weights) if tag is None else tag
    of = {part.device: part for part in parts}
    devices = {name: number for number, name in enumerate(plan.devices)}
    lines = [*_ABOUT, "#include <stddef.h>", '#include "model_tables.h"']
    lines += [f'#include "{include}"' for include in sorted({of[name].include for name in devices})]
    lines += ["", *_info(plan, features)]
    for name in devices:
        lines += of[name].declared
    lines += _placed(plan)
    calls: list[str] = []
    args: list[str] = []
    notes: dict[str, dict[int, str]] = {"calls": {}, "args": {}}
    for index, step in enumerate(plan.steps):
        calls.append(f"{{{of[step.device].code[index]}, {len(args)}u, {len(step.args)}u}}")
        named = f"{index}: {step.op} {step.name}"
        places = ", ".join(f"{ref.memory}+{ref.offset}" for ref in step.args)
        notes["calls"][index], notes["args"][len(args)] = f"{named} -> {step.output}", f"{named} ({places})"
        args += [arg(plan, ref) for ref in step.args]
    spans: list[str] = []
    for device, steps in groupby(enumerate(plan.steps), key=lambda numbered: numbered[1].device):
        numbers = [number for number, _ in steps]
        spans.append(f"{{{devices[device]}u, {numbers[0]}u, {numbers[-1] + 1}u}}")
    rows = {
        "devices": [f"{{&{of[name].symbol}, {of[name].tables}}}" for name in devices],
        "memories": _memories(plan, devices),
        "spans": spans,
        "calls": calls,
        "args": args,
    }
    for name, ctype in zip(rows, ("id_device_row", "id_memory", "id_span", "id_call", "id_arg"), strict=True):
        lines += table(f"const {ctype}", name, rows[name], notes.get(name, {}))
    counts = {"device_count": devices, "memory_count": plan.memories, "span_count": spans, "arg_count": args}
    members = [f"    .{name} = {name}," for name in rows]
    members += [f"    .{name} = {len(counted)}," for name, counted in counts.items()]
    lines += [f"const id_tables {_name(number)} = {{", *_info_members(plan, features, tag), *members, "};"]
    return "\n".join([*lines, *([] if number else [*_plans(count), *_weights(embed)]), ""])


def _name(number: int) -> str:
    """What a plan's tables are called."""
    return f"id_model_tables_{number}" if number else "id_model_tables"


def _plans(count: int) -> list[str]:
    """The list of all plans."""
    others = [f"extern const id_tables {_name(number)};" for number in range(1, count)]
    rows = "".join(f"&{_name(number)}, " for number in range(count))
    listed = f"const id_tables *const id_model_plans[] = {{{rows.rstrip(', ')}}};"
    return [*others, listed, f"const uint32_t id_model_plan_count = {count}u;"]


def _weights(embed: bool) -> list[str]:
    """Where the library holds its own weights, if it does."""
    declared = [f"extern const unsigned char {WEIGHTS_SYMBOL}[];"] if embed else []
    return [*declared, f"const unsigned char *const id_model_weights = {WEIGHTS_SYMBOL if embed else 'NULL'};"]


def arg(plan: Plan, ref: Ref) -> str:
    """A row of `id_arg`."""
    number = next(n for n, memory in enumerate(plan.memories) if memory.name == ref.memory)
    return f"{{UINT64_C({ref.offset}), {number}u}}"


def _memories(plan: Plan, devices: Mapping[str, int]) -> list[str]:
    rows = []
    for memory in plan.memories:
        port = plan.inputs[memory.port] if memory.kind is MemoryKind.INPUT else None
        copy = _NOWHERE if port is None or port.copy is None else port.copy
        sizes = ", ".join(f"UINT64_C({size})" for size in (memory.bytes, memory.first, copy))
        numbers = (devices[memory.device], KINDS.index(memory.kind), memory.port)
        rows.append(f"{{{string(memory.name)}, {sizes}, {', '.join(f'{number}u' for number in numbers)}}}")
    return rows


def _info(plan: Plan, features: Sequence[str]) -> list[str]:
    """The tables behind `id_tables.info`."""
    lines = [*_ports("inputs", plan.inputs), *_ports("outputs", plan.outputs)]
    lines += table("const char *const", "features", [string(name) for name in features])
    steps = [f"{{{string(s.name)}, {string(s.op)}, {s.wave}u, UINT64_C({s.macs})}}" for s in plan.steps]
    return lines + table("const id_step", "steps", steps)


def _info_members(plan: Plan, features: Sequence[str], tag: int) -> list[str]:
    fields = {
        "abi_version": "ID_ABI_VERSION",
        "target": string(plan.target),
        "features": "features",
        "feature_count": len(features),
        "arena_bytes": f"UINT64_C({plan.arena_bytes})",
        "weights_bytes": f"UINT64_C({len(plan.weights)})",
        "weights_tag": f"UINT64_C({tag})",
        "input_count": len(plan.inputs),
        "output_count": len(plan.outputs),
        "step_count": len(plan.steps),
        "wave_count": plan.waves,
        "inputs": "inputs",
        "outputs": "outputs",
        "steps": "steps",
    }
    return [f"    .info.{name} = {value}," for name, value in fields.items()]


def _ports(name: str, ports: Sequence[Port]) -> list[str]:
    lines, rows = [], []
    for number, port in enumerate(ports):
        shape = f"{name}_{number}_shape"
        lines += table("const int64_t", shape, [f"INT64_C({extent})" for extent in port.shape])
        rows.append(
            f"{{{string(port.name)}, {string(port.dtype)}, {shape}, {len(port.shape)}u, UINT64_C({port.bytes})}}"
        )
    return lines + table("const id_port", name, rows)


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


def table(ctype: str, name: str, rows: Sequence[str], notes: Mapping[int, str] = MappingProxyType({})) -> list[str]:
    """The lines of a static array.

    Args:
        notes: by row, a comment that stands before it.
    """
    if not rows:  # C has no empty arrays; one element more than the count says
        rows = ["{0}"] if "id_" in ctype else ["0"]
    lines = [f"static {ctype} {name}[] = {{"]
    for number, row in enumerate(rows):
        lines += [f"    /* {_plain(notes[number])} */"] if number in notes else []
        lines.append(f"    {row},")
    return [*lines, "};"]


def _placed(plan: Plan) -> list[str]:
    """A comment: where the values of the network lie."""
    rows = [_plain(f" * {p.offset:>11} {p.bytes:>11}  {p.value}") for p in plan.placements]
    return ["", "/* Where the values lie in the arena: offset, bytes, name", *rows, " */"]


def _plain(text: str) -> str:
    """Text of any kind, to stand in a comment of one line."""
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return shown.replace("*/", "* /").replace("/*", "/ *")


def string(text: str) -> str:
    """A C literal of any text, in UTF-8. Octal escapes end after three digits; a \\x would swallow what follows."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'
