"""A folded section that measures something on the image, on request, and shows it as text and plot."""

from __future__ import annotations

from typing import Any, ClassVar

import pyqtgraph
from qtpy.QtCore import QSize, Signal
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.gui.colours import Colours
from napari_cropeq.gui.parts.keyboard import with_mnemonic
from napari_cropeq.gui.parts.plot import Key, Plot
from napari_cropeq.gui.sections.section import Section

__all__ = ["MeasurementSection"]


class MeasurementSection(Section):
    """A button, the result in words, and a plot of what was measured.

    Parameters
    ----------
    title, button, tooltip : str
        Of the section, and of the button that asks for the measurement.
    axes : (str, str)
        Labels of the plot, bottom and left.
    colours : Colours
        For the theme of the window.
    """

    busy: ClassVar[str]  # shown while it measures

    asked = Signal()

    def __init__(self, title: str, button: str, tooltip: str, axes: tuple[str, str], colours: Colours) -> None:
        super().__init__(title, f"Show or hide: {tooltip[:1].lower()}{tooltip[1:]}")
        self.result: Any = None
        self.unit, self.colours = "", colours
        self.button = QPushButton(with_mnemonic(button))
        self.button.setToolTip(f"{tooltip}. Takes some seconds; nothing is changed")
        self.found = QLabel("")
        self.found.setWordWrap(True)
        self.key = Key()
        self.plot = Plot(colours, *axes)
        self.plot.sizeHint = lambda: QSize(320, 190)
        self.plot.setMinimumSize(200, 150)
        body = QWidget()
        self.rows = QVBoxLayout(body)
        self.rows.setContentsMargins(0, 0, 0, 0)
        for widget in (self.button, self.found, self.key, self.plot):
            self.rows.addWidget(widget)
        self.addWidget(body)
        self.button.clicked.connect(lambda: self.asked.emit())

    def expand(self, animate: bool = True) -> None:
        """Show the content, as high as the text needs: a label's size hint does not know its width."""
        self.found.setMinimumHeight(max(0, self.found.heightForWidth(self.button.width())))
        super().expand(animate)

    def measure(self, volume: ArrayLike, acquisition: Acquisition) -> Any:
        """Return the result for a volume (z, y, x); called in a thread."""
        raise NotImplementedError

    def draw(self, result: Any, unit: str) -> str:
        """Draw a result into the empty plot, lengths in ``unit``, and return it in words."""
        raise NotImplementedError

    def clear(self) -> None:
        """Remove the result, which belongs to another layer."""
        self.result = None
        self.found.setText("")
        for widget in (self.found, self.key, self.plot):
            widget.setVisible(False)

    def wait(self) -> None:
        """Show that the measurement is in progress."""
        self.clear()
        self.button.setEnabled(False)
        self.found.setText(self.busy)
        self.found.setVisible(True)
        self.expand(animate=False)

    def done(self) -> None:
        """Show that the work has ended, with or without a result."""
        self.button.setEnabled(True)
        if self.result is None:
            self.clear()

    def show_result(self, result: Any, unit: str) -> None:
        """Show a result; lengths are in ``unit``."""
        self.result, self.unit = result, unit
        self.plot.clear()
        self.found.setText(self.draw(result, unit))
        self._show_key()
        for widget in (self.found, self.key, self.plot):
            widget.setVisible(True)
        if self.isExpanded():
            self.expand(animate=False)  # to its new height

    def recolour(self, colours: Colours) -> None:
        """Show the plot in other colours."""
        self.colours = colours
        self.plot.recolour(colours)
        if self.result is not None:
            self.plot.clear()
            self.draw(self.result, self.unit)
            self._show_key()

    def _show_key(self) -> None:
        """Show what the named lines and points mean."""
        marks = {True: ("━", self.colours.line), False: ("●", self.colours.points)}
        named = [item for item in self.plot.listDataItems() if item.name()]
        self.key.show_entries([(*marks[item.opts["symbol"] is None], item.name()) for item in named])

    def line(self, x: Any, y: Any, name: str) -> None:
        """Draw what is expected."""
        self.plot.plot(x, y, pen=pyqtgraph.mkPen(self.colours.line, width=2), name=name)

    def points(self, x: Any, y: Any, name: str) -> None:
        """Draw what was measured."""
        brush = self.colours.points
        self.plot.plot(x, y, pen=None, symbol="o", symbolSize=5, symbolBrush=brush, symbolPen=None, name=name)
