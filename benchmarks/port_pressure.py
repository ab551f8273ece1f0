"""What the inner loops of the fp32 convolutions would take on CPUs that are not here: an estimate by llvm-mca.

    apt-get install llvm                          # llvm-mca; a newer one knows newer cores (16 for Zen 4)
    python benchmarks/port_pressure.py
    python benchmarks/port_pressure.py --mca llvm-mca-19 --json

For each layer the innermost loop with most sums is taken from the machine code that the default schedule gives, and
llvm-mca counts its cycles on each core's ports, with every load in the first-level cache. The share is that of the two
vector multiply-adds a cycle that all of these cores issue (of 512 bits one on some: `FMAS`). It says whether the
register tile, the loads and the loop's overhead fit the ports. It says nothing of caches, and is only as good as LLVM's
tables: that of Zen 3 in LLVM 14 issues one multiply-add of 256 bits a cycle, and those of Ice Lake and Sapphire Rapids
in LLVM 19 one of 512 bits, where the machines do two. A core that this llvm-mca does not know is left out, and said.
Exit status 1 where llvm-mca is missing.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from inception_deploy import targets
from inception_deploy.kernels.spec import Conv
from inception_deploy.kernels.vector import conv
from inception_deploy.targets.objects import assembly, innermost

LAYERS = {
    "1x1 512-512 at 14x14": Conv(1, 512, 14, 14, 512, 14, 14, (1, 1)),
    "3x3 128-128 at 28x28": Conv(1, 128, 28, 28, 128, 28, 28, (3, 3), pad=(1, 1)),
    "3x3 512-512 at 7x7": Conv(1, 512, 7, 7, 512, 7, 7, (3, 3), pad=(1, 1)),
    "3x3/2 128-128 at 56x56": Conv(1, 128, 56, 56, 128, 28, 28, (3, 3), (2, 2), (1, 1)),
    "1x7 128-160 at 17x17": Conv(1, 128, 17, 17, 160, 17, 17, (1, 7), pad=(0, 3)),
}

CORES = {
    "cpu:avx2": ("znver2", "znver3", "znver4", "skylake", "alderlake"),
    "cpu:avx512": ("znver4", "skylake-avx512", "icelake-server", "sapphirerapids"),
}

FMAS = {("cpu:avx512", "znver4"): 1}
"""Vector multiply-adds a cycle, where not two: of 512 bits, Zen 4 issues one in two halves."""

TURNS = 200


def main() -> int:
    """Estimate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mca", default="llvm-mca", help="the tool (default: llvm-mca)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    if shutil.which(options.mca) is None:
        print(f"error: there is no {options.mca}; apt-get install llvm has one", file=sys.stderr)
        return 1
    known = {core for cores in CORES.values() for core in cores if knows(options.mca, core)}
    rows = []
    for target, cores in CORES.items():
        for layer, spec in LAYERS.items():
            body = hottest(code(spec, target))
            rows += [row(options.mca, target, layer, body, core) for core in cores if core in known]
    missing = sorted({core for cores in CORES.values() for core in cores} - known)
    if options.json:
        print(json.dumps({"estimate": True, "not_known": missing, "results": rows}, indent=2))
        return 0
    table = Table(*rows[0], title="An estimate: cycles of one turn of the innermost loop, loads from the nearest cache")
    for found in rows:
        table.add_row(*map(str, found.values()))
    Console(width=120).print(table)
    if missing:
        print(f"{options.mca} does not know {', '.join(missing)}: a newer LLVM does")
    return 0


def knows(mca: str, core: str) -> bool:
    """The tool has a table of the core."""
    done = subprocess.run(
        [mca, "-mtriple=x86_64", f"-mcpu={core}"], input="nop\n", check=False, capture_output=True, text=True
    )
    return done.returncode == 0 and "not a recognized processor" not in done.stderr


def code(spec: Conv, target: str) -> str:
    """What LLVM makes of a layer's kernel with the default schedule."""
    goal = targets.parse(target)
    (function,) = conv.emit(spec, conv.choose(spec, goal.isa), "kernel")
    return assembly(function, goal.tvm_target())


def hottest(text: str) -> str:
    """Of the innermost loops the one with most sums, that is the widest tile's: its instructions and its label."""
    found = []
    for loop in innermost(text):
        label, *body = loop.splitlines()
        found.append("\n".join([label, *(line for line in body if not re.match(r"\s*(#|\.)", line))]))
    return max(found, key=lambda body: (len(set(re.findall(r"vfmadd.*(%[yz]mm\d+)$", body, re.M))), -len(body)))


def row(mca: str, target: str, layer: str, body: str, core: str) -> dict[str, Any]:
    """The cycles of a turn, which resource is busiest in it, and the share of the peak."""
    call = [mca, "-mtriple=x86_64", f"-mcpu={core}", f"-iterations={TURNS}", "-instruction-info=false", "-json"]
    done = json.loads(subprocess.run(call, input=body, check=True, capture_output=True, text=True).stdout)
    region = done["CodeRegions"][0]
    cycles = region["SummaryView"]["TotalCycles"] / TURNS
    names = done["TargetInfo"]["Resources"]
    used: dict[str, float] = {}
    instructions = len(region["Instructions"])
    for entry in region["ResourcePressureView"]["ResourcePressureInfo"]:
        if entry["InstructionIndex"] < instructions:
            name = names[entry["ResourceIndex"]]
            used[name] = used.get(name, 0.0) + entry["ResourceUsage"]
    busiest = max(used, key=lambda name: used[name])
    adds = body.count("vfmadd")
    return {
        "target": target,
        "layer": layer,
        "core": core,
        "multiply-adds": adds,
        "cycles": round(cycles, 2),
        "share": f"{100 * adds / FMAS.get((target, core), 2) / cycles:.0f}%",
        "busiest port": f"{busiest} {used[busiest]:.2f}",
    }


if __name__ == "__main__":
    sys.exit(main())
