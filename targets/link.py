"""Compiling C and linking shared libraries with ziglang from PyPI. Nothing else knows which compiler it is.

`zig cc -shared` builds parts of a C library first, which takes 38 s the first time; so only `zig cc -c` compiles, and
LLVM's linker, which zig contains, links. A program has its C library in it: there it is built, once a machine.
What the linker needs to know of the C library is in `clib`: bound to the oldest version of every symbol, a model runs
on any glibc from 2.17 (2012) on, and the build machine needs no C library at all.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from inception_deploy import artifact, cache
from inception_deploy.errors import DeployError

from .clib import LIBRARIES, stub

CSRC = Path(__file__).parent / "csrc"

PAGE = 4096
"""What `link_program` fills a file up to a multiple of."""

_FLAGS = (
    *("-std=c11", "-O2", "-g0", "-fPIC", "-Wall", "-Wextra", "-Werror", "-pedantic"),
    *("-fvisibility=hidden", "-ffunction-sections", "-fdata-sections"),
    # What zig turns on by itself and would need its own run-time library for.
    *("-fno-sanitize=undefined", "-fno-stack-protector", "-fno-stack-check"),
    # Real numbers are the same on every machine.
    "-ffp-contract=off",
)


@dataclass(frozen=True)
class Platform:
    """What a triple means to the compiler and the linker.

    Attributes:
        zig: its name for `-target`, with the oldest glibc to run on.
        musl: the same for programs that hold their C library.
        glibc: the first one that there was for the machine.
        flags: more options for the compiler.
        sources: files of `csrc` that every library for it needs.
    """

    zig: str
    musl: str
    glibc: tuple[int, ...]
    flags: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


PLATFORMS: Mapping[str, Platform] = {
    "x86_64-linux-gnu": Platform("x86_64-linux-gnu.2.17", "x86_64-linux-musl", (2, 2, 5)),
    "aarch64-linux-gnu": Platform("aarch64-linux-gnu.2.17", "aarch64-linux-musl", (2, 17), ("-mno-outline-atomics",)),
    "arm-linux-gnueabihf": Platform(
        "arm-linux-gnueabihf.2.17",
        "arm-linux-musleabihf",
        (2, 4),
        ("-mcpu=cortex_a9", "-fno-unwind-tables"),
        ("arm_builtins.c",),
    ),
}


def platform(triple: str) -> Platform:
    """The `Platform` of a triple. DeployError where there is none."""
    found = PLATFORMS.get(triple)
    if found is None:
        allowed = ", ".join(sorted(PLATFORMS))
        raise DeployError(f"no linker is set up for {triple}", kind="link", got=triple, allowed=allowed)
    return found


def compile_c(source: str, name: str, triple: str, *, flags: Sequence[str] = (), musl: bool = False) -> bytes:
    """The object file of one C source, compiled against the headers of `csrc` (cached by content).

    Args:
        source: the text.
        name: what the compiler's messages call it.
        triple: a key of `PLATFORMS`.
        flags: options added to the usual ones.
        musl: for `link_program`, and not for a library.

    Raises:
        DeployError: ``link``; zig is missing, or the compiler's own message.
    """
    found = platform(triple)
    options = ["cc", "-c", "-target", found.musl if musl else found.zig, *_FLAGS, *found.flags, *flags]
    headers = [part for path in sorted(CSRC.glob("*.h")) for part in (path.name, path.read_text(encoding="utf-8"))]

    def make() -> bytes:
        with artifact.temporary() as folder:
            (folder / name).write_text(source, encoding="utf-8")
            _zig([*options, "-I", str(CSRC), "-o", "out.o", name], f"compiling {name}", folder)
            return (folder / "out.o").read_bytes()

    return cache.fetch(cache.key(zig_version(), *options, *headers, name, source), ".o", make)


def data_object(data: bytes, symbol: str, triple: str) -> bytes:
    """An object file with read-only data under a symbol that only what it is linked with sees, from a page's start on.

    Raises:
        DeployError: ``link``; zig is missing, or the assembler's own message.
    """
    text = (
        f'.section .rodata.{symbol},"a",%progbits\n.balign {PAGE}\n.globl {symbol}\n.hidden {symbol}\n'
        f'{symbol}:\n.incbin "data.bin"\n.section .note.GNU-stack,"",%progbits\n'
    )
    with artifact.temporary() as folder:
        (folder / "data.bin").write_bytes(data)
        (folder / "data.s").write_text(text, encoding="utf-8")
        _zig(["cc", "-c", "-target", platform(triple).zig, "-o", "data.o", "data.s"], f"embedding {symbol}", folder)
        return (folder / "data.o").read_bytes()


def link_shared(
    objects: Sequence[bytes], exports: Sequence[str], destination: Path, triple: str, *, dl: bool = False
) -> None:
    """Link object files into a shared library that exports `exports` and nothing else.

    Equal arguments give equal bytes. What is undefined in `objects` and not in `clib` is an error.

    Args:
        objects: contents of ELF object files, in order.
        exports: the symbols that stay visible.
        destination: the library; overwritten.
        triple: a key of `PLATFORMS`.
        dl: the objects also use `dlopen` and its like.
    """
    with artifact.temporary() as folder:
        (folder / "exports.map").write_text(f"{{ global: {' '.join(f'{s};' for s in exports)} local: *; }};\n")
        inputs = _write(objects, folder)
        sonames = [soname for soname in LIBRARIES if dl or soname != "libdl.so.2"]
        for soname in sonames:
            (folder / soname).write_bytes(_stub(soname, triple))
        # In a file, because hundreds of names are too long for some systems' command lines.
        (folder / "inputs.rsp").write_text("\n".join([*inputs, *sonames]))
        options = [
            *("-soname", destination.name, "--version-script=exports.map", "--hash-style=gnu", "--build-id=none"),
            *("--strip-all", "--gc-sections", "--as-needed", "--no-undefined"),
            *("-z", "now", "-z", "relro", "-z", "noexecstack"),
        ]
        _zig(["ld.lld", "-shared", "-o", "out.so", *options, "@inputs.rsp"], f"linking {destination.name}", folder)
        destination.write_bytes((folder / "out.so").read_bytes())


def link_program(objects: Sequence[bytes], destination: Path, triple: str) -> None:
    """Link object files and musl, a C library, into a program that needs no other file.

    The file is filled up to whole pages, so that what is appended can be mapped. Equal arguments give equal bytes.

    Args:
        objects: contents of ELF object files, those with functions of the C library compiled with `musl`.
        destination: the program; overwritten.
        triple: a key of `PLATFORMS`.
    """
    with artifact.temporary() as folder:
        options = _program(triple)
        (folder / "inputs.rsp").write_text("\n".join(_write(objects, folder)))
        _zig(["cc", *options, "-o", "program", "@inputs.rsp"], f"linking {destination.name}", folder)
        cache.fetch(_library(triple), ".musl", lambda: b"built")
        program = (folder / "program").read_bytes()
        destination.write_bytes(program + bytes(-len(program) % PAGE))
        destination.chmod(0o755)


def _program(triple: str) -> list[str]:
    """The options of a program with its C library."""
    return ["-target", platform(triple).musl, "-static", "-s", "-Wl,--gc-sections", "-Wl,--build-id=none"]


def _library(triple: str) -> str:
    """What says in the cache that zig has built the C library."""
    return cache.key("musl", zig_version(), triple)


@contextmanager
def prepared(triple: str) -> Iterator[None]:
    """Meanwhile zig builds the C library of `link_program` in a process of its own, where this machine has none yet:
    that takes two processors a minute. What goes wrong is said when a program is linked.
    """
    if cache.has(_library(triple), ".musl"):
        yield
        return
    with artifact.temporary() as folder:
        (folder / "main.c").write_text("int main(void) { return 0; }\n")
        command, environment = _command(["cc", *_program(triple), "-o", "program", "main.c"], cache.directory() / "zig")
        silent = subprocess.DEVNULL
        started = subprocess.Popen(command, env=environment, cwd=folder, stdin=silent, stdout=silent, stderr=silent)
        try:
            yield
        finally:
            started.terminate()
            started.wait()


def licences() -> str:
    """Of what `link_program` puts into a program: musl, and Zig's run-time library."""
    files = {"musl": "lib/libc/musl/COPYRIGHT", "Zig's run-time library": "LICENSE"}
    package = resources.files("ziglang")
    read = {name: package.joinpath(file).read_text(encoding="utf-8").strip() for name, file in files.items()}
    texts = [f"---- {name} ----\n\n{text}\n" for name, text in read.items()]
    return "The program holds, besides the network and its runtime:\n\n" + "\n".join(texts)


def archive(objects: Sequence[bytes], destination: Path) -> None:
    """Write object files into a static library. Equal arguments give equal bytes."""
    with artifact.temporary() as folder:
        _zig(["ar", "crsD", "out.a", *_write(objects, folder)], f"writing {destination.name}", folder)
        destination.write_bytes((folder / "out.a").read_bytes())


def _write(objects: Sequence[bytes], folder: Path) -> list[str]:
    """Object files in a folder; their names."""
    names = [f"{number}.o" for number in range(len(objects))]
    for name, data in zip(names, objects, strict=True):
        (folder / name).write_bytes(data)
    return names


def _stub(soname: str, triple: str) -> bytes:
    """A shared library that stands for `soname` while linking."""
    wanted = stub(soname, platform(triple).glibc, arm=triple.startswith("arm-"))

    def make() -> bytes:
        # -w: every one of these functions contradicts what the compiler knows of the name.
        data = compile_c(wanted.source, "stub.c", triple, flags=("-w", "-fno-builtin", "-fvisibility=default"))
        with artifact.temporary() as folder:
            (folder / "stub.o").write_bytes(data)
            (folder / "stub.map").write_text(wanted.script)
            options = ["-soname", soname, "--version-script=stub.map", "--build-id=none"]
            _zig(["ld.lld", "-shared", "-o", "stub.so", *options, "stub.o"], f"making a stub of {soname}", folder)
            return (folder / "stub.so").read_bytes()

    material = cache.key(zig_version(), triple, *_FLAGS, wanted.soname, wanted.source, wanted.script)
    return cache.fetch(material, ".so", make)


@lru_cache(maxsize=1)
def zig_version() -> str:
    """The version of the installed ziglang. DeployError where there is none."""
    if importlib.util.find_spec("ziglang") is None:
        raise DeployError(
            "the C compiler and linker are missing; install them with: pip install ziglang",
            kind="link",
            got="no module ziglang",
            allowed="ziglang 0.13 or newer",
        )
    return version("ziglang")


def _zig(arguments: Sequence[str], doing: str, folder: Path) -> None:
    """Run zig in `folder`. DeployError with its first error message where it fails."""
    usual = cache.directory() / "zig"
    done = _zig_once(arguments, folder, usual)
    if done.returncode != 0 and not cache.is_writable(usual):
        done = _zig_once(arguments, folder, cache.private() / "zig")
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        first = next((line for line in lines if "error" in line), lines[0] if lines else f"status {done.returncode}")
        raise DeployError(f"{doing} failed: {first}", kind="link", got="\n".join(lines[:20]))


def _zig_once(arguments: Sequence[str], folder: Path, cached: Path) -> subprocess.CompletedProcess[str]:
    command, environment = _command(arguments, cached)
    return subprocess.run(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _command(arguments: Sequence[str], cached: Path) -> tuple[list[str], dict[str, str]]:
    """How zig is called, and its environment."""
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(cached / "global"), "ZIG_LOCAL_CACHE_DIR": str(cached / "local")}
    return [sys.executable, "-m", "ziglang", *arguments], {**os.environ, **caches, "LC_ALL": "C"}
