"""Calibration: what is counted, what is refused, and that a killed one goes on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from inception_deploy.errors import DeployError
from inception_deploy.quantize import calibrate, ranges
from inception_deploy.quantize.calibrate import Ranges, Statistics, choose, collect
from inception_deploy.quantize.pictures import pictures
from inception_deploy.quantize.prepare import prepare
from inception_deploy.quantize.quantizer import quantize
from inception_deploy.quantize.scheme import SCHEMES, Choices
from inception_deploy.quantize.structure import analyse
from inception_deploy.verify import bound, run_onnx

Make = Callable[..., NDArray[np.float32]]
SHAPE = (3, 12, 12)
HOW = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize": 12, "crop": [12, 12], "interpolation": "bilinear"}


def statistics(model: onnx.ModelProto, given: Any, **options: Any) -> Statistics:
    prepared = prepare(model)
    return collect(prepared, analyse(prepared), pictures(given, SHAPE), threads=1, **options)


def same(a: Statistics, b: Statistics) -> bool:
    packed = [{name: h.pack() for name, h in s.histograms.items()} for s in (a, b)]
    return packed[0].keys() == packed[1].keys() and all(
        np.array_equal(x, y) for name in packed[0] for x, y in zip(packed[0][name], packed[1][name], strict=True)
    )


def test_ranges_are_those_of_the_float_tensors(branchy: onnx.ModelProto, inputs: Make) -> None:
    data = inputs(SHAPE, 6)
    seen = statistics(branchy, data)
    assert seen.images == 6
    watched = onnx.ModelProto()
    watched.CopyFrom(branchy)
    watched.graph.output.append(onnx.helper.make_tensor_value_info("c3", onnx.TensorProto.FLOAT, None))
    values = np.stack([run_onnx(watched, {"x": x[None]})[1] for x in data])
    assert seen.histograms["c3"].low == pytest.approx(values.min(), rel=bound("kernels"))
    assert seen.histograms["c3"].high == pytest.approx(values.max(), rel=bound("kernels"))
    assert seen.histograms["x"].high == data.max()
    assert seen.histograms["r1"].low == 0
    assert seen.histograms["r1"].zeros > 0


def test_the_range_of_a_concat_is_chosen_from_all_its_branches(branchy: onnx.ModelProto, inputs: Make) -> None:
    prepared = prepare(branchy)
    structure = analyse(prepared)
    seen = statistics(branchy, inputs(SHAPE, 6))
    ends = choose(seen, structure, SCHEMES["float-scale"], Choices(), method="minmax").ends
    assert ends["r1"] == ends["r2"] == ends["j"] == ends["m"]
    assert ends["j"][1] == max(seen.histograms["r1"].high, seen.histograms["r2"].high)
    own = choose(seen, structure, SCHEMES["float-scale"], Choices(concat="own"), method="minmax").ends
    assert own["r1"] != own["r2"]


class Killed(BaseException):
    """What the operating system does."""


def test_a_killed_calibration_goes_on_and_gives_the_same_numbers(
    branchy: onnx.ModelProto, inputs: Make, tmp_path: Path
) -> None:
    data, state = inputs(SHAPE, 11), tmp_path / "state.npz"
    whole = statistics(branchy, lambda: iter(data))
    read: list[int] = []

    def dies(at: int) -> Callable[[], Iterator[Any]]:
        def source() -> Iterator[Any]:
            for index, array in enumerate(data):
                if index == at:
                    raise Killed
                read.append(index)
                yield array

        return source

    for at in (7, 10):
        with pytest.raises(Killed):
            statistics(branchy, dies(at), state=state, save_every=3)
    assert Statistics.load(state).images == 9
    resumed = statistics(branchy, dies(99), state=state, save_every=3)
    assert same(whole, resumed)
    assert resumed.images == 11
    assert same(resumed, statistics(branchy, dies(99), state=state)), "a finished one is not run again"
    assert not list(tmp_path.glob("*.partial"))


def test_a_state_of_something_else_is_replaced_and_a_damaged_one_refused(
    branchy: onnx.ModelProto, inputs: Make, tmp_path: Path
) -> None:
    state = tmp_path / "state.npz"
    np.savez(tmp_path / "a.npz", x=inputs(SHAPE, 3))
    np.savez(tmp_path / "b.npz", x=inputs(SHAPE, 3, seed=1))
    statistics(branchy, tmp_path / "a.npz", state=state)
    said: list[str] = []

    class Notes:
        def stage(self, name: str) -> None: ...

        def update(self, done: int, total: int, what: str = "") -> None: ...

        def note(self, text: str) -> None:
            said.append(text)

    other = statistics(branchy, tmp_path / "b.npz", state=state, progress=Notes())
    assert same(other, statistics(branchy, tmp_path / "b.npz"))
    assert Statistics.load(state).fingerprint == other.fingerprint
    assert "another model or other pictures; this one starts anew" in said[0]
    for content in (b"", state.read_bytes()[:200], b"PK\x03\x04 nothing"):
        state.write_bytes(content)
        with pytest.raises(DeployError, match="remove it to start anew"):
            statistics(branchy, tmp_path / "a.npz", state=state)


def test_pictures_that_cannot_be_used_leave_no_state(branchy: onnx.ModelProto, inputs: Make, tmp_path: Path) -> None:
    data = inputs(SHAPE, 5)
    data[4, 0, 0, 0] = np.nan
    with pytest.raises(DeployError):
        statistics(branchy, data, state=tmp_path / "state.npz", save_every=2)
    assert not list(tmp_path.iterdir())


def test_pictures_of_one_colour_are_left_out_and_named(branchy: onnx.ModelProto, inputs: Make) -> None:
    data = inputs(SHAPE, 4)
    grey = np.concatenate([data[:2], np.full((1, *SHAPE), 0.5, np.float32), data[2:]])
    seen = statistics(branchy, grey)
    assert seen.images == 4
    assert seen.constant == ["input 2"]
    assert same(seen, statistics(branchy, data))
    assert any("one colour were left out: input 2" in note for note in calibrate.notes(seen))
    assert any("4 pictures only" in note for note in calibrate.notes(seen))
    alone = statistics(branchy, np.zeros((2, *SHAPE), np.float32))
    assert (alone.images, alone.constant) == (2, [])  # there is nothing better


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: [], "there is no picture"),
        (lambda: [np.full(SHAPE, np.nan)], "input 0 holds NaN"),
        (lambda: [np.zeros(SHAPE), np.full(SHAPE, np.inf)], "input 1 holds NaN or infinity"),
        (lambda: [np.zeros((3, 12, 13))], r"has the shape \[3, 12, 13\]; the network takes \[3, 12, 12\]"),
    ],
)
def test_bad_pictures_are_refused_by_name(given: Any, message: str, branchy: onnx.ModelProto) -> None:
    with pytest.raises(DeployError, match=message):
        statistics(branchy, given)


def test_a_tensor_that_never_varies_gets_a_harmless_scale(build: Any, inputs: Make) -> None:
    model = build(
        "(float[1,3,4,4] x, float[2,3,1,1] w0, float[2] b0, float[2,32] fc) => (float[1,2] y) {"
        "c = Conv(x, w0, b0) r = Relu(c) f = Flatten(r) y = Gemm<transB=1>(f, fc) }",
        b0=np.array([-1e3, -1e3], np.float32),
    )
    result = quantize(model, inputs((3, 4, 4), 4))
    assert result.ranges.ends["r"] == (0.0, 0.0)
    assert ranges.params((0.0, 0.0), SCHEMES["float-scale"]).scale == 1.0
    assert np.isfinite(run_onnx(result.model, {"x": inputs((3, 4, 4), 1)})[0]).all()


def test_a_batch_larger_than_what_is_left_is_filled_up_but_not_counted(
    depthwise: onnx.ModelProto, inputs: Make
) -> None:
    data = inputs((4, 9, 9), 3)
    prepared = prepare(depthwise)
    seen = collect(prepared, analyse(prepared), pictures(data, (4, 9, 9)), threads=1)
    assert seen.images == 3
    assert seen.histograms["x"].count == data.size


# -- sources ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("cat/a.png", "cat/b.jpg", "dog/c.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    (tmp_path / "pictures" / "notes.txt").write_text("not a picture")
    return tmp_path / "pictures"


def test_a_folder_is_prepared_as_the_network_wants_it(folder: Path) -> None:
    found = list(pictures(folder, SHAPE, HOW, labels=("dog", "cat")))
    assert [Path(picture.name).name for picture in found] == ["a.png", "b.jpg", "c.png"]
    assert [picture.label for picture in found] == [1, 1, 0]
    assert all(picture.pixels.shape == SHAPE and abs(picture.pixels).max() <= 1 for picture in found)
    assert [picture.label for picture in pictures(folder, SHAPE, HOW)] == [0, 0, 1]
    assert len(list(pictures(folder, SHAPE, HOW, limit=2))) == 2
    (folder / "cat").rename(folder / "7")
    (folder / "dog").rename(folder / "3")
    assert [picture.label for picture in pictures(folder, SHAPE, HOW)] == [3, 7, 7]


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_is_read_row_by_row(compressed: bool, tmp_path: Path, inputs: Make) -> None:
    data, labels = inputs(SHAPE, 5), np.arange(5)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "x.npz", x=data, y=labels)
    source = pictures(tmp_path / "x.npz", SHAPE)
    assert source.count == 5
    np.testing.assert_array_equal(np.stack([picture.pixels for picture in source]), data)
    assert [picture.label for picture in source.read(3)] == [3, 4]


def test_pictures_in_an_npz_are_prepared(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "grey.npz", images=grey)
    (first, _) = pictures(tmp_path / "grey.npz", SHAPE, HOW)
    assert first.pixels.shape == SHAPE
    np.savez(tmp_path / "colour.npz", images=np.stack([grey] * 3, axis=-1))
    (again, _) = pictures(tmp_path / "colour.npz", SHAPE, HOW)
    np.testing.assert_array_equal(first.pixels, again.pixels)


def test_sources_that_are_none_say_what_is_allowed(tmp_path: Path, inputs: Make) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    np.savez(tmp_path / "none.npz", x=inputs(SHAPE, 0))
    np.savez(tmp_path / "whole.npz", x=inputs(SHAPE, 2).astype(np.int64))
    np.savez(tmp_path / "objects.npz", x=np.array([None, {}], dtype=object))
    np.savez(tmp_path / "labels.npz", x=inputs(SHAPE, 2), labels=np.zeros(3, int))
    np.savez(tmp_path / "raw.npz", images=np.zeros((2, 8, 8), np.uint8))
    for name, message in (
        ("missing", "does not exist"), ("empty", "holds no picture"), ("broken.npz", "cannot be read"),
        ("two.npz", "has arrays"), ("none.npz", "is empty"), ("whole.npz", "is int64"), ("objects.npz", "objects"),
        ("labels.npz", "not one integer a picture"),
    ):  # fmt: skip
        with pytest.raises(DeployError, match=message):
            pictures(tmp_path / name, SHAPE, HOW)
    with pytest.raises(DeployError, match="does not say how to prepare"):
        pictures(tmp_path / "raw.npz", SHAPE)
    with pytest.raises(DeployError, match="neither a folder nor"):
        pictures(Path(__file__), SHAPE, HOW)


# -- ranges -----------------------------------------------------------------------------------------------------------


def test_saved_ranges_give_the_same_model(branchy: onnx.ModelProto, inputs: Make, tmp_path: Path) -> None:
    first = quantize(branchy, inputs(SHAPE), threads=1)
    first.ranges.save(tmp_path / "ranges.json")
    again = quantize(branchy, ranges=Ranges.load(tmp_path / "ranges.json"))
    assert again.model.SerializeToString(deterministic=True) == first.model.SerializeToString(deterministic=True)


def test_ranges_of_something_else_are_refused(
    branchy: onnx.ModelProto, tables: onnx.ModelProto, inputs: Make, tmp_path: Path
) -> None:
    path = tmp_path / "ranges.json"
    made = quantize(branchy, inputs(SHAPE), threads=1).ranges
    made.save(path)
    with pytest.raises(DeployError, match="made for scheme float-scale"):
        quantize(branchy, ranges=made, scheme="power-of-two")
    with pytest.raises(DeployError, match="made for choices"):
        quantize(branchy, ranges=made, choices=Choices(add="own"))
    with pytest.raises(DeployError, match="of another model"):
        quantize(tables, ranges=made)
    document = json.loads(path.read_text())
    for change in (
        {"schema": 9},
        {"ranges": {"x": [1, 2]}},
        {"ranges": {"x": [0, 1e39]}},
        {"choices": {"concat": "no"}},
    ):
        path.write_text(json.dumps(document | change))
        with pytest.raises(DeployError):
            Ranges.load(path)
    path.write_text("{")
    with pytest.raises(DeployError, match="cannot be read as ranges"):
        Ranges.load(path)
