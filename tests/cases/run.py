"""All kinds through the command line, for a person: ``python -m tests.cases.run [PREFIX ...]`` from the repository's root.

Each case is exported (so also verified, stage by stage) and run; what is not right is printed, and the exit status says
whether anything was.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

from inception_deploy.cli import main
from inception_deploy.verify import compare

from .build import Case
from .kinds import cases


def call(*arguments: str) -> int:
    """The exit status of a command, whose tables nobody needs here."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return main(arguments)


def wrong(case: Case, folder: Path) -> str | None:
    """What is wrong with a case; None where it is right."""
    model, bundle, given, output = (folder / name for name in ("net.onnx", "bundle", "given.npz", "output.npy"))
    onnx.save(case.model, str(model))
    size = case.options.get("input_size")
    options = ["--input-size", "x".join(map(str, size))] if size else []
    status = call("export", "--model", str(model), *options, "-o", str(bundle))
    if case.refused is not None:
        return None if status in (1, 2) and not bundle.exists() else f"it was to be refused, exit {status}"
    if status:
        return f"export, exit {status}"
    np.savez(given, **case.inputs)
    if status := call("run", str(bundle), "--input", str(given), "--output", str(output)):
        return f"run, exit {status}"
    want, got = case.right()[0], np.load(output)
    if got.shape != want.shape:
        return f"shape {got.shape}, right {want.shape}"
    row = compare(want.astype(np.float32), got, "compiled")
    return None if row["ok"] else f"error {row['max_rel']}"


def run(prefixes: list[str]) -> int:
    """Run them; the exit status."""
    tried, bad = 0, 0
    for case in cases(*prefixes):
        tried += 1
        with tempfile.TemporaryDirectory() as folder:
            if reason := wrong(case, Path(folder)):
                bad += 1
                print(f"{case.name}: {reason}", flush=True)
    print(f"{tried - bad} of {tried} are right")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
