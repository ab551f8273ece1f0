"""From a PyTorch module, or from a user's ONNX file, to one checked and simplified ONNX model.

The module is captured by torch.export and written by torch's current ONNX exporter; its nodes are named after the torch
modules they come from (``block35_3/branch1/conv2``), because every later table shows them. onnxsim then removes what
only computes shapes. Folding and branch passes come after, in `inception_deploy.graph`.

The bytes are a function of the module's structure, its weights and the shape: nothing of the machine, the time or the
source files stays in the model.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from inception_deploy import artifact
from inception_deploy.errors import DeployError, UsageError, nearest
from inception_deploy.graph.clean import fold_constants
from inception_deploy.graph.skeleton import check, restore, skeleton
from inception_deploy.graph.spell import spell_out
from inception_deploy.graph.windows import explicit_windows
from inception_deploy.sources import onnx_file
from inception_deploy.sources.bounds import check_constants
from inception_deploy.verify import compare, run_onnx

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir as ir
    import torch
    from numpy.typing import NDArray

OPSET = 20
"""AveragePool counts a ceil-mode border rightly from 19 on; TVM 0.27, onnxruntime and its int8 QDQ all take 20."""

IR_VERSION = 10
"""The oldest file format that may hold opset 20, so that the most runtimes read it."""

SKIPPED = [
    "fuse_add_bias_into_conv",
    "fuse_consecutive_concats",
    "fuse_matmul_add_bias_into_gemm",
    "fuse_pad_into_conv",
    "fuse_pad_into_pool",
]
"""onnxsim's rewrites that `graph` does itself, checked and counted."""

INPUT, OUTPUT = "input", "logits"
_OURS = "inception_deploy."
"""How our keys of `metadata_props` begin."""

EXPORTER = f"{_OURS}exporter"
"""The `metadata_props` key that tells which of torch's exporters made the model (`exporter_of`)."""

Progress = Callable[[str], None]


def to_onnx(
    module: torch.nn.Module, shape: Sequence[int], *, dynamic_batch: bool = False, progress: Progress | None = None
) -> onnx.ModelProto:
    """Export `module` in evaluation mode.

    Args:
        module: takes one float32 tensor. Of several outputs the first counts.
        shape: the input's shape, usually (N, C, H, W).
        dynamic_batch: leave the first axis symbolic, named ``batch``; the other axes stay fixed.
        progress: is told what is being done, one short line a step.

    Returns:
        Opset `OPSET`, input ``input``, output ``logits``, weights inline, every node named, shapes inferred. Batch
        normalisation is still there; `inception_deploy.graph.driver.optimise` folds it.

    Raises:
        DeployError: the module does not run on this shape, or cannot be exported.
    """
    say = progress or (lambda _: None)
    with _evaluating(module):
        say("running the module once")
        example = _example(module, shape, dynamic_batch)
        say("exporting with torch.export")
        try:
            model, exporter = _export(module, example, dynamic_batch), "torch.export"
        except Exception as error:  # torch.export has dozens of exception types; any of them means "try the older way"
            say("torch.export failed; exporting by tracing (the legacy exporter)")
            model, exporter = _export_by_tracing(module, example, dynamic_batch, error), "torch.jit.trace"
    say("simplifying")
    model = simplify(model)
    model.metadata_props[EXPORTER] = exporter
    return _to_proto(model)


def load_onnx(
    path: str | Path,
    *,
    batch: int | None = None,
    input_size: Sequence[int] | None = None,
    static: bool = False,
    tell: Progress = lambda _: None,
) -> onnx.ModelProto:
    """A user's ONNX file, validated (`onnx_file.load`), its input fixed (`onnx_file.fix_batch`) and simplified.

    Args:
        batch, input_size: what to fix; without both, symbolic sizes stay unless the graph is to be `static`.
        tell: is told what the user should know of how the file is read.

    Raises:
        DeployError: the file is refused, with the reason.
    """
    import onnx_ir as ir

    model = onnx_file.load(path, tell)
    if static or batch is not None or input_size is not None:
        model = onnx_file.fix_batch(model, batch, input_size)
    return _to_proto(simplify(ir.from_proto(model)))


def exporter_of(model: onnx.ModelProto) -> str:
    """``torch.export``, ``torch.jit.trace`` (the legacy exporter), or ``onnx`` for a model that came as a file."""
    return next((entry.value for entry in model.metadata_props if entry.key == EXPORTER), "onnx")


def run_torch(module: torch.nn.Module, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first output of `module`, in evaluation mode, on `inputs` (float32, the model's input shape)."""
    import numpy as np
    import torch

    with _evaluating(module), torch.no_grad():
        return np.asarray(_first(module(torch.from_numpy(inputs))))


def check_against_torch(
    module: torch.nn.Module, model: onnx.ModelProto, inputs: NDArray[np.float32]
) -> dict[str, object]:
    """One ``verify`` row: `model` in onnxruntime against `module`, on `inputs` (float32, the model's input shape)."""
    return compare(run_torch(module, inputs), run_onnx(model, {model.graph.input[0].name: inputs})[0], "onnx")


def load_callable(text: str) -> torch.nn.Module:
    """The module that ``file.py:name`` or ``package.module:name`` gives, in evaluation mode.

    `name` is a `torch.nn.Module`, or anything that gives one when called without arguments (a class, a function).
    The file's folder is importable while it runs, so that it may have neighbours.

    Raises:
        UsageError: `text` has not that form, or the file, the module or the name does not exist.
        DeployError: importing or calling it failed, or what it gave is not a `torch.nn.Module`.
    """
    import torch

    where, colon, name = text.rpartition(":")
    if not colon or not where or not name.isidentifier():
        raise UsageError(
            f"{text!r} does not name a callable",
            kind="model",
            got=text,
            allowed="file.py:callable or package.module:callable",
        )
    with _importable_folder(where):
        container = _import(where)
        if not hasattr(container, name):
            public = [key for key in vars(container) if not key.startswith("_")]
            near = nearest(name, public)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UsageError(f"{where} has no {name!r}{hint}", kind="model", got=name, allowed=sorted(public))
        made = getattr(container, name)
        if not isinstance(made, torch.nn.Module):
            if not callable(made):
                raise DeployError(
                    _not_a_module(text, made), kind="model", got=type(made).__name__, allowed="torch.nn.Module"
                )
            made = _user_code(made, f"calling {text}")
    if not isinstance(made, torch.nn.Module):
        raise DeployError(_not_a_module(text, made), kind="model", got=type(made).__name__, allowed="torch.nn.Module")
    return made.eval()


def as_float32(module: torch.nn.Module) -> list[str]:
    """Make the parameters and buffers of `module` float32, in place; a line for the user where some were not."""
    dtypes = {tensor.dtype for tensor in (*module.parameters(), *module.buffers())}
    others = {str(kind).removeprefix("torch.") for kind in dtypes if kind.is_floating_point} - {"float32"}
    if not others:
        return []
    module.float()
    return [f"the module is {', '.join(sorted(others))}; it is converted to float32"]


def simplify(model: ir.Model) -> ir.Model:
    """Run onnxsim on `model` without its weights, name what has no name, infer shapes, drop what tells of the producer.

    Raises:
        DeployError: onnxsim or the checker fails on it.
    """
    import onnxsim
    from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

    check_constants(skeleton(model))
    try:
        if any(node.op_type == "If" for node in model.graph):
            fold_constants(model)  # one whose condition is known becomes its branch
            check(model)
        spell_out(model)
        explicit_windows(model)  # first of all: nothing after it reads auto_pad or ceil_mode the way the file means it
        bare = skeleton(model)
        # from 0.8 on it proves its own steps, which we check by numbers; Python 3.10 has 0.7
        unproven = {"certify": False} if "certify" in signature(onnxsim.simplify).parameters else {}
        simplified, _ = onnxsim.simplify(bare, check_n=0, skipped_optimizers=SKIPPED, **unproven)
        model = restore(simplified, model)
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        RemoveUnusedNodesPass()(model)
        _strip(model)
        _name_missing(model)
        check(model)
    except Exception as error:  # three C++ tools, each with its own exception types
        raise DeployError(f"the graph cannot be simplified: {_last_line(error)}", kind="onnx") from error
    return model


# -- torch ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode for the time of a block; each submodule then gets its own mode back."""
    training = [child for child in module.modules() if child.training]
    module.eval()
    try:
        yield
    finally:
        for child in training:
            child.training = True


def _example(module: torch.nn.Module, shape: Sequence[int], dynamic_batch: bool) -> torch.Tensor:
    """A seeded input of `shape` on which `module` has been run once, so that the user's own fault shows as such."""
    import torch

    dtypes = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    if dtypes - {torch.float32}:
        raise DeployError(
            "the module has parameters that are not float32",
            kind="model",
            got=sorted(map(str, dtypes)),
            allowed="torch.float32",
        )
    sizes = list(shape)
    if not sizes or any(size < 1 for size in sizes):
        raise UsageError(f"not an input shape: {sizes}", kind="input-size", got=sizes, allowed="positive sizes")
    if dynamic_batch:
        sizes[0] = max(2, sizes[0])  # torch.export takes an example batch of 1 for a constant
    example = torch.randn(sizes, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = _user_code(lambda: module(example), f"running the module on an input of shape {sizes}")
    first = _first(output)
    if not isinstance(first, torch.Tensor) or first.dtype != torch.float32:
        got = str(first.dtype) if isinstance(first, torch.Tensor) else type(first).__name__
        raise DeployError(
            "the module's first output is not a float32 tensor", kind="model", got=got, allowed="torch.float32"
        )
    return example


def _first(output: Any) -> Any:
    """The first tensor of what a module returns: a tensor, a sequence, a mapping."""
    while not hasattr(output, "dtype"):
        if isinstance(output, dict):
            output = next(iter(output.values()), None)
        elif isinstance(output, (tuple, list)):
            output = output[0] if output else None
        else:
            break
    return output


def _export(module: torch.nn.Module, example: torch.Tensor, dynamic_batch: bool) -> ir.Model:
    """torch's current exporter, unoptimised: its optimiser would fold batch normalisation and lose the names."""
    import torch
    from onnx_ir.passes.common import RemoveUnusedNodesPass
    from onnxscript import optimizer

    dynamic = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    with _quiet():
        program = torch.onnx.export(
            module, (example,), dynamo=True, opset_version=OPSET, optimize=False, verbose=False, dynamic_shapes=dynamic
        )
        assert program is not None
        model = program.model
        _keep_first_output(model)
        optimizer.fold_constants(model)
        RemoveUnusedNodesPass()(model)
    _name_after_modules(model)
    return model


def _export_by_tracing(
    module: torch.nn.Module, example: torch.Tensor, dynamic_batch: bool, reason: Exception
) -> ir.Model:
    """The legacy exporter, for what torch.export cannot capture.

    Tracing records the one path that the example takes. Where torch warns that the path depends on the data, the result
    would be another network than the user's, so that is refused.
    """
    import onnx
    import onnx_ir as ir
    import torch
    from torch.jit._trace import TracerWarning

    try:
        with _quiet() as caught, artifact.temporary() as folder:
            path = folder / "model.onnx"
            torch.onnx.export(
                module,
                (example,),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                dynamic_axes={INPUT: {0: "batch"}} if dynamic_batch else None,
                do_constant_folding=False,
            )
            model = ir.from_proto(onnx.load(path))
    except Exception as error:  # as above; both reasons go to the user
        raise DeployError(
            f"the module cannot be exported: torch.export: {_last_line(reason)}; tracing: {_last_line(error)}",
            kind="model",
        ) from reason
    unsafe = [str(w.message) for w in caught if issubclass(w.category, TracerWarning)]
    if unsafe:
        raise DeployError(
            f"the module's path depends on its data, so it cannot be exported: torch.export: {_last_line(reason)}; "
            f"tracing: {unsafe[0].splitlines()[0]}",
            kind="model",
            allowed="a module whose operators do not depend on the input's values",
        ) from reason
    _keep_first_output(model)
    for node in model.graph:
        node.name = (node.name or node.op_type).strip("/").replace(".", "/")
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Neither torch's logging nor its notes on its own deprecations reach the user; the warnings are given instead."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        logging.disable(level)


# -- names ----------------------------------------------------------------------------------------------------------


def _keep_first_output(model: ir.Model) -> None:
    """Name the graph's input and first output as the contract has it; the other outputs go, their nodes with them."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    del model.graph.outputs[1:]
    for value, name in ((model.graph.inputs[0], INPUT), (model.graph.outputs[0], OUTPUT)):
        for other in _values(model):
            if other is not value and other.name == name:
                other.name = f"{name}_inner"
        value.name = name
    RemoveUnusedNodesPass()(model)


def _name_after_modules(model: ir.Model) -> None:
    """Name every node after the torch module it comes from, every value after its node.

    A node that alone makes up a module of torch's (``stem.conv``) is called ``stem/conv``; one that a ``forward`` wrote
    itself is called ``stem/relu``, after its operator. Repeated names are counted: ``stem/relu_1``.
    """
    paths = {node: _module_path(node) for node in model.graph}
    operators: dict[str, set[str]] = {}
    for node, (path, is_leaf) in paths.items():
        if is_leaf:
            operators.setdefault(path, set()).add(node.op_type)
    taken = {value.name for value in _values(model) if not value.producer() or value.is_graph_output()}
    for node, (path, is_leaf) in paths.items():
        alone = is_leaf and len(operators[path]) == 1
        name = path if alone else f"{path}/{node.op_type.lower()}".lstrip("/")
        node.name = _unique(name, taken)
        for position, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = node.name if position == 0 else f"{node.name}.{position}"


def _module_path(node: ir.Node) -> tuple[str, bool]:
    """``("stem/conv", True)``: the path of the innermost torch module around `node`, and whether it is torch's own."""
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "['']"))
    classes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.class_hierarchy", "['']"))
    modules = [(scope, cls) for scope, cls in zip(scopes[:-1], classes[:-1], strict=False) if not scope.startswith("_")]
    path, cls = modules[-1] if modules else ("", "")
    return path.replace(".", "/"), bool(path) and cls.startswith("torch.nn.modules.") and ".container." not in cls


def _name_missing(model: ir.Model) -> None:
    """Give each node of a user's file, and each that onnxsim made, a name of its own; existing ones stay."""
    taken: set[str | None] = set()
    for node in model.graph:
        node.name = _unique(node.name or node.op_type.lower(), taken)


def _unique(name: str, taken: set[str | None]) -> str:
    """`name`, or `name` with the first free number; `taken` gets it."""
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph:
        yield from node.outputs


def _strip(model: ir.Model) -> None:
    """Drop source lines, stack traces, tool names and notes, which differ from machine to machine; ours stay."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedOpsetsPass

    ours = {key: value for key, value in model.metadata_props.items() if key.startswith(_OURS)}
    ClearMetadataAndDocStringPass()(model)
    RemoveUnusedOpsetsPass()(model)
    for value in _values(model):
        value.metadata_props.clear()
        value.doc_string = None
    model.metadata_props.clear()
    model.metadata_props.update(ours)
    model.graph.metadata_props.clear()
    model.doc_string = model.graph.doc_string = None
    model.graph.name = "main"
    model.producer_name, model.producer_version = "inception-deploy", None
    model.domain, model.model_version = None, None


def _to_proto(model: ir.Model) -> onnx.ModelProto:
    import onnx_ir as ir

    model.ir_version = max(IR_VERSION, model.ir_version if model.opset_imports.get("", 0) > OPSET else 0)
    return ir.to_proto(model)


# -- the user's code ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _importable_folder(where: str) -> Iterator[None]:
    folder = str(Path(where).resolve().parent if where.endswith(".py") else Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _import(where: str) -> ModuleType:
    """The Python module in a file, or by its dotted name."""
    if not where.endswith(".py"):
        try:
            found = importlib.util.find_spec(where)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise UsageError(
                f"there is no Python module {where!r}",
                kind="model",
                got=where,
                allowed="an importable module, or a path that ends in .py",
            )
        imported: ModuleType = _user_code(lambda: importlib.import_module(where), f"importing {where}")
        return imported
    path = Path(where)
    if not path.is_file():
        raise UsageError(f"no such file: {where}", kind="model", got=where, allowed="an existing .py file")
    spec = importlib.util.spec_from_file_location(f"_inception_deploy_user_{path.stem}", path)
    assert spec is not None
    loader = spec.loader
    assert loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up there
    _user_code(lambda: loader.exec_module(module), f"importing {where}")
    return module


def _user_code(call: Callable[[], Any], doing: str) -> Any:
    """What `call` returns; what it raises becomes a DeployError that names the user's line.

    SystemExit counts: a script without a ``__main__`` guard must not end the program with its own status.
    """
    try:
        return call()
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
        own = [f for f in frames if "site-packages" not in f.filename and not f.filename.startswith("<")]
        place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
        raise DeployError(
            f"{doing} raised {type(error).__name__}: {_last_line(error)}{place}", kind="model", got=type(error).__name__
        ) from error


def _not_a_module(text: str, made: object) -> str:
    return f"{text} gave {type(made).__name__}, not a torch.nn.Module"


def _last_line(error: BaseException) -> str:
    """The line of a long message that says what is wrong: the first that is not a heading or decoration."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(
        (line for line in lines if line and not line.startswith(("#", "Failed to", "-", "="))), type(error).__name__
    )
