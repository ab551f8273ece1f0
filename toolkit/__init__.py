"""inception-deploy: branchy CNNs from PyTorch to verified, compiled bundles.

>>> import inception_deploy as idp
>>> idp.export("irv2", "irv2-cpu", target="cpu")
>>> net = idp.load("irv2-cpu")
>>> net("photo.jpg").top(5)

Every command of the command line is a function here, with the same options: `export`, `tune`, `quantize`, `run`,
`verify`, `bench`, `evaluate`, `compare`, `inspect`, `report`, `models`, `targets`. They return what the command prints
with ``--json``. `load` gives a `Model` to call and needs numpy alone. Nothing heavy is imported until one is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import (
        bench,
        bench_torch,
        compare,
        evaluate,
        export,
        inspect,
        load,
        models,
        quantize,
        report,
        run,
        targets,
        tune,
        verify,
    )
    from .errors import DeployError, UsageError
    from .runtime.model import Guess, Model, Result
    from .runtime.preprocessing import Preprocessing

__version__ = "0.1.0"

__all__ = [
    "DeployError",
    "Guess",
    "Model",
    "Preprocessing",
    "Result",
    "UsageError",
    "bench",
    "bench_torch",
    "compare",
    "evaluate",
    "export",
    "inspect",
    "load",
    "models",
    "quantize",
    "report",
    "run",
    "targets",
    "tune",
    "verify",
]


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package: each name comes from its home, a module below it, when it is first used."""

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = import_module(f".{homes[name]}", package)
        # A module that is a function too is its own home (`front`).
        value = home if homes[name] == name else getattr(home, name)
        setattr(sys.modules[package], name, value)
        return value

    return get


class _Front(ModuleType):
    """A module that can be called: the front door has a function of its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._function(*arguments, **options)

    @property
    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module(f"{__name__}.api"), self.__name__.rpartition(".")[2])
        return function

    @property
    def __signature__(self) -> Any:  # what a notebook shows
        return import_module("inspect").signature(self._function)


def front(module: str) -> None:
    """Make a module callable as the function of the front door that has its name.

    `inception_deploy.models` is the package of the zoo, and ``inception_deploy.models()`` lists it. With one name they
    have to be one object: importing the package would otherwise take the function's place. A type checker sees the
    function; ``import inception_deploy.models as models`` gives it the package.
    """
    sys.modules[module].__class__ = _Front


_FUNCTIONS = ("bench", "bench_torch", "compare", "evaluate", "export", "inspect", "load", "report", "run", "tune")
_MODULES = ("models", "quantize", "targets", "verify")

__getattr__ = lazy(
    __name__,
    {
        **dict.fromkeys(_FUNCTIONS, "api"),
        **{name: name for name in _MODULES},
        **dict.fromkeys(("DeployError", "UsageError"), "errors"),
        **dict.fromkeys(("Guess", "Model", "Result"), "runtime.model"),
        "Preprocessing": "runtime.preprocessing",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
