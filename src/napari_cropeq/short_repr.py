"""A short ``repr`` of a few lines, and a table in notebooks."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["ShortRepr", "card", "duration", "quality_of"]


LEAST = 0.05  # dB, the least improvement that is not zero when it is written


def duration(seconds: float) -> str:
    """Return a time as text, in seconds or in minutes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def quality_of(training: Mapping[str, Any]) -> dict[str, str]:
    """Return how good a trained network is, as a fact; none if the record of its ``training`` does not say it."""
    gain = training.get("gain")
    if gain is None:
        return {}
    if math.isnan(gain):
        return {"quality": "not compared with interpolation yet"}
    how = f"{gain:.1f} dB better than" if gain >= LEAST else "not better than"
    return {"quality": f"{how} interpolation on held-out patches"}


def card(title: str, facts: Mapping[str, str]) -> str:
    """Return a title and, indented below it, one line for each fact."""
    width = max(map(len, facts), default=0)
    return "\n".join([title, *(f"  {name:{width}}  {fact}" for name, fact in facts.items())])


class ShortRepr:
    """Adds a ``repr`` and a table for notebooks, both from a title and a few facts."""

    def _title(self) -> str:
        return type(self).__name__

    def _facts(self) -> Mapping[str, str]:
        """Return about four facts about the object, by name."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return card(self._title(), self._facts())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align: left'>{html.escape(name)}</th>"
            f"<td style='text-align: left'>{html.escape(fact)}</td></tr>"
            for name, fact in self._facts().items()
        )
        return f"<table><caption>{html.escape(self._title())}</caption><tbody>{rows}</tbody></table>"
