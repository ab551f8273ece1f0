"""What each section says: what was measured, what was not and why; every text escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inception_deploy.reports.page.facts import Facts
from inception_deploy.reports.page.layers import layers_of
from inception_deploy.reports.page.network import Block, Network
from inception_deploy.reports.page.sections.table import SECTIONS
from inception_deploy.reports.page.write import render

from .conftest import DATA, facts_of
from .test_markup import Seen

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


def section(facts: Facts, name: str) -> str:
    found = next(one for one in SECTIONS if one.name == name)
    return "".join(found.content(facts))


def text(page: str) -> str:
    return re.sub(r"\s+", " ", Seen(page).text)


def test_every_section_has_its_own_name_and_answers() -> None:
    names = [one.name for one in SECTIONS]
    assert len(set(names)) == len(names)
    assert [one.title[-1] for one in SECTIONS] == ["?"] * len(SECTIONS)


def test_stages_and_their_figures(facts: Facts) -> None:
    said = text(section(facts, "works"))
    for row in facts.verified["stages"]:
        assert f"{row['max_rel']:.3g}" in said
        assert row["stage"] in said
    assert "It was not measured: no labelled pictures were given" in said


def test_a_failed_stage_is_not_ok(facts: Facts) -> None:
    rows = [{**facts.verified["stages"][0], "ok": False}, *facts.verified["stages"][1:]]
    wrong = replace(facts, verified={**facts.verified, "stages": rows})
    assert "failed" in section(wrong, "works")
    assert f'<span class="no">{len(rows) - 1} of {len(rows)}</span>' in render(wrong)


def test_nothing_verified_is_no_verdict(facts: Facts) -> None:
    none = replace(facts, verified={"ok": True, "stages": [], "not_run": []})
    assert "--no-verify" in section(none, "works")
    assert '<span class="ok">0 of 0' not in render(none)


def test_latency_says_what_it_was_measured_on(facts: Facts) -> None:
    said = text(section(facts, "speed"))
    assert f"Measured on {facts.machine}" in said
    assert "with 2 threads an engine and 1 image an inference" in said
    assert [row["engine"] for row in facts.latency] == ["compiled"]
    assert "How long it took is not in a bundle" in said


def test_peers_are_shown_with_the_ratio(facts: Facts) -> None:
    ours = {**facts.latency[0], "p50_ms": 2.0}
    peer = {**ours, "engine": "onnxruntime", "p50_ms": 8.0, "onnx": "model.onnx"}
    page = replace(facts, latency=[ours, peer], missing={"openvino": "it is not installed"})
    said = text(section(page, "speed"))
    assert "onnxruntime, model.onnx" in said
    assert "0.25" in said
    assert "Not timed: openvino: it is not installed" in said
    assert "of the time of onnxruntime, the fastest other engine here" in text(render(page))


def test_throughput_of_several_streams_is_measured_and_shown(facts: Facts) -> None:
    (row,) = facts.throughput
    assert (row["engine"], row["streams"], row["threads"]) == ("compiled", 2, 1)
    peer = {**row, "engine": "openvino", "images_per_second": row["images_per_second"] / 4}
    page = section(replace(facts, throughput=[row, peer]), "speed")
    said = text(page)
    assert "Throughput of 2 streams at once, each with 1 thread and 1 image an inference" in said
    assert f"{row['images_per_second']:.4g}" in said
    assert re.search(r"openvino</th>.*>4</td></tr>", page)
    assert "Throughput" not in text(section(replace(facts, throughput=()), "speed"))


def test_the_exports_seconds_are_shown_where_they_are_given(facts: Facts) -> None:
    said = text(section(replace(facts, exported={"seconds": {"resolve": 1.25, "build": 3.5}}), "speed"))
    assert "1.25" in said
    assert "4.75" in said


def test_layers_and_their_spread(facts: Facts) -> None:
    said = text(section(facts, "time"))
    assert f"in {facts.runs} runs" in said
    assert all(layer.name in said for layer in facts.layers)
    assert "3x3 conv" in said
    assert "1 concat that costs nothing" in said
    assert "was not observed" in said
    assert "in whole inferences" in said
    assert "the threads wait" in said


def test_a_bundle_for_another_machine_measures_nothing(facts: Facts) -> None:
    steps = [{**step, "ms": None, "share": None, "runs_ms": None} for step in facts.inspected["steps"]]
    layers = layers_of(steps)
    assert facts.network is not None
    boxes = tuple(replace(box, layer=box.layer and layers[box.layer.number]) for box in facts.network.boxes)
    why = "the machine lacks aarch64"
    page = replace(
        facts, inspected={**facts.inspected, "steps": steps}, layers=layers, latency=(), photo=None, limits=None,
        network=replace(facts.network, boxes=boxes), missing=dict.fromkeys(("latency", "photo", "profile", "limits"), why),
    )  # fmt: skip
    written = render(page)
    assert text(written).count(why) == 3
    assert not re.search(r"\d (ms|\u00b5s)\b", text(written))
    assert "multiply-adds" in text(section(page, "time"))  # the graph is drawn with its work


def test_int8_is_a_section_of_int8_only(facts: Facts, int8_facts: Facts) -> None:
    assert section(facts, "int8") == ""
    said = text(section(int8_facts, "int8"))
    assert "100 % of the multiply-adds compute in integers" in said
    assert "Error by layer" in said
    rows = int8_facts.errors
    assert rows
    assert all(f"{row['sqnr_db']:.1f}" in said for row in rows)
    assert int8_facts.judged_on == ["photo"]
    assert len(int8_facts.ranges) == len(int8_facts.manifest["quantization"]["tensors"])
    assert int8_facts.ranges[0].tensor == int8_facts.manifest["inputs"][0]["name"], "in the network's order"


def test_ranges_hold_what_their_integers_can(int8_facts: Facts) -> None:
    for one in int8_facts.ranges:
        assert one.low <= 0 <= one.high
        assert one.high - one.low == pytest.approx(255 * one.scale)
        assert one.clipped is not None
        assert one.least is not None
        assert one.most is not None
        assert bool(one.clipped) == (one.least < one.low - one.scale / 2 or one.most > one.high + one.scale / 2)


def test_accuracy_of_the_gate_and_of_pictures(int8: Path, tmp_path: Path) -> None:
    import numpy as np

    with np.load(DATA / "digits_heldout.npz") as held:
        labels = held["labels"][:20].copy()
        labels[0] = (labels[0] + 1) % 10  # one that the network gets "wrong"
        np.savez(tmp_path / "few.npz", images=held["images"][:20], labels=labels)
    facts = facts_of(int8, pictures=tmp_path / "few.npz")
    assert facts.evaluation is not None
    assert [row["engine"] for row in facts.evaluation["engines"]] == ["compiled", "onnxruntime", "onnxruntime, fp32"]
    said = text(section(facts, "works"))
    assert "Top-1 on 360 labelled pictures, measured at export" in said
    assert "Accuracy on 20 labelled pictures" in said
    assert "95.00 %" in said
    assert "Confusion, compiled" in said
    pairs = [
        {"class": 0, "label": "0", "predicted": 10 + i, "predicted_label": f"far {i}", "images": 1} for i in range(11)
    ]
    wide = text(section(replace(facts, evaluation={**facts.evaluation, "confusion": pairs}), "works"))
    assert "Confusion, compiled" not in wide, "a matrix has a column for each class that was named"
    assert "The most frequent confusions of compiled" in wide


def test_what_was_decided(facts: Facts) -> None:
    said = text(section(facts, "decided"))
    assert "fold_batchnorm" in said
    assert facts.manifest["tools"]["onnx"] in said
    assert "None: every operator has one." in said
    refused = replace(facts, refusals=[{"node": "odd", "op": "Slice", "reason": "no kernel flips", "share": 0.25}])
    assert "no kernel flips" in section(refused, "decided")
    assert "25.0 %" in section(refused, "decided")


def test_tuned_kernels_are_listed_with_their_gain(facts: Facts) -> None:
    assert "Nothing was tuned" in section(facts, "decided")
    record = {
        "kernel": "k_1",
        "layer": "conv 3x3 of 32",
        "task": "t",
        "knobs": {"tile": 6, "order": "wide"},
        "ratio": 0.875,
    }
    tuning = {"database_sha256": "ab" * 32, "kernels": [record]}
    said = text(section(replace(facts, manifest={**facts.manifest, "tuning": tuning}), "decided"))
    assert "1 kernel as tuned" in said
    assert "conv 3x3 of 32" in said
    assert "0.88" in said
    assert "tile 6, order wide" in said


def poisoned(value: Any) -> Any:
    """Every text of a document with an attack behind it, keys too."""
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, dict):
        return {key: poisoned(inner) for key, inner in value.items()}
    return [poisoned(inner) for inner in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("which", ["facts", "int8_facts"])
def test_whatever_a_file_holds_is_text(which: str, request: pytest.FixtureRequest) -> None:
    facts: Facts = request.getfixturevalue(which)
    documents = {name: poisoned(getattr(facts, name)) for name in
                 ("manifest", "plan", "verified", "refusals", "inspected", "latency", "errors", "judged_on", "missing")}  # fmt: skip
    documents["manifest"]["files"] = {EVIL: EVIL}
    documents["manifest"]["tools"] = {EVIL: EVIL}
    layers = layers_of(documents["inspected"]["steps"])
    assert facts.network is not None
    assert facts.photo is not None
    boxes = tuple(
        replace(box, name=EVIL, label=EVIL, layer=box.layer and layers[box.layer.number]) for box in facts.network.boxes
    )
    network = Network(boxes, tuple(Block(EVIL, block.boxes) for block in facts.network.blocks))
    photo = replace(facts.photo, name=EVIL, own=True)
    ranges = [replace(one, tensor=EVIL, dtype=EVIL) for one in facts.ranges]
    page = render(
        replace(facts, **documents, layers=layers, network=network, photo=photo, ranges=ranges, machine=EVIL, when=EVIL,
                exported={"seconds": {EVIL: 1.0}})
    )  # fmt: skip
    seen = Seen(page)
    assert "alert(1)" in seen.text
    assert not [name for name, _ in seen.tags if name == "script"]
    assert len([name for name, _ in seen.tags if name == "img"]) == 1
    assert not [key for _, attributes in seen.tags for key in attributes if key.startswith("on")]


VTA: dict[str, Any] = {
    "board": "pynq", "estimate": True, "streams": 2, "instructions": 141, "cycles": 35_000, "ms": 0.35,
    "frames_per_second": 2857.0, "gemm_utilization": 0.18, "bound": 28_000, "compulsory": 120_000, "macs_percent": 100.0,
    "stalls": [{"engine": "compute", "cause": "bus", "cycles": 3806}], "moved": {"inp": 40_000, "wgt": 90_000},
    "steps": [{"name": EVIL, "op": "conv", "macs": 2_000_000, "cycles": 30_000, "bound": 25_000}],
    "timeline": {"load": [1.0, 0.25], "compute": [0.0, 1.0], "store": [0.0, 0.5]},
    "kept": [{"node": "tanh", "op": "table", "reason": f"no instruction {EVIL}"}],
    "compared": [{"node": EVIL, "op": "depthwise", "device": "cpu", "vta": 4.26, "host": 1.2, "crossing": 2.31}],
    "siblings": [
        {"nodes": [EVIL, "b"], "joined": True, "apart": 7.04, "together": 6.58, "reason": ""},
        {"nodes": ["c"], "joined": False, "apart": 5.19, "together": None, "reason": "shifted otherwise"},
    ],
}  # fmt: skip


def test_an_accelerators_share_its_time_and_what_stays_on_the_host(facts: Facts) -> None:
    assert not section(facts, "vta")
    assert "simulated" not in section(facts, "speed")
    made = replace(facts, inspected={**facts.inspected, "vta": VTA})
    page = section(made, "vta")
    assert "<script" not in page
    said = text(page)
    for told in ("estimate of a cycle model for pynq at 100 MHz", "1.250", "30,000", "25,000", "1.20", "0.3 ms",
                 "compute waits for bus", "120 kB", "no instruction", "100 % of the multiply-adds",
                 "4.26 ms", "1.2 ms", "2.31 ms", "estimated",
                 "7.04 ms", "6.58 ms", "as one", "5.19 ms", "shifted otherwise"):  # fmt: skip
        assert told in said, told
    assert "Busy over time: load 62.5 %, compute 50.0 %, store 25.0 %." in page
    page = render(replace(made, simulated="the VTA is simulated: times are the simulator's"))
    for told in (
        "Of this bundle the VTA is simulated",
        "median latency on the simulator",
        "on a pynq, estimated, without its host",
    ):
        assert told in text(page), told
