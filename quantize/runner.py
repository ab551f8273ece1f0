"""A model in onnxruntime whose inner tensors can be looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from inception_deploy.errors import DeployError
from inception_deploy.ortsession import session_options

from .pictures import Picture

if TYPE_CHECKING:
    import onnx_ir as ir

LOOK_BYTES = 512 << 20
"""How much of the inner tensors is held at a time; more of them are looked at in several runs."""


class Runner:
    """A session that gives any tensor of a model.

    Args:
        model: one input, float32 or of bytes; left as it was.
        watch: names of inner float32 tensors that `look` may give.
        threads: 0 leaves the choice to onnxruntime.

    Raises:
        DeployError: (kind ``onnx``) onnxruntime refuses the model.
    """

    def __init__(self, model: onnx.ModelProto, watch: Sequence[str] = (), *, threads: int = 0) -> None:
        import onnxruntime as ort

        self.input = model.graph.input[0].name
        self.outputs = [value.name for value in model.graph.output]
        kind = model.graph.input[0].type.tensor_type
        self._dtype, size = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type), kind.shape.dim[0]
        self._batch = size.dim_value or 1
        seen = {*self.outputs, self.input}
        extra = [name for name in dict.fromkeys(watch) if name not in seen]
        for name in extra:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        try:
            serialised = model.SerializeToString()
        finally:
            del model.graph.output[len(self.outputs) :]
        try:
            self._session = ort.InferenceSession(
                serialised, session_options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise _failed(error) from error

    def run(
        self,
        pixels: NDArray[np.float32],
        names: Sequence[str] = (),
        beside: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    ) -> dict[str, NDArray[Any]]:
        """The tensors `names` (the model's outputs where none) for inputs (n, C, H, W), n at most its batch, and
        `beside` for other inputs by name.
        """
        wanted = list(names or self.outputs)
        count, pixels = len(pixels), pixels.astype(self._dtype, copy=False)
        if count < self._batch:  # rows that nobody asked for are the last one again, and are cut off below
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], self._batch - count, axis=0)])
        computed = [name for name in wanted if name != self.input]
        try:
            results = self._session.run(computed, {self.input: pixels, **beside}) if computed else []
        except Exception as error:  # as above
            raise _failed(error) from error
        got = {**dict(zip(computed, results, strict=True)), self.input: pixels}
        return {name: np.asarray(got[name])[:count] for name in wanted}

    def batches(self, source: Iterable[Picture]) -> Iterator[list[Picture]]:
        """`source` in runs that fit the model's batch."""
        iterator = iter(source)
        return iter(lambda: list(islice(iterator, self._batch)), [])


def look(
    runner: Runner, batch: Sequence[Picture], chunks: Sequence[Sequence[str]]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every tensor of `chunks` for a batch, one after the other; only one chunk's are held at a time."""
    pixels = np.stack([picture.pixels for picture in batch])
    return chain.from_iterable(runner.run(pixels, names).items() for names in chunks)


def chunked(values: Iterable[ir.Value], limit: int = LOOK_BYTES) -> list[list[str]]:
    """The names of values, in runs of at most `limit` bytes, one value at least."""
    result: list[list[str]] = []
    room = 0
    for value in values:
        sizes = [size if isinstance(size, int) else 1 for size in value.shape or ()]
        size = 4 * math.prod(sizes)
        if size > room or not result:
            result.append([])
            room = limit
        result[-1].append(value.name or "")
        room -= size
    return result


def _failed(error: Exception) -> DeployError:
    line = next((text.strip() for text in str(error).splitlines() if text.strip()), type(error).__name__)
    return DeployError(f"onnxruntime cannot run the graph: {line}", kind="onnx")
