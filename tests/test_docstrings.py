"""Docstrings are in one dialect, Google's: what a field or an argument is stands in a section of its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("toolkit", "models", "targets", "quantize", "benchmarks", "examples")
SECTION = re.compile(r"^[A-Z][\w ]*:$")


def described(node: ast.AST) -> set[str]:
    """The names that a docstring may describe: a function's arguments, or a class's fields."""
    if isinstance(node, ast.FunctionDef):
        return {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
    assert isinstance(node, ast.ClassDef)
    return {one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)}


def is_dataclass(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any("dataclass" in ast.dump(one) for one in node.decorator_list)


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and reason of every docstring in another dialect."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        text = ast.get_docstring(node) or ""
        lines = text.splitlines()
        if lines and SECTION.match(lines[0]):
            yield node.lineno, "begins with a section, and not with what it is"
        if is_dataclass(node) and "Args:" in lines:
            yield node.lineno, "has Args, where a dataclass has Attributes"
        outside = "\n".join(lines[: next((i for i, line in enumerate(lines) if SECTION.match(line)), None)])
        for paragraph in outside.split("\n\n"):
            starts = re.findall(r"(?:^|(?<=[.;] ))((?:\w+, )*\w+): ", " ".join(paragraph.split()))
            if any(set(names.split(", ")) <= described(node) for names in starts):
                yield node.lineno, f"tells of {starts[0]} outside a section"


def test_every_docstring_has_its_sections() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {reason}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, reason in faults(ast.parse(path.read_text()))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("docstring", "found"),
    [
        ("A point.\n\n    x: to the right. y: upwards.", 1),
        ("x: to the right.", 1),
        ("A point.\n\n    Args:\n        x: to the right.", 1),
        ("Attributes:\n        x: to the right.", 1),
        ("A point.\n\n    Attributes:\n        x: to the right.", 0),
        ("A point: not x, but both.", 0),
    ],
)
def test_the_check_finds_them(docstring: str, found: int) -> None:
    source = f'@dataclass\nclass Point:\n    """{docstring}\n    """\n    x: int\n    y: int\n'
    assert len(list(faults(ast.parse(source)))) == found
