"""The pages: their commands are such, their files are there, the tutorial's network goes its way, and the site builds without a warning."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import inception_deploy as idp
from inception_deploy.cli import parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def commands(page: Path) -> list[str]:
    """The lines of a page that call the command line: in blocks, and in the cells of tables."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    lines += re.findall(r"`(inception-deploy [a-z][^`]*)`", rows)
    return [line for line in lines if line.startswith("inception-deploy ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_every_command_is_understood(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        if "--help" in words:
            continue
        options, unknown = parser().parse_known_args(words)
        assert unknown == [], line
        assert all((ROOT / word).exists() for word in words if word.startswith("examples/")), line
        if target := getattr(options, "target", None):
            from inception_deploy.targets import parse

            parse(target)


def test_the_pages_with_commands_are_many() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 30


def test_the_tutorials_own_network(tmp_path: Path) -> None:
    (source,) = re.findall(
        r"```python\n(# net\.py\n.*?)```", (ROOT / "docs/tutorials/own-network.md").read_text(), flags=re.S
    )
    (tmp_path / "net.py").write_text(source)
    document = idp.export(f"{tmp_path / 'net.py'}:build", tmp_path / "net-cpu", input_size=96)
    assert document["ok"]


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = link.partition("#")
            if "://" in link or not path:
                continue
            target = (page.parent / path).resolve()
            assert target.exists(), f"{page.relative_to(ROOT)} links to {link}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.M)
                slugs = {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}
                assert anchor in slugs, f"{page.relative_to(ROOT)} links to {link}"


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("sphinx", "myst_parser", "furo")),
    reason="Sphinx, MyST or furo is not installed: pip install '.[docs]', or make docs",
)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "-b",
        "html",
        "-d",
        str(tmp_path / "trees"),
        str(ROOT / "docs"),
    ]
    done = subprocess.run([*command, str(tmp_path / "site")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {page.relative_to(ROOT / "docs").with_suffix("") for page in PAGES} <= {
        page.relative_to(tmp_path / "site").with_suffix("") for page in (tmp_path / "site").rglob("*.html")
    }
    text = {
        name: (tmp_path / "site" / f"{name}.html").read_text()
        for name in ("architecture", "passes", "reference/commands")
    }
    assert "by_winograd" in text["architecture"]
    assert "fold_batchnorm" in text["passes"]
    assert "--max-drop POINTS" in text["reference/commands"]
    assert not any(
        "<!-- " + name + " -->" in page
        for page in text.values()
        for name in ("stages", "passes", "lowering", "commands")
    )
