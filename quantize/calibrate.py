"""Calibration: what values the tensors take, from pictures, in memory that does not grow with their number.

Every picture goes through the float model in onnxruntime once; each tensor's values are counted in a `Histogram` of
fixed size. (onnxruntime's own calibrators hold every picture's activations until the end.) The state is saved every
few pictures, whole or not at all; a calibration that was killed goes on where the state was saved, and gives the
same numbers, because the histograms do not depend on where the pictures were cut.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from inception_deploy import artifact
from inception_deploy.arrays import BROKEN
from inception_deploy.errors import DeployError
from inception_deploy.progress import NONE, Progress
from inception_deploy.schema import Whole, check

from . import ranges
from .histogram import Histogram
from .pictures import Pictures
from .runner import Runner, chunked, look
from .scheme import Choices, Scheme
from .structure import Structure

SAVE_EVERY = 16
"""Pictures between two saves of the state."""

FEW = 16
"""Fewer pictures than this draw a note: the outermost percentiles of a range are then a matter of luck."""

_SCHEMA = 1


@dataclass
class Statistics:
    """What was seen of each tensor.

    Attributes:
        fingerprint: of the model and the source.
        images: how many pictures were counted.
        constant: the names of those left out because every pixel is the same: nothing can be learnt from them.
        histograms: by the tensor's name.
    """

    fingerprint: str
    images: int = 0
    constant: list[str] = field(default_factory=list)
    histograms: dict[str, Histogram] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write all of it to an .npz, atomically."""
        about = {"schema": _SCHEMA, "fingerprint": self.fingerprint, "images": self.images, "constant": self.constant}
        packed = [histogram.pack() for histogram in self.histograms.values()]
        with artifact.atomic_file(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                about=np.array(json.dumps(about)),
                names=np.array(json.dumps(list(self.histograms))),
                counts=np.stack([counts for counts, _ in packed]),
                rest=np.stack([rest for _, rest in packed]),
            )

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """The inverse of `save`.

        Raises:
            DeployError: (kind ``calibration``) the file is none of those, or damaged.
        """
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                about, names = json.loads(str(file["about"])), json.loads(str(file["names"]))
                if about.pop("schema") != _SCHEMA:
                    raise ValueError(f"its schema is not {_SCHEMA}")
                check(about, {"fingerprint": str, "images": Whole(), "constant": [str]})
                rows = zip(names, file["counts"], file["rest"], strict=True)
                histograms = {str(name): Histogram.unpack(counts, rest) for name, counts, rest in rows}
            return cls(about["fingerprint"], about["images"], about["constant"], histograms)
        except BROKEN as error:
            message = f"{path} cannot be read as the state of a calibration: {error}; remove it to start anew"
            allowed = "a file this calibration wrote"
            raise DeployError(message, kind="calibration", got=str(path), allowed=allowed) from error


def collect(
    model: ir.Model,
    structure: Structure,
    pictures: Pictures,
    *,
    state: Path | None = None,
    save_every: int = SAVE_EVERY,
    threads: int = 0,
    progress: Progress = NONE,
) -> Statistics:
    """Run `pictures` through a float model and count the values of every tensor that may be quantized.

    Args:
        model: prepared by `prepare.prepare`.
        state: where the statistics so far are kept. What stands there is continued when it is of this model and source,
            and replaced, with a note, when it is of others. Pictures that cannot be used leave no state behind.

    Raises:
        DeployError: (kind ``calibration``) a picture does not fit, no picture is left, a tensor is not finite, or what
            stands at `state` is no state.
    """
    proto = ir.to_proto(model)
    names = [value.name or "" for value in structure.values]
    statistics = _begin(_fingerprint(proto, names, pictures), names, state, progress)
    runner = Runner(proto, names, threads=threads)
    del proto
    try:
        _look_at_all(statistics, runner, chunked(structure.values), pictures, state, save_every, progress)
    except DeployError:
        if state is not None:
            state.unlink(missing_ok=True)  # these pictures fail again
        raise
    for note in notes(statistics):
        progress.note(note)
    return statistics


def _look_at_all(
    statistics: Statistics,
    runner: Runner,
    chunks: Sequence[Sequence[str]],
    pictures: Pictures,
    state: Path | None,
    save_every: int,
    progress: Progress,
) -> None:
    """Count every picture that `statistics` does not hold yet, and save them on the way."""
    done = saved = statistics.images + len(statistics.constant)
    total = pictures.count or 0
    for batch in runner.batches(pictures.read(done)):
        varied = [picture for picture in batch if picture.pixels.min() < picture.pixels.max()]
        statistics.constant += [picture.name for picture in batch if picture.pixels.min() == picture.pixels.max()]
        if varied:
            for name, values in look(runner, varied, chunks):
                _count(statistics.histograms[name], values, name, varied[0].name)
        statistics.images += len(varied)
        done += len(batch)
        progress.update(done, total, batch[-1].name)
        if state is not None and done - saved >= save_every:
            statistics.save(state)
            saved = done
    if not done:
        message = f"{pictures.name}: there is no picture, so nothing can be calibrated"
        raise DeployError(message, kind="calibration", got=done, allowed="at least one picture")
    if not statistics.images:
        progress.note(f"{pictures.name}: all {done} pictures are of one colour: the ranges say little")
        statistics.images, statistics.constant = done, []
        for batch in runner.batches(pictures.read(0)):
            for name, values in look(runner, batch, chunks):
                _count(statistics.histograms[name], values, name, batch[0].name)
    if state is not None and done > saved:
        statistics.save(state)


def notes(statistics: Statistics) -> list[str]:
    """What the user should know about the pictures."""
    result = []
    if statistics.constant:
        some = ", ".join(statistics.constant[:3])
        result.append(f"{len(statistics.constant)} pictures of one colour were left out: {some}")
    if statistics.images < FEW:
        result.append(f"calibrated on {statistics.images} pictures only; {FEW} or more give steadier ranges")
    return result


def _begin(fingerprint: str, names: Sequence[str], state: Path | None, progress: Progress) -> Statistics:
    new = Statistics(fingerprint, histograms={name: Histogram() for name in names})
    if state is None or not state.exists():
        return new
    found = Statistics.load(state)
    if found.fingerprint != fingerprint:
        progress.note(f"{state} was left by a calibration of another model or other pictures; this one starts anew")
        return new
    return found


def _count(histogram: Histogram, values: Any, name: str, picture: str) -> None:
    try:
        histogram.add(values)
    except ValueError as error:
        message = f"tensor '{name}' is not finite for {picture}: the network itself overflows there"
        raise DeployError(message, kind="calibration", got="NaN or infinity", allowed="finite numbers") from error


def _fingerprint(model: onnx.ModelProto, names: Sequence[str], pictures: Pictures) -> str:
    digest = hashlib.sha256(model.SerializeToString(deterministic=True))
    digest.update("\n".join([*names, pictures.fingerprint]).encode())
    return digest.hexdigest()


# -- ranges ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranges:
    """The ends of every quantized tensor's range, and what they were chosen for.

    Attributes:
        scheme, method: what they were chosen for and how.
        choices: which tensors share one.
        images: how many pictures they rest on; 0 where unknown.
        ends: (low, high) by the tensor's name; low <= 0 <= high.
    """

    scheme: str
    method: str
    choices: Choices
    images: int
    ends: Mapping[str, tuple[float, float]]

    def save(self, path: Path) -> None:
        """Write them as JSON, atomically."""
        with artifact.atomic_file(path) as partial:
            artifact.dump_json(self.as_dict(), partial)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": _SCHEMA,
            "scheme": self.scheme,
            "method": self.method,
            "choices": self.choices.as_dict(),
            "images": self.images,
            "ranges": {name: list(ends) for name, ends in self.ends.items()},
        }

    @classmethod
    def load(cls, path: Path) -> Ranges:
        """The inverse of `save`.

        Raises:
            DeployError: (kind ``ranges``) the file is none of those, or a range is not finite or leaves out zero.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            if fields["schema"] != _SCHEMA:
                raise ValueError(f"its schema is not {_SCHEMA}")
            ends = {str(name): (float(low), float(high)) for name, (low, high) in fields["ranges"].items()}
            wrong = [name for name, (low, high) in ends.items() if not (-3e38 < low <= 0 <= high < 3e38)]
            if wrong:
                raise ValueError(f"the range of '{wrong[0]}' is {list(ends[wrong[0]])}; it must be finite and hold 0")
            choices = Choices(**fields["choices"])
            return cls(str(fields["scheme"]), str(fields["method"]), choices, int(fields["images"]), ends)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{path} cannot be read as ranges: {error}"
            allowed = "a file that quantize --ranges wrote"
            raise DeployError(message, kind="ranges", got=str(path), allowed=allowed) from error

    def require(self, structure: Structure, scheme: Scheme, choices: Choices, origin: str) -> None:
        """Refuse ranges that were made for something else.

        Raises:
            DeployError: (kind ``ranges``) the scheme or the choices differ, or a tensor has no range.
        """
        for what, made, wanted in (
            ("scheme", self.scheme, scheme.name),
            ("choices", self.choices.as_dict(), choices.as_dict()),
        ):
            if made != wanted:
                raise DeployError(f"{origin} was made for {what} {made}", kind="ranges", got=made, allowed=wanted)
        missing = [value.name or "" for value in structure.values if value.name not in self.ends]
        if missing:
            message = f"{origin} has no range for {len(missing)} tensors, e.g. '{missing[0]}': it is of another model"
            raise DeployError(message, kind="ranges", got=missing[:5], allowed="ranges of this model")


def choose(
    statistics: Statistics,
    structure: Structure,
    scheme: Scheme,
    choices: Choices,
    *,
    method: str,
    percentile: float = ranges.PERCENTILE,
    sixteen: Collection[str] = (),
) -> Ranges:
    """The range of every quantized tensor; all that was seen of those with 16 bits.

    Tensors that share a scale get the range that loses least on all of them together: the method sees the union of the
    histograms of those that are computed, so a concat's scale is chosen from every byte that it will hold.
    """
    ends: dict[str, tuple[float, float]] = {}
    for group in structure.groups(choices):
        seen = [statistics.histograms[value.name or ""] for value in structure.sources(group, choices)]
        wide = any(value.name in sixteen for value in group)
        chosen = ranges.choose(Histogram.union(seen), scheme, "minmax" if wide else method, percentile=percentile)
        ends |= {value.name or "": chosen for value in group}
    return Ranges(scheme.name, method, choices, statistics.images, ends)
