"""What can run a bundle's network, behind one interface: our compiled library, or other engines on its ONNX."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import artifact
from ..errors import DeployError, UsageError, nearest
from ..ortsession import session_of, session_options
from ..runtime.plans import Plans
from .device import ELSEWHERE, PROGRAM

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..runtime.bundle import Bundle
    from ..runtime.compiled import CompiledModel


class Engine(Protocol):
    """A network ready to run."""

    name: str

    def run(self, *arrays: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """The outputs, in the graph's order, for one array an input, of the bundle's exact shapes."""


def check_peer(name: str) -> None:
    """Raise UsageError unless `name` is what `bench --against` takes."""
    _require_known(name, PEERS)


def _require_known(name: str, known: Iterable[str]) -> None:
    known = list(known)
    if name not in known:
        near = nearest(name, known)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no engine '{name}'{hint}", kind="engine", got=name, allowed=known)


class _Function:
    """An engine made of a name and a function."""

    def __init__(self, name: str, run: Callable[..., Sequence[NDArray[Any]]]) -> None:
        self.name = name
        self.run = run


def default_threads() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


def make(name: str, bundle: Bundle, *, threads: int | None = None, driver: Path | None = None) -> Engine:
    """The engine `name` for `bundle`, with exactly `threads` threads (all cores this process may use where None), and
    with another driver library of the accelerator than the usual one. Of a bundle of several plans it runs each.

    Raises:
        UsageError: there is no such engine, or it has no driver.
        DeployError: (kind ``engine``) it is not installed, or (kind ``target``) the bundle's target cannot run here.
    """
    return _Function(name, plans(name, bundle, threads=threads, driver=driver).run)


def plans(
    name: str, bundle: Bundle, *, threads: int | None = None, driver: Path | None = None
) -> Plans[CompiledModel | _Function]:
    """The engine of `make` for each of the bundle's plans."""
    _require_known(name, ("compiled", *PEERS))
    if name == "compiled":
        return Plans(bundle.batches, lambda number: load_compiled(bundle.plan(number), threads, driver))
    if driver is not None:
        message = f"--driver is for the compiled library; {name} drives no accelerator"
        raise UsageError(message, kind="engine", got=name, allowed="compiled")
    made, count = _ENGINES[name], threads or default_threads()
    return Plans(bundle.batches, lambda number: _Function(name, made(bundle.plan(number), count)))


def streams(name: str, bundle: Bundle, count: int, threads: int) -> list[Callable[..., Sequence[NDArray[Any]]]]:
    """`count` functions that run the bundle's network at the same time, each with `threads` threads of its own.

    Args:
        name: of `STREAMED`.

    Raises:
        DeployError: as `make`.
    """
    if name == "compiled":
        return [load_compiled(bundle, threads).run for _ in range(count)]
    if name == "openvino":
        compiled = _openvino_compiled(bundle, count * threads, {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": count})
        return [_requests(compiled) for _ in range(count)]
    return [_ENGINES[name](bundle, threads) for _ in range(count)]


def _requests(compiled: Any) -> Callable[..., Sequence[NDArray[Any]]]:
    """A request of OpenVINO's own, which waits for no other's."""
    request, outputs = compiled.create_infer_request(), range(len(compiled.outputs))

    def run(*arrays: NDArray[Any]) -> Sequence[NDArray[Any]]:
        result = request.infer(list(arrays))
        return [result[index] for index in outputs]

    return run


def simulated(bundle: Bundle, driver: Path | None = None) -> str | None:
    """What times of a bundle's compiled library do not mean here: its accelerator is not there; None where they mean
    what they say.
    """
    details = bundle.manifest.get("target_details", {})
    if details.get("kind") != "vta" or driver is not None or bundle.manifest.get("onnx_only"):
        return None
    if not str(details.get("variant", "")).startswith("sim") and details.get("machine") == platform.machine():
        return None
    return "the VTA is simulated: times are the simulator's, not a board's, which inspect estimates"


def load_compiled(bundle: Bundle, threads: int | None = None, driver: Path | None = None) -> CompiledModel:
    """The bundle's compiled library as a `runtime.CompiledModel`; `driver` as `compiled.load` takes it. Of several
    plans it is the first, or that of `Bundle.plan`.

    Raises:
        DeployError: (kind ``target``) the bundle's target cannot run here.
    """
    from ..runtime import compiled
    from ..targets import described, listing

    if bundle.manifest.get("onnx_only"):
        message = f"bundle {bundle.source} was exported with --onnx-only; --runtime onnxruntime runs its ONNX"
        raise DeployError(message, kind="target", got="no compiled library", allowed="export without --onnx-only")
    if reason := described(bundle.manifest["target_details"]).missing():
        there = f"; {ELSEWHERE}" if (bundle.folder / PROGRAM).exists() else ""
        raise DeployError(
            f"bundle {bundle.source} is for {bundle.manifest['target']}, which cannot run here: {reason}{there}; "
            "--runtime onnxruntime runs its ONNX",
            kind="target",
            got=bundle.manifest["target"],
            allowed=[row["name"] for row in listing() if row["runs"]],
        )
    number = bundle.manifest.get("plan", 0)
    return compiled.load(bundle.folder, threads=threads or default_threads(), driver=driver, plan=number)


@contextmanager
def _onnx_of(bundle: Bundle) -> Iterator[str]:
    """The file that other engines run: the bundle's, or that for as many images as the plan computes."""
    if not bundle.manifest.get("plan"):
        yield str(bundle.onnx)
        return
    import onnx

    from ..graph.rows import with_rows

    with artifact.temporary() as folder:
        onnx.save(with_rows(onnx.load(str(bundle.onnx)), bundle.input_shape[0]), str(folder / "model.onnx"))
        yield str(folder / "model.onnx")


def _onnxruntime(bundle: Bundle, threads: int) -> Callable[..., Sequence[NDArray[Any]]]:
    options = session_options(threads)
    options.inter_op_num_threads = 1
    # Its workers spin after a run, waiting for the next: they would take the cores of whatever is measured after it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with _onnx_of(bundle) as path:
        session = session_of(path, options)
    names = [port.name for port in session.get_inputs()]
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def _openvino(bundle: Bundle, threads: int) -> Callable[..., Sequence[NDArray[Any]]]:
    compiled = _openvino_compiled(bundle, threads, {"PERFORMANCE_HINT": "LATENCY"})
    count = len(compiled.outputs)

    def run(*arrays: NDArray[Any]) -> Sequence[NDArray[Any]]:
        result = compiled(list(arrays))
        return [result[index] for index in range(count)]

    return run


def _openvino_compiled(bundle: Bundle, threads: int, how: Mapping[str, Any]) -> Any:
    """The bundle's ONNX as OpenVINO compiles it."""
    try:
        import openvino
    except ImportError as error:
        raise _not_installed("openvino", "pip install 'inception-deploy[bench]'") from error
    # It is told the bundle's precision: left to itself it computes in bf16 on a CPU that can.
    hint = "bf16" if bundle.manifest["precision"] == "bf16" else "f32"
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, **how}
    with _onnx_of(bundle) as path:
        return openvino.Core().compile_model(path, "CPU", options)


def _torch(bundle: Bundle, threads: int) -> Callable[..., Sequence[NDArray[Any]]]:
    import torch

    module = _zoo_module(bundle, "torch")

    def run(x: NDArray[np.float32]) -> Sequence[NDArray[Any]]:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return [module(torch.from_numpy(x)).numpy()]

    return run


def _torch_compile(bundle: Bundle, threads: int) -> Callable[..., Sequence[NDArray[Any]]]:
    """Inductor at its best: weights frozen (folded, and packed for oneDNN), in the faster of the two memory formats."""
    import copy

    import torch
    from torch._dynamo import config
    from torch._dynamo.exc import BackendCompilerFailed

    # all networks share one `forward`: beyond the limit it would run what is compiled next as it is, with a warning
    config.recompile_limit = max(config.recompile_limit, 64)

    module = _zoo_module(bundle, "torch-compile")
    torch.set_num_threads(threads)  # inductor writes it into the code
    bytes_in = bundle.manifest["inputs"][0]["dtype"] == "uint8"
    zeros = torch.zeros(tuple(bundle.input_shape), dtype=torch.uint8 if bytes_in else torch.float32)
    candidates: list[tuple[float, Any, Any]] = []
    for layout in (torch.contiguous_format, torch.channels_last):
        made: Any = copy.deepcopy(module)  # Any: torch's types do not know `memory_format` of a module
        compiled: Any = torch.compile(made.to(memory_format=layout), options={"freezing": True}, dynamic=False)
        with torch.inference_mode():
            x = zeros.to(memory_format=layout)
            try:
                compiled(x)
            except BackendCompilerFailed as error:
                first = str(error).strip().splitlines()[0]
                hint = "; apt install g++" if "compiler" in first else ""
                raise DeployError(
                    f"torch.compile cannot compile the network: {first}{hint}",
                    kind="engine",
                    got="torch-compile",
                    allowed=[name for name in _ENGINES if name != "torch-compile"],
                ) from error
            best = min(_timed(compiled, x) for _ in range(3))
        candidates.append((best, compiled, layout))
    _, fastest, layout = min(candidates, key=lambda candidate: candidate[0])

    def run(x: NDArray[np.float32]) -> Sequence[NDArray[Any]]:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return [fastest(torch.from_numpy(x).to(memory_format=layout)).numpy()]

    return run


def _timed(function: Callable[..., Any], x: Any) -> float:
    start = time.perf_counter()
    function(x)
    return time.perf_counter() - start


def _zoo_module(bundle: Bundle, engine: str) -> torch.nn.Module:
    """The bundle's network as a PyTorch module; its weights are the bundle's where those are untrained."""
    from ..models import build

    zoo = bundle.manifest.get("zoo")
    if zoo is None:
        raise DeployError(
            f"bundle {bundle.source} was not exported from a network of the zoo, so there is no PyTorch module to time",
            kind="engine",
            got=engine,
            allowed=[name for name in _ENGINES if not name.startswith("torch")],
        )
    module = build(
        bundle.manifest["model"],
        num_classes=zoo["num_classes"],
        width=zoo["width"],
        in_channels=zoo["input"][0],
        input_size=tuple(zoo["input"][1:]),
        seed=int(bundle.manifest.get("seed", 0)),
        **zoo["options"],
    )
    return module if zoo.get("normalised") is None else _of_bytes(module, zoo["normalised"])


def _of_bytes(module: torch.nn.Module, preprocessing: Mapping[str, Any]) -> torch.nn.Module:
    """A module behind what normalises bytes, as `sources.pixels` puts it before the ONNX."""
    import torch

    from ..runtime.preprocessing import from_dict
    from ..sources.pixels import affine

    factor, summand = (torch.from_numpy(values).reshape(1, -1, 1, 1) for values in affine(from_dict(preprocessing)))

    class OfBytes(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = module(x.permute(0, 3, 1, 2).float() * factor + summand)
            return made

    return OfBytes().eval()


def _not_installed(name: str, how: str) -> DeployError:
    return DeployError(
        f"{name} is not installed; {how}",
        kind="engine",
        got=name,
        allowed=["compiled", *(other for other in PEERS if other != name)],
    )


_ENGINES: dict[str, Callable[[Bundle, int], Callable[..., Sequence[NDArray[Any]]]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
    "torch-compile": _torch_compile,
}
STREAMED = ("compiled", "onnxruntime", "openvino")
"""What `bench --streams` measures."""
PEERS = tuple(_ENGINES)
"""What `bench --against` takes."""
