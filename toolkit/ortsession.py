"""How this package opens onnxruntime, said once: quiet, and with sums of bytes that are whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

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


def session_of(path: str, options: Any) -> Any:
    """A session of a file on the CPU.

    onnxruntime 1.31 calls what it makes of a signed weight's zero point for whole sums after that, and fails ("Attempt
    to replace the existing tensor") where two weights have one: then each gets its own.
    """
    import onnx
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        if "replace the existing tensor" not in str(error):
            raise
    model = onnx.load(path)
    _unshare(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)


def _unshare(model: onnx.ModelProto) -> None:
    """Give every DequantizeLinear constants of its own."""
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    taken: set[str] = set()
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if node.op_type == "DequantizeLinear" and name in known:
                if name in taken:
                    copy = model.graph.initializer.add()
                    copy.CopyFrom(known[name])
                    node.input[index] = copy.name = f"{name}/{node.output[0]}"
                taken.add(name)
