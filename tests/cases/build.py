"""A case: an ONNX file as another tool might have written it, and what is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        name: its kind and what is particular about it.
        model: the file.
        inputs: one array for every graph input.
        options: what `export` is given besides the file, e.g. the input size.
        refused: a part of the refusal's text where it cannot be computed; None where the answer is right.
        half: the file computes in float16.
        equal: a file of the same meaning that onnxruntime runs, where it does not run this one.
    """

    name: str
    model: onnx.ModelProto
    inputs: dict[str, Array]
    options: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None
    half: bool = False
    equal: onnx.ModelProto | None = None

    def right(self) -> list[Array]:
        """The file's outputs: in onnxruntime without optimisations, or where it cannot, in onnx's reference evaluator."""
        import onnxruntime
        from onnx.reference import ReferenceEvaluator

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        model = self.model if self.equal is None else self.equal
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
            return [np.asarray(y) for y in session.run(None, self.inputs)]
        except Exception:  # its exceptions share no base class
            return [np.asarray(y) for y in ReferenceEvaluator(model).run(None, self.inputs)]


class Net:
    """An ONNX file, a node at a time. Weights and inputs are random and repeatable."""

    def __init__(self, opset: int = 17, seed: int = 0, ir_version: int = 8) -> None:
        self.opset, self.ir_version = opset, ir_version
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: dict[str, Array] = {}
        self.declared: dict[str, Sequence[int | str | None]] = {}

    def input(self, *shape: int, declared: Sequence[int | str | None] | None = None, dtype: str = "float32") -> str:
        """A graph input; `declared` is the shape that the file states."""
        name = f"x{len(self.inputs)}" if self.inputs else "x"
        array = self.random.standard_normal(shape) if dtype.startswith("float") else self.random.integers(0, 5, shape)
        self.inputs[name] = array.astype(dtype)
        self.declared[name] = shape if declared is None else declared
        return name

    def constant(self, value: Any, dtype: str = "float32") -> str:
        """An initialiser."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *shape: int, dtype: str = "float32") -> str:
        """A random initialiser, scaled by what one output of it sums."""
        return self.constant(self.random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1), dtype)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; gives the name of its output, or a list of them."""
        names = [f"{kind.lower()}{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"n{len(self.nodes)}_{kind}", **attributes))
        return names[0] if outputs == 1 else names

    def stem(self, size: Sequence[int] = (6, 5), channels: int = 8, batch: int = 1) -> str:
        """An image and one 1x1 convolution with ReLU: (batch, channels, *size)."""
        x = self.input(batch, 3, *size)
        name: str = self.op("Relu", self.op("Conv", x, self.weight(channels, 3, 1, 1), kernel_shape=[1, 1]))
        return name

    def case(self, name: str, *outputs: str, **fields: Any) -> Case:
        """The file that gives `outputs`, of which it states no shape."""
        kinds = {key: helper.np_dtype_to_tensor_dtype(x.dtype) for key, x in self.inputs.items()}
        given = [helper.make_tensor_value_info(key, kinds[key], self.declared[key]) for key in self.inputs]
        if self.ir_version < 4:
            given += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.constants]
        outs = [value if isinstance(value, onnx.ValueInfoProto) else _output(value) for value in outputs]
        graph = helper.make_graph(self.nodes, "g", given, outs, self.constants)
        imports = [helper.make_opsetid("", self.opset)]
        return Case(
            name, helper.make_model(graph, opset_imports=imports, ir_version=self.ir_version), self.inputs, **fields
        )


def _output(name: str) -> onnx.ValueInfoProto:
    """An output of unknown shape, as many tools write it; the type is inferred by all readers but must be there."""
    kind = TensorProto.INT64 if name.endswith("_int") else TensorProto.FLOAT
    return helper.make_tensor_value_info(name.removesuffix("_int"), kind, None)
