"""Conditions of --fail-if: what Python means by them, and nothing else of Python."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_deploy.errors import DeployError, UsageError
from inception_deploy.reports.criterion import parse

NAMES = ("latency", "drop", "max_rel")

numbers = st.recursive(
    st.one_of(st.sampled_from(NAMES), st.integers(0, 99).map(str), st.floats(0, 10).map(repr)),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda text: f"-{text}"),
    ),
    max_leaves=4,
)
truths = st.recursive(
    st.lists(numbers, min_size=2, max_size=3).flatmap(
        lambda parts: st.sampled_from(["<", "<=", ">", ">="]).map(lambda sign: f" {sign} ".join(parts))
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map(lambda parts: f"({''.join(parts)})"),
        inner.map(lambda text: f"not ({text})"),
    ),
    max_leaves=4,
)


@given(text=truths, values=st.tuples(*[st.floats(-5, 5)] * len(NAMES)))
def test_it_means_what_python_means(text: str, values: tuple[float, ...]) -> None:
    if len(text) > 500:
        return
    figures = dict(zip(NAMES, values, strict=True))
    found = parse(text, NAMES)
    assert found.holds(figures) == bool(eval(text, {"__builtins__": {}}, dict(figures)))
    assert found.names == {name for name in NAMES if name in text}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency", "'latency' is no comparison"),
        ("latency > 'x'", "''x'' is no number"),
        ("latency > True", "'True' is no number"),
        ("latency == 1", "'latency == 1' is no comparison"),
        ("latency > abs(1)", "'abs(1)' is no number"),
        ("latency.real > 1", "'latency.real' is no number"),
        ("[latency][0] > 1", "'[latency][0]' is no number"),
        ("(latency := 2) > 1", "'(latency := 2)' is no number"),
        ("latency ** 9 > 1", "'latency ** 9' is no number"),
        ("latency > 1j", "'1j' is no number"),
        ("(latency > 1) + 1 > 1", "'latency > 1' is no number"),
        ("1 and 2", "'1' is no comparison"),
        ("latency >", "no expression"),
        ("import os", "no expression"),
        ("", "no expression"),
        ("latency > \0", ""),
        ("(" * 600, "longer than 500 letters"),
        ("(" * 499, ""),
        ("latncy > 1", "there is no figure 'latncy'; did you mean latency?"),
        ("os > 1", "there is no figure 'os'"),
    ],
)
def test_nothing_else_is_taken(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, NAMES)
    assert caught.value.kind == "fail-if"
    assert caught.value.message.startswith(f"--fail-if is '{text}': {message}")


def test_figures_that_nobody_knows() -> None:
    with pytest.raises(DeployError, match=r"--fail-if 'drop > 1': drop is not known here"):
        parse("drop > 1", NAMES).holds({"latency": 1.0, "drop": None, "max_rel": 0.0})
    with pytest.raises(DeployError, match="divides by zero"):
        parse("1 / max_rel > 1", NAMES).holds({"latency": 1.0, "drop": 1.0, "max_rel": 0.0})
