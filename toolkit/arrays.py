"""What numpy raises for a .npy or .npz file that is none: its readers parse headers as Python and trust the sizes."""

from __future__ import annotations

import tokenize
import zipfile
import zlib

BROKEN = (
    OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError, RecursionError,
    SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError,
)  # fmt: skip
"""Of a broken header, a size that no memory holds, a damaged archive."""
