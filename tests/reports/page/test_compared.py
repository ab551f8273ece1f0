"""The page of `compare`: what the document says is on it, as text, whatever a document holds."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from inception_deploy import cli
from inception_deploy.reports.differ import differences
from inception_deploy.reports.page.compared import render, short
from tests.reports.test_compare import changed

from .test_markup import Seen
from .test_sections import EVIL, poisoned

BUNDLE: dict[str, Any] = {
    "model": "net", "precision": "fp32", "target": "cpu", "batch": 1, "engine": "compiled", "not_run": None, "p50_ms": 10.0,
    "p90_ms": 11.0, "p99_ms": 12.5, "mean_ms": 10.2, "sd_ms": 0.4, "bytes": 4_000_000, "memory_bytes": 3_000_000,
    "weights_bytes": 2_000_000, "arena_bytes": 1_000_000, "top1": 91.5, "top5": 99.0, "top1_interval": [90.0, 93.0],
}  # fmt: skip
DOCUMENT: dict[str, Any] = {
    "bundles": [
        {**BUNDLE, "bundle": "new/net"},
        {**BUNDLE, "bundle": "old/net", "precision": "int8", "p50_ms": 4.0, "p99_ms": 5.0, "bytes": 1_000_000, "top1": 91.0},
    ],
    "pairs": [
        {"a": "new/net", "b": "old/net", "max_abs": 0.5, "max_rel": 0.0625, "cosine": 0.998877665, "same_top1": 0.975,
         "apart": [{"picture": "cats/7.png", "a": "cat", "b": "lynx"}], "not_compared": None, "ratio_p50": 0.4,
         "ratio_bytes": 0.25, "ratio_memory": 1.0, "drop_points": 0.5},
    ],
    "inputs": {"source": "pets", "count": 40, "labelled": True, "unlabelled": None},
    "machine": "a machine", "threads": 2, "runs": 30,
    "differences": [{"what": "precision", "values": ["fp32", "int8"]}, {"what": "quantization.scheme", "values": [None, "float-scale"]}],
    "conditions": [
        {"expression": "latency > 1.05", "bundle": "old/net", "values": {"latency": 0.4}, "holds": False},
        {"expression": "drop > 0.1", "bundle": "old/net", "values": {"drop": 0.5}, "holds": True},
    ],
    "failed": [{"expression": "drop > 0.1", "bundle": "old/net", "values": {"drop": 0.5}}],
    "ok": False,
}  # fmt: skip


def without(**changes: Any) -> dict[str, Any]:
    """`DOCUMENT` with other entries of every bundle."""
    document = copy.deepcopy(DOCUMENT)
    for row in document["bundles"]:
        row |= changes
    return document


def test_what_the_document_says_is_on_the_page() -> None:
    said = Seen(render(DOCUMENT, "today")).text
    for told in ("new/net and old/net", "0.40", "of the time of new/net", "97.5 %", "0.998877665", "0.0625", "cats/7.png", "lynx",
                 "latency > 1.05", "latency 0.4", "passed", "failed", "12.5 ms", "91.50 %", "90.00 to 93.00 %", "+0.50", "4 MB",
                 "quantization.scheme", "float-scale", "today", "2 bundles on a machine", "2 conditions, 1 of them held"):  # fmt: skip
        assert told in said, told


def test_what_is_not_known_is_said() -> None:
    none = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "mean_ms", "sd_ms"))
    document = without(**none, not_run="it is for arm", top1=None)
    document["pairs"][0] |= {"not_compared": "the outputs are [1] and [2]", "same_top1": None, "ratio_p50": None,
                             "drop_points": None, "apart": [], "max_rel": None, "cosine": None}  # fmt: skip
    document["inputs"] |= {"labelled": False, "unlabelled": "a photo has no class"}
    document |= {"differences": [], "conditions": [], "failed": []}
    said = Seen(render(document, "today")).text
    for told in ("Nothing was timed", "it is for arm", "not compared: the outputs are [1] and [2]",
                 "It was not measured: a photo has no class", "their manifests say the same"):  # fmt: skip
        assert told in said, told
    assert "Conditions that" not in said


def test_names_are_short_and_tell_apart() -> None:
    assert list(short(["x/a", "x/b"]).values()) == ["a", "b"]
    assert list(short(["/new/net", "/old/net", "z.zip"]).values()) == ["new/net", "old/net", "z.zip"]
    assert short(["same", "same"]) == {"same": "same"}
    assert "same and same" in render({**DOCUMENT, "bundles": [{**BUNDLE, "bundle": "same"}] * 2, "conditions": [],
                                      "pairs": [{**DOCUMENT["pairs"][0], "a": "same", "b": "same"}]}, "today")  # fmt: skip


def test_whatever_a_document_holds_is_text() -> None:
    seen = Seen(render(poisoned(DOCUMENT), EVIL))
    assert "alert(1)" in seen.text
    assert not [name for name, _ in seen.tags if name in ("script", "img")]
    assert not [key for _, attributes in seen.tags for key in attributes if key.startswith("on")]


def test_what_manifests_say_differently() -> None:
    one = {"model": "a", "tools": {"tvm": "1", "zig": "2"}, "mean": [0.5, 0.5], "files": {"x": "1"}, "labels": list("abcdefgh"),
           "inputs": [{"name": "x", "scale": 1.0}], "long": "x" * 100}  # fmt: skip
    other = {"model": "b", "tools": {"tvm": "1", "zig": "3"}, "mean": [0.25, 0.5], "files": {"x": "2"}, "labels": list("abcdefgi"),
             "inputs": [{"name": "x", "scale": 0.5}], "long": "x" * 99 + "y", "more": True}  # fmt: skip
    rows = {row["what"]: row["values"] for row in differences([one, other])}
    assert rows == {
        "model": ["a", "b"], "tools.zig": ["2", "3"], "mean": ["0.5, 0.5", "0.25, 0.5"], "more": [None, True],
        "inputs.0.scale": [1.0, 0.5],
        "labels": ["8 entries, number 1", "8 entries, number 2"],
        "long": ["x" * 79 + "\u2026, number 1", "x" * 79 + "\u2026, number 2"],
    }  # fmt: skip
    assert differences([one, one]) == []


def test_the_command_writes_it(tiny_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page, net = tmp_path / "page.html", str(changed(tiny_bundle, tmp_path / "net"))
    argv = ["compare", net, net, "--runs", "2", "-o", str(page), "--fail-if", "max_rel > 0"]
    assert cli.main([*argv, "--json", "-q"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["page"] == str(page)
    assert [row["holds"] for row in document["conditions"]] == [False]
    said = Seen(page.read_text()).text
    assert "All were shown the same 14 inputs" in said
    assert f"{document['pairs'][0]['cosine']:.9g}" in said
