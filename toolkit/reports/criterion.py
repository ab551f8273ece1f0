"""A condition on measured figures, as ``--fail-if`` takes it: ``latency > 1.05 and not drop <= 0.5``.

Numbers, the names of figures, ``+ - * /``, comparisons, ``and``, ``or``, ``not`` and parentheses mean what they mean in
Python. Python's parser reads it; nothing of it is executed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DeployError, UsageError, nearest

_LONGEST = 500

_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_ALLOWED = "comparisons (< <= > >=) of figures and numbers, with + - * /, and, or, not and parentheses"


@dataclass(frozen=True)
class Criterion:
    """A condition, ready to be held against figures.

    Attributes:
        text: as it was written.
        names: the figures that it speaks of.
    """

    text: str
    names: frozenset[str]
    _tree: ast.expr

    def holds(self, figures: Mapping[str, float | None]) -> bool:
        """Whether it is true of these figures.

        Raises:
            DeployError: (kind ``fail-if``) a figure that it speaks of is not known, or it divides by zero.
        """
        for name in sorted(self.names):
            if figures[name] is None:
                known = sorted(key for key, value in figures.items() if value is not None)
                message = f"--fail-if '{self.text}': {name} is not known here"
                raise DeployError(message, kind="fail-if", got=name, allowed=known)
        try:
            return bool(_value(self._tree, figures))
        except ZeroDivisionError as error:
            message = f"--fail-if '{self.text}' divides by zero"
            raise DeployError(message, kind="fail-if", got=self.text, allowed=_ALLOWED) from error


def parse(text: str, names: Iterable[str]) -> Criterion:
    """Read a condition.

    Args:
        names: the figures that it may speak of.

    Raises:
        UsageError: (kind ``fail-if``) it is none, or speaks of another figure.
    """
    known = list(names)
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"longer than {_LONGEST} letters")
        tree = ast.parse(text.strip(), mode="eval").body
        found: set[str] = set()
        _check(tree, True, found)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        what = "no expression" if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f"--fail-if is '{text}': {what}", kind="fail-if", got=text, allowed=_ALLOWED) from error
    for name in sorted(found - set(known)):
        near = nearest(name, known, count=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"--fail-if is '{text}': there is no figure '{name}'{hint}", kind="fail-if", got=name,
                         allowed=known)  # fmt: skip
    return Criterion(text, frozenset(found), tree)


def _check(node: ast.expr, truth: bool, names: set[str]) -> None:
    """ValueError where a node is nothing that is allowed, or a number stands where a truth should, or the reverse."""
    if truth and isinstance(node, ast.BoolOp):
        for value in node.values:
            _check(value, True, names)
    elif truth and isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check(node.operand, True, names)
    elif truth and isinstance(node, ast.Compare) and all(type(op) in _COMPARISONS for op in node.ops):
        for value in (node.left, *node.comparators):
            _check(value, False, names)
    elif not truth and isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        _check(node.left, False, names)
        _check(node.right, False, names)
    elif not truth and isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        _check(node.operand, False, names)
    elif not truth and isinstance(node, ast.Name):
        names.add(node.id)
    elif truth or not isinstance(node, ast.Constant) or type(node.value) not in (int, float):
        raise ValueError(f"'{ast.unparse(node)}' is no {'comparison' if truth else 'number'}")


def _value(node: ast.expr, figures: Mapping[str, float | None]) -> Any:
    """The value of a node that `_check` let through."""
    if isinstance(node, ast.BoolOp):
        together = all if isinstance(node.op, ast.And) else any
        return together(_value(value, figures) for value in node.values)
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, figures)
        return not value if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.Compare):
        values = [_value(value, figures) for value in (node.left, *node.comparators)]
        pairs = zip(node.ops, values, values[1:], strict=False)
        return all(_COMPARISONS[type(op)](left, right) for op, left, right in pairs)
    if isinstance(node, ast.BinOp):
        return _ARITHMETIC[type(node.op)](_value(node.left, figures), _value(node.right, figures))
    if isinstance(node, ast.Name):
        return figures[node.id]
    assert isinstance(node, ast.Constant)
    return node.value
