"""Objects that show themselves in a few lines, and as a table in a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping

__all__ = ["ShortRepr"]


class ShortRepr:
    """Gives a class its ``repr`` and its table in notebooks, both made from a title and a few facts."""

    def _title(self) -> str:
        return type(self).__name__

    def _facts(self) -> Mapping[str, str]:
        """Return what the object is, in about four lines: the name of each fact, and the fact."""
        raise NotImplementedError

    def __repr__(self) -> str:
        facts = self._facts()
        width = max(map(len, facts), default=0)
        return "\n".join([self._title(), *(f"  {name:{width}}  {fact}" for name, fact in facts.items())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align: left'>{html.escape(name)}</th>"
            f"<td style='text-align: left'>{html.escape(fact)}</td></tr>"
            for name, fact in self._facts().items()
        )
        return f"<table><caption>{html.escape(self._title())}</caption><tbody>{rows}</tbody></table>"
