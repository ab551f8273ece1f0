"""Files of arrays: what numpy raises for those that are none, and the rows of a large one, one at a time."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .errors import DeployError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BROKEN = (
    OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError, RecursionError,
    SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError,
)  # fmt: skip
"""Of a .npy or .npz with a broken header, a size that no memory holds, a damaged archive: numpy's readers parse headers
as Python and trust the sizes.
"""


def header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and type of a .npy file, read up to its data.

    Raises:
        ValueError: the array is in Fortran's order or holds objects. One of `BROKEN` where it is no such file.
    """
    import numpy as np

    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    sizes, fortran, dtype = reader(file)
    if (fortran and len(sizes) > 1) or dtype.hasobject:
        raise ValueError("the array is in Fortran's order, or holds Python objects")
    return sizes, dtype


def rows(path: Path, name: str) -> Iterator[NDArray[Any]]:
    """The rows of the array `name` of an .npz, each read when it is asked for.

    Raises:
        DeployError: (kind ``npz``) the file ends before its last row.
    """
    import numpy as np

    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        sizes, dtype = header(file)
        size = math.prod(sizes[1:]) * dtype.itemsize
        for index in range(sizes[0]):
            data = file.read(size)
            if len(data) < size:
                message = f"{path} ends inside row {index} of array '{name}'"
                raise DeployError(message, kind="npz", got=len(data), allowed=size)
            yield np.frombuffer(data, dtype).reshape(sizes[1:])
