"""A document is held to its schema once, and the field that is wrong is named."""

from __future__ import annotations

import pytest

from inception_deploy.schema import MapOf, Maybe, Mismatch, Missing, NotEmpty, Nullable, OneOf, Whole, check

SCHEMA = {
    "name": str,
    "shape": NotEmpty(Whole(1)),
    "kind": OneOf(("a", "b")),
    "share": float,
    "flag": Nullable(bool),
    "seed": Missing(Whole()),
    "note": Maybe(str),
    "files": MapOf(str),
}
GOOD: dict[str, object] = {"name": "x", "shape": [1, 3], "kind": "a", "share": 0.5, "flag": None, "files": {"f": "0"}}


@pytest.mark.parametrize("more", [{}, {"seed": 1}, {"note": None}, {"note": "n"}, {"share": 1}, {"unknown": object()}])
def test_what_fits(more: dict[str, object]) -> None:
    check(GOOD | more, SCHEMA)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": 5}, "field 'name' is 5, not a text"),
        ({"shape": []}, r"field 'shape' is \[\], not at least one"),
        ({"shape": "x"}, "field 'shape' is 'x', not a list"),
        ({"shape": [1, 0]}, r"field 'shape\[1\]' is 0, not a whole number from 1 to"),
        ({"shape": [True]}, r"field 'shape\[0\]' is True, not a whole number"),
        ({"shape": [10**30]}, r"field 'shape\[0\]' is 10+, not a whole number"),
        ({"shape": [2.0]}, r"field 'shape\[0\]' is 2.0, not a whole number"),
        ({"kind": []}, r"field 'kind' is \[\], not 'a' or 'b'"),
        ({"share": float("nan")}, "field 'share' is nan, not a number"),
        ({"share": 10**400}, r"field 'share' is 1000.*\.\.\., not a number"),
        ({"share": None}, "field 'share' is None, not a number"),
        ({"flag": 1}, "field 'flag' is 1, not true or false"),
        ({"seed": None}, "field 'seed' is None, not a whole number"),
        ({"files": {"f": 1}}, "field 'files.f' is 1, not a text"),
        ({"files": []}, r"field 'files' is \[\], not an object"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], says: str) -> None:
    with pytest.raises(Mismatch, match=says):
        check(GOOD | change, SCHEMA)


@pytest.mark.parametrize("key", ["name", "flag", "files"])
def test_what_lacks_is_named(key: str) -> None:
    with pytest.raises(Mismatch, match=f"field '{key}' is missing"):
        check({name: value for name, value in GOOD.items() if name != key}, SCHEMA)
