"""Replaces a bundle and is killed at one step after the other: `python killed.py FOLDER zip|folder exchange|rename`.

Prints one line a kill: what stands at the destination right after it, and after the next start. Ends when a run came
through without being killed. A process of its own, because it forks, and a process with threads must not.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inception_deploy import artifact

CALLS = [(os, name) for name in ("open", "close", "mkdir", "rename", "replace", "rmdir", "unlink", "stat", "lstat")]
CALLS += [(fcntl, "flock"), (tempfile, "mkdtemp"), (artifact, "_exchange")]


def replace(destination: Path, content: str) -> None:
    with artifact.atomic_folder(destination, force=True) as folder:
        for name in ("a", "b"):
            (folder / name).write_text(content)


def standing(destination: Path) -> str:
    """``old`` or ``new`` where that one is whole."""
    if not destination.exists():
        return "nothing"
    if destination.is_file():
        with zipfile.ZipFile(destination) as archive:
            found = [archive.read(name).decode() for name in sorted(archive.namelist())]
    else:
        found = [path.read_text() for path in sorted(destination.iterdir())]
    return found[0] if len(found) == 2 and found[0] == found[1] else f"broken: {found}"


def kill_at(step: int) -> None:
    """Let the process end at its `step`-th call to the system: before even ones, after odd ones."""
    count = itertools.count()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            if next(count) == step:
                os._exit(9)
            result = call(*args, **options)
            if next(count) == step:
                os._exit(9)
            return result

        return wrapper

    for module, name in CALLS:
        setattr(module, name, counted(getattr(module, name)))


def main(place: Path, kind: str, how: str) -> None:
    if how == "rename":
        artifact._exchange = lambda one, other: False
    for step in itertools.count():
        folder = place / str(step)
        folder.mkdir()
        destination = folder / ("net.zip" if kind == "zip" else "net")
        replace(destination, "old")
        child = os.fork()
        if not child:
            kill_at(step)
            replace(destination, "new")
            os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        after = standing(destination)
        artifact.remove_abandoned(destination)
        print(step, after, standing(destination), ",".join(sorted(path.name for path in folder.iterdir())))
        shutil.rmtree(folder)
        if not killed:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
