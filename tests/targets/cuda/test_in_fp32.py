"""Layers that leave fp16's range are computed in fp32, and so are those that a user names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import inception_deploy
from inception_deploy import verify
from inception_deploy.errors import UsageError
from inception_deploy.lower.lower import lower
from inception_deploy.targets import cuda, cuda_compile

from .conftest import both_orders, bundle, fake_cubin


def network(path: Path) -> onnx.ModelProto:
    """A stem; a branch that goes far and comes back, one beside it, their concat, a residual add, a head."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def conv(x: str, name: str, channels: int, out: int, scale: float = 1.0) -> str:
        weight = scale * random.standard_normal((out, channels, 3, 3)) / np.sqrt(9 * channels)
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight"))
        nodes.append(helper.make_node("Conv", [x, f"{name}.weight"], [name], name, pads=[1, 1, 1, 1]))
        return name

    stem = conv("x", "stem", 3, 32)
    far = conv(conv(stem, "far", 32, 32, 1e5), "back", 32, 32, 1e-5)
    nodes.append(helper.make_node("Concat", [far, conv(stem, "beside", 32, 16)], ["joined"], "joined", axis=1))
    last = conv("joined", "last", 48, 48)
    nodes.append(helper.make_node("Add", ["joined", last], ["sum"], "sum"))
    nodes.append(helper.make_node("GlobalAveragePool", ["sum"], ["mean"], "mean"))
    nodes.append(helper.make_node("Flatten", ["mean"], ["y"], "y"))
    ends = [helper.make_tensor_value_info("x", 1, [1, 3, 9, 9]), helper.make_tensor_value_info("y", 1, [1, 48])]
    graph = helper.make_graph(nodes, "far", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.save(model, path)
    return model


def test_the_others_stay_in_halves(simulated, tmp_path):
    model = network(tmp_path / "far.onnx")
    x = np.random.default_rng(1).standard_normal((1, 3, 9, 9)).astype(np.float32)
    (expected,) = verify.run_onnx(model, {"x": x})
    target = cuda.parse("cuda", "sm_90").at("fp16")
    for in_fp32, right in ((frozenset({"far"}), True), (frozenset(), False)):
        plan = lower(model, replace(target, in_fp32=in_fp32))
        elements = [(k.spec.in_element, k.spec.out_element) for k in plan.kernels.values() if k.family == "gpu.mma"]
        assert ("half", "half") in elements
        assert ("float32" in {k.spec.out_element for k in plan.kernels.values() if "conv" in k.family}) == right
        place = tmp_path / str(right)
        place.mkdir()
        bundle(simulated, plan, target.archs, place)
        with np.errstate(all="ignore"):
            error = np.abs(both_orders(simulated, place, x) - expected).max() / np.abs(expected).max()
        assert bool(error <= verify.tolerance("compiled-fp16").max_rel) == right, error


@pytest.fixture
def builds(monkeypatch):
    """An export for a GPU whose machine code is made up."""
    monkeypatch.setattr(
        cuda_compile,
        "compile_kernels",
        lambda kernels, archs, _progress=None: {a: {k.symbol: fake_cubin(a) for k in kernels} for a in archs},
    )
    monkeypatch.setattr(cuda.Cuda, "unbuildable", lambda _self: None)
    monkeypatch.setattr(cuda.Cuda, "missing", lambda _self: "no GPU")


def export(tmp_path: Path, **options) -> dict:
    network(tmp_path / "far.onnx")
    options = {"target": "cuda:sm_90", "precision": "fp16"} | options
    return inception_deploy.export(tmp_path / "far.onnx", tmp_path / "bundle", **options)


def test_an_export_keeps_in_fp32_what_it_has_to_and_says_so(builds, tmp_path):
    document = export(tmp_path, keep_fp32=["last"])
    assert any(
        "'far' reaches" in note and "fp16 ends at 65504: it is computed in fp32" in note for note in document["notes"]
    )
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["in_fp32"] == ["far", "last"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_fp32": ["fra"]}, "--keep-fp32: the network has no node 'fra' after our passes; did you mean far"),
        (
            {"keep_fp32": ["far"], "precision": "fp32"},
            "--keep-fp32 is for fp16, and bf16 of cuda and arm, and the export is in fp32",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(builds, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        export(tmp_path, **options)
    assert not (tmp_path / "bundle").exists()
