"""What a compiled model may use of glibc: the symbols of each library and the oldest version every one carries.

The linker binds against stubs made of these tables. A symbol that is missing here is a link error that names it; add it
with the version that `readelf --dyn-syms` shows on the oldest glibc that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MATH = (
    *("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "cos", "cosh", "erf", "erfc", "exp"),
    *("exp2", "expm1", "fabs", "floor", "fma", "fmax", "fmin", "fmod", "hypot", "ldexp", "lgamma", "log", "log10"),
    *("log1p", "log2", "nearbyint", "pow", "remainder", "rint", "round", "sin", "sinh", "sqrt", "tan", "tanh"),
    *("tgamma", "trunc"),
)

LIBRARIES: dict[str, tuple[str, ...]] = {
    "libm.so.6": tuple(name + suffix for name in _MATH for suffix in ("", "f")),
    "libpthread.so.0": (
        "pthread_attr_destroy",
        "pthread_attr_init",
        "pthread_attr_setstacksize",
        "pthread_create",
        "pthread_join",
        "pthread_sigmask",
    ),
    "libdl.so.2": ("dlclose", "dlerror", "dlopen", "dlsym"),
    "libc.so.6": (
        *("abort", "bcmp", "calloc", "clock_gettime", "close", "free", "getauxval", "getenv", "getpid", "ioctl"),
        *("lseek", "lseek64", "madvise", "malloc", "memcmp", "memcpy", "memmove", "memset", "mmap"),
        *(
            "mmap64",
            "munmap",
            "open",
            "open64",
            "posix_memalign",
            "read",
            "realloc",
            "sigfillset",
            "snprintf",
            "strcmp",
        ),
        *("strlen", "strrchr", "strtoull", "syscall", "vsnprintf", "write"),
    ),
}
"""By soname, in the order in which the linker sees them."""

ARM_LIBC = tuple(
    f"__aeabi_{name}{alignment}" for name in ("memclr", "memcpy", "memmove", "memset") for alignment in ("", "4", "8")
)
"""What the 32-bit ARM ABI adds to libc.so.6."""

_NEWER = {"clock_gettime": (2, 17), "getauxval": (2, 16)}


@dataclass(frozen=True)
class Stub:
    """A shared library of functions that do nothing: C source and the linker's version script."""

    soname: str
    source: str
    script: str


def stub(soname: str, oldest: Sequence[int], *, arm: bool = False) -> Stub:
    """The stub of one library for a machine whose first glibc was `oldest`, e.g. (2, 2, 5)."""
    names = (*LIBRARIES[soname], *(ARM_LIBC if arm and soname == "libc.so.6" else ()))
    versions: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        # Everything older than a machine's first glibc carries that one's version.
        versions.setdefault(max(tuple(oldest), _NEWER.get(name, ())), []).append(name)
    script, previous = "", ""
    for number, symbols in sorted(versions.items()):
        node = "GLIBC_" + ".".join(map(str, number))
        hide = "" if previous else " local: *;"
        script += f"{node} {{ global: {' '.join(f'{symbol};' for symbol in symbols)}{hide} }} {previous};\n"
        previous = node
    source = "".join(f"void {name}(void);\nvoid {name}(void) {{}}\n" for name in names)
    return Stub(soname, source, script)
