"""One self-contained HTML page with text, tables and pictures, readable without a network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from napari_cropeq.core.whole_file import whole_file

__all__ = ["Page"]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1f; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #d5d5dc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.2rem 0; } img { max-width: 100%; } figcaption { color: #55555f; font-size: .9rem; }
code { background: #f0f0f4; padding: .1rem .3rem; }
"""


class Page:
    """Collects the parts of a page; :meth:`write` writes the file.

    Parameters
    ----------
    title : str
        Heading and title.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """Start a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def command(self, text: str) -> None:
        """Add a command line."""
        self._parts.append(f"<p><code>{escape(text)}</code></p>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def picture(self, path: Path, caption: str) -> None:
        """Add a PNG; it is embedded in the page.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        data = base64.b64encode(path.read_bytes()).decode()
        text = escape(caption, quote=True)
        self._parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
        )

    def write(self, path: Path) -> None:
        """Write the page; an existing file is replaced only once the new one is complete."""
        title = escape(self._title)
        text = (
            f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
            + "\n".join(self._parts)
            + "\n</body>\n</html>\n"
        )
        with whole_file(path) as file:
            file.write(text.encode())
