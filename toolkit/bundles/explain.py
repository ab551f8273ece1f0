"""What a bundle says of itself to somebody who has nothing else: README.md, infer.py, main.c with its CMakeLists.txt,
preprocessing.json, labels.txt and the runtime's LICENSE. They hold no path, date or name of the folder, so the same
inputs give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from .. import artifact, judge
from ..ortsession import WHOLE_SUMS
from ..runtime import bundle as bundles
from ..runtime.labels import known

README, INFER, LICENSE = "README.md", "infer.py", "LICENSE"
MAIN, CMAKE = "main.c", "CMakeLists.txt"
PREPROCESSING, LABELS = "preprocessing.json", "labels.txt"

_FILES = {
    "model.so": "the compiled network and its runtime: a library that needs the C library and nothing else",
    "weights.bin": "its weights",
    "model-x86_64.so": "the same for an x86-64 machine that simulates the board",
    "libvta.so": "the driver of the board's accelerator",
    "vta": "instruction streams and a map of memory, for other programs of the board",
    "inception_deploy.h": "its interface",
    "run_model": "the network as a static program: it needs no C library, and `weights.bin` alone beside it",
    "run_model.LICENSE": "of the C library in `run_model`; it goes where the program goes",
    "model.a": "what `model.so` has, for linking into a program",
    "model.c": "the network's tables, as they were compiled, to be read; of further plans `model_1.c` and so on",
    "inception_deploy.hpp": "the interface in C++",
    "inception_deploy-config.cmake": "for `find_package(inception_deploy)` of CMake",
    "model.mk": "for `include` of make",
    INFER: "runs it with numpy and ctypes; pictures need Pillow",
    MAIN: "runs it from C, to start a program of yours from",
    CMAKE: "builds it",
    bundles.ONNX: "the network after our graph passes, in float32",
    bundles.INT8_ONNX: "the same quantized (QDQ): what the library computes",
    PREPROCESSING: "how a picture becomes the input, with every rounding in `steps`",
    LABELS: "the names of the classes, in the order of the outputs",
    bundles.MANIFEST: "all of this for programs, and the SHA-256 of every file",
    bundles.VERIFY: "how the stages compared when this was exported",
    bundles.PLAN: "the kernel calls in order, and where every value lies in memory",
    bundles.REFUSALS: "the operators that took TVM's default, with reasons",
    LICENSE: "of the runtime in the library, infer.py and main.c; the weights have their own",
}


_UNTRAINED = (
    "Nobody trained it: its weights are random numbers, so it shows speed and memory, and its classes mean nothing."
)

_EMBEDDED = {
    "weights.bin": "its weights; `model.so`, `model.a` and `run_model` hold them as well, and need no other file",
    "run_model": "the network as a static program: it needs no C library and no other file",
}
"""Of `_FILES`, where the weights are linked in."""


def write(
    folder: Path,
    manifest: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
    not_run: Sequence[Mapping[str, str]] = (),
) -> None:
    """Write the files into the folder of a bundle, before it is sealed.

    Args:
        manifest: of the bundle.
        stages: the rows of its ``verify.json``.
        not_run: its stages that could not be checked.
    """
    data = resources.files(__package__).joinpath("data")
    for name in () if manifest.get("onnx_only") else (INFER, MAIN, CMAKE, LICENSE):
        (folder / name).write_bytes(data.joinpath(name).read_bytes())
    if manifest["preprocessing"] is not None:
        ports = {side: [_port(port) for port in manifest[side]] for side in ("inputs", "outputs")}
        artifact.dump_json({**manifest["preprocessing"], **ports}, folder / PREPROCESSING)
    if labels := known(manifest["labels"], manifest["outputs"][0]["shape"]):
        (folder / LABELS).write_text("".join(f"{' '.join(label.split())}\n" for label in labels), encoding="utf-8")
    (folder / README).write_text(readme(folder, manifest, stages, not_run), encoding="utf-8")


def _port(port: Mapping[str, Any]) -> dict[str, Any]:
    return {key: port[key] for key in ("name", "shape", "dtype", "kind") if key in port}


def readme(
    folder: Path,
    manifest: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
    not_run: Sequence[Mapping[str, str]],
) -> str:
    """README.md: what the bundle is and how it is run, in commands that work as they stand."""
    compiled = not manifest.get("onnx_only")
    onnx = bundles.INT8_ONNX if (folder / bundles.INT8_ONNX).exists() else bundles.ONNX
    what = (
        "A neural network, compiled: `model.so` with `weights.bin` computes it and needs no Python and no framework."
        if compiled
        else f"A neural network as ONNX, for runtimes of others: `{onnx}`."
    )
    also = (bundles.MANIFEST, bundles.VERIFY, bundles.PLAN, bundles.REFUSALS)
    told = {**_FILES, **(_EMBEDDED if manifest["target_details"].get("embed") else {})}
    files = [(f"`{name}`", text) for name, text in told.items() if name in also or (folder / name).exists()]
    known = {README, *_FILES, *(f"model_{number}.c" for number in range(1, 1 + len(manifest.get("plans", ()))))}
    rest = [path.name for path in sorted(folder.iterdir()) if path.name not in known]
    files += [(f"`{name}`", f"of the target `{manifest['target']}`") for name in rest]
    sections = [
        f"# {manifest['model']} {'for ' + manifest['target'] if compiled else 'as ONNX'}, {manifest['precision']}",
        f"{what} It takes {_ports(manifest['inputs'])} and gives {_ports(manifest['outputs'])}.",
        *([_UNTRAINED] if (manifest["zoo"] or {}).get("trained") is False else []),
        *([_machine(manifest, sorted(folder.glob("model-*.so")))] if compiled else []),
        *([_several(manifest)] if manifest.get("plans") else []),
        "Commands are typed in this folder. Files of yours lie beside it (`../photo.jpg`), because a bundle with files "
        "in it that its manifest does not name is taken for a damaged one.",
        *(_on_a_board(folder, manifest) if manifest["target_details"].get("kind") == "arm" else []),
        *(_compiled(manifest, (folder / "run_model").exists()) if compiled else []),
        "## In onnxruntime",
        f"`{onnx}` is the same network for other runtimes; its metadata holds the preprocessing and the labels.",
        _code("python", *_onnxruntime(manifest["inputs"], onnx, manifest["precision"])),
        "## With inception-deploy",
        _code("sh", *_commands(manifest, compiled)),
        "## The files",
        _table(("file", ""), files),
    ]
    if stages:
        rows = [
            (judge.named(row), row["reference"], _number(row["max_rel"]), _number(row.get("allowed", row["tolerance"])))
            for row in stages
        ]
        sections += [
            "## What was checked",
            "Each stage was compared with the one before it when this was exported, on the same inputs:",
            _table(("stage", "against", "largest difference, relative", "allowed"), rows),
            *(
                f"`{row['stage']}` was not: the machine that exported this cannot run it. "
                "`inception-deploy verify .` does it on one that can."
                for row in not_run
            ),
        ]
    return "\n\n".join(sections) + "\n"


def _compiled(manifest: Mapping[str, Any], program: bool) -> list[str]:
    """How the library is used."""
    first, several = manifest["inputs"][0], len(manifest["inputs"]) > 1
    return [
        "## From Python, with numpy",
        _code("sh", *_python(first, manifest["preprocessing"] is not None, several)),
        *([] if several else ["From a program:", _code("python", *_program(first))]),
        *(_program_alone(several) if program else []),
        "## From C",
        f"`{MAIN}` takes a file for each input and each output, as bare numbers; `inception_deploy.h` describes every "
        "function and error.",
        _code("sh", 'cc -O2 -I. main.c ./model.so -Wl,-rpath,"$PWD" -o ../network', *_raw(manifest)),
        f"With CMake{'; projects of yours find the bundle by its files for CMake and make' if program else ''}:",
        _code("sh", "cmake -S . -B ../build && cmake --build ../build   # makes ../build/network"),
    ]


def _on_a_board(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """How it comes to a device that has nothing, and how it is tried there from here."""
    if not (folder / "run_model").exists():
        return []
    wanted = ["run_model", bundles.MANIFEST, LABELS]
    if not manifest["target_details"].get("embed"):
        wanted.insert(1, "weights.bin")
    names = [name for name in wanted if name == bundles.MANIFEST or (folder / name).exists()]
    return [
        "## On a device",
        "Nothing is installed there, and these files are enough. The last two commands copy what they need, and leave "
        "nothing. All sections after this one are for the device itself.",
        _code(
            "sh",
            "ssh user@device mkdir -p network",
            f"scp {' '.join(names)} user@device:network/",
            "ssh user@device network/run_model --random --repeat 20",
            "inception-deploy verify . --device ssh://user@device",
            "inception-deploy bench . --device ssh://user@device",
        ),
    ]


def _program_alone(several: bool) -> list[str]:
    given = "--random" if several else "../input.npy"
    return [
        "## As a program",
        "It takes .npy files, the input's bare bytes, and pictures as PPM and PGM. `./run_model --help` has the rest.",
        _code("sh", "chmod +x run_model   # where it came in a zip", f"./run_model {given} --output ../program.npy"),
    ]


def _ports(ports: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"`{port['name']}` ({port['dtype']} {list(port['shape'])})" for port in ports)


def _several(manifest: Mapping[str, Any]) -> str:
    """Which plans there are."""
    batches = [manifest["inputs"][0]["shape"][0], *(plan["batch"] for plan in manifest["plans"])]
    return (
        f"It holds a plan for each of {', '.join(map(str, batches))} images at once, on one copy of the weights. From "
        "Python any number of rows is cut for the largest plans that it fills; from C `id_open` takes the first plan "
        f"and `id_open_plan` any of the {len(batches)}."
    )


def _machine(manifest: Mapping[str, Any], simulating: Sequence[Path]) -> str:
    details = manifest["target_details"]
    features = details.get("features")
    where = f"It runs on {details['machine']}" if details.get("machine") else f"It is for {manifest['target']}"
    simulated = "".join(f" `{path.name}` is for trying it elsewhere; infer.py takes it." for path in simulating)
    return f"{where} with {', '.join(features)}.{simulated}" if features else f"{where}.{simulated}"


def _zeros(port: Mapping[str, Any], path: str) -> str:
    return f"python3 -c \"import numpy; numpy.save('{path}', numpy.zeros({tuple(port['shape'])}, '{port['dtype']}'))\""


def _python(port: Mapping[str, Any], pictures: bool, several: bool) -> list[str]:
    lines = ["pip install numpy pillow" if pictures else "pip install numpy"]
    if pictures:
        lines += ["python3 infer.py ../photo.jpg"]
    if several:
        return [*lines, "# it takes several inputs: Network().run(*arrays) in infer.py"]
    rows = f"any number of rows of {list(port['shape'][1:])}"
    return [*lines, f"{_zeros(port, '../input.npy')}   # {rows}", "python3 infer.py ../input.npy -o ../output.npy"]


def _program(port: Mapping[str, Any]) -> list[str]:
    return [
        "import numpy as np",
        "from infer import Network",
        "",
        "network = Network()",
        f"outputs = network(np.zeros({tuple(port['shape'])}, np.{port['dtype']}))  # one array an output",
    ]


def _raw(manifest: Mapping[str, Any]) -> list[str]:
    """What writes a batch of each input as bare numbers, and the call of the program."""
    given, outputs = manifest["inputs"], len(manifest["outputs"])
    if len(given) == 1:
        how = ["load('../input.npy')"]
    else:
        how = [f"zeros({tuple(port['shape'])}, '{port['dtype']}')" for port in given]
    ins, outs = (
        [f"../{side}{index if count > 1 else ''}.raw" for index in range(count)]
        for side, count in (("input", len(given)), ("output", outputs))
    )
    lines = [
        f"python3 -c \"import numpy; numpy.{array}.tofile('{path}')\"   # {_bytes(port):,} bytes"
        for array, path, port in zip(how, ins, given, strict=True)
    ]
    return [*lines, " ".join(["../network weights.bin", *ins, *outs])]


def _bytes(port: Mapping[str, Any]) -> int:
    size: int = math.prod(port["shape"]) * np.dtype(port["dtype"]).itemsize
    return size


def _onnxruntime(ports: Sequence[Mapping[str, Any]], onnx: str, precision: str) -> list[str]:
    whole = 'options.add_session_config_entry("{}", "{}")  # or bytes saturate on CPUs without VNNI'.format(*WHOLE_SUMS)
    options = ["options = onnxruntime.SessionOptions()", whole] if precision == "int8" else []
    given = ", ".join(f'"{p["name"]}": np.zeros({tuple(p["shape"])}, np.{p["dtype"]})' for p in ports)
    return [
        "import numpy as np",
        "import onnxruntime",
        "",
        *options,
        f'session = onnxruntime.InferenceSession("{onnx}"{", options" * bool(options)})',
        f"outputs = session.run(None, {{{given}}})",
    ]


def _commands(manifest: Mapping[str, Any], compiled: bool) -> list[str]:
    how = "" if compiled else " --runtime onnxruntime"
    lines = [] if manifest["preprocessing"] is None else [f"inception-deploy run . --image ../photo.jpg{how}"]
    if len(manifest["inputs"]) == 1:
        lines += [] if compiled else [_zeros(manifest["inputs"][0], "../input.npy")]
        lines.append(f"inception-deploy run . --input ../input.npy --output ../output.npy{how}")
    return [*lines, "inception-deploy verify .", "inception-deploy inspect ."]


def _code(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
