"""Running what was compiled: numpy alone, and Pillow where pictures come. Neither torch nor TVM, nor the rest of the
toolkit.

>>> from inception_deploy import runtime
>>> net = runtime.load("irv2-cpu")
>>> net("photo.jpg").top(5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inception_deploy import lazy

if TYPE_CHECKING:
    from .model import Guess, Model, Result, load
    from .preprocessing import Preprocessing

__all__ = ["Guess", "Model", "Preprocessing", "Result", "load"]

__getattr__ = lazy(
    __name__,
    {**dict.fromkeys(("Guess", "Model", "Result", "load"), "model"), "Preprocessing": "preprocessing"},
)
