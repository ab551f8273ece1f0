"""Networks as Keras and others write them become int8 whole; what stays float is known, and the numbers are near."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from inception_deploy.graph import driver
from inception_deploy.quantize import integer_network, quantize
from inception_deploy.sources import capture
from inception_deploy.verify import TOLERANCES, run_onnx

from ..cases.int8_files import SHAPE
from ..cases.int8_networks import KINDS, Network

NETWORKS = [network for kind in KINDS for network in kind()]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_a_network_is_integers(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(network.model, str(path))
    model, _ = driver.optimise(capture.load_onnx(path), verify=False)
    pictures = [np.random.default_rng(i).standard_normal(SHAPE[1:]).astype(np.float32) for i in range(16)]
    result = quantize(model, pictures)
    operators = {node.name: node.op_type for node in result.model.graph.node}
    assert tuple(operators[name] for name in result.float_nodes) == network.floats
    x = {"x": pictures[0][None]}
    for expected, got in zip(run_onnx(network.model, x), integer_network.reference(result.model, x), strict=True):
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert error < TOLERANCES["quantized"].max_rel / 3
