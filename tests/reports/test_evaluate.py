"""`evaluate` with onnxruntime on a tiny bundle: what is right is counted by hand; a stopped evaluation goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from inception_deploy import cli, verify
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.reports import evaluate as evaluating
from inception_deploy.reports.evaluate import evaluate, interval
from inception_deploy.runtime import bundle
from inception_deploy.verify import bound

COUNT, CLASSES = 150, 7
ONLY = ("onnxruntime",)


@pytest.fixture
def opened(tiny_bundle: Path):
    with bundle.open(tiny_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def inputs() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    return random.standard_normal((COUNT, 3, 8, 8), dtype=np.float32), random.integers(0, CLASSES - 1, COUNT)


@pytest.fixture
def archive(inputs, tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=inputs[0], y=inputs[1])
    return tmp_path / "x.npz"


def order(opened: bundle.Bundle, x: np.ndarray) -> np.ndarray:
    """The classes of each picture, best first, by another way: onnx's model, batch by batch."""
    model = onnx.load(str(opened.onnx))
    padded = np.concatenate([x, x[-1:]])[: len(x) + len(x) % 2]
    got = [verify.run_onnx(model, {"input": padded[at : at + 2]})[0] for at in range(0, len(padded), 2)]
    return np.argsort(-np.concatenate(got)[: len(x)], axis=1)


def test_what_is_right_is_counted(opened: bundle.Bundle, archive: Path, inputs) -> None:
    x, wanted = inputs
    best = order(opened, x)
    document = evaluate(opened, archive, runtimes=ONLY)
    (row,) = document["engines"]
    assert (document["images"], document["classes_by"], row["engine"]) == (COUNT, "labels", "onnxruntime")
    assert row["top1"] == pytest.approx(100 * np.mean(best[:, 0] == wanted), abs=bound("rounding"))
    assert row["top5"] == pytest.approx(100 * np.mean((best[:, :5] == wanted[:, None]).any(1)), abs=bound("rounding"))
    assert row["images_per_second"] > 0
    assert [entry["class"] for entry in document["per_class"]] == sorted(set(wanted.tolist()))
    for entry in document["per_class"]:
        of_class = wanted == entry["class"]
        assert entry["images"] == of_class.sum()
        assert entry["top1"] == pytest.approx(100 * np.mean(best[of_class, 0] == entry["class"]), abs=bound("rounding"))
    wrong = sum(entry["images"] for entry in document["confusion"])
    assert wrong == (best[:, 0] != wanted).sum()
    for entry in document["confusion"]:
        pair = (wanted == entry["class"]) & (best[:, 0] == entry["predicted"])
        assert entry["images"] == pair.sum() > 0
    counts = [entry["images"] for entry in document["confusion"]]
    assert counts == sorted(counts, reverse=True)


def test_every_picture_is_prepared_once_and_computed_once(
    opened: bundle.Bundle, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What evaluating costs beside preparing and computing is its bookkeeping, and one batch to warm up."""
    prepared, computed = [], []
    read, make = evaluating.labelled._ready, evaluating.engines.make

    def ready(*arguments):
        inner = read(*arguments)
        return lambda row: prepared.append(1) or inner(row)

    def counted(*arguments, **options):
        engine = make(*arguments, **options)
        inner = engine.run
        engine.run = lambda *x: computed.append(1) or inner(*x)
        return engine

    monkeypatch.setattr(evaluating.labelled, "_ready", ready)
    monkeypatch.setattr(evaluating.engines, "make", counted)
    evaluate(opened, archive, runtimes=ONLY, workers=3)
    assert len(prepared) == COUNT
    assert len(computed) == COUNT // 2 + 1


def test_a_stopped_evaluation_goes_on(opened: bundle.Bundle, tmp_path: Path) -> None:
    for index in range(100):
        path = tmp_path / "data" / str(index % CLASSES) / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (12, 10, 3), np.uint8)).save(path)
    files = sorted((tmp_path / "data").rglob("*.png"))
    whole = evaluate(opened, tmp_path / "data", runtimes=ONLY, output=tmp_path / "whole.jsonl")
    good = files[80].read_bytes()
    files[80].write_bytes(b"x" * len(good))
    kept = tmp_path / "out" / "kept.jsonl"
    with pytest.raises(DeployError, match="no picture"):
        evaluate(opened, tmp_path / "data", runtimes=ONLY, output=kept)
    assert len(kept.read_text().splitlines()) == 1 + 64
    files[80].write_bytes(good)
    with kept.open("ab") as file:  # as a kill in the middle of a line leaves it
        file.write(b'{"picture": "3/0')
    with pytest.raises(DeployError, match="already exists; --resume goes on with it"):
        evaluate(opened, tmp_path / "data", runtimes=ONLY, output=kept)
    resumed = evaluate(opened, tmp_path / "data", runtimes=ONLY, output=kept, resume=True)
    assert (resumed["resumed_at"], whole["resumed_at"]) == (64, 0)
    same = ("images", "per_class", "confusion")
    assert [resumed[key] for key in same] == [whole[key] for key in same]
    assert [resumed["engines"][0][key] for key in ("top1", "top5")] == [
        whole["engines"][0][key] for key in ("top1", "top5")
    ]
    lines, others = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in (kept, tmp_path / "whole.jsonl")
    )
    assert len(lines) == 101
    assert lines[0] == others[0]
    for line, other in zip(lines[1:], others[1:], strict=True):
        assert (line["picture"], line["class"]) == (other["picture"], other["class"])
        assert line["onnxruntime"]["top"] == other["onnxruntime"]["top"]
    with pytest.raises(UsageError, match="--resume needs the --output to go on with"):
        evaluate(opened, tmp_path / "data", runtimes=ONLY, resume=True)
    again = evaluate(opened, tmp_path / "data", runtimes=ONLY, output=kept, resume=True)
    assert (again["resumed_at"], again["per_class"]) == (100, whole["per_class"])
    with pytest.raises(DeployError, match=r"is of another evaluation \(data_sha256, images differ\)"):
        evaluate(opened, tmp_path / "data", runtimes=ONLY, images=10, output=kept, resume=True)
    for content in ('{"a": 1}\n', "[]\n", "hello\n", kept.read_text() + '{"picture": "x"}\n'):
        bad = tmp_path / "bad.jsonl"
        bad.write_text(content)
        with pytest.raises(DeployError) as caught:
            evaluate(opened, tmp_path / "data", runtimes=ONLY, output=bad, resume=True)
        assert caught.value.kind == "resume"
        assert bad.read_text() == content


def test_what_cannot_run_here_is_left_out_and_said(tiny_bundle: Path, archive: Path, capfd) -> None:
    argv = ["evaluate", str(tiny_bundle), str(archive)]
    assert cli.main([*argv, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert [row["engine"] for row in document["engines"]] == ["onnxruntime"]
    assert [row["engine"] for row in document["not_run"]] == ["compiled"]
    assert cli.main(argv) == 0
    shown = capfd.readouterr()
    assert "compiled is left out" in shown.err
    assert "what onnxruntime took for what" in shown.out
    assert cli.main([*argv, "--runtime", "compiled"]) == 1


def test_wrong_words(opened: bundle.Bundle, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no runtime 'tensorrt'"):
        evaluate(opened, archive, runtimes=["tensorrt"])
    with pytest.raises(UsageError, match="there is no rule 'names' for classes"):
        evaluate(opened, archive, rule="names")
    np.savez(tmp_path / "unlabelled.npz", x=np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(DeployError, match="does not say the classes of its pictures"):
        evaluate(opened, tmp_path / "unlabelled.npz", runtimes=ONLY)


@pytest.mark.parametrize("shape", [[2, 7, 4, 4], [2], [1, 7]])
def test_a_network_that_tells_no_classes(opened: bundle.Bundle, archive: Path, shape: list[int]) -> None:
    outputs = [{**opened.manifest["outputs"][0], "shape": shape}]
    other = bundle.Bundle(opened.source, opened.folder, {**opened.manifest, "outputs": outputs})
    with pytest.raises(DeployError, match="which tells no classes"):
        evaluate(other, archive, runtimes=ONLY)


def test_the_interval_is_wilsons() -> None:
    """Of 10 of 20 it is 29.93 to 70.07 (Newcombe 1998 has such tables); none of some is not nothing."""
    assert [round(bound, 2) for bound in interval(10, 20)] == [29.93, 70.07]
    assert interval(0, 10)[0] == 0
    assert 20 < interval(0, 10)[1] < 35
    assert round(interval(10, 10)[1], 9) == 100
