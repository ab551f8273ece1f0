"""The version that each family of kernels with knobs states.

What tuning measured is of a version. Raise a family's when its knobs mean something else, or its code changes so that
what was fastest need not be any more: records of the old version are passed over then, other families' stay. A comment,
or a change that leaves the code of the kernels what it was, raises nothing.
"""

from __future__ import annotations

from .spec import Spec

VERSIONS = {"vector.conv": 1, "vector.window": 1, "vector.winograd": 1, "matrix.conv": 1}
"""By the family's module in this package."""


def versions_of(spec: Spec, winograd: bool) -> dict[str, int]:
    """The families that the choices for a layer are made of, with their versions.

    Args:
        spec: what the layer computes.
        winograd: Winograd's transforms may be among the choices.
    """
    from .table import template

    family = template(spec).emit.__module__.removeprefix(f"{__package__}.")
    return {name: VERSIONS[name] for name in (family, *(["vector.winograd"] if winograd else []))}
