"""One stage against another on several inputs: a row of ``verify``.

The fixed tolerance is asked first. Only what it does not let through costs a measurement of rounding (`rounding`),
which says one of two things: the input is quiet, and the error is allowed to be a multiple of its noise; or it is so
loud that two right executions differ visibly, and the stage is compared on the other inputs. Where no input is quiet,
the quietest one is taken, and the row says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import inception_deploy.verify as verify

from .errors import DeployError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .rounding import Rounding

    Outputs = Sequence[NDArray[Any]]

_DIGITS = 3
"""Significant digits of the recorded errors: enough to judge, few enough to be the same on every run."""


def row(
    stage: str,
    reference: Mapping[str, Outputs],
    got: Mapping[str, Outputs],
    rounding: Rounding | None = None,
    *,
    allowance: bool = True,
) -> dict[str, Any]:
    """One row of ``verify``: the worst of all outputs on all inputs that tell right from wrong.

    Args:
        stage: a key of `verify.TOLERANCES`.
        reference, got: the outputs of the two stages, by the name of the input.
        rounding: measures the reference; None where nothing but the fixed tolerance counts.
        allowance: False for arithmetic that is not fp32's own: noise excuses nothing then.

    Returns:
        What `verify.compare` gives, and: ``input`` and ``output`` (its number), where the error is nearest to its
        limit; ``inputs``, the names of those compared; ``set_aside``, the noise of those that were too loud, by name;
        ``quiet``, whether every output was compared on an input that is not.

    Raises:
        DeployError: (kind ``verify``) the stages do not have the same outputs.
    """
    judged: list[dict[str, Any]] = []
    for index in range(_outputs(stage, reference, got)):
        entries = []
        for name, expected in reference.items():
            entry = _entry(stage, name, index, expected[index], got[name][index], rounding, allowance=allowance)
            entries.append({**entry, "input": name, "output": index})
        quiet = [entry for entry in entries if not _loud(entry)]
        judged += quiet or [min(entries, key=lambda entry: float(entry["noise"]))]
    inputs = [name for name in reference if any(entry["input"] == name for entry in judged)]
    return _worst(judged) | {
        "inputs": inputs,
        "set_aside": {
            name: _rounded(max(rounding.noise(name)))
            for name in reference
            if rounding is not None and name not in inputs
        },
        "quiet": not any(_loud(entry) for entry in judged),
    }


def named(entry: Mapping[str, Any]) -> str:
    """The stage of a row, for people; of a plan behind the first with its number of images."""
    return f"{entry['stage']}, batch {entry['batch']}" if "batch" in entry else str(entry["stage"])


def note(entry: Mapping[str, Any]) -> str | None:
    """What a person should know of a row: the inputs it says nothing about; None where there is nothing to tell."""
    if entry.get("set_aside"):
        loud = ", ".join(f"'{name}' by {noise:.2g}" for name, noise in entry["set_aside"].items())
        compared = ", ".join(entry["inputs"])
        return f"rounding alone moves the outputs on {loud}: stage '{entry['stage']}' is compared on: {compared}"
    if not entry.get("quiet", True):
        return (
            f"rounding alone moves the outputs by {entry['noise']:.2g} even on '{entry['input']}', the quietest input: "
            f"stage '{entry['stage']}' says little"
        )
    return None


def _outputs(stage: str, reference: Mapping[str, Outputs], got: Mapping[str, Outputs]) -> int:
    """How many outputs both have."""
    counts = [(len(outputs), len(got[name])) for name, outputs in reference.items()]
    for wanted, found in counts:
        if wanted != found:
            raise DeployError(f"stage '{stage}' has {found} outputs", kind="verify", got=found, allowed=wanted)
    return counts[0][0]


def _entry(
    stage: str,
    name: str,
    index: int,
    expected: NDArray[Any],
    got: NDArray[Any],
    rounding: Rounding | None,
    *,
    allowance: bool,
) -> dict[str, Any]:
    if rounding is None:
        return verify.compare(expected, got, stage)
    span, number = rounding.natures[index].span, expected.dtype.kind in "biu"
    entry = verify.compare(expected, got, stage, span=span)
    if not entry["ok"] and number:
        entry = verify.compare(expected, got, stage, scores=rounding.scores(name, index, measured=False))
    if entry["ok"] or entry["max_rel"] is None or not allowance:
        return entry
    scores = rounding.scores(name, index, measured=True) if number else None
    return verify.compare(expected, got, stage, noise=rounding.noise(name)[index], span=span, scores=scores)


def _loud(entry: Mapping[str, Any]) -> bool:
    return entry["noise"] is not None and verify.ROUNDING * float(entry["noise"]) > verify.LOUDEST


def _worst(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The entry that is nearest to its limit or farthest beyond, for all of them."""

    def distance(entry: Mapping[str, Any]) -> float:
        if entry["max_rel"] is None:
            return float("inf")
        return float(entry["max_rel"]) / (float(entry["allowed"]) or 1e-30)

    worst = max(entries, key=distance)
    cosines = [entry["cosine"] for entry in entries]
    return worst | {
        **{
            key: None if worst[key] is None else _rounded(worst[key])
            for key in ("max_abs", "max_rel", "noise", "allowed")
        },
        "cosine": None if None in cosines else round(min(cosines), 9),
        "top5_same": all(entry["top5_same"] for entry in entries),
        "ok": all(entry["ok"] for entry in entries),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
