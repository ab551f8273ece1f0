"""The house keeps its shape: imports go one way, no bare package names, and the command line starts light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"toolkit": "", "models": "models", "targets": "targets", "quantize": "quantize"}

LEAVES = {
    "",
    "errors",
    "artifact",
    "arrays",
    "schema",
    "supervise",
    "verify",
    "rounding",
    "judge",
    "progress",
    "cache",
    "feeds",
    "ortsession",
}
"""What everything may import; "" is the package itself (its version). A leaf imports leaves only."""

ORDER = [
    {"runtime"},
    {"models"},
    {"graph"},
    {"sources"},
    {"quantize"},
    {"kernels"},
    {"lower"},
    {"targets"},
    {"bundles"},
    {"reports"},
    {"tuning"},
    {"serving"},
    {"pipeline"},
    {"api"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
"""A row may import itself and the rows above it. docs/architecture.md draws the same line."""

RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
HEAVY = {"torch", "tvm", "onnx", "onnxruntime", "onnxsim", "numpy", "PIL", "openvino", "sklearn"}


def modules() -> Iterator[tuple[Path, str, str]]:
    """Every module of the product: its file, its dotted name below inception_deploy, and its stage."""
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [p for p in (package, *path.relative_to(ROOT / folder).with_suffix("").parts) if p]
            if parts and parts[-1] == "__init__":
                parts.pop()
            yield path, ".".join(parts), parts[0] if parts else ""


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Absolute names a module imports, wherever in the file; blocks for the type checker do not count."""
    full = f"inception_deploy.{module}".rstrip(".")
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = node.level - (1 if is_package else 0)
                parent = full.split(".")[: len(full.split(".")) - up]
                base = ".".join([*parent, base]).rstrip(".")
            # `from inception_deploy.runtime import bundle` names a module, `from ..bundle import open` a name in one.
            yield from (f"{base}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node, module, is_package)


def stage_of(name: str) -> str | None:
    """The stage an absolute import belongs to; None for what is not ours."""
    parts = name.split(".")
    if parts[0] != "inception_deploy":
        return None
    known = LEAVES | set(RANK)
    return parts[1] if len(parts) > 1 and (parts[1] in known or (ROOT / "toolkit" / f"{parts[1]}.py").exists()) else ""


def back_edge(stage: str, other: str) -> bool:
    """Whether `stage` may not import `other`."""
    if other in LEAVES or other == stage:
        return False
    return stage in LEAVES or RANK[other] > RANK[stage]


def test_every_module_has_its_place_in_the_order() -> None:
    unplaced = {stage for _, _, stage in modules()} - LEAVES - set(RANK)
    assert not unplaced, f"add to ORDER here and to docs/architecture.md: {sorted(unplaced)}"


def test_imports_go_one_way() -> None:
    wrong = []
    for path, module, stage in modules():
        for name in imported(ast.parse(path.read_text()), module, path.name == "__init__.py"):
            other = stage_of(name)
            if other is not None and back_edge(stage, other):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_check_for_back_edges_fires() -> None:
    source = "def f():\n from .pipeline import export\n from inception_deploy import cli\nfrom .errors import nearest"
    stages = [stage_of(name) for name in imported(ast.parse(source), "bundles", False)]
    assert stages == ["pipeline", "cli", "errors"]
    assert [back_edge("bundles", stage or "") for stage in stages] == [True, True, False]


def test_what_decides_a_kernels_code_is_in_kernels() -> None:
    """`kernels.sources_digest` reads that package's files only; an import from elsewhere would decide code unseen."""
    wrong = []
    for path, module, stage in modules():
        if stage == "kernels":
            for name in imported(ast.parse(path.read_text()), module, path.name == "__init__.py"):
                if stage_of(name) not in (None, "kernels", "errors"):
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_nobody_uses_a_bare_package_name() -> None:
    wrong = []
    for folder in (*FOLDERS, "tests", "examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                wrong += [f"{path.relative_to(ROOT)}: {name}" for name in names if name.split(".")[0] in FOLDERS]
    assert not wrong, "\n".join(wrong)


def test_every_package_is_installed() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(["inception_deploy", *([module] if module else [])])
        for path, module, _ in modules()
        if path.name == "__init__.py"
    }
    assert set(listed) == found


@pytest.mark.parametrize(
    "light",
    [
        "",
        "errors",
        "artifact",
        "progress",
        "runtime",
        "runtime.preprocessing",
        "models",
        "targets",
        "quantize",
        "graph",
        "lower",
        "sources",
        "bundles",
        "reports",
        "api",
    ],
)
def test_packages_import_light(light: str) -> None:
    name = f"inception_deploy.{light}".rstrip(".")
    assert loaded_by(f"import {name}") == set()


@pytest.mark.parametrize("name", ["runtime.model", "runtime.given", "runtime.bundle", "runtime.compiled"])
def test_the_runtime_needs_numpy_alone(name: str) -> None:
    assert loaded_by(f"import inception_deploy.{name}") <= {"numpy"}


def test_the_front_door_is_light() -> None:
    code = "import inception_deploy as idp; [getattr(idp, name) for name in idp.__all__]; idp.models(); idp.targets()"
    assert loaded_by(code) <= {"numpy"}


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after `code`."""
    script = f"import sys, json\n{code}\nprint('\\n' + json.dumps(sorted({HEAVY!r} & set(sys.modules))))"
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT / "docs")
    return set(json.loads(out.stdout.splitlines()[-1]))


def test_one_spelling() -> None:
    """Names spell it as ONNX does: quantize, quantized, quantization."""
    other = "quanti" + "s"
    named = []
    for folder in (*FOLDERS, "tests", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            with tokenize.open(path) as file:
                words = {t.string for t in tokenize.generate_tokens(file.readline) if t.type == tokenize.NAME}
            wrong = [word for word in sorted({*words, path.stem}) if other in word.lower()]
            named += [f"{path.relative_to(ROOT)}: {word}" for word in wrong]
    assert not named, "\n".join(named)
