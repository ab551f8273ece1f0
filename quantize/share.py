"""How much of a quantized network computes in integers, and what does not, each with its reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import onnx

from inception_deploy.errors import DeployError
from inception_deploy.graph.cost import cost

from .integer_network import read

WARN_BELOW = 90.0
"""Percent of the multiply-adds in integers below which an export warns."""

_SHOWN = 5


@dataclass(frozen=True)
class FloatNode:
    """A node that computes in float32: why, and how many percent of the network's multiply-adds it does."""

    node: str
    op: str
    reason: str
    percent: float


@dataclass(frozen=True)
class Share:
    """What a compiled network does in integers.

    Attributes:
        percent: of its multiply-adds; of a network that has none, 100 where anything is in integers, else 0.
        floats: every node that computes in float32, in the graph's order.
        sixteen: the tensors of 16 bits, by the names that they have in float.
    """

    percent: float
    floats: tuple[FloatNode, ...]
    sixteen: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For the manifest and for JSON."""
        return {
            "integer_macs_percent": self.percent,
            "float_nodes": [one.node for one in self.floats],
            "floats": [asdict(one) for one in self.floats],
            "sixteen_bit": list(self.sixteen),
        }

    def notes(self) -> list[str]:
        """What a person is told: the share, what is not in it, and a warning where it is small."""
        low = "warning: only " if self.percent < WARN_BELOW else ""
        told = [f"{low}{self.percent:g} % of the multiply-adds compute in integers"]
        if self.floats:
            told.append(f"in float32: {self.named()}")
        return told

    def named(self) -> str:
        """The nodes in float32, those with the most work first."""
        order = sorted(self.floats, key=lambda one: -one.percent)
        shown = "; ".join(f"{one.node} ({one.op}, {one.percent:g} %): {one.reason}" for one in order[:_SHOWN])
        return shown + (f"; and {len(order) - _SHOWN} more" if len(order) > _SHOWN else "")

    def require(self, percent: float) -> None:
        """DeployError (kind ``int8``) where less than that computes in integers."""
        if self.percent < percent:
            message = f"{self.percent:g} % of the multiply-adds compute in integers, {percent:g} % are required"
            if self.floats:
                message += f"; in float32: {self.named()}"
            raise DeployError(message, kind="int8", got=self.percent, allowed=f"at least {percent:g}")


def share(model: onnx.ModelProto, *, integers: bool = True, borders: bool = True, sixteen: bool = True) -> Share:
    """The share of a QDQ model with inferred shapes.

    Args:
        integers: the target has integer kernels.
        borders: and some that weigh the windows of a summed average pooling that count less at a border.
        sixteen: and some of numbers of 16 bits.
    """
    network = read(model)
    macs = {node.name: node.macs for node in cost(model).nodes}
    total = sum(macs.values())

    def percent(count: int) -> float:
        return round(100 * count / total, 2) if total else 0.0

    floats, done, any_integers = [], 0, False
    conversions = ("QuantizeLinear", "DequantizeLinear")
    for step in network.steps:
        names = [node.name or "" for node in step.nodes]
        weighed = step.kind != "pooled" or borders or bool((step.factors[0] == 1).all())
        tensors = (*step.inputs, *([] if step.output is None else [step.output]))
        short = sixteen or not any(tensor.params.wide for tensor in tensors)
        if step.kind != "float" and integers and weighed and short:
            done += sum(macs.get(name, 0) for name in names)
            any_integers = any_integers or step.kind not in ("quantize", "dequantize")
            continue
        for node in step.nodes:
            if node.op_type not in conversions:
                why = step.reason if integers else "the target has no integer kernels"
                why = why if weighed else "its windows count less at the border, and the target cannot weigh sums"
                why = why if short or not integers else "it has numbers of 16 bits, and the target no kernels of such"
                floats.append(FloatNode(node.name or "", node.op_type, why, percent(macs.get(node.name or "", 0))))
    whole = percent(done) if total else 100.0 * any_integers
    made = (step.output for step in network.steps if step.output is not None and step.output.params.wide)
    return Share(whole, tuple(floats), tuple(dict.fromkeys(map(network.float_name, made))))
