"""The runtime's own declarations of the driver next to NVIDIA's, where a CUDA toolkit's header is at hand; and the
simulated driver next to both.

    pip install --target DIR nvidia-cuda-runtime-cu12     a header without a toolkit; CUDA_HOME=DIR/nvidia/cuda_runtime
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from inception_deploy.targets.link import CSRC

HEADER = (CSRC / "cuda_driver.h").read_text()
FUNCTIONS = re.findall(r'  X\((\w+), "(\w+)",[\s\\]*\((.*?)\)\)', HEADER, re.DOTALL)

TYPES = {
    "cu_pointer": "CUdeviceptr",
    "cu_context": "CUcontext",
    "cu_module": "CUmodule",
    "cu_function": "CUfunction",
    "cu_stream": "CUstream",
    "cu_event": "CUevent",
    "cu_graph": "CUgraph",
    "cu_node": "CUgraphNode",
    "cu_executable": "CUgraphExec",
    "cu_kernel_node": "CUDA_KERNEL_NODE_PARAMS_v2",
    "cu_attribute": "CUdevice_attribute",
    "cu_edge": "CUgraphEdgeData",
}
"""What NVIDIA calls our types."""

FIELDS = {
    "function": "func",
    "grid_x": "gridDimX",
    "grid_y": "gridDimY",
    "grid_z": "gridDimZ",
    "block_x": "blockDimX",
    "block_y": "blockDimY",
    "block_z": "blockDimZ",
    "shared_bytes": "sharedMemBytes",
    "arguments": "kernelParams",
    "extra": "extra",
    "kernel": "kern",
    "context": "ctx",
}
"""Of a kernel's node."""

LATER = {"graph_add_edges": 12030}
"""The CUDA that a function is from, where a driver may lack it."""

CONSTANTS = {
    "CU_SUCCESS": "CUDA_SUCCESS",
    "CU_OUT_OF_MEMORY": "CUDA_ERROR_OUT_OF_MEMORY",
    "CU_INVALID_VALUE": "CUDA_ERROR_INVALID_VALUE",
    "CU_NOT_SUPPORTED": "CUDA_ERROR_NOT_SUPPORTED",
    "CU_COMPUTE_CAPABILITY_MAJOR": "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR",
    "CU_COMPUTE_CAPABILITY_MINOR": "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR",
    "CU_STREAM_NON_BLOCKING": "CU_STREAM_NON_BLOCKING",
}

EDGES = {
    "CU_EDGE_PROGRAMMATIC": "CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC",
    "CU_PORT_PROGRAMMATIC": "CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC",
}
"""The same, of CUDA 12.3 and later."""


def include() -> Path | None:
    """The folder of a cuda.h."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [Path(home) / "include" for home in homes if home]
    folders += [path.parent for path in sorted(Path("/usr/local").glob("cuda-*/include/cuda.h"))]
    return next((folder for folder in folders if (folder / "cuda.h").is_file()), None)


@pytest.fixture(scope="module")
def compiles(tmp_path_factory):
    """Whether C that includes NVIDIA's header is right, by the system's compiler; what it says."""
    folder, compiler = include(), shutil.which("gcc") or shutil.which("cc")
    if folder is None or compiler is None:
        pytest.skip("no cuda.h (CUDA_HOME names a toolkit), or no C compiler")
    source = tmp_path_factory.mktemp("header") / "header.c"

    def compile_(lines: list[str]) -> str:
        source.write_text("\n".join(["#include <cuda.h>", *lines, ""]))
        command = [compiler, "-std=gnu11", "-fsyntax-only", f"-I{folder}", str(source)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    return compile_


def declared(parameters: str, types: dict[str, str] = TYPES) -> str:
    """Parameters as NVIDIA writes them."""
    return re.sub(r"\bcu_\w+", lambda found: types[found[0]], parameters.replace("\\", ""))


def agrees(name: str, parameters: str) -> str:
    """A line of C that compiles where NVIDIA declares the function so."""
    # NAME_v2 is declared by that name; one without a number by the macro that stands for it today
    return f'_Static_assert(__builtin_types_compatible_p(__typeof__({name}), CUresult({parameters})), "{name}");'


def test_every_function_is_declared_as_nvidia_does(compiles):
    assert len(FUNCTIONS) == HEADER.count("  X(")
    lines = []
    for member, name, parameters in FUNCTIONS:
        line = agrees(name, declared(parameters)).replace("int code", "CUresult code")
        lines += [f"#if CUDA_VERSION >= {LATER.get(member, 0)}", line, "#endif"]
    assert compiles(lines) == ""


def test_a_wrong_declaration_shows(compiles):
    assert "cuMemAlloc_v2" in compiles([agrees("cuMemAlloc_v2", "CUdeviceptr *pointer, unsigned int bytes")])


def test_a_kernel_s_node_lies_as_nvidia_s(compiles):
    ours = HEADER[HEADER.index("typedef struct cu_kernel_node") : HEADER.index("} cu_kernel_node;")]
    handles = "typedef CUfunction cu_function;\ntypedef CUcontext cu_context;"
    theirs = TYPES["cu_kernel_node"]
    lines = [handles, f"{ours}}} cu_kernel_node;"]
    lines += [f'_Static_assert(sizeof(cu_kernel_node) == sizeof({theirs}), "size");']
    for name, their in FIELDS.items():
        at = f"__builtin_offsetof(cu_kernel_node, {name}) == __builtin_offsetof({theirs}, {their})"
        lines.append(f'_Static_assert({at}, "{name}");')
    assert compiles(lines) == ""


def test_an_edge_lies_as_nvidia_s(compiles):
    ours = HEADER[HEADER.index("typedef struct cu_edge") : HEADER.index("} cu_edge;")]
    fields = re.findall(r"\b(from_port|to_port|type|reserved)\b", ours)
    assert len(fields) == 4
    lines = [
        f'_Static_assert(__builtin_offsetof(cu_edge, {f}) == __builtin_offsetof(CUgraphEdgeData, {f}), "{f}");'
        for f in fields
    ]
    size = '_Static_assert(sizeof(cu_edge) == sizeof(CUgraphEdgeData), "size");'
    assert compiles(["#if CUDA_VERSION >= 12030", ours + "} cu_edge;", *lines, size, "#endif"]) == ""


def test_constants_are_nvidia_s(compiles):
    values = dict(re.findall(r"\b(CU_\w+) = (\d+)", HEADER))
    assert values.keys() == {**CONSTANTS, **EDGES}.keys()
    same = {
        ours: f'_Static_assert({values[ours]} == {theirs}, "{ours}");'
        for ours, theirs in {**CONSTANTS, **EDGES}.items()
    }
    later = ["#if CUDA_VERSION >= 12030", *(same[name] for name in EDGES), "#endif"]
    assert compiles([*(same[name] for name in CONSTANTS), *later]) == ""


def test_the_simulated_driver_has_every_function():
    text = (Path(__file__).parent / "driver.c").read_text()
    for _, name, parameters in FUNCTIONS:
        found = re.search(rf"EXPORT int {name}\((.*?)\) \{{", text, re.DOTALL)
        assert found, f"the simulated driver lacks {name}"
        assert found[1].count(",") == parameters.count(","), name
