"""A model repository of NVIDIA's Triton Inference Server around a bundle.

    NAME/config.pbtxt        the compiled network, by the python backend
    NAME/labels.txt          the classes, where they are known
    NAME/1/model.py          opens the bundle through its infer.py (ctypes and numpy): `data/triton_model.py`
    NAME/1/bundle/           the bundle, whole: every command takes it
    NAME_onnx/config.pbtxt   its ONNX, by the onnxruntime backend
    NAME_onnx/1/model.onnx   for any number of rows, where the graph allows that (`rows.freed`)
    README.md                how to start a server and ask it

The configurations are messages ModelConfig of model_config.proto (triton-inference-server/common, which documents every
field). No configuration names its model, so a folder may be called otherwise, and several repositories be put together.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from ..bundles.explain import LABELS, PREPROCESSING
from ..errors import DeployError
from ..quantize import integer_network
from ..runtime import bundle as bundles
from .pbtxt import Message, Word, shape, text
from .rows import freed

TARGETS = ("cpu", "arm", "cuda")

TYPES: Mapping[str, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
"""numpy's names of dtypes -> those of Triton's protocol; in a configuration with TYPE_ before them."""

REQUEST_ROWS = 64
"""How many rows one request may bring, or several that were gathered."""

QUEUE_MICROSECONDS = 2000
"""How long a request waits for others to make a batch full. An inference of a batch takes longer by a multiple."""

WARM_UPS = 3
"""Inferences before the model is said to be ready: they page the weights in, and start threads or clocks."""

_MODEL, _README = "triton_model.py", "triton_readme.md"


def place(name: str) -> str:
    """Where the bundle of a model goes: ``"net.py:build"`` -> ``net.py-build/1/bundle``."""
    return f"{_folder(name)}/1/bundle"


def _folder(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", Path(name).name, flags=re.ASCII).strip("-.") or "model"


def write(repository: Path, bundle: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Write everything but the bundle, which stands at `place` in the repository and is sealed.

    Returns:
        The names of the models.

    Raises:
        DeployError: an input or output is of a type that Triton does not have.
    """
    import onnx

    name = _folder(manifest["model"])
    compiled, other = repository / name, repository / f"{name}_onnx"
    (compiled / "1" / "model.py").write_bytes(_data(_MODEL))
    (other / "1").mkdir(parents=True)
    (compiled / "config.pbtxt").write_text(text(configuration(manifest, labels=(bundle / LABELS).exists())), "utf-8")
    network = onnx.load(
        str(bundle / bundles.INT8_ONNX if (bundle / bundles.INT8_ONNX).exists() else bundle / bundles.ONNX)
    )
    free = freed(network, integers=integer_network.is_quantized(network)) if _batches(manifest) else None
    onnx.save(free or network, str(other / "1" / "model.onnx"))
    settings = onnx_configuration(manifest, labels=(bundle / LABELS).exists(), free=free is not None)
    (other / "config.pbtxt").write_text(text(settings), "utf-8")
    for folder in (compiled, other):
        if (bundle / LABELS).exists():
            shutil.copyfile(bundle / LABELS, folder / LABELS)
    pictures = (bundle / PREPROCESSING).exists()
    (repository / "README.md").write_text(readme(name, manifest, free=free is not None, pictures=pictures), "utf-8")
    return [compiled.name, other.name]


def _batches(manifest: Mapping[str, Any]) -> bool:
    """Whether rows may be gathered: one input, and the batch is the first size of everything."""
    ports = (*manifest["inputs"], *manifest["outputs"])
    first = {tuple(port["shape"][:1]) for port in ports}
    return len(manifest["inputs"]) == 1 and len(first) == 1 and () not in first


def _sizes(manifest: Mapping[str, Any]) -> list[int]:
    """How many rows the library computes at once: one number, or one a plan, ascending."""
    return [plan["inputs"][0]["shape"][0] for plan in (manifest, *manifest.get("plans", ()))]


def _most(batch: int) -> int:
    """The most rows of a request: whole batches."""
    return max(batch, REQUEST_ROWS // batch * batch)


def configuration(manifest: Mapping[str, Any], *, labels: bool) -> Message:
    """ModelConfig of the compiled network."""
    batches = _batches(manifest)
    sizes = _sizes(manifest) if batches else []
    threads = "Threads that one instance computes with; 0: every core. With more instances than one, divide the cores."
    full = [size for size in sizes if size > 1]
    gather: Message = ("preferred_batch_size", full), ("max_queue_delay_microseconds", QUEUE_MICROSECONDS)
    told = f"The library computes {' or '.join(map(str, sizes))} rows at a time: requests are gathered to fill it."
    return (
        ("backend", "python"),
        *_ports(manifest, batched=batches, labels=labels),
        ("max_batch_size", _most(sizes[-1]) if sizes else 0, _rows_told(sizes)),
        *([("dynamic_batching", gather, told)] if full else []),
        _instances(manifest),
        ("parameters", _pair("threads", (("string_value", "0"),)), threads),
        _warm_up(manifest, batched=batches),
    )


def _rows_told(sizes: Sequence[int]) -> str:
    if not sizes:
        return "A request is one whole batch: the shapes are the network's own."
    if sizes[-1] > 1:
        return "Rows of a request, or of several; the last batch of them is filled up."
    return (
        "Rows of a request. The library computes one at a time, so nothing is gained by gathering requests: each goes\n"
        "to the next instance that is free. `export --batch 8 --serve triton` makes one that gathers."
    )


def onnx_configuration(manifest: Mapping[str, Any], *, labels: bool, free: bool) -> Message:
    """ModelConfig of the ONNX."""
    told = "Whatever has come is one batch, of any number of rows."
    return (
        ("backend", "onnxruntime"),
        ("max_batch_size", REQUEST_ROWS if free else 0),
        *_ports(manifest, batched=free, labels=labels),
        *([("dynamic_batching", (("max_queue_delay_microseconds", QUEUE_MICROSECONDS),), told)] if free else []),
        _instances(manifest),
        _warm_up(manifest, batched=free),
    )


def _ports(manifest: Mapping[str, Any], *, batched: bool, labels: bool) -> list[tuple[str, list[Message]]]:
    """The fields `input` and `output`; without the batch where Triton adds it."""
    found = []
    for side in ("inputs", "outputs"):
        messages: list[Message] = [_port(port, batched) for port in manifest[side]]
        if side == "outputs" and labels:
            messages[0] = (*messages[0], ("label_filename", LABELS))
        found.append((side.removesuffix("s"), messages))
    return found


def _port(port: Mapping[str, Any], batched: bool) -> Message:
    return ("name", port["name"]), ("data_type", _type(port)), ("dims", shape(port["shape"][batched:]))


def _type(port: Mapping[str, Any]) -> Word:
    if port["dtype"] not in TYPES:
        message = f"{port['name']} is {port['dtype']}, which Triton has no type for"
        raise DeployError(message, kind="serve", got=port["dtype"], allowed=sorted(TYPES))
    return Word(f"TYPE_{TYPES[port['dtype']]}")


def _instances(manifest: Mapping[str, Any]) -> tuple[str, Message, str]:
    if manifest["target_details"]["kind"] == "cuda":
        return "instance_group", (("count", 1), ("kind", Word("KIND_GPU"))), "So many on each GPU; `gpus: [0]` chooses."
    return "instance_group", (("count", 1), ("kind", Word("KIND_CPU"))), "More of them for more requests at a time."


def _warm_up(manifest: Mapping[str, Any], *, batched: bool) -> tuple[str, Message]:
    batch = manifest["inputs"][0]["shape"][0] if batched else 1
    zeros = [
        _pair(port["name"], (("data_type", _type(port)), ("dims", shape(port["shape"][batched:])), ("zero_data", True)))
        for port in manifest["inputs"]
    ]
    return "model_warmup", (("name", "zeros"), ("batch_size", batch), ("inputs", zeros), ("count", WARM_UPS))


def _pair(key: str, value: Message) -> Message:
    """An entry of a map."""
    return ("key", key), ("value", value)


def readme(name: str, manifest: Mapping[str, Any], *, free: bool, pictures: bool) -> str:
    """README.md of the repository."""
    port, output, rows = manifest["inputs"][0], manifest["outputs"][0], _batches(manifest)
    template = Template(_data(_README).decode("utf-8"))
    return template.substitute(
        name=name,
        target=manifest["target"],
        precision=manifest["precision"],
        whole="" if free else ", for whole batches",
        input=port["name"],
        dtype=port["dtype"],
        shape=port["shape"],
        rows=", with any number of rows up to the configured" if rows else "",
        output=output["name"],
        gives=f"{output['dtype']} {output['shape']}",
        prepared=" `preprocessing.json` of the bundle says how a picture becomes it." if pictures else "",
        gpus="--gpus all " if manifest["target_details"]["kind"] == "cuda" else "",
        one=(1, *port["shape"][1:]) if rows else tuple(port["shape"]),
        type=TYPES[port["dtype"]],
    )


def _data(name: str) -> bytes:
    return resources.files(__package__).joinpath("data").joinpath(name).read_bytes()
