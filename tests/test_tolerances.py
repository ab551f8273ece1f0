"""A tolerance stands in one table, with its reason: no test, benchmark or module has one of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from inception_deploy.verify import BOUNDS, TOLERANCES

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("toolkit", "models", "targets", "quantize", "benchmarks", "examples", "tests")
LIMITS = {"atol", "rtol", "abs", "rel", "tolerance", "tol"}
"""Names of arguments that say how far off something may be."""

SMALL = 0.1
"""A number that a float below this is compared with is a limit to an error."""

OF_THE_TABLE = {"toolkit/verify.py", "tests/test_verify.py", "tests/test_judge.py", "tests/test_tolerances.py"}
"""The table, and the tests of what reads it."""

NO_TOLERANCES = {
    ("tests/reports/test_bench.py", 0.02),  # seconds
    ("tests/targets/test_runtime.py", 0.05),  # seconds
    ("tests/benchmarks/test_int8_peers.py", 0.05),  # a ratio of times that are printed with three digits
    ("tests/quantize/test_insert.py", 0.1),  # how much of a network may be float
    ("tests/cli/test_judged.py", 0.01),  # what a measured noise is, to an order of magnitude
}
"""Numbers that look like one."""


def number_in(node: ast.AST) -> float | None:
    """A float of the expression other than 0, not counting those that an inner call takes."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, float) and node.value != 0 else None
    if isinstance(node, ast.Call):
        return None
    return next((found for child in ast.iter_child_nodes(node) if (found := number_in(child)) is not None), None)


def literals(tree: ast.AST) -> Iterator[tuple[int, float]]:
    """Line and value of every limit that is written as a number."""
    for node in ast.walk(tree):
        given: list[ast.AST] = []
        if isinstance(node, ast.Call):
            given = [word.value for word in node.keywords if word.arg in LIMITS]
        elif isinstance(node, ast.arguments):
            named = [*node.posonlyargs, *node.args][::-1], node.defaults[::-1]
            pairs = [*zip(*named, strict=False), *zip(node.kwonlyargs, node.kw_defaults, strict=True)]
            given = [value for name, value in pairs if value is not None and name.arg in LIMITS]
        for value in given:
            if (found := number_in(value)) is not None:
                yield value.lineno, found
        if isinstance(node, ast.Assert):
            for inner in ast.walk(node.test):
                if isinstance(inner, ast.Compare):
                    for operator, side in zip(inner.ops, inner.comparators, strict=True):
                        found = number_in(side)
                        if isinstance(operator, ast.Lt | ast.LtE) and found is not None and 0 < found <= SMALL:
                            yield inner.lineno, found


def test_no_tolerance_stands_elsewhere() -> None:
    wrong = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if name not in OF_THE_TABLE:
                for line, value in literals(ast.parse(path.read_text())):
                    if (name, value) not in NO_TOLERANCES:
                        wrong.append(f"{name}:{line}: {value}")
    assert not wrong, "a row of toolkit/verify.py for each, with its reason:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-5)", [1e-6, 1e-5]),
        ("assert a == approx(b, abs=2 * 0.05)", [0.05]),
        ("def check(x, tolerance: float = 2e-6): pass", [2e-6]),
        ("assert (np.abs(a - b) <= 1e-5 * np.abs(a).max()).all()", [1e-5]),
        ("assert error < 3e-7 and x", [3e-7]),
        ("check(x, tolerance=0)", []),
        ("assert_allclose(a, b, rtol=bound('kernel'))", []),
        ("assert ratio < 0.98", []),
        ("assert 0.01 < error", []),
    ],
)
def test_the_check_finds_them(source: str, found: list[float]) -> None:
    assert [value for _, value in literals(ast.parse(source))] == found


def test_every_row_is_used_and_has_a_reason() -> None:
    texts = "".join(path.read_text() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    unused = [name for name in BOUNDS if f'bound("{name}")' not in texts]
    assert not unused, unused
    assert all(0 < limit < 1 and len(reason) > 20 for limit, reason in BOUNDS.values())
    assert all(len(row.reason) > 20 for row in TOLERANCES.values())
