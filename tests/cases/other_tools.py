"""Writes `tests/cases/data/*.onnx`: a small network of ours, quantized by tools that are not among our requirements.

    python -m venv other && other/bin/pip install torch onnx onnxscript nncf torchao
    other/bin/python tests/cases/other_tools.py tests/cases/data

NNCF's defaults for ONNX, per channel, symmetric and mixed; PyTorch's pt2e with the quantizer for x86, exported by torch.
The tests read the files only. The network, its random weights and so the files are ours; of the tools nothing is in them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn import functional

SIZE = (1, 3, 20, 20)
PICTURES = 32


class Network(nn.Module):
    """An inverted residual, two branches, a gate, pools and a hard swish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.deep = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
            nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.left = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(8, 6, 3, 1, 1), nn.ReLU())
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.last, self.head = nn.Conv2d(12, 16, 1), nn.Linear(16, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 7)."""
        x = self.stem(x)
        x = x + self.deep(x)
        x = functional.max_pool2d(torch.cat([self.left(x), self.right(x)], 1), 2)
        gate = self.excite(torch.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1))))
        x = functional.hardswish(self.last(x * torch.sigmoid(gate)))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def network() -> Network:
    """With random weights, and batch norms that have something to fold."""
    torch.manual_seed(0)
    made = Network()
    for part in made.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return made.eval()


def pictures() -> list[torch.Tensor]:
    """To calibrate on."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(SIZE, generator=generator) for _ in range(PICTURES)]


def exported(module: Any, *inputs: torch.Tensor) -> onnx.ModelProto:
    """As torch's exporter writes it, without its notes on where each node came from."""
    names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "external_data": False, "verbose": False}
    program = torch.onnx.export(module, inputs, None, dynamo=True, opset_version=18 if inputs else 20, **names)
    return program.model_proto


def bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what says nothing of the network."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("doc_string")
        if "metadata_props" in part.DESCRIPTOR.fields_by_name:
            part.ClearField("metadata_props")
    del graph.value_info[:]
    del model.functions[:]
    return model


def by_nncf() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Both presets."""
    import nncf

    model = exported(network(), pictures()[0])
    for preset in (nncf.QuantizationPreset.PERFORMANCE, nncf.QuantizationPreset.MIXED):
        data = nncf.Dataset(pictures(), lambda picture: {"x": picture.numpy()})
        yield f"nncf-{preset.value}", nncf.quantize(model, data, preset=preset, subset_size=PICTURES)


def by_pt2e() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Static, per channel."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    how = x86.X86InductorQuantizer()
    how.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(network(), (pictures()[0],)).module(), how)
    for picture in pictures():
        prepared(picture)
    yield "pt2e-x86", exported(torch.export.export(convert_pt2e(prepared), (pictures()[0],)))


def main() -> None:
    """Write all of them."""
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    for make in (by_nncf, by_pt2e):
        for name, model in make():
            onnx.save(bare(model), str(folder / f"{name}.onnx"))
            print(name, (folder / f"{name}.onnx").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
