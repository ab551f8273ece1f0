"""What the site draws and writes from the code's own tables, where a page says ``<!-- NAME -->``."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from pathlib import Path

from inception_deploy.reports.page import drawing
from inception_deploy.reports.page.layered import draw
from inception_deploy.reports.page.markup import tag

ROOT = Path(__file__).resolve().parents[1]
_WIDTH, _HEIGHT = 300, 30


def stages() -> str:
    """The packages in the order in which they may import each other, from the test that holds it."""
    tree = ast.parse((ROOT / "tests/test_architecture.py").read_text())
    (order,) = [ast.literal_eval(node.value) for node in tree.body
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ORDER"]  # fmt: skip
    names = [sorted(row) for row in order]
    return _chain([", ".join(row) for row in names], "A package imports itself and those above it")


def lowering() -> str:
    """The passes of lowering, in order, with their reasons."""
    from inception_deploy.lower.lower import PASSES

    rows = [f"| `{entry.name}` | {entry.condition} | {entry.why_here} |" for entry in PASSES]
    return "\n".join(["| pass | on | why here |", "|---|---|---|", *rows])


def passes() -> str:
    """The graph passes, in order, with the reasons for their places."""
    from inception_deploy.graph.driver import PASSES

    rows = [f"| `{entry.name}` | {entry.why_here} | {', '.join(entry.off) or '-'} |" for entry in PASSES]
    return "\n".join(["| pass | why here | off for |", "|---|---|---|", *rows])


def commands() -> str:
    """Every command with its help, as the parser has it."""
    from inception_deploy.cli import parser

    found = []

    def add(name: str, one: argparse.ArgumentParser, depth: int) -> None:
        one.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=92)
        found.append(f"{'#' * depth} {name}\n\n```text\n{one.format_help().rstrip()}\n```\n")
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                for inner, made in action.choices.items():
                    add(f"{name} {inner}".strip(), made, depth + 1)

    whole = parser()
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, made in action.choices.items():
                add(name, made, 2)
    return "\n".join(found)


def others() -> str:
    """The pages that the index does not name."""
    named = (ROOT / "docs/index.md").read_text().splitlines()
    return "\n".join(sorted({page.stem for page in (ROOT / "docs").glob("*.md")} - {"index", *named}))


def _chain(names: list[str], label: str) -> str:
    """Boxes below each other."""
    plan = draw(
        [[i - 1] if i else [] for i in range(len(names))], width=_WIDTH, height=_HEIGHT, gap=8, between=14, lane=8
    )
    size = {"width": _WIDTH - 2, "height": _HEIGHT - 2, "rx": 4}
    boxes = [
        tag("g",
            tag("rect", x=x + 1, y=y + 1, fill="none", stroke="currentColor", **size),
            tag("text", name, x=x + _WIDTH / 2, y=y + 20, text_anchor="middle", fill="currentColor", font_size=13))
        for name, (x, y) in zip(names, plan.boxes, strict=True)
    ]  # fmt: skip
    lines = [tag("line", x1=a, y1=b, x2=c, y2=d, stroke="currentColor") for a, b, c, d in plan.lines]
    picture = drawing.picture(plan.width, plan.height, f"{label}: {', '.join(names)}", lines, boxes)
    return f"```{{raw}} html\n{picture}\n```"


WRITTEN: dict[str, Callable[[], str]] = {
    "stages": stages,
    "passes": passes,
    "lowering": lowering,
    "commands": commands,
    "others": others,
}
