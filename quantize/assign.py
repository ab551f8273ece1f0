"""From ranges to the scale and zero point of every tensor, so that every layer can compute in integers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import onnx_ir as ir

from inception_deploy.graph.rewrite import constant

from . import ranges
from .integer_weights import covering_exponent
from .scheme import Choices, Params, Scheme
from .structure import Structure

LARGEST_ALIGNMENT = 16
"""How many bits apart the two sides of an add may lie; what is finer yet could not change the sum by one step."""


def assign(
    structure: Structure,
    ends: Mapping[str, ranges.Range],
    scheme: Scheme,
    choices: Choices,
    sixteen: Collection[str] = (),
) -> dict[ir.Value, Params]:
    """The parameters of every quantized tensor.

    Tensors of one group share theirs. Under aligned adds, a side with the finer scale is coarsened to the nearest power
    of two below the other's, which clips nothing. Under powers of two a scale is coarsened where a requantization would
    have to shift to the left.

    Args:
        ends: the range of each tensor by name; where those of a group differ, their union counts.
        sixteen: the names of tensors of 16 bits, of which the others of their groups are, too. Their scale is their own
            whatever they are added to: such a sum is taken in float32.
    """
    groups = structure.groups(choices)
    wide = [any(value.name in sixteen for value in group) for group in groups]
    reach = []
    for group in groups:
        each = [ends[value.name or ""] for value in group]
        reach.append((min(low for low, _ in each), max(high for _, high in each)))
    chosen = [ranges.params(each, scheme.wider if more else scheme) for each, more in zip(reach, wide, strict=True)]
    index = {value: number for number, group in enumerate(groups) for value in group}
    if scheme.power_of_two:
        exponents = [params.exponent for params in chosen]
        _coarsen(structure, exponents, index, scheme)
        chosen = [Params(math.ldexp(1.0, n), 0, scheme.activation) for n in exponents]
    elif choices.add == "aligned":
        for members in _joined(structure, index, len(groups)):
            members = [member for member in members if not wide[member]]
            base = max((chosen[member].scale for member in members), default=1.0)
            for member in members:
                bits = min(math.floor(math.log2(base / chosen[member].scale)), LARGEST_ALIGNMENT)
                chosen[member] = ranges.at_scale(reach[member], math.ldexp(base, -bits), scheme)
    return {value: chosen[number] for value, number in index.items()}


def _joined(structure: Structure, index: Mapping[ir.Value, int], count: int) -> list[list[int]]:
    """The groups that meet in an add, directly or through others; those that meet none are left out."""
    family = list(range(count))
    for layer in structure.layers:
        if layer.kind == "add":
            a, b = (family[index[value]] for value in (layer.inputs * 2)[:2])
            family = [a if number == b else number for number in family]
    members: dict[int, list[int]] = {}
    for number, leader in enumerate(family):
        members.setdefault(leader, []).append(number)
    return [numbers for numbers in members.values() if len(numbers) > 1]


def _coarsen(structure: Structure, exponents: list[int], index: Mapping[ir.Value, int], scheme: Scheme) -> None:
    """Raise exponents until no requantization shifts to the left; each rule only raises, so that this ends."""
    for _ in range(len(exponents) + 1):
        before = list(exponents)
        for layer in structure.layers:
            sources = [exponents[index[value]] for value in layer.inputs]
            if layer.kind == "add":
                coarsest = max(sources)
                for value in layer.inputs:
                    exponents[index[value]] = max(exponents[index[value]], coarsest - LARGEST_ALIGNMENT)
                least = min(exponents[index[value]] for value in layer.inputs)
            elif layer.weighted is not None:
                weight = constant(layer.weighted.inputs[1])
                assert weight is not None
                least = sources[0] + covering_exponent(weight, scheme, layer.taps)
            elif layer.kind == "mul":
                least = sum((sources * 2)[:2])
            else:
                continue
            for value in layer.outputs:
                if value in index:
                    exponents[index[value]] = max(exponents[index[value]], least)
        if exponents == before:
            return
    raise AssertionError("a cycle of scales in a graph without cycles")
