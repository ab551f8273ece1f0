"""TVM's default for operators that have no kernel of ours.

The node becomes a model of its own, Relax imports it and legalises it to TIR, and every loop nest of that TIR becomes
a layer (`nests`). What is float32 again may go on into kernels of ours.

Relax takes seconds to import, so this module does it only when a node comes along.
"""

from __future__ import annotations

import contextlib
import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import DeployError
from .nests import Cutter, Program, Unsupported, emit
from .plan import Refusal

if TYPE_CHECKING:
    from .reader import Reader


def extern(reader: Reader, node: onnx.NodeProto, reason: str) -> None:
    """Let TVM's default compute a node; `reason` says why no kernel of ours does. It is recorded as a refusal.

    Raises:
        DeployError: TVM's default cannot do it either.
    """
    inputs = [name for name in dict.fromkeys(node.input) if name and name not in reader.constants]
    sources = [reader.planar(reader.values[name]).storage for name in inputs]
    wanted = [name for name in node.output if name and reader.uses[name]]
    try:
        if any(not reader.known(name) for name in (*inputs, *wanted)):
            raise Unsupported("it gives or takes something else than tensors")
        program = _program(alone(reader, node, wanted))
        emit(reader, [node.name], node.op_type, program, sources, wanted)
    except Unsupported as error:
        name = f"'{node.domain}.{node.op_type}'" if node.domain not in ("", "ai.onnx") else node.op_type
        raise DeployError(
            f"node '{node.name}' ({name}) cannot be compiled: {reason}, and TVM's default fails: {error}",
            kind="operator",
            got=node.op_type,
            allowed="the operators in docs/operators.md; onnx.utils.extract_model cuts a graph before the others",
        ) from error
    if program.nests:
        reader.network.refusals.append(Refusal(node.name, node.op_type, reason))


def importable(reader: Reader, node: onnx.NodeProto) -> bool:
    """Whether `extern` would do, as far as that shows without the node's neighbours."""
    names = [name for name in (*node.input, *node.output) if name and name not in reader.constants]
    try:
        if any(not reader.known(name) for name in names):
            return False
        return bool(_program(alone(reader, node, [name for name in node.output if name and reader.uses[name]])))
    except (Unsupported, DeployError):
        return False


def alone(reader: Reader, node: onnx.NodeProto, wanted: list[str]) -> bytes:
    """The node as a model of its own that gives `wanted`; constants are initialisers, names are positions, so that
    equal nodes give equal bytes.
    """
    feeds = [n for n in dict.fromkeys(node.input) if n and n not in reader.constants]
    fixed = [n for n in dict.fromkeys(node.input) if n in reader.constants]
    rename = {name: f"v{i}" for i, name in enumerate(feeds)}
    rename |= {name: f"c{i}" for i, name in enumerate(fixed)}
    rename |= {name: f"o{i}" for i, name in enumerate(node.output) if name}
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name, copy.doc_string = "node", ""
    del copy.input[:], copy.output[:], copy.metadata_props[:]
    copy.input.extend(rename.get(n, "") for n in node.input)
    copy.output.extend(rename.get(n, "") for n in node.output)

    def info(name: str) -> onnx.ValueInfoProto:
        return onnx.helper.make_tensor_value_info(rename[name], reader.elem_type(name), reader.shape(name))

    graph = onnx.GraphProto(name="node", node=[copy])
    graph.initializer.extend(numpy_helper.from_array(reader.constants[n], rename[n]) for n in fixed)
    graph.input.extend(info(n) for n in feeds)
    graph.output.extend(info(n) for n in wanted)
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in sorted(reader.opsets.items())]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))


# -- Relax -----------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=64)
def _program(model: bytes) -> Program:
    """What Relax makes of a one-node model."""
    from onnx import inliner

    proto = onnx.load_model_from_string(model)
    try:
        return _Walk(_imported(proto)).program
    except Unsupported:
        # ONNX itself defines some operators by others
        names = [(node.domain, node.op_type) for node in proto.graph.node]
        spelled_out = inliner.inline_selected_functions(proto, names, inline_schema_functions=True)
        if [node.op_type for node in spelled_out.graph.node] == [node.op_type for node in proto.graph.node]:
            raise
        return _Walk(_imported(spelled_out)).program


def _imported(model: onnx.ModelProto) -> Any:
    """The model as a Relax module whose `main` calls TIR functions."""
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    passes = [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.LegalizeOps(),
        relax.transform.FoldConstant(),
        relax.transform.DeadCodeElimination(),
    ]
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the importer prints what it stumbles over
            return tvm.transform.Sequential(passes)(from_onnx(model, keep_params_in_input=False))
    except Exception as error:  # the importer raises whatever the operator's converter happens to stumble over
        raise Unsupported(f"Relax cannot import it ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


class _Walk(Cutter):
    """Reads `main` of a legalised module."""

    def __init__(self, module: Any) -> None:
        from tvm import relax

        super().__init__()
        self.module = module
        self.names: dict[Any, Any] = {}  # a relax variable's tensor name, or a tuple of them
        main = module["main"]
        for index, param in enumerate(main.params):
            self.names[param] = self._tensor(f"v{index}", param.ty)
        for block in main.body.blocks:
            for binding in block.bindings:
                self.names[binding.var] = self._value(binding.var, binding.value)
        body = main.body.body
        result = self._value(body, body)
        self.program.outputs = result if isinstance(body.ty, relax.TupleType) else (result,)

    def _tensor(self, name: str, ty: Any) -> str:
        from tvm import relax

        if not isinstance(ty, relax.TensorType) or ty.shape is None or any(not hasattr(d, "value") for d in ty.shape):
            raise Unsupported(f"its result has no fixed shape ({ty})")
        return self.tensor(name, [int(d) for d in ty.shape], str(ty.dtype))

    def _value(self, var: Any, value: Any) -> Any:
        """The tensor name (or tuple of names) of an expression."""
        from tvm import ir

        if value in self.names:
            return self.names[value]
        if isinstance(value, ir.GenericConst):
            name = f"c{len(self.program.constants)}"
            self.program.constants[name] = np.ascontiguousarray(value.value.numpy())
            return self._tensor(name, value.ty)
        if isinstance(value, ir.Tuple):
            return tuple(self._value(field_, field_) for field_ in value.fields)
        if isinstance(value, ir.TupleGetItem):
            return self._value(value.tuple_value, value.tuple_value)[value.index]
        name = getattr(getattr(value, "op", None), "name", type(value).__name__)
        if name != "relax.call_tir" or len(value.args) != 2:
            raise Unsupported(f"it needs {name}, which has no loops of its own")
        return self._call(var, value)

    def _call(self, var: Any, call: Any) -> Any:
        from tvm import ir, relax

        count = len(self.program.tensors)
        several = isinstance(var.ty, relax.TupleType)
        types = list(var.ty.fields) if several else [var.ty]
        outputs = tuple(self._tensor(f"t{count + index}", ty) for index, ty in enumerate(types))
        given = call.args[1].fields if isinstance(call.args[1], ir.Tuple) else [call.args[1]]
        self.cut(self.module[call.args[0]], [*(self._value(a, a) for a in given), *outputs])
        return outputs if several else outputs[0]
