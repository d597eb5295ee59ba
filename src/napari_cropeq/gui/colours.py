"""The colours of texts and plots, for the theme of the window."""

from __future__ import annotations

from dataclasses import dataclass

from napari.utils.theme import get_theme

__all__ = ["Colours"]


@dataclass(frozen=True)
class Colours:
    """Colours that can be read on the background of a theme (WCAG 2.2, level AA: a contrast of at least 4.5).

    Parameters
    ----------
    text : str
        The theme's own colour of text.
    line, points : str
        Of what is expected, and of what was measured, in a plot.
    bad, good, changed : str
        Of errors, of what succeeded, and of settings that differ from the preset.
    """

    text: str
    line: str
    points: str
    bad: str
    good: str
    changed: str

    @classmethod
    def of(cls, theme: str) -> Colours:
        """Return the colours for the theme of this name."""
        found = get_theme(theme)
        text = found.text.as_hex(format="long")
        red, green, blue = found.background.as_rgb_tuple(alpha=False)
        if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 128:
            return cls(text, line="#5ac8fa", points="#f0a35e", bad="#ff7d71", good="#7fd67f", changed="#f0a35e")
        return cls(text, line="#0b5f96", points="#8a4b00", bad="#b3261e", good="#1a6b1f", changed="#8a4b00")
