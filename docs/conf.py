"""The documentation's site: ``make docs`` builds it into ``site/``, and every warning is an error."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from napari_cropeq import __version__  # noqa: E402

REPOSITORY = "https://github.com/napari-cropeq/napari-cropeq"

project = "napari-cropeq"
author = "napari-cropeq developers"
project_copyright = author
version = release = __version__

extensions = [
    "error_messages",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_argparse_cli",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_ext"]
smartquotes = False  # commands are copied, also those in sentences
nitpicky = False  # types such as "float, optional" are words, not references

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say the types
napoleon_google_docstring = False

html_theme = "napari_sphinx_theme"
html_title = "napari-cropeq"
html_logo = html_favicon = "../src/napari_cropeq/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "napari-cropeq"},
    "github_url": REPOSITORY,
    "show_prev_next": True,
    "navbar_align": "left",
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}
html_context = {"default_mode": "auto"}


def link_to_repository(app: object, page: str, source: list[str]) -> None:
    """Let links to files outside of the pages lead to the repository; a link to a file that is missing is an error."""
    for target in re.findall(r"\]\(\.\./([^)#\s]+)", source[0]):
        if not (ROOT / target).exists():
            raise FileNotFoundError(f"{page}.md links to {target}, which does not exist. Correct the link.")
    source[0] = re.sub(r"\]\(\.\./", f"]({REPOSITORY}/blob/main/", source[0])


def setup(app: object) -> None:
    """Let Sphinx change the source of each page."""
    app.connect("source-read", link_to_repository)  # type: ignore[attr-defined]
