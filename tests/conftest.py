"""What every test shares: few threads, and a tiny bundle that needs no compiler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "2")
# No test fails because a neighbour had the cores.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

SIZE, CLASSES = 8, 7


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose ONNX is a convolution, a pool and a linear layer: (2, 3, 8, 8) -> (2, 7). Nothing compiled is in it."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    from inception_deploy import artifact
    from inception_deploy.reports import check
    from inception_deploy.runtime import bundle

    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((4, 3, 3, 3)),
        "b": random.standard_normal(4),
        "fc": random.standard_normal((4, CLASSES)),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w", "b"], ["c"], pads=[1] * 4, name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "fc"], ["logits"], name="fc"),
    ]
    tensor = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", tensor, (2, 3, SIZE, SIZE))],
        [helper.make_tensor_value_info("logits", tensor, (2, CLASSES))],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder = tmp_path_factory.mktemp("tiny") / "bundle"
    folder.mkdir()
    onnx.save(model, str(folder / bundle.ONNX))
    row = {"stage": "optimised", "reference": "onnx", "max_abs": 0.0, "max_rel": 0.0, "cosine": 1.0, "top5_same": True}
    artifact.dump_json(check.summary([row | {"tolerance": 1e-4, "ok": True}]), folder / bundle.VERIFY)
    artifact.dump_json([], folder / bundle.REFUSALS)
    bundle.seal(folder, tiny_manifest())
    return folder


def tiny_manifest() -> dict[str, Any]:
    half = [0.5, 0.5, 0.5]
    return {
        "model": "tiny",
        "target": "cpu",
        "target_details": {"kind": "cpu", "variant": "avx2"},
        "precision": "fp32",
        "inputs": [{"name": "input", "shape": [2, 3, SIZE, SIZE], "dtype": "float32"}],
        "outputs": [{"name": "logits", "shape": [2, CLASSES], "dtype": "float32", "kind": "logits"}],
        "preprocessing": {"mean": half, "std": half, "resize": SIZE, "crop": [SIZE, SIZE], "interpolation": "bilinear"},
        "seed": 0,
        "zoo": None,
        "memory": {"arena_bytes": 0, "weights_bytes": 0},
        "tools": {},
    }
