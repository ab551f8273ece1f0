"""How this package opens onnxruntime, said once: quiet, and with sums of bytes that are whole."""

from __future__ import annotations

from typing import Any

WHOLE_SUMS = ("session.x64quantprecision", "1")
"""On x86 CPUs without VNNI onnxruntime multiplies bytes by vpmaddubsw, whose sums of two products saturate at 16 bits:
a convolution may be tens of units off. With this it keeps to the ONNX specification, at some of its speed."""


def session_options(threads: int = 0, *, severity: int = 4) -> Any:
    """`onnxruntime.SessionOptions` with whole sums.

    Args:
        threads: within an operator; 0 leaves the choice to onnxruntime.
        severity: what it may print: from 0 (everything) to 4 (fatal only).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = severity
    options.add_session_config_entry(*WHOLE_SUMS)
    return options
