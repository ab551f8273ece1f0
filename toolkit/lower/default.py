"""TVM's default for operators that have no kernel of ours.

The node becomes a model of its own, Relax imports it and legalises it to TIR, and every loop nest of that TIR becomes
a layer whose spec carries the function (`kernels.spec.Extern`). Tensors between the nests live in the arena like any
other value, so a kernel allocates nothing and the waves are its barriers. Such layers work on plain contiguous
tensors of any type; what is float32 again may go on into kernels of ours.

Relax takes seconds to import, so this module does it only when a node comes along.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import DeployError
from ..kernels.spec import Extern
from .layers import Param, Storage, Value
from .plan import Refusal

if TYPE_CHECKING:
    from .reader import Reader

_PACKED = ("call_packed", "call_cpacked", "call_extern", "call_pure_extern")
"""Calls into TVM's runtime, or into libraries, that a bundle does not have."""


@dataclass(frozen=True)
class Tensor:
    """Shape and numpy dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Nest:
    """One loop nest: its TIR function as JSON, and the names of the tensors it takes, reads first."""

    function: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass
class Program:
    """What a node legalises to. Names are `v0, v1, ...` for the node's own inputs; `outputs` holds a name per
    output.
    """

    nests: list[Nest] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


class Unsupported(Exception):
    """Relax, or what it makes of the node, is of no use to us; with the reason."""


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
        _emit(reader, node, program, sources, wanted)
    except Unsupported as error:
        name = f"'{node.domain}.{node.op_type}'" if node.domain not in ("", "ai.onnx") else node.op_type
        raise DeployError(
            f"node '{node.name}' ({name}) cannot be compiled: {reason}, and TVM's default fails: {error}",
            kind="operator",
            got=node.op_type,
            allowed="the operators in docs/operators.md",
        ) from error
    if program.nests:
        reader.network.refusals.append(Refusal(node.name, node.op_type, reason))


def _emit(reader: Reader, node: onnx.NodeProto, program: Program, sources: list[Storage], wanted: list[str]) -> None:
    """The program's nests as layers, and its outputs as values."""
    names = {output: name for name, output in zip(wanted, program.outputs, strict=True)}
    storages = {f"v{index}": storage for index, storage in enumerate(sources)}
    for nest in program.nests:
        operands: list[tuple[Storage, str] | Param] = [
            Param("raw", program.constants[n]) if n in program.constants else (storages[n], "") for n in nest.reads
        ]
        for name in nest.writes:
            tensor = program.tensors[name]
            label = names.get(name, f"{wanted[0]}:{name}")
            batch = tensor.shape[0] if tensor.shape and tensor.size else 1
            storages.setdefault(name, Storage(label, batch, tensor.size // batch, dtype=tensor.dtype))
        first, *also = [storages[name] for name in nest.writes]
        layer = reader.emit("extern", [node.name], Extern(nest.function, node.op_type), operands, first, first.name)
        layer.also = also
    for name, output in zip(wanted, program.outputs, strict=True):
        if output in program.constants:
            reader.constants[name] = program.constants[output]
        else:
            reader.values[name] = Value(name, reader.shape(name), storages[output])


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
        return tvm.transform.Sequential(passes)(from_onnx(model, keep_params_in_input=False))
    except Exception as error:  # the importer raises whatever the operator's converter happens to stumble over
        raise Unsupported(f"Relax cannot import it ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__


class _Walk:
    """Reads `main` of a legalised module."""

    def __init__(self, module: Any) -> None:
        from tvm import relax

        self.module = module
        self.program = Program()
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
        self.program.tensors[name] = Tensor(tuple(int(d) for d in ty.shape), _numpy_dtype(str(ty.dtype)))
        return name

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
        self._nests(self.module[call.args[0]], [*(self._value(a, a) for a in given), *outputs])
        return outputs if several else outputs[0]

    def _nests(self, func: Any, arguments: list[str]) -> None:
        """Cut a function at its loop nests; where that is not possible it stays whole, and its scratch becomes
        tensors of ours.
        """
        names = dict(zip(func.params, arguments, strict=True))
        root: Any = getattr(func.body, "block", None)
        if root is None or not set(_written(func.body)) <= {*func.params, *root.alloc_buffers}:
            scratch: list[Any] = []
            statements = [func.body]
        else:
            scratch = list(root.alloc_buffers)
            statements = list(getattr(root.body, "seq", [root.body]))
        for buffer in scratch:
            shape = tuple(int(d) for d in buffer.shape)
            name = f"t{len(self.program.tensors)}"
            self.program.tensors[name] = Tensor(shape, _numpy_dtype(str(buffer.dtype)))
            names[buffer] = name
        writes = [_written(s) for s in statements]
        flat = [b for w in writes for b in w]
        if len(flat) != len(set(flat)):
            statements = [root.body]  # two nests write one tensor (a scatter into a copy): they belong together
        for statement in statements:
            self._nest(statement, names, func)

    def _nest(self, statement: Any, names: dict[Any, str], func: Any) -> None:
        import tvm
        from tvm import s_tir, tirx

        written = _written(statement)
        used = set(_buffers(statement))
        reads = [b for b in names if b in used and b not in written]
        writes = [b for b in names if b in used and b in written]
        if foreign := _foreign_calls(statement):
            raise Unsupported(f"it calls {foreign[0]} of TVM's runtime, which a bundle does not have")
        if not writes:
            raise Unsupported("one of its loops writes nothing")
        body = statement
        if not hasattr(statement, "block"):
            block = s_tir.SBlock([], [], [], "root", statement)
            body = s_tir.SBlockRealize([], True, block)
        alone = tirx.PrimFunc([*reads, *writes], body, ret_type=func.ret_type).with_attr("tirx.noalias", True)
        function = str(tvm.ir.save_json(alone))
        self.program.nests.append(Nest(function, tuple(names[b] for b in reads), tuple(names[b] for b in writes)))


def _buffers(statement: Any) -> list[Any]:
    """The buffers that a statement uses, each once."""
    from tvm import tirx
    from tvm_ffi.structural import structural_walk

    found: dict[Any, None] = {}

    def visit(var: Any) -> None:
        if type(var.ty).__name__ == "BufferType":
            found[var] = None

    structural_walk(statement, [(tirx.Var, visit)])
    return list(found)


def _written(statement: Any) -> list[Any]:
    """The buffers that a statement stores into, each once."""
    from tvm import tirx
    from tvm_ffi.structural import structural_walk

    found: dict[Any, None] = {}

    def visit(store: Any) -> None:
        found[store.buffer] = None

    structural_walk(statement, [(tirx.BufferStore, visit)])
    return list(found)


def _foreign_calls(statement: Any) -> list[str]:
    """Calls out of the function into what a bundle does not contain."""
    from tvm import ir
    from tvm_ffi.structural import structural_walk

    found: list[str] = []

    def visit(call: Any) -> None:
        if any(part in getattr(call.op, "name", "") for part in _PACKED):
            found.append(str(call.args[0]))

    structural_walk(statement, [(ir.Call, visit)])
    return found


def _numpy_dtype(name: str) -> str:
    """TVM's name of a type as numpy's."""
    try:
        return str(np.dtype(name).name)
    except TypeError:
        raise Unsupported(f"it works on {name} values") from None
