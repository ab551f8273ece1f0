"""examples/first_steps.ipynb: small, without outputs, and it runs from its first cell to its last."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import inception_deploy.verify as verify

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"


def test_it_is_kept_without_outputs() -> None:
    assert NOTEBOOK.stat().st_size < 100_000
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own packages, which are not this project's
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("nbclient", "nbformat", "ipykernel")),
    reason="Jupyter's client is not installed: pip install '.[notebook]'",
)
def test_it_runs(tmp_path: Path) -> None:
    import nbclient
    import nbformat
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class Kernel(AsyncKernelManager):
        """This Python: what kernels the machine has registered says nothing of their packages."""

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="this", language="python")

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    probe = "import json; print(json.dumps([document['ok'], difference, best[0].label, label, accuracy]))"
    notebook.cells.append(nbformat.v4.new_code_cell(probe))
    resources: dict[str, Any] = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_manager_class=Kernel, resources=resources).execute()
    ok, difference, best, label, accuracy = json.loads(notebook.cells[-1].outputs[0]["text"])
    assert ok
    assert difference <= verify.tolerance("compiled").max_rel
    assert int(best) == label
    assert accuracy >= 0.97
