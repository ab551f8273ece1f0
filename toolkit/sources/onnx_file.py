"""A user's ONNX file: everything that can be wrong with it is found here, and said in one sentence.

A file comes from anywhere. Nothing in it is followed before it is checked: external data stays inside the file's own
folder, sizes are bounded before anything is allocated, functions that call themselves are found before inlining.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from inception_deploy.errors import DeployError
from inception_deploy.graph import qoperators
from inception_deploy.graph.skeleton import check, restore, skeleton
from inception_deploy.graph.spell import spell_out
from inception_deploy.sources import halves, legacy
from inception_deploy.sources.bounds import bodies, check_constants, check_expansion

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    from google.protobuf.message import Message  # type: ignore[import-untyped]

MAX_BYTES = 2**31 - 1
"""What one protobuf may hold, weights included; every later stage hands the model around as one."""

MAX_ELEMENTS = 2**31 - 1
"""The largest tensor, weight or activation. The largest of the known networks has 1.0e8 (VGG's first linear layer)."""

MAX_RANK = 32
"""The axes of a tensor; numpy has at most 64, and networks 6."""

OLDEST_OPSET = 18
"""The passes and the lowering know this one and newer; an older file is converted to `TARGET_OPSET`."""

TARGET_OPSET = 20
OLDEST_IR = 8
"""The file format of opset 18; before version 4 every initialiser had to be listed as an input as well."""

INPUT_TYPES = ("FLOAT", "UINT8", "INT8", "INT32", "INT64", "BOOL")
"""What a run-time input may be."""

STANDARD_DOMAINS = ("", "ai.onnx")


def load(path: str | Path, tell: Callable[[str], None] = lambda _: None) -> onnx.ModelProto:
    """Read and validate an ONNX file for an image network.

    Args:
        tell: is told what the user should know of how the file is read.

    Returns:
        The model with its weights inline, its functions inlined, its nodes in order, opset `OLDEST_OPSET` or newer, one
        float32 input that is no initialiser, every shape inferred that can be.

    Raises:
        DeployError: names the file, what is wrong with it and what is allowed.
    """
    import onnx_ir as ir

    path = Path(path)
    with _about(path):
        model = _parse(path)
        _open_sizes(model)
        _check_tensors(model)
        _load_external_data(model, path.parent.resolve())
        model = _inline_functions(model)
        _check_operators(model)
        _sort(model.graph)
        _check_interface(model)
        check_constants(model, open_sizes=True)
        if halves.widen(_graphs(model), _nodes(model.graph), _tensors(model)):
            tell(f"{path.name}: it computes in 16-bit floats; here it is computed in float32, its weights widened")
        read = _to_ir(model)
        if qoperators.has_sixteen(read):
            read = _modern(read, qoperators.OPSET_OF_SIXTEEN)
        qoperators.to_qdq(read)
        modern = _modern(read)
        spell_out(modern)
        return ir.to_proto(_infer(modern))


def fix_batch(
    model: onnx.ModelProto, batch: int | None = None, input_size: Sequence[int] | None = None
) -> onnx.ModelProto:
    """`model` with its inputs' symbolic sizes given values, and every other shape inferred anew.

    Args:
        model: left as it was. Where the size is to be set, at least one input has four axes, (N, C, H, W) or
            (N, H, W, C).
        batch: the first axis; None for the file's own, or 1 where it leaves that open.
        input_size: (H, W); None where the file has both.

    Raises:
        DeployError: the file fixes another size, leaves one open that was not given, or does not work with these.
    """
    import onnx_ir as ir

    copy = ir.from_proto(model)
    pictures = [value for value in copy.graph.inputs if value.shape is not None and len(value.shape) == 4]
    for value in copy.graph.inputs:
        value.shape = _fixed(value, batch, input_size if value in pictures or not pictures else None)
    for output in copy.graph.outputs:
        output.shape = None
    return ir.to_proto(_infer(copy))


def _fixed(value: ir.Value, batch: int | None, input_size: Sequence[int] | None) -> ir.Shape:
    """The shape of an input with its symbolic sizes given values."""
    import onnx_ir as ir

    if value.shape is None:
        raise DeployError(f"input {value.name!r} has no shape", kind="onnx", allowed="a shape, symbolic or not")
    sizes: list[int | None] = [size if isinstance(size, int) else None for size in value.shape]
    if batch is None:
        batch = sizes[0] or 1 if sizes else 1
    wanted: dict[int, tuple[str, int]] = {0: ("batch", batch)}
    if input_size is not None:
        if len(sizes) != 4:
            message = f"input {value.name!r} has {len(sizes)} axes, so it has no height and width to set"
            raise DeployError(message, kind="input-size", got=sizes, allowed="4 axes")
        first = 1 if sizes[1] is None and sizes[3] is not None else 2
        wanted |= {first: ("height", input_size[0]), first + 1: ("width", input_size[1])}
    for axis, (name, size) in wanted.items():
        if size < 1:
            raise DeployError(f"the {name} must be positive", kind="input-size", got=size, allowed=">= 1")
        if sizes[axis] not in (None, size):
            message = (
                f"the file fixes the {name} of {value.name!r} to {sizes[axis]}; export it again with a symbolic {name}"
            )
            raise DeployError(message, kind="input-size", got=size, allowed=sizes[axis])
        sizes[axis] = size
    if None in sizes:
        message = f"input {value.name!r} leaves sizes open: {[s or '?' for s in sizes]}; give --input-size"
        raise DeployError(message, kind="input-size", got=[s or "?" for s in sizes], allowed="a height and a width")
    return ir.Shape(sizes)


# -- reading --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _about(path: Path) -> Iterator[None]:
    """Every refusal inside the block names the file."""
    try:
        yield
    except DeployError as error:
        message = f"{path}: {error.message}"
        raise DeployError(message, kind=error.kind, got=error.got, allowed=error.allowed) from error
    except OSError as error:
        raise DeployError(f"{path}: {error.strerror or error}", kind="onnx", allowed="a readable .onnx file") from error


def _parse(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    if path.is_dir():
        raise DeployError("is a folder", kind="onnx", got="folder", allowed="an .onnx file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise _too_big(size)
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError as error:
        message = "is not an ONNX model: it is truncated or of another format"
        raise DeployError(message, kind="onnx", got=f"{size} bytes", allowed="a serialised onnx.ModelProto") from error
    if not model.ir_version or not model.graph.node:
        what = "is empty" if not size else "holds no graph: it is truncated, empty or of another format"
        raise DeployError(what, kind="onnx", got=f"{size} bytes", allowed="a serialised onnx.ModelProto with nodes")
    _check_text(model)
    return model


def _check_text(message: Message) -> None:
    """Every text field of a message is text: protobuf gives bytes for what is not UTF-8.

    Raises:
        DeployError: names the field.
    """
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.type == field.TYPE_MESSAGE:
            for inner in values:
                _check_text(inner)
        elif field.type == field.TYPE_STRING and not all(isinstance(text, str) for text in values):
            where = f"{message.DESCRIPTOR.name}.{field.name}"
            got = [repr(text) for text in values if not isinstance(text, str)]
            raise DeployError(f"has text that is not UTF-8 in {where}", kind="onnx", got=got, allowed="UTF-8")


def _too_big(size: int) -> DeployError:
    message = f"the model with its weights takes {size / 2**30:.1f} GiB"
    return DeployError(message, kind="onnx", got=size, allowed=f"at most {MAX_BYTES} bytes (one protobuf)")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of If, Loop and Scan bodies included."""
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from _nodes(body)


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _nodes(model.graph)
    for function in model.functions:
        for node in function.node:
            yield node
            for body in bodies(node):
                yield from _nodes(body)


def _graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    """The graph and all bodies."""
    return [model.graph, *(body for node in _all_nodes(model) for body in bodies(node))]


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, wherever it hides."""
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse_tensors = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*sparse_tensors, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


# -- sizes and weights ----------------------------------------------------------------------------------------------


def _open_sizes(model: onnx.ModelProto) -> None:
    """Sizes below zero are left open, as PaddlePaddle and others mean them."""
    for graph in _graphs(model):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for size in value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ():
                if size.HasField("dim_value") and size.dim_value < 0:
                    size.ClearField("dim_value")


def _check_tensors(model: onnx.ModelProto) -> None:
    """Every weight's shape is sane and, where its data is inline, matches its data."""
    import onnx

    for tensor in _tensors(model):
        elements = _elements(tensor.dims, f"tensor {tensor.name!r}")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            continue
        expected, stored = _bytes(tensor, elements), _stored_bytes(tensor)
        if expected is not None and expected != stored:
            message = f"tensor {tensor.name!r} of shape {list(tensor.dims)} holds {stored} bytes"
            raise DeployError(message, kind="onnx", got=stored, allowed=expected)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        shape = value.type.tensor_type.shape
        _elements([d.dim_value for d in shape.dim if d.HasField("dim_value")], f"value {value.name!r}")


def _elements(dims: Sequence[int], what: str) -> int:
    """The product of `dims`, in Python's integers, which do not overflow."""
    if any(size < 0 for size in dims):
        raise DeployError(f"{what} has a negative size", kind="onnx", got=list(dims), allowed=">= 0")
    if len(dims) > MAX_RANK:
        raise DeployError(f"{what} has {len(dims)} axes", kind="onnx", got=len(dims), allowed=f"at most {MAX_RANK}")
    elements = math.prod(dims)
    if elements > MAX_ELEMENTS:
        raise DeployError(
            f"{what} of shape {list(dims)} is too big",
            kind="onnx",
            got=elements,
            allowed=f"at most {MAX_ELEMENTS} elements",
        )
    return elements


def _bytes(tensor: onnx.TensorProto, elements: int) -> int | None:
    """The bytes that `elements` take in the tensor's type; None for text.

    Raises:
        DeployError: the type is unknown.
    """
    import onnx_ir as ir

    try:
        kind = ir.DataType(tensor.data_type)
    except ValueError as error:
        message = f"tensor {tensor.name!r} has an unknown type"
        raise DeployError(message, kind="onnx", got=tensor.data_type, allowed="a type of onnx.TensorProto") from error
    if kind == ir.DataType.UNDEFINED:
        message = f"tensor {tensor.name!r} has no type"
        raise DeployError(message, kind="onnx", got=0, allowed="a type of onnx.TensorProto")
    return None if kind == ir.DataType.STRING else math.ceil(elements * kind.bitwidth / 8)


def _stored_bytes(tensor: onnx.TensorProto) -> int:
    """The bytes of a tensor's data once packed, from whichever of protobuf's fields holds it."""
    import onnx
    import onnx_ir as ir

    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    per_entry = math.ceil(ir.DataType(tensor.data_type).bitwidth / 8)  # types below a byte are packed to bytes there
    if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        per_entry //= 2
    return len(getattr(tensor, field)) * per_entry


def _load_external_data(model: onnx.ModelProto, folder: Path) -> None:
    """Bring external data inline, from inside `folder` only."""
    import onnx

    external = [tensor for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    total = model.ByteSize() + sum(_bytes(t, math.prod(t.dims)) or 0 for t in external) if external else 0
    if total > MAX_BYTES:
        raise _too_big(total)
    for tensor in external:
        where = {entry.key: entry.value for entry in tensor.external_data}
        path = _inside(folder, where.get("location", ""), tensor.name)
        length = _bytes(tensor, math.prod(tensor.dims))
        if length is None:
            raise DeployError(f"tensor {tensor.name!r} keeps text outside the file", kind="onnx", allowed="numbers")
        offset = _natural(where.get("offset", "0"), f"the offset of tensor {tensor.name!r}")
        stated = _natural(where.get("length", str(length)), f"the length of tensor {tensor.name!r}")
        if stated != length or offset + length > path.stat().st_size:
            message = (
                f"tensor {tensor.name!r} of shape {list(tensor.dims)} does not fit its external data in {path.name}"
            )
            got = {"offset": offset, "length": stated, "file": path.stat().st_size}
            raise DeployError(message, kind="onnx", got=got, allowed=f"{length} bytes inside the file")
        with path.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def _inside(folder: Path, location: str, name: str) -> Path:
    """The file `location` names, which must be inside `folder` after every ``..`` and symbolic link."""
    allowed = f"a path inside {folder}"
    windows = PureWindowsPath(location)
    if not location or "\0" in location or Path(location).is_absolute() or windows.drive or windows.root:
        message = f"the external data of tensor {name!r} has no relative path"
        raise DeployError(message, kind="onnx", got=location, allowed=allowed)
    path = (folder / location).resolve()
    if ".." in windows.parts or not path.is_relative_to(folder):
        raise DeployError(
            f"the external data of tensor {name!r} lies outside the file's folder",
            kind="onnx",
            got=location,
            allowed=allowed,
        )
    if not path.is_file():
        message = f"the external data of tensor {name!r} is missing: {location}"
        raise DeployError(message, kind="onnx", got=location, allowed=allowed)
    return path


def _natural(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise DeployError(f"{what} is not a natural number", kind="onnx", got=text, allowed=">= 0")
    return int(text)


# -- operators and order --------------------------------------------------------------------------------------------


def _inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace calls of the model's own functions by their bodies, once it is known what that makes."""
    check_expansion(model)
    if not model.functions:
        return model
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the C++ inliner raises plain RuntimeError
        raise DeployError(f"its functions cannot be inlined: {_first_line(error)}", kind="onnx") from error


def _check_operators(model: onnx.ModelProto) -> None:
    """Every operator is one of ONNX's own, in a version that is known here."""
    import onnx

    versions = {entry.domain if entry.domain != "ai.onnx" else "": entry.version for entry in model.opset_import}
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= versions.get("", 0) <= newest:
        raise DeployError("has an unknown opset", kind="onnx", got=versions.get(""), allowed=f"1 to {newest}")
    unknown: dict[str, list[str]] = {}
    for node in _nodes(model.graph):
        domain = node.domain if node.domain not in STANDARD_DOMAINS else ""
        if qoperators.knows(domain, node.op_type):
            continue
        if not onnx.defs.has(node.op_type, max_inclusive_version=versions.get(domain, 1), domain=domain):
            operator = f"{domain}.{node.op_type}".lstrip(".")
            unknown.setdefault(operator, []).append(node.name or ", ".join(node.output))
    if unknown:
        listed = "; ".join(f"{op} ({_some(nodes)})" for op, nodes in sorted(unknown.items()))
        raise DeployError(
            f"has operators that ONNX opset {versions['']} does not define: {listed}",
            kind="onnx",
            got=sorted(unknown),
            allowed=f"the operators of ONNX up to opset {newest}",
        )


def _sort(graph: onnx.GraphProto) -> None:
    """Put the nodes in an order in which they can run, the file's own order where that is one already.

    Raises:
        DeployError: a value is made twice or by nobody, or nodes wait for each other.
    """
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    maker: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in known or name in maker:
                raise DeployError(f"value {name!r} is made twice", kind="onnx", got=name, allowed="one node per value")
            maker[name] = index
    needs = [{name for name in _reads(node) if name not in known} for node in graph.node]
    for node, names in zip(graph.node, needs, strict=True):
        missing = sorted(name for name in names if name not in maker and name in node.input)
        if missing:
            message = f"node {_label(node)} reads {missing[0]!r}, which nothing makes"
            raise DeployError(
                message, kind="onnx", got=missing[0], allowed="an input, an initialiser or a node's output"
            )
    unmade = [value.name for value in graph.output if value.name not in maker and value.name not in known]
    if unmade:
        raise DeployError(
            f"output {unmade[0]!r} is made by nothing", kind="onnx", got=unmade[0], allowed="a node's output"
        )
    waiting = [{maker[name] for name in names if name in maker} for names in needs]
    readers: list[list[int]] = [[] for _ in graph.node]
    for index, sources in enumerate(waiting):
        for source in sources:
            readers[source].append(index)
    order: list[int] = []
    ready = [index for index, sources in enumerate(waiting) if not sources][::-1]
    while ready:
        index = ready.pop()
        order.append(index)
        for reader in readers[index]:
            waiting[reader].discard(index)
            if not waiting[reader]:
                ready.append(reader)
    if len(order) < len(graph.node):
        cycle = _cycle(waiting)
        named = " -> ".join(_label(graph.node[index]) for index in (*cycle, cycle[0]))
        raise DeployError(f"has a cycle: {named}", kind="onnx", got=named, allowed="a graph without cycles")
    if order != sorted(order) and not _runs_as_it_is(needs, maker):
        nodes = [graph.node[index] for index in order]
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)


def _runs_as_it_is(needs: list[set[str]], maker: dict[str, int]) -> bool:
    return all(maker.get(name, -1) < index for index, names in enumerate(needs) for name in names)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names a node reads, those that its bodies take from outside included."""
    yield from node.input
    for body in bodies(node):
        inner = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        inner |= {name for child in body.node for name in child.output}
        yield from (name for child in body.node for name in _reads(child) if name not in inner)
        yield from (value.name for value in body.output if value.name not in inner)


def _cycle(waiting: list[set[int]]) -> list[int]:
    """Some nodes that wait for each other, in the order of the data."""
    index = next(index for index, sources in enumerate(waiting) if sources)
    path: list[int] = []
    while index not in path:
        path.append(index)
        index = min(waiting[index])
    return path[path.index(index) :][::-1]


def _check_interface(model: onnx.ModelProto) -> None:
    """Inputs of float32, whole numbers or truth values; initialisers that are listed as inputs too (files before IR
    version 4) leave that list.
    """
    import onnx

    graph = model.graph
    initializers = {tensor.name for tensor in graph.initializer}
    real = [value for value in graph.input if value.name not in initializers]
    if not real:
        raise DeployError("has no input", kind="onnx", got=0, allowed="at least one input")
    for value in real:
        kind = value.type.tensor_type
        names = {number: name for name, number in onnx.TensorProto.DataType.items()}
        got = names.get(kind.elem_type, f"type {kind.elem_type}") if kind.elem_type else "no tensor"
        if got not in INPUT_TYPES:
            how = "; export it with float32 inputs (keep_io_types)" if got in ("FLOAT16", "BFLOAT16") else ""
            message = f"input {value.name!r} is not float32 but {got.lower()}{how}"
            raise DeployError(message, kind="onnx", got=got, allowed=INPUT_TYPES)
        if not kind.HasField("shape") or not kind.shape.dim:
            message = f"input {value.name!r} has no shape"
            raise DeployError(message, kind="onnx", got=None, allowed="(N, C, H, W), symbolic or not")
    if not graph.output:
        raise DeployError("has no output", kind="onnx", got=0, allowed="at least one output")
    kept = [type(value).FromString(value.SerializeToString()) for value in real]
    del graph.input[:]
    graph.input.extend(kept)
    model.ir_version = max(model.ir_version, OLDEST_IR)


# -- shapes and versions --------------------------------------------------------------------------------------------


def _to_ir(model: onnx.ModelProto) -> ir.Model:
    import onnx_ir as ir

    try:
        return ir.from_proto(model)
    except Exception as error:  # whatever a malformed attribute makes the reader raise
        raise DeployError(f"cannot be read: {_first_line(error)}", kind="onnx") from error


def _modern(model: ir.Model, least: int = OLDEST_OPSET) -> ir.Model:
    """`model` in an opset that the passes know, and not older than `least`."""
    import onnx

    version, wanted = model.opset_imports[""], max(least, TARGET_OPSET)
    if version >= least:
        return model
    try:
        _infer(model)
        samplers = legacy.samplers(model) if version < 11 else {}
        if version < 11:
            legacy.drop_idle_values(model)
        if version < 7:
            legacy.align_operands(model)
        made = restore(onnx.version_converter.convert_version(skeleton(model), wanted), model)
        legacy.keep_coordinates(made, samplers)
        return made
    except DeployError:
        raise
    except Exception as error:  # the C++ converter raises plain RuntimeError where it lacks a step
        message = f"opset {version} cannot be converted to {wanted}: {_first_line(error)}"
        raise DeployError(message, kind="onnx", got=version, allowed=f"opset {least} or newer") from error


def _infer(model: ir.Model) -> ir.Model:
    """`model` checked by onnx, with its shapes inferred and each of them sane."""
    try:
        check(model)
    except Exception as error:  # onnx's ValidationError, InferenceError, and what its C++ lets through
        raise DeployError(f"onnx's checker refuses it: {_first_line(error)}", kind="onnx") from error
    for node in model.graph:
        for value in node.outputs:
            sizes = [size for size in value.shape or () if isinstance(size, int)]
            _elements(sizes, f"the output of node {node.name or node.op_type!r}")
            if len(sizes) == 4 and 0 in sizes:
                message = f"the output of node {node.name or node.op_type!r} is empty: the input is too small"
                raise DeployError(message, kind="onnx", got=sizes, allowed="sizes of at least 1")
    return model


def _label(node: onnx.NodeProto) -> str:
    return f"{node.name or node.op_type!r}"


def _some(names: list[str], count: int = 5) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
