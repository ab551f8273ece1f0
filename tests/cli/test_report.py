"""`report` from the command line: one file that loads nothing, and what it says of wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inception_deploy.reports.check import PHOTO


def test_one_page_that_loads_nothing(call, exported: Path, tmp_path: Path) -> None:
    result = call("report", exported, "-o", tmp_path / "page.html", "--runs", 2, "--against", "onnxruntime", "--json")
    assert result.status == 0
    page = (tmp_path / "page.html").read_text()
    assert result.document == {
        "report": str(tmp_path / "page.html"),
        "bundle": str(exported),
        "bytes": len(page.encode()),
    }
    assert page.startswith("<!doctype html>")
    assert not any(word in page for word in ("http://", "https://", "<script", "<link", "@import", "url("))
    assert page.count("src=") == page.count('src="data:image/jpeg;base64,') == 1
    assert "onnxruntime, model.onnx" in page
    assert all(question in page for question in ("Does it work?", "How fast is it?", "Where does the time go?"))


def test_the_exports_own_document_and_a_picture_of_ones_own(call, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text(json.dumps({"seconds": {"resolve": 1.5, "build": 2.25}}))
    (tmp_path / "mine & yours.jpg").write_bytes(PHOTO.read_bytes())
    options = ("--image", tmp_path / "mine & yours.jpg", "--exported", tmp_path / "export.json", "--against", "none")
    assert call("report", exported, "-o", tmp_path / "page.html", "--runs", 1, *options).status == 0
    page = (tmp_path / "page.html").read_text()
    assert "mine &amp; yours.jpg" in page
    assert "3.75" in page


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--against", "onnxruntim"], 2, "there is no engine 'onnxruntim'; did you mean onnxruntime?"),
        (["--runs", "0"], 2, "--runs is '0'"),
        (["--image", "none.jpg"], 1, "none.jpg"),
        (["--exported", "none.json"], 1, "none.json cannot be read: No such file or directory"),
        (["--exported", "wrong.json"], 1, "wrong.json is not what `export --json` printed: field 'seconds' is missing"),
        (["--exported", "list.json"], 1, "list.json is not what `export --json` printed"),
        (["--evaluate", "torn.json"], 1, "torn.json is not what `evaluate --json` printed"),
        (["--evaluate", "none"], 1, "none does not exist"),
        (["--labels", "wrong.json"], 1, "labels"),
    ],
)
def test_wrong_input_is_an_error_and_no_page(
    call, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], status: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.json").write_text('{"bundle": "x"}')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "torn.json").write_text('{"images": 3, "engines": [')
    extra = [] if "--runs" in options else ["--runs", 1]
    rest = [] if "--against" in options else ["--against", "none"]
    result = call("report", exported, "-o", "page.html", "--json", *options, *extra, *rest)
    assert (result.status, message in result.error["message"]) == (status, True), result.error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.json", "torn.json", "wrong.json"]
