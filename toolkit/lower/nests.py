"""Loop nests in TIR as layers: cut from the functions that Relax legalises, or from those that we write in TE.

Every loop nest becomes a layer whose spec carries its function (`kernels.spec.Extern`). Tensors between the nests live
in the arena like any other value, so a kernel allocates nothing and the waves are its barriers. Such layers work on
plain contiguous tensors of any type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels.spec import Extern
from .layers import Param, Storage, Value

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
    """A function cannot become nests; with the reason."""


def emit(
    reader: Reader, nodes: list[str], op: str, program: Program, sources: Sequence[Storage], wanted: Sequence[str]
) -> None:
    """The program's nests as layers that do the work of `nodes`, and its outputs as the values `wanted`."""
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
        reads, writes = (
            tuple((program.tensors[name].dtype, program.tensors[name].size) for name in several)
            for several in (nest.reads, nest.writes)
        )
        layer = reader.emit("extern", nodes, Extern(nest.function, op, reads, writes), operands, first, first.name)
        layer.also = also
    for name, output in zip(wanted, program.outputs, strict=True):
        if output in program.constants:
            reader.constants[name] = program.constants[output]
        else:
            reader.values[name] = Value(name, reader.shape(name), storages[output])


class Cutter:
    """Cuts TIR functions into the nests of a `Program`."""

    def __init__(self) -> None:
        self.program = Program()

    def tensor(self, name: str, shape: Sequence[int], dtype: str) -> str:
        """Make a tensor known."""
        self.program.tensors[name] = Tensor(tuple(shape), numpy_dtype(dtype))
        return name

    def cut(self, func: Any, arguments: list[str]) -> None:
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
            self.program.tensors[name] = Tensor(shape, numpy_dtype(str(buffer.dtype)))
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
        params, body = _from_the_start([*reads, *writes], _serial(body))
        alone = tirx.PrimFunc(params, body, ret_type=func.ret_type).with_attr("tirx.noalias", True)
        function = str(tvm.ir.save_json(alone))
        self.program.nests.append(Nest(function, tuple(names[b] for b in reads), tuple(names[b] for b in writes)))


def _from_the_start(buffers: list[Any], statement: Any) -> tuple[list[Any], Any]:
    """Buffers that begin where their pointers point, as all of ours do, in place of those with an open offset."""
    from tvm import tirx
    from tvm_ffi.structural import structural_map

    new = {
        buffer: tirx.decl_buffer(buffer.shape, str(buffer.dtype), buffer.name)
        for buffer in buffers
        if not hasattr(buffer.elem_offset, "value")
    }
    if not new:
        return buffers, statement
    mapped = structural_map(statement, [(tirx.Var, lambda var: new.get(var, var))])
    return [new.get(buffer, buffer) for buffer in buffers], mapped


def _serial(statement: Any) -> Any:
    """Parallel loops as plain ones, without notes to the code generator: threads are the runtime's, which cuts kernels
    at their outermost loop.
    """
    from tvm import tirx
    from tvm_ffi.structural import structural_map

    def plain(loop: Any) -> Any:
        if loop.kind != tirx.stmt.ForKind.PARALLEL:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.stmt.ForKind.SERIAL, loop.body)

    def bare(attribute: Any) -> Any:
        return attribute.body if attribute.attr_key == "pragma_scope" else attribute

    return structural_map(statement, [(tirx.For, plain), (tirx.AttrStmt, bare)])


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


def numpy_dtype(name: str) -> str:
    """TVM's name of a type as numpy's."""
    try:
        return str(np.dtype(name).name)
    except TypeError:
        raise Unsupported(f"it works on {name} values") from None
