"""The README: its commands are such, its Python runs, and it leads to every page of the documentation."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import inception_deploy as idp
from inception_deploy.cli import parser

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_every_page_is_linked_and_every_link_is_there() -> None:
    links = {link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link}
    assert all((ROOT / link).exists() for link in links if link)
    pages = {str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= links, f"README does not lead to {sorted(pages - links)}"


def test_every_command_is_understood() -> None:
    lines = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.S) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("inception-deploy ")]
    assert len(commands) > 10
    for command in commands:
        _, unknown = parser().parse_known_args(command)
        assert unknown == [], command
        examples = [word for word in command if word.startswith("examples/")]
        assert all((ROOT / word).exists() for word in examples), command


def test_the_lines_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, with LeNet-5 for the large network and the repository's own pictures."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)
    assert len(blocks) == 1, "README has one block of Python, which this test runs"
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.jpg"):
        (tmp_path / name).write_bytes((ROOT / "examples" / "data" / "photo.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(blocks[0].replace("irv2", "lenet5"), "README.md", "exec"), names)
    assert (tmp_path / "lenet5-cpu" / "model.so").exists()
    assert isinstance(names["net"], idp.Model)
