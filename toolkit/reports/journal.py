"""What a long evaluation has found so far, as JSON lines: readable while it grows, and where a stopped one goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..errors import DeployError


class Journal:
    """A file with a head, which says what the rows are of, and a row a line. None of both where there is no path.

    Args:
        path: the file; nothing is kept where None.
        head: what decides the rows; of it ``images``, how many there will be, ``engines``, by name, and ``best``, how
            many classes each gives, are read here.
        resume: go on with the file that stands at `path`, whose head has to be the same.

    Attributes:
        rows: those that were there.

    Raises:
        DeployError: (kind ``exists``) the file is there and nobody said `resume`; (kind ``resume``) it is of another
            evaluation, or no such file.
    """

    def __init__(self, path: Path | None, head: Mapping[str, Any], *, resume: bool = False) -> None:
        self.rows: list[dict[str, Any]] = []
        self._file: IO[bytes] | None = None
        if path is None:
            return
        if path.exists() and path.is_file():
            if not resume:
                message = f"{path} already exists; --resume goes on with it, or choose another --output"
                raise DeployError(message, kind="exists", got=str(path), allowed="a path that does not exist yet")
            self._go_on(path, head)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
            self.write([head])

    def _go_on(self, path: Path, head: Mapping[str, Any]) -> None:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # a line that was cut short when the process was killed goes
        lines = whole.splitlines()
        try:
            found = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise _other(path, f"is no file of an evaluation: {error}", None, "what evaluate --output wrote") from error
        if not found:
            self._file = path.open("wb")
            self.write([head])
            return
        if not isinstance(found[0], dict) or found[0] != head:
            before = found[0] if isinstance(found[0], dict) else {}
            what = [name for name in head if before.get(name) != head[name]] or list(before)
            allowed = "the same bundle, pictures and engines, or another --output"
            raise _other(path, f"is of another evaluation ({', '.join(what)} differ)", before, allowed)
        self.rows = found[1:]
        if len(self.rows) > head["images"] or not all(_is_row(row, head) for row in self.rows):
            raise _other(path, "has a line that is no row of an evaluation", None, "what evaluate --output wrote")
        self._file = path.open("r+b")
        self._file.truncate(len(whole))
        self._file.seek(0, os.SEEK_END)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; they are in the file when this returns."""
        if self._file is not None:
            self._file.write(b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))
            self._file.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _is_row(row: object, head: Mapping[str, Any]) -> bool:
    return isinstance(row, dict) and all(
        isinstance(part := row.get(name), dict)
        and isinstance(part.get("ms"), (int, float))
        and isinstance(part.get("top"), list)
        and len(part["top"]) == head["best"]
        and all(isinstance(place, int) for place in part["top"])
        for name in head["engines"]
    )


def _other(path: Path, what: str, got: object, allowed: object) -> DeployError:
    return DeployError(f"{path} {what}", kind="resume", got=got, allowed=allowed)
