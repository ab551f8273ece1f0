"""What exporting costs: seconds with an empty cache and with a full one, and the peak memory.

    python benchmarks/export_cost.py                      # irv2
    python benchmarks/export_cost.py --models irv2,vgg16 --target cpu:avx2

Exit status 1 where a figure is over its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from inception_deploy.reports import bench

COLD_LIMIT_S, WARM_LIMIT_S, MEMORY_LIMIT_GIB = 120, 60, 4


def main() -> int:
    """Measure and print; 1 where a figure is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=["irv2"], help="networks, with commas")
    parser.add_argument("--target", default="cpu", help="what to compile for (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows = [export_cost(name, options.target) for name in options.models]
    if options.json:
        print(json.dumps({"machine": bench.machine(), "results": rows}, indent=2))
    else:
        table = Table(*rows[0], title=bench.machine(), title_justify="left")
        for row in rows:
            table.add_row(*map(str, row.values()))
        (Console() if sys.stdout.isatty() else Console(width=120)).print(table)
    return 0 if all(row["ok"] for row in rows) else 1


def export_cost(name: str, target: str) -> dict[str, Any]:
    """Export twice with a cache of its own, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "INCEPTION_DEPLOY_CACHE": str(Path(folder) / "cache")}
        seconds = {}
        for temperature in ("cold", "warm"):
            command = [sys.executable, "-m", "inception_deploy", "export", "--model", name, "--target", target]
            command += ["-o", str(Path(folder) / temperature)]
            start = time.perf_counter()
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            seconds[temperature] = round(time.perf_counter() - start, 1)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 20)  # of the largest child, KiB on Linux
    ok = seconds["cold"] <= COLD_LIMIT_S and seconds["warm"] <= WARM_LIMIT_S and peak <= MEMORY_LIMIT_GIB
    return {"model": name, "cold s": seconds["cold"], "warm s": seconds["warm"], "peak GiB": round(peak, 2), "ok": ok}


if __name__ == "__main__":
    sys.exit(main())
