"""What an int8 number means: the schemes, frozen, and the switches of a quantization.

A quantized tensor is integers `q` of 8 bits, or of 16, a scale and a zero point; the real number is
``(q - zero) * scale``. Sums of products are int32 with the scale ``scale_x * scale_w``; a bias is int32 in the same
scale. What each operator does with these integers, rounding and saturation included, is written down in `arith`, and
nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from inception_deploy.errors import UsageError, nearest

Dtype = Literal["uint8", "int8", "uint16", "int16"]

LIMITS: dict[str, tuple[int, int]] = {
    "uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 2**16 - 1), "int16": (-(2**15), 2**15 - 1),
}  # fmt: skip
"""The ends every activation saturates at."""

WIDER: dict[str, Dtype] = {"uint8": "uint16", "int8": "int16"}
"""The type of 16 bits in the place of one of 8."""


@dataclass(frozen=True)
class Scheme:
    """One way to write real numbers as 8-bit integers.

    Attributes:
        name: as the command line takes it.
        activation: the type of the activations; each tensor has one scale and one zero point.
        symmetric: the zero point of an activation is 0.
        power_of_two: every scale is ``2^n`` for a whole ``n``, and requantizing is a shift: `arith.requantize_shift`.
            Otherwise it is a float32 multiplication: `arith.requantize_scale`.
        weight_limits: the ends of the int8 weights, whose zero point is always 0.
        weights: one scale for each output channel, or one for the whole tensor.
        pairs: two weights of one sign that meet neighbouring channels come to `PAIR` at most, so that 16 bits hold the
            sum of their products with bytes.
        purpose: who computes like this, for people.
    """

    name: str
    activation: Dtype
    symmetric: bool
    power_of_two: bool
    weight_limits: tuple[int, int]
    weights: Literal["channel", "tensor"]
    purpose: str
    pairs: bool = False

    def __post_init__(self) -> None:
        if self.power_of_two and not self.symmetric:
            raise ValueError("a power-of-two scheme is symmetric: a shift cannot move a zero point")
        if self.symmetric and LIMITS[self.activation][0] == 0:
            raise ValueError("a symmetric activation needs a signed type")

    @property
    def wider(self) -> Scheme:
        """The same with activations of 16 bits."""
        return replace(self, activation=WIDER[self.activation])

    def require_wider(self) -> None:
        """UsageError (kind ``choice``) where no tensor can have 16 bits: what shifts multiplies bytes alone."""
        if self.power_of_two:
            message = f"a tensor of 16 bits is nothing that the scales of {self.name} are for"
            allowed = [name for name, known in SCHEMES.items() if not known.power_of_two]
            raise UsageError(message, kind="choice", got=self.name, allowed=allowed)

    @property
    def limits(self) -> tuple[int, int]:
        """The ends of an activation."""
        return LIMITS[self.activation]


PAIR = 128
"""255 times as much is within 16 bits."""

SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "float-scale", "uint8", False, False, (-127, 127), "channel",
            "CPUs: onnxruntime, OpenVINO",
        ),
        Scheme(
            "float-scale-reduced", "uint8", False, False, (-127, 127), "channel",
            "CPUs with AVX2 and no VNNI, whose vpmaddubsw saturates else; less of that in onnxruntime and OpenVINO",
            pairs=True,
        ),
        Scheme(
            "float-scale-int8", "int8", True, False, (-127, 127), "channel",
            "what takes signed activations without a zero point: TensorRT, CUDA's dp4a",
        ),
        Scheme(
            "power-of-two", "int8", True, True, (-128, 127), "channel",
            "accelerators that shift: the VTA, with a vector of shifts for each convolution",
        ),
        Scheme(
            "power-of-two-tensor", "int8", True, True, (-128, 127), "tensor",
            "accelerators that shift by one constant for each convolution",
        ),
    )
}  # fmt: skip


def scheme(name: str | Scheme) -> Scheme:
    """The scheme of that name.

    Raises:
        UsageError: (kind ``scheme``) there is none.
    """
    if isinstance(name, Scheme):
        return name
    if name not in SCHEMES:
        near = nearest(name, SCHEMES)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no scheme '{name}'{hint}", kind="scheme", got=name, allowed=list(SCHEMES))
    return SCHEMES[name]


@dataclass(frozen=True)
class Choices:
    """How the scales of neighbouring tensors relate. Each is a switch so that its cost can be measured.

    Attributes:
        concat: ``shared``: the inputs and the output of a Concat have one scale and one zero point, so that joining
            moves bytes only. ``own``: each has its own, and joining requantizes.
        add: ``aligned``: the scales of the two sides of an Add differ by a power of two, so that the sum is exact in
            integers after a shift. ``own``: each side has its own, and the sum is taken in float32. A power-of-two
            scheme is always aligned. ``accumulator``, for powers of two only: as ``aligned``, and where a convolution
            makes one side for the Add alone, the other side is added to its accumulators, which are rounded once.
        average: the scale of an average pooling's output. ``window``: its input's, unless it pools over the whole map,
            which shrinks the range, or a Relu follows, which takes away half of it; then its own. ``input``: always its
            input's. ``own``: always its own. All of them multiply the sum of a window once. ``summed``, for powers of
            two only: as ``window``, and where one of stride 1 stands beside a 1x1 convolution and nothing else reads
            what is between, both are one layer: the sum is taken in the accumulators, and rounded once. ``alike``: as
            ``summed`` where all windows count as many pixels, as ``window`` where those at a border count fewer.
        moves: whether a Relu that stands alone, a MaxPool and a Flatten take their input's scale; they move bytes only
            then. ``own`` requantizes.
    """

    concat: Literal["shared", "own"] = "shared"
    add: Literal["aligned", "own", "accumulator"] = "aligned"
    average: Literal["window", "input", "own", "summed", "alike"] = "window"
    moves: Literal["input", "own"] = "input"

    def __post_init__(self) -> None:
        allowed = {
            "concat": ("shared", "own"), "add": ("aligned", "own", "accumulator"),
            "average": ("window", "input", "own", "summed", "alike"), "moves": ("input", "own"),
        }  # fmt: skip
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                got = getattr(self, name)
                raise UsageError(f"choice {name} is '{got}'", kind="choice", got=got, allowed=values)

    def require(self, scheme: Scheme) -> None:
        """Refuse what `scheme` cannot compute.

        Raises:
            UsageError: (kind ``choice``) sums in accumulators that only shifts bring to one scale.
        """
        if not scheme.power_of_two:
            for name, value in (("add", "accumulator"), ("average", "summed"), ("average", "alike")):
                if getattr(self, name) == value:
                    message = f"{name} '{value}' shifts 32-bit sums, which the scales of {scheme.name} do not allow"
                    allowed = [name for name, known in SCHEMES.items() if known.power_of_two]
                    raise UsageError(message, kind="choice", got=scheme.name, allowed=allowed)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Params:
    """The scale and the zero point of one activation tensor.

    Attributes:
        scale: a positive float32, as a Python float.
        zero: inside the limits of `dtype`.
    """

    scale: float
    zero: int
    dtype: Dtype

    def __post_init__(self) -> None:
        low, high = LIMITS[self.dtype]
        if not (math.isfinite(self.scale) and self.scale > 0) or not low <= self.zero <= high:
            raise ValueError(f"impossible parameters {self}")

    @property
    def exponent(self) -> int:
        """``n`` where the scale is ``2^n``; ValueError where it is not."""
        mantissa, exponent = math.frexp(self.scale)
        if mantissa != 0.5:
            raise ValueError(f"{self.scale} is no power of two")
        return exponent - 1

    @property
    def limits(self) -> tuple[int, int]:
        """The ends that values saturate at."""
        return LIMITS[self.dtype]

    @property
    def wide(self) -> bool:
        """It has 16 bits."""
        return self.dtype in WIDER.values()

    @property
    def reach(self) -> int:
        """How far a number may lie from the zero point."""
        low, high = self.limits
        return max(high - self.zero, self.zero - low)
