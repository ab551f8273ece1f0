"""A `Plan` of the CPU for those who have no Python: a program, a static library, and what builds programs with them.

run_model                       files in, files and classes out, times; needs nothing but the weights
model.a                         what model.so has, for linking into programs
model.c, model_1.c, ...         the tables of the network's plans, as they were compiled, to be read
run_model.LICENSE               of the C library in run_model; it goes where that goes
inception_deploy.hpp            the C header in C++
inception_deploy-config.cmake   for find_package of CMake
model.mk                        for include of make
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from inception_deploy.lower.plan import Plan

from .library import RUNTIME, weights_objects
from .link import CSRC, archive, compile_c, licences, link_program
from .tables import Built, Part, sources

PROGRAM, ARCHIVE, LICENCES = "run_model", "model.a", "run_model.LICENSE"
SOURCES = ("json.c", "picture.c", "program.c", "report.c", "run_model.c", "tensor_file.c")
"""The parts of `csrc` that only the program has."""

_COPIED = ("inception_deploy.hpp", "model.mk")
_CMAKE = "inception_deploy-config.cmake"
_PROCESSORS = {
    "x86_64-linux-gnu": "x86_64|AMD64|amd64",
    "aarch64-linux-gnu": "aarch64|arm64",
    "arm-linux-gnueabihf": "arm.*",
}
"""By triple: what CMAKE_SYSTEM_PROCESSOR is there."""


def write_program(
    plan: Plan,
    parts: Sequence[Part],
    folder: Path,
    *,
    triple: str,
    features: Sequence[str] = (),
    others: Sequence[Built] = (),
    embed: bool = False,
) -> list[str]:
    """Write the files into `folder`, which has those of `library.write_library`. Equal arguments give equal bytes.

    Args:
        plan, parts, triple, features, others, embed: as `library.write_library` took them; without dynamic libraries.

    Returns:
        The names of the files written.

    Raises:
        DeployError: ``link``, where zig is missing or fails.
    """
    tables = sources([(plan, parts), *others], features, embed=embed)
    every = [*parts, *(part for _, those in others for part in those)]
    kernels = list(dict.fromkeys(data for part in every for data in part.objects))
    runtime = list(dict.fromkeys([*RUNTIME, *(name for part in every for name in part.sources)]))
    compiled = [compile_c(text, name, triple) for name, text in tables.items()]
    held = weights_objects(plan, triple, embed=embed)
    for name, text in tables.items():
        (folder / name).write_text(text, encoding="utf-8")
    archive([*compiled, *_objects(runtime, triple), *kernels, *held], folder / ARCHIVE)
    # Of the C library's types the tables and the kernels have none: they are the same for musl.
    own = _objects([*SOURCES, *runtime], triple, musl=True)
    link_program([*own, *compiled, *kernels, *held], folder / PROGRAM, triple)
    (folder / LICENCES).write_text(licences(), encoding="utf-8")
    for name in _COPIED:
        shutil.copyfile(CSRC / name, folder / name)
    cmake = (CSRC / _CMAKE).read_text(encoding="utf-8").replace("@PROCESSOR@", _PROCESSORS[triple])
    (folder / _CMAKE).write_text(cmake, encoding="utf-8")
    return [PROGRAM, ARCHIVE, *tables, LICENCES, *_COPIED, _CMAKE]


def _objects(names: Sequence[str], triple: str, *, musl: bool = False) -> list[bytes]:
    return [compile_c((CSRC / name).read_text(encoding="utf-8"), name, triple, musl=musl) for name in names]
