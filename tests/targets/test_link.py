"""Compiling and linking with zig: cached, reproducible, and clear about what went wrong."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from inception_deploy import cache
from inception_deploy.errors import DeployError
from inception_deploy.targets import clib, cpu_library, library, link


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own; zig's part of it is the usual one, because filling that takes seconds."""
    own = tmp_path / "cache"
    (own / "zig").mkdir(parents=True)
    usual = cache.directory() / "zig"
    for part in ("global", "local"):
        (usual / part).mkdir(parents=True, exist_ok=True)
        (own / "zig" / part).symlink_to(usual / part)
    monkeypatch.setenv("INCEPTION_DEPLOY_CACHE", str(own))
    return own


def contents(folder: Path, names: list[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def test_equal_plans_give_equal_bytes(tiny, tmp_path, empty_cache, monkeypatch) -> None:
    first, second = tmp_path / "first", tmp_path / "the second, elsewhere"
    first.mkdir()
    second.mkdir()
    names = tiny.write(tiny.chain(4), first)
    assert names == ["model.so", "weights.bin", "inception_deploy.h"]
    monkeypatch.setenv("INCEPTION_DEPLOY_CACHE", str(tmp_path / "cold"))
    monkeypatch.chdir(second)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    tiny.write(tiny.chain(4), second)
    assert contents(first, names) == contents(second, names)
    library_bytes = (first / "model.so").read_bytes()
    for trace in (str(tmp_path), os.getcwd(), str(link.CSRC), "/tmp", str(Path.home())):
        assert trace.encode() not in library_bytes


def test_nothing_is_compiled_twice(tiny, tmp_path, empty_cache, monkeypatch) -> None:
    tiny.write(tiny.chain(4), tmp_path)
    calls: list[str] = []
    zig = link._zig
    monkeypatch.setattr(
        link, "_zig", lambda arguments, doing, folder: (calls.append(doing), zig(arguments, doing, folder))
    )
    tiny.write(tiny.chain(4), tmp_path)
    assert calls == ["linking model.so"]
    tiny.write(tiny.chain(5), tmp_path)
    assert calls == ["linking model.so", "compiling model.c", "linking model.so"]


def test_a_change_of_a_header_compiles_again(tiny, tmp_path, empty_cache, monkeypatch) -> None:
    csrc = tmp_path / "csrc"
    csrc.mkdir()
    (csrc / "n.h").write_text("#define N 1\n")
    monkeypatch.setattr(link, "CSRC", csrc)
    source = '#include "n.h"\nint n = N;\n'
    one = link.compile_c(source, "n.c", tiny.triple)
    assert link.compile_c(source, "n.c", tiny.triple) == one
    (csrc / "n.h").write_text("#define N 2\n")
    assert link.compile_c(source, "n.c", tiny.triple) != one


def test_a_mistake_in_c_is_shown(tiny) -> None:
    with pytest.raises(
        DeployError, match=r"compiling wrong\.c failed: wrong\.c:1:9: error: use of undeclared"
    ) as caught:
        link.compile_c("int a = b;\n", "wrong.c", tiny.triple)
    assert caught.value.kind == "link"


def test_a_missing_symbol_is_named(tiny, tmp_path) -> None:
    source = "int gone(void);\nint f(void);\nint f(void) { return gone(); }\n"
    data = link.compile_c(source, "f.c", tiny.triple, flags=("-fvisibility=default",))
    with pytest.raises(DeployError, match=r"linking f\.so failed: .*undefined symbol: gone"):
        link.link_shared([data], ["f"], tmp_path / "f.so", tiny.triple)
    assert not (tmp_path / "f.so").exists()


def test_an_object_that_is_none(tiny, tmp_path) -> None:
    with pytest.raises(DeployError, match=r"linking f\.so failed"):
        link.link_shared([b"garbage"], ["f"], tmp_path / "f.so", tiny.triple)


def test_a_kernel_without_an_object(tiny) -> None:
    with pytest.raises(DeployError, match="no compiled kernel for t_gather"):
        cpu_library.part(tiny.chain(1), {"t_copy": b""})


def test_an_unknown_machine(tiny, tmp_path) -> None:
    with pytest.raises(DeployError, match="no linker is set up for vax-unknown") as caught:
        parts = [cpu_library.part(tiny.chain(1), tiny.objects())]
        library.write_library(tiny.chain(1), parts, tmp_path, triple="vax-unknown")
    assert "x86_64-linux-gnu" in str(caught.value.allowed)


def test_zig_is_missing(tiny, tmp_path, monkeypatch) -> None:
    link.zig_version.cache_clear()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "ziglang" else find(name, *rest)
    )
    try:
        with pytest.raises(DeployError, match="pip install ziglang"):
            tiny.write(tiny.chain(1), tmp_path)
        assert list(tmp_path.iterdir()) == []
    finally:
        monkeypatch.undo()
        link.zig_version.cache_clear()
    assert re.fullmatch(r"[0-9.]+.*", link.zig_version())


def test_a_library_with_mathematics_loads(tiny, tmp_path) -> None:
    """Every libm function that a kernel may call is there, under the version that we bind to."""
    import ctypes

    names = clib.LIBRARIES["libm.so.6"]
    declared = "".join(f"extern char {name};\n" for name in names)
    addresses = ", ".join(f"&{name}" for name in names)
    source = f"{declared}const char *const all[] = {{{addresses}}};\n"
    data = link.compile_c(source, "all.c", tiny.triple, flags=("-w", "-fno-builtin", "-fvisibility=default"))
    link.link_shared([data], ["all"], tmp_path / "all.so", tiny.triple)
    loaded = ctypes.CDLL(str(tmp_path / "all.so"), mode=os.RTLD_NOW)
    assert all((ctypes.c_void_p * len(names)).in_dll(loaded, "all"))


@pytest.mark.parametrize("soname", sorted(clib.LIBRARIES))
def test_versions_of_a_stub(soname) -> None:
    modern, old = clib.stub(soname, (2, 17)), clib.stub(soname, (2, 2, 5))
    assert modern.source == old.source
    assert re.findall(r"^GLIBC_\S+", modern.script, re.M) == ["GLIBC_2.17"]
    assert re.findall(r"^GLIBC_\S+", old.script, re.M)[0] == "GLIBC_2.2.5"
    if soname == "libc.so.6":
        assert re.findall(r"^(GLIBC_\S+) .*\} (\S*);$", old.script, re.M) == [
            ("GLIBC_2.2.5", ""),
            ("GLIBC_2.16", "GLIBC_2.2.5"),
            ("GLIBC_2.17", "GLIBC_2.16"),
        ]


@pytest.mark.parametrize("home", ["cache", "home"])
def test_a_cache_that_cannot_be_written_slows_and_does_not_fail(tiny, monkeypatch, home) -> None:
    """Not zig's either, which does nothing without one."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("INCEPTION_DEPLOY_CACHE", raising=False)
    monkeypatch.setenv(*{"cache": ("INCEPTION_DEPLOY_CACHE", "/dev/null/x"), "home": ("HOME", "/dev/null")}[home])
    assert link.compile_c("int f(void); int f(void) { return 1; }\n", "f.c", tiny.triple).startswith(b"\x7fELF")
    with pytest.raises(DeployError, match=r"compiling f\.c failed: f\.c:1:"):  # an error stays one
        link.compile_c("wrong\n", "f.c", tiny.triple)


FULL = """
import resource, sys
from inception_deploy.errors import DeployError
from inception_deploy.targets import link
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
try:
    link.compile_c("int f(void); int f(void) { return 1; }" + 500 * " " + chr(10), "f.c", sys.argv[2])
except DeployError as error:
    print(error.kind, error.message)
"""


@pytest.mark.parametrize(
    ("room", "message"),
    [
        (100, "no space left on the disk of {}, that of the temporary files; set TMPDIR to a folder that has room"),
        (1000, "no space left on the disk of {}, that of the temporary files; set TMPDIR to a folder that has room"),
        (0, "No usable temporary directory found in ['{}', "),
    ],
)
def test_a_full_folder_for_temporary_files_is_named(tiny, tmp_path, room, message) -> None:
    """No file may become larger than `room` bytes, which is as if the disk were full."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(room), tiny.triple],
        env={**os.environ, "TMPDIR": str(tmp_path), "INCEPTION_DEPLOY_CACHE": "/dev/null/x"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("disk " + message.format(tmp_path)), done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_c_library_of_programs_is_built_beside_other_work(tiny, tmp_path, empty_cache, monkeypatch) -> None:
    """By the options that a program is linked with, until one was; and not longer than the work lasts."""
    started: list[subprocess.Popen[bytes]] = []

    class Seen(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: object) -> None:
            super().__init__(command, **options)  # type: ignore[call-overload]
            if "-static" in command and "main.c" in command:
                started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Seen)
    with pytest.raises(RuntimeError, match="no more"), link.prepared(tiny.triple):
        raise RuntimeError("no more")
    with link.prepared(tiny.triple):
        assert started[1].wait() == 0
        assert set(link._program(tiny.triple)) < set(map(str, started[1].args))  # type: ignore[call-overload]
    program = link.compile_c("int main(void);\nint main(void) { return 0; }\n", "main.c", tiny.triple, musl=True)
    link.link_program([program], tmp_path / "program", tiny.triple)
    with link.prepared(tiny.triple):
        assert len(started) == 2
    assert all(process.returncode is not None for process in started)
