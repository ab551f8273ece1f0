"""Every distinct convolution of a network on its own: our kernels next to oneDNN, which PyTorch calls, interleaved.

Ours is the layer as `export` compiles it (Winograd's three steps where it is used), without the change of layout at a
network's ends. oneDNN's is the better of two ways, both with weights packed beforehand: channels last, and its own
blocked layout. All include the bias, all but the last ReLU. GFLOP/s count the direct convolution's operations. Weights
are warm on both sides, which they are not in a network.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from inception_deploy import targets
from inception_deploy.lower.lower import lower
from inception_deploy.progress import Progress
from inception_deploy.reports import bench
from inception_deploy.runtime.compiled import load as load_compiled

_MOVES = ("pack", "unpack")

_BURST = 5
"""Runs of one engine before it is the next one's turn."""


@dataclass(frozen=True)
class Layer:
    """A convolution: input `[N, C, H, W]`, weight `[O, I, r, s]`, output height and width."""

    source: tuple[int, ...]
    weight: tuple[int, ...]
    size: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, ...]
    dilation: tuple[int, int]
    groups: int

    @property
    def flops(self) -> int:
        """Operations of the direct convolution."""
        out, channels, rows, columns = self.weight
        return 2 * self.source[0] * self.size[0] * self.size[1] * out * channels * rows * columns

    def __str__(self) -> str:
        out, _, rows, columns = self.weight
        extra = f" /{self.stride[0]}" if max(self.stride) > 1 else ""
        groups = f" x{self.groups} groups" if self.groups > 1 else ""
        size = f"{self.source[2]}x{self.source[3]}"
        return f"{rows}x{columns} {self.source[1]}-{out} at {size}{extra}{groups}"


def layers_of(model: onnx.ModelProto) -> Counter[Layer]:
    """The distinct convolutions of an optimised model, and how often each occurs."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes |= {t.name: tuple(t.dims) for t in graph.initializer}
    found: Counter[Layer] = Counter()
    for node in graph.node:
        if node.op_type == "Conv":
            a = {at.name: helper.get_attribute_value(at) for at in node.attribute}
            found[
                Layer(
                    shapes[node.input[0]],
                    shapes[node.input[1]],
                    shapes[node.output[0]][2:],
                    tuple(a.get("strides", (1, 1))),
                    tuple(a.get("pads", (0, 0, 0, 0))),
                    tuple(a.get("dilations", (1, 1))),
                    a.get("group", 1),
                )
            ] += 1
    return found


def ours(layer: Layer, target: Any, threads: int, arrays: list[np.ndarray]) -> tuple[Callable[[], float], np.ndarray]:
    """A function that runs the compiled layer once and gives its seconds; and what it computes."""
    x, weight, bias = arrays
    node = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["c"],
        "conv",
        strides=layer.stride,
        pads=layer.pads,
        dilations=layer.dilation,
        group=layer.groups,
    )
    graph = helper.make_graph(
        [node, helper.make_node("Relu", ["c"], ["y"], "relu")],
        "layer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (x.shape[0], len(weight), *layer.size))],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with tempfile.TemporaryDirectory() as folder:
        target.build(lower(onnx.shape_inference.infer_shapes(model), target), Path(folder))
        compiled = load_compiled(Path(folder), threads=threads)

    def run() -> float:
        return sum(step.ms for step in compiled.profile(x) if step.op not in _MOVES) / 1e3

    return run, compiled.run(x)[0]


def one_dnn(layer: Layer, threads: int, arrays: list[np.ndarray]) -> dict[str, tuple[Callable[[], Any], np.ndarray]]:
    """By layout, a function that runs the layer once; and what it computes."""
    top, left, bottom, right = layer.pads
    if (top, left) != (bottom, right):
        return {}  # PyTorch's convolutions pad both sides alike
    torch.set_num_threads(threads)
    x, weight, bias = (torch.from_numpy(array) for array in arrays)
    how = ((top, left), layer.stride, layer.dilation, layer.groups)
    # a tensor in oneDNN's own layout: what a convolution before this one gives
    identity = torch.eye(x.shape[1]).reshape(x.shape[1], x.shape[1], 1, 1)
    blocked = torch._C._nn.mkldnn_reorder_conv2d_weight(identity.to_mkldnn(), 0, 1, 1, 1, list(x.shape))
    found = {}
    with torch.inference_mode():
        inputs = {
            "channels last": x.to(memory_format=torch.channels_last),
            "blocked": torch.mkldnn_convolution(x.to_mkldnn(), blocked, None, (0, 0), (1, 1), (1, 1), 1),
        }
        for name, given in inputs.items():
            packed = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *how, list(x.shape))

            def run(given: Any = given, packed: Any = packed) -> Any:
                with torch.inference_mode():
                    if given.is_mkldnn:  # there is no ReLU for these, which favours oneDNN a little
                        return torch.mkldnn_convolution(given, packed, bias, *how)
                    return torch.ops.mkldnn._convolution_pointwise(given, packed, bias, *how, "relu", [], "")

            result = run()
            found[name] = (run, (result.to_dense() if result.is_mkldnn else result).clamp(min=0).numpy())
    return found


def _timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def table(
    model: onnx.ModelProto, target_name: str, threads: int, runs: int, progress: Progress
) -> tuple[list[dict[str, Any]], float]:
    """One row a distinct convolution, largest share of our time first; and the largest difference between the answers,
    relative to the largest value.
    """
    target = targets.parse(target_name).at("fp32")
    found = layers_of(model)
    rows, worst, ready = [], 0.0, []
    for done, (layer, count) in enumerate(found.items(), 1):
        random = np.random.default_rng(0)
        arrays = [random.standard_normal(shape, dtype=np.float32) for shape in (layer.source, layer.weight)]
        arrays.append(random.standard_normal(layer.weight[0], dtype=np.float32))
        mine, answer = ours(layer, target, threads, arrays)
        theirs = one_dnn(layer, threads, arrays)
        for _, other in theirs.values():
            worst = max(worst, float(np.abs(other - answer).max() / np.abs(answer).max()))
        ready.append((layer, count, mine, {name: run for name, (run, _) in theirs.items()}))
        progress.update(done, len(found), str(layer))
    progress.note("layers: measuring")
    for layer, count, mine, theirs in ready:
        seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in theirs}}
        for _ in range(-(-runs // _BURST)):
            time.sleep(bench.pause_s(["torch"]))
            mine()
            seconds["ours"] += [mine() for _ in range(_BURST)]
            for name, run in theirs.items():
                run()
                seconds[name] += [_timed(run) for _ in range(_BURST)]
        p50 = {name: float(np.median(values)) for name, values in seconds.items()}
        best = min(theirs, key=lambda name: p50[name], default=None)
        rows.append(
            {
                "layer": str(layer),
                "count": count,
                "ours_ms": round(1e3 * p50["ours"], 4),
                "ours_gflops": round(layer.flops / p50["ours"] / 1e9, 1),
                "onednn_ms": best and round(1e3 * p50[best], 4),
                "onednn_gflops": best and round(layer.flops / p50[best] / 1e9, 1),
                "onednn_layout": best,
                "ratio": best and round(p50["ours"] / p50[best], 3),
            }
        )
    progress.note("layers: measured")
    total = sum(row["count"] * row["ours_ms"] for row in rows)
    for row in rows:
        row["share"] = round(row["count"] * row["ours_ms"] / total, 4)
    return sorted(rows, key=lambda row: -row["share"]), worst
