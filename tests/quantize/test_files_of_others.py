"""What other tools write as quantized is read as what it means: in integers where it can be, with onnxruntime's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from inception_deploy.graph import driver
from inception_deploy.quantize import integer_network
from inception_deploy.sources import capture
from inception_deploy.verify import TOLERANCES, run_onnx

from ..cases.int8_files import KINDS, File


def read(file: File, folder: Path) -> onnx.ModelProto:
    """The file as `export` reads it and passes it on to the quantizer's reader."""
    path = folder / f"{file.name}.onnx"
    onnx.save(file.model, str(path))
    return driver.optimise(capture.load_onnx(path), verify=False)[0]


@pytest.mark.filterwarnings("ignore")  # onnxruntime's quantizer warns of its own ways
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_form_means_what_onnxruntime_computes(kind, tmp_path: Path) -> None:
    for file in kind():
        model = read(file, tmp_path)
        (expected,) = run_onnx(file.model, {"x": file.x})
        (got,) = integer_network.reference(model, {"x": file.x})
        assert got.dtype == expected.dtype
        error = np.abs(got.astype(np.float64) - expected).max() / np.abs(expected.astype(np.float64)).max()
        assert error <= TOLERANCES["emulated-int8"].max_rel, f"{file.name}: {error}"
        assert not {node.op_type for node in model.graph.node} & {"QLinearConv", "ConvInteger", "MatMulInteger"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_stays_float_says_why(kind, tmp_path: Path) -> None:
    for file in kind():
        if file.floats is None:
            continue
        model = read(file, tmp_path)
        network = integer_network.read(model)
        operators = {node.name: node.op_type for node in model.graph.node}
        assert tuple(operators[name] for name in network.float_nodes) == file.floats, file.name
        assert all(network.float_reasons.values()), file.name


def test_onnxruntimes_own_files_are_whole(tmp_path: Path) -> None:
    kinds = {
        file.name: integer_network.read(read(file, tmp_path)) for file in KINDS[-1]() if "QInt8-" in file.name[10:]
    }
    assert len(kinds) == 12
    assert not any(network.float_nodes for network in kinds.values())
    wide = {name: [s.output.params.wide for s in n.steps if s.output is not None] for name, n in kinds.items()}
    assert all(all(of) == any(of) == ("Int16" in name) for name, of in wide.items() if "mixed" not in name)
    assert all(0 < sum(of) < len(of) for name, of in wide.items() if "mixed" in name)
