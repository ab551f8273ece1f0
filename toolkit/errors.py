"""The errors a user can cause, as values the command line prints in one line or as JSON.

Every error says what was got, what is allowed and what to do. Nothing else is ever shown to a user as a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DeployError(Exception):
    """The work could not be done, or a check failed. Exit status 1.

    Args:
        message: one sentence for a person that names the file or the field, without a full stop at its end.
        kind: a short stable identifier for machines, e.g. ``"weights"``, ``"onnx"``, ``"bundle"``.
        got: what was given, as text.
        allowed: what would have been accepted, as text.
    """

    exit_code = 1

    def __init__(self, message: str, *, kind: str = "error", got: object = None, allowed: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.got = got
        self.allowed = allowed

    def as_dict(self) -> dict[str, object]:
        """The ``{"error": {...}}`` document of the command line's ``--json``."""
        return {"error": {"kind": self.kind, "message": self.message, "got": self.got, "allowed": self.allowed}}


class UsageError(DeployError):
    """The command was called wrongly (unknown name, impossible option). Exit status 2."""

    exit_code = 2


def nearest(got: str, allowed: Iterable[str], *, count: int = 3) -> list[str]:
    """The `count` names of `allowed` that look most like `got`, best first; empty where none is near."""
    return difflib.get_close_matches(got.lower(), list(allowed), n=count, cutoff=0.5)
