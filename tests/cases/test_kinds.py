"""Every kind of stranger's file goes through: read, rewritten, lowered, compiled, and right."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from inception_deploy import targets
from inception_deploy.errors import DeployError
from inception_deploy.graph import driver
from inception_deploy.lower.lower import lower
from inception_deploy.runtime.compiled import load
from inception_deploy.sources import resolve
from inception_deploy.verify import compare

from .build import Case
from .kinds import KINDS


def parameters() -> list[object]:
    """The cases; all but the first few of each kind are for the full run."""
    found: list[object] = []
    for kind, make in KINDS.items():
        for index, case in enumerate(make()):
            marks = [] if index % STEP.get(kind, 1) == 0 else [pytest.mark.slow]
            found.append(pytest.param(case, id=case.name, marks=marks))
    return found


STEP = {"resize_modes": 2, "resize_axes": 3, "pool_ceil": 4, "topk": 4, "conv_padded": 4, "resize_sizes": 3, "upsample": 3, "resize_cubic": 3,
        "pool_padded": 4, "legacy_broadcast": 2, "conv_transpose": 2}  # fmt: skip
"""One in so many runs in `make test`; a kind that is not named, whole."""


def compiled(case: Case, folder: Path) -> tuple[resolve.Source, Path]:
    """The case's file, read and compiled into a folder."""
    path, made = folder / "model.onnx", folder / "compiled"
    made.mkdir()
    onnx.save(case.model, str(path))
    goal = targets.parse("cpu").at("fp32")
    source = resolve.resolve(resolve.Request(str(path), **case.options))
    model, _ = driver.optimise(source.onnx(lambda _: None), verify=False)
    goal.build(lower(model, goal), made)
    return source, made


@pytest.mark.parametrize("case", parameters())
def test_a_file(case: Case, tmp_path: Path) -> None:
    if case.refused is not None:
        with pytest.raises(DeployError, match=case.refused):
            compiled(case, tmp_path)
        return
    source, folder = compiled(case, tmp_path)
    expected = case.right()
    with load(folder) as network:
        got = network.run(*(case.inputs[port.name] for port in network.inputs))
    for want, output in zip(expected, got, strict=True):
        assert (output.shape, output.dtype) == (want.shape, want.dtype)
        row = compare(want, output, "compiled")
        assert row["ok"], row
    if len(case.inputs) == 1:  # other inputs than the first are the toolkit's own numbers there
        (x,) = case.inputs.values()
        for want, original in zip(expected, source.reference(x), strict=True):
            assert compare(want, original, "onnx")["ok"], "the file as it is"
