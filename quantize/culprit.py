"""Where int8 goes wrong: the error of each layer, and the first branch where it falls off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from . import arith
from .integer_network import IntegerNetwork, read
from .integer_steps import IntegerStep
from .pictures import Picture
from .quantizer import QuantizedModel, Quantizer
from .ratio import Ratio
from .runner import Runner
from .structure import Structure, analyse

FALL_DB = 6.0
"""A branch falls off where its signal-to-noise ratio is so much below that of what it reads: half the accuracy."""


@dataclass(frozen=True)
class LayerError:
    """One layer.

    Attributes:
        layer, kind, op: its name, its kind (`structure`), its operator.
        sqnr_db, cosine: of its result in the int8 model against the float model, with all that went wrong before it.
        own_db: the same if only this layer computed in int8, on the float model's inputs.
        before_db: the worst `sqnr_db` of the layers it reads; None where it reads the model's input.
    """

    layer: str
    kind: str
    op: str
    sqnr_db: float
    cosine: float
    own_db: float
    before_db: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, rounded to what is worth reading."""
        return {
            "layer": self.layer,
            "kind": self.kind,
            "op": self.op,
            "sqnr_db": round(self.sqnr_db, 2),
            "cosine": round(self.cosine, 6),
            "own_db": round(self.own_db, 2),
            "before_db": None if self.before_db is None else round(self.before_db, 2),
        }


@dataclass
class _Errors:
    total: Ratio = field(default_factory=Ratio)
    own: Ratio = field(default_factory=Ratio)


def layer_errors(
    quantizer: Quantizer,
    quantized: QuantizedModel,
    source: Iterable[Picture],
    *,
    limit: int = 8,
    threads: int = 0,
) -> list[LayerError]:
    """`compare` of the model that `quantizer` holds with what it made of it."""
    return compare(quantizer.prepared, quantized.model, source, limit=limit, threads=threads)


def compare(
    float_model: onnx.ModelProto,
    int8_model: onnx.ModelProto,
    source: Iterable[Picture],
    *,
    limit: int = 8,
    threads: int = 0,
) -> list[LayerError]:
    """The error of every layer of a QDQ model, in order, on the first `limit` pictures.

    The int8 side is the exact integer network, not a runtime's idea of it.

    Args:
        float_model: what the QDQ model was made from, as `prepare.prepare` leaves it: its tensors have the same names.
    """
    network = read(int8_model)
    steps = [step for step in network.steps if step.kind not in ("quantize", "dequantize", "float")]
    structure = analyse(ir.from_proto(float_model))
    names = _float_names(structure, steps, network)
    runner = Runner(float_model, [value.name or "" for value in structure.values], threads=threads)
    # What a step reads is another's result, but where floats come before the first one.
    read_by = {network.float_name(tensor) for step in steps for tensor in step.inputs}
    known = read_by & {value.name for value in structure.values}
    wanted = [name for name in (*names.values(), *sorted(known), *runner.outputs) if name]
    errors = {step.name: _Errors() for step in steps}
    for picture in islice(source, limit):
        pixels = picture.pixels[None]
        real = runner.run(pixels, list(dict.fromkeys([*wanted, runner.input])))
        got = network.run({network.inputs[0]: pixels})
        for step in steps:
            reference = real.get(names.get(step.name, "")) if step.name in names else None
            if reference is None:
                continue
            errors[step.name].total.add(reference, _result(step, got))
            errors[step.name].own.add(reference, _alone(network, step, real))
    return _rows(steps, errors, names, network)


def first_fall(rows: Iterable[LayerError]) -> LayerError | None:
    """The first layer that is `FALL_DB` or more below what it reads, where the network's end has not recovered from it;
    None where there is none. A small residual or an average pool makes good what a layer before it lost.
    """
    rows = list(rows)
    return next(
        (
            row
            for row in rows
            if row.before_db is not None and max(row.sqnr_db, rows[-1].sqnr_db) <= row.before_db - FALL_DB
        ),
        None,
    )


def _float_names(structure: Structure, steps: Iterable[IntegerStep], network: IntegerNetwork) -> dict[str, str]:
    """The name of each step's result in the float model, where it is watched or leaves the graph."""
    known = {value.name for value in structure.values}
    known |= {value.name for layer in structure.layers for value in layer.outputs if value.is_graph_output()}
    made = {step.name: step.result if step.output is None else network.float_name(step.output) for step in steps}
    return {name: result for name, result in made.items() if result in known}


def _result(step: IntegerStep, values: dict[str, NDArray[Any]]) -> NDArray[Any]:
    if step.output is None:
        return values[step.result]
    return arith.dequantize(values[step.output.name], step.output.params.scale, step.output.params.zero)


def _alone(network: IntegerNetwork, step: IntegerStep, real: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The result of one step on the float model's inputs, quantized."""
    values: dict[str, NDArray[Any]] = {}
    for tensor in step.inputs:
        source = real[network.float_name(tensor)]
        values[tensor.name] = arith.quantize(source, tensor.params.scale, tensor.params.zero, tensor.params.dtype)
    network.execute(step, values)
    return _result(step, values)


def _rows(
    steps: list[IntegerStep], errors: dict[str, _Errors], names: dict[str, str], network: IntegerNetwork
) -> list[LayerError]:
    made: dict[str, float] = {}
    rows = []
    for step in steps:
        if step.name not in names:
            continue
        found = errors[step.name]
        before = [made[tensor.name] for tensor in step.inputs if tensor.name in made]
        if step.output is not None:
            made[step.output.name] = found.total.db
        rows.append(
            LayerError(
                step.name,
                step.kind,
                step.nodes[0].op_type,
                found.total.db,
                found.total.cosine,
                found.own.db,
                min(before) if before else None,
            )
        )
    return rows
