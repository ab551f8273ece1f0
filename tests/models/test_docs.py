"""docs/models.md says what the table says. After a change: python tests/models/test_docs.py prints its rows."""

from __future__ import annotations

from pathlib import Path

from inception_deploy import models
from inception_deploy.models import ModelSpec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def row(spec: ModelSpec) -> str:
    aliases = ", ".join(f"`{alias}`" for alias in spec.aliases) or "-"
    shape = "x".join(map(str, spec.input))
    top1 = "-" if spec.top1 is None else f"{spec.top1:g}"
    options = ", ".join(f"`{option.name}`" for option in spec.options)
    return (
        f"| `{spec.name}` | {aliases} | {shape} | {spec.minimum} | {spec.parameters:,} | {spec.macs / 1e9:.4f} | {top1} "
        f"| {spec.weights_source} | {options} |"
    )


def test_the_page_has_every_row() -> None:
    page = PAGE.read_text(encoding="utf-8")
    missing = [row(spec) for spec in models.specs() if row(spec) not in page]
    assert missing == []


def test_the_page_explains_every_option() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{option.name}`" in page for spec in models.specs() for option in spec.options)


if __name__ == "__main__":
    print("\n".join(row(spec) for spec in models.specs()))
