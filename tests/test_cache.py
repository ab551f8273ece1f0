"""The cache gives back what was put in, or makes it anew; it never gives back anything else."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inception_deploy import cache


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("INCEPTION_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    def __init__(self, data: bytes = b"made") -> None:
        self.data = data
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        return self.data


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_made_once(folder) -> None:
    make = Maker()
    assert [cache.fetch("a", ".o", make) for _ in range(3)] == [b"made"] * 3
    assert make.calls == 1
    assert len(entries(folder)) == 1


@pytest.mark.parametrize("other", [("b", ".o"), ("a", ".so"), (b"a\0", ".o"), ("a.o", "")])
def test_other_material_is_another_entry(folder, other) -> None:
    cache.fetch("a", ".o", Maker())
    assert cache.fetch(*other, Maker(b"other")) == b"other"


def test_text_and_its_bytes_are_the_same(folder) -> None:
    cache.fetch("grün", ".o", Maker())
    assert cache.fetch("grün".encode(), ".o", Maker(b"other")) == b"made"


def test_a_key_knows_where_its_parts_end() -> None:
    assert cache.key("ab", "c") != cache.key("a", "bc") != cache.key("abc")
    assert cache.key("a", b"b") == cache.key(b"a", "b")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"!",
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    ],
)
def test_a_damaged_entry_is_made_again(folder, damage) -> None:
    make = Maker()
    cache.fetch("a", ".o", make)
    (entry,) = entries(folder)
    entry.write_bytes(damage(entry.read_bytes()))
    assert cache.fetch("a", ".o", make) == b"made"
    assert make.calls == 2
    assert cache.fetch("a", ".o", make) == b"made"
    assert make.calls == 2


def test_nothing_is_left_of_what_could_not_be_made(folder) -> None:
    def fail() -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.fetch("a", ".o", fail)
    assert entries(folder) == []


def test_a_folder_that_cannot_be_written(folder) -> None:
    folder.write_text("a file where the folder should be")
    make = Maker()
    assert cache.fetch("a", ".o", make) == b"made"
    assert cache.fetch("a", ".o", make) == b"made"
    assert make.calls == 2


def test_a_write_that_fails_leaves_nothing(folder, monkeypatch) -> None:
    def full(source: str, destination: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert cache.fetch("a", ".o", Maker()) == b"made"
    assert entries(folder) == []


def test_what_is_used_is_told_from_what_is_not(folder) -> None:
    """By the time of modification, which `find -mtime` knows."""
    cache.fetch("used", ".o", Maker())
    (entry,) = entries(folder)
    cache.fetch("unused", ".o", Maker())
    long_ago = entry.stat().st_mtime - 30 * 24 * 60 * 60
    for path in entries(folder):
        os.utime(path, (long_ago, long_ago))
    assert cache.fetch("used", ".o", Maker(b"again")) == b"made"
    assert [path.stat().st_mtime > long_ago for path in entries(folder)].count(True) == 1
    assert entry.stat().st_mtime > long_ago


def test_many_at_once(folder) -> None:
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: cache.fetch(f"{i % 5}", ".o", Maker(b"%d" % (i % 5) * 1000)), range(200)))
    assert got == [b"%d" % (i % 5) * 1000 for i in range(200)]
    assert len(entries(folder)) == 5


def test_where_it_is(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("INCEPTION_DEPLOY_CACHE", "~/own")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.directory() == tmp_path / "own"
    monkeypatch.delenv("INCEPTION_DEPLOY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.directory() == tmp_path / "xdg" / "inception-deploy"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.directory() == tmp_path / ".cache" / "inception-deploy"


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("INCEPTION_DEPLOY_CACHE", "/dev/null/cache")
    assert not cache.is_writable(cache.directory())
    assert cache.is_writable(tmp_path / "new" / "folder")
    make = Maker()
    assert [cache.fetch("a", ".o", make) for _ in range(2)] == [b"made"] * 2
    assert make.calls == 2


def test_without_a_home(tmp_path) -> None:
    """A user whom the system does not know, as in some containers: the cache is the process's own, and goes with it."""
    script = """
import os, pwd
pwd.getpwuid = lambda uid: {}[uid]
from inception_deploy import cache
assert cache.directory() == cache.directory()
assert cache.fetch("a", ".o", lambda: b"made") == b"made" and os.listdir(cache.directory())
print(cache.directory())
"""
    kept = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "INCEPTION_DEPLOY_CACHE")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**kept, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []
