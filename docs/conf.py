"""The documentation as a site: Sphinx reads the Markdown pages by MyST. `make docs` takes any warning for an error."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

import tables  # noqa: E402

import inception_deploy  # noqa: E402

project, author = "inception-deploy", "the inception-deploy authors"
copyright = f"{author}, Apache-2.0"
release = inception_deploy.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme, html_title = "furo", "inception-deploy"
html_show_sourcelink = html_copy_source = False
myst_heading_anchors = 3
default_role = "code"  # of docstrings: `name` is one
autodoc_member_order, autodoc_typehints, autodoc_preserve_defaults = "bysource", "signature", True
napoleon_use_rtype = napoleon_use_param = False
python_use_unqualified_type_names = True
suppress_warnings = ["ref.python"]  # `bytes` in a signature is the type, whatever dataclass has a field of that name


def written(app: Sphinx, name: str, source: list[str]) -> None:
    """Fill in what comes from the code's own tables, and make words of links that leave the documentation."""
    text = source[0]
    for mark, make in tables.WRITTEN.items():
        if f"<!-- {mark} -->" in text:
            text = text.replace(f"<!-- {mark} -->", make())
    here = (HERE / name).parent

    def outside(found: re.Match[str]) -> str:
        target = (here / found[1].partition("#")[0]).resolve()
        if "://" in found[1] or target.is_relative_to(HERE):
            return found[0]
        if not target.exists():
            raise FileNotFoundError(f"{name} links to {found[1]}, which is not there")
        return f"`{target.relative_to(ROOT)}`"

    source[0] = re.sub(r"\[[^\]]*\]\((\.\.[^)\s]*)\)", outside, text)


def setup(app: Sphinx) -> None:
    """See Sphinx."""
    app.connect("source-read", written)
