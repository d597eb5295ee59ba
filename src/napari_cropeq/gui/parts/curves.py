"""A plot of the loss over patches; its cost does not grow with the length of a training."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pyqtgraph
from qtpy.QtCore import QSize
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

__all__ = ["Curves", "themed_plot"]

REDRAW_SECONDS = 0.25
MOST_POINTS = 2000


class Curves(QWidget):
    """Training and validation loss over patches.

    Parameters
    ----------
    foreground : str
        Colour of axes and text.
    """

    def __init__(self, foreground: str) -> None:
        super().__init__()
        self.plot = themed_plot(foreground, "patches", "loss")
        self.plot.sizeHint = lambda: QSize(320, 170)
        self.plot.setMinimumSize(200, 130)
        self.plot.setToolTip(
            "Loss on training patches (line) and on validation patches (points). Stop when the points become flat"
        )
        self.plot.addLegend(offset=(-5, 5), labelTextColor=foreground)
        self._training = self.plot.plot(pen=pyqtgraph.mkPen("#5ac8fa"), name="training")
        self._validation = self.plot.plot(
            pen=pyqtgraph.mkPen("#f0a35e"), symbol="o", symbolSize=5, symbolBrush="#f0a35e", name="validation"
        )
        self.logarithmic = QCheckBox("Logarithmic loss")
        self.logarithmic.toggled.connect(lambda on: self.plot.setLogMode(y=on))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        layout.addWidget(self.logarithmic)
        self.clear()

    def clear(self) -> None:
        """Remove all points."""
        self.points: list[tuple[int, float]] = []
        self.validations: Sequence[tuple[int, float]] = ()
        self._every, self._seen, self._drawn = 1, 0, 0.0
        self.draw()

    def add(self, patches: int, loss: float, validations: Sequence[tuple[int, float]]) -> None:
        """Add a point of the training loss, replace the validations, and redraw a few times a second."""
        self._seen += 1
        if self._seen % self._every == 0:
            self.points.append((patches, loss))
        if len(self.points) > MOST_POINTS:  # half of them are enough for the curve
            self.points, self._every = self.points[::2], 2 * self._every
        self.validations = validations
        if time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self.draw()

    def draw(self) -> None:
        """Draw all points."""
        self._drawn = time.monotonic()
        for line, points in ((self._training, self.points), (self._validation, self.validations)):
            patches, loss = np.array(points, float).reshape(-1, 2).T
            line.setData(patches, loss)


def themed_plot(foreground: str, bottom: str, left: str) -> pyqtgraph.PlotWidget:
    """Return an empty plot with a transparent background, in the colours of the window, with axis labels."""
    plot = pyqtgraph.PlotWidget(enableMenu=False, background=None)
    plot.hideButtons()
    plot.getPlotItem().setContentsMargins(2, 8, 8, 5)  # labels extend beyond the axes
    plot.setMouseEnabled(x=False, y=False)  # the wheel over it scrolls the panel
    for side, text in (("bottom", bottom), ("left", left)):
        axis = plot.getAxis(side)
        axis.enableAutoSIPrefix(False)
        axis.setPen(foreground)
        axis.setTextPen(foreground)
        axis.setLabel(text)
    return plot
