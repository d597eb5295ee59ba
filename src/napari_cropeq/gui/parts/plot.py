"""A plot in the colours of the window, and its key above it, where it covers no data."""

from __future__ import annotations

import html
from collections.abc import Iterable

import pyqtgraph
from qtpy.QtWidgets import QLabel

from napari_cropeq.gui.colours import Colours

__all__ = ["Key", "Plot"]


class Plot(pyqtgraph.PlotWidget):
    """An empty plot with a transparent background and axis labels.

    Parameters
    ----------
    colours : Colours
        For the theme of the window.
    bottom, left : str
        Labels of the axes.
    """

    def __init__(self, colours: Colours, bottom: str, left: str) -> None:
        super().__init__(enableMenu=False, background=None)
        self.hideButtons()
        self.destroyed.connect(self.getPlotItem().ctrlMenu.deleteLater)  # or Python deletes it, in whatever thread
        self.setCacheMode(self.CacheModeFlag.CacheNone)  # else the background of the last theme would stay
        self.getPlotItem().setContentsMargins(2, 8, 8, 5)  # labels extend beyond the axes
        self.setMouseEnabled(x=False, y=False)  # the wheel over it scrolls the panel
        for side, text in (("bottom", bottom), ("left", left)):
            self.getAxis(side).enableAutoSIPrefix(False)
            self.getAxis(side).setLabel(text)
        self.recolour(colours)

    def recolour(self, colours: Colours) -> None:
        """Show axes and labels in other colours."""
        for side in ("bottom", "left"):
            self.getAxis(side).setPen(colours.text)
            self.getAxis(side).setTextPen(colours.text)


class Key(QLabel):
    """What the lines and points of a plot mean, in one line."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)

    def show_entries(self, entries: Iterable[tuple[str, str, str]]) -> None:
        """Show a mark, its colour, and its meaning, for each."""
        marked = (
            f'<span style="color: {colour}">{mark}</span>&nbsp;{html.escape(name)}' for mark, colour, name in entries
        )
        self.setText(" &nbsp; ".join(marked))
