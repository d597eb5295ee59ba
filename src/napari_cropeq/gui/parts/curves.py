"""A plot of the loss over patches; its cost does not grow with the length of a training."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pyqtgraph
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_cropeq.gui.colours import Colours
from napari_cropeq.gui.parts.plot import Key, Plot

__all__ = ["Curves"]

REDRAW_SECONDS = 0.25
MOST_POINTS = 2000


class Curves(QWidget):
    """Training and validation loss over patches, and the loss of interpolation.

    Parameters
    ----------
    colours : Colours
        For the theme of the window.
    """

    def __init__(self, colours: Colours) -> None:
        super().__init__()
        self.key = Key()
        self.plot = Plot(colours, "patches", "loss")
        self.plot.sizeHint = lambda: QSize(320, 170)
        self.plot.setMinimumSize(200, 130)
        self.plot.setToolTip(
            "Loss on training patches (line) and on held-out patches, which are not used for training (points). Stop "
            "when the points become flat. Dashes: loss of interpolation on the held-out patches"
        )
        self._training = self.plot.plot(name="training")
        self._validation = self.plot.plot(symbol="o", symbolSize=5, name="held-out")
        self._interpolation = self.plot.plot(name="interpolation")
        self.logarithmic = QCheckBox("Logarithmic loss")
        self.logarithmic.setToolTip("Show the loss on a logarithmic axis")
        self.logarithmic.toggled.connect(lambda on: self.plot.setLogMode(y=on))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.key)
        layout.addWidget(self.plot)
        layout.addWidget(self.logarithmic)
        self.recolour(colours)
        self.clear()

    def recolour(self, colours: Colours) -> None:
        """Show the plot in other colours."""
        self.plot.recolour(colours)
        self._training.setPen(pyqtgraph.mkPen(colours.line))
        self._validation.setPen(pyqtgraph.mkPen(colours.points))
        self._validation.setSymbolBrush(colours.points)
        self._validation.setSymbolPen(colours.points)
        self._interpolation.setPen(pyqtgraph.mkPen(colours.text, style=Qt.PenStyle.DashLine))
        entries = (("━", colours.line, self._training), ("●", colours.points, self._validation))
        named = [(mark, colour, line.name()) for mark, colour, line in entries]
        self.key.show_entries([*named, ("╌", colours.text, self._interpolation.name())])

    def clear(self) -> None:
        """Remove all points."""
        self.points: list[tuple[int, float]] = []
        self.validations: Sequence[tuple[int, float]] = ()
        self.interpolation: float | None = None
        self._every, self._seen, self._drawn = 1, 0, 0.0
        self.draw()

    def add(
        self,
        patches: int,
        loss: float | None,
        validations: Sequence[tuple[int, float]],
        interpolation: float | None = None,
    ) -> None:
        """Add a point of the training loss, if there is a new one; replace the others; redraw a few times a second."""
        self.interpolation = interpolation
        if loss is not None and (not self.points or patches > self.points[-1][0]):
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
        level: list[tuple[int, float]] = []
        span = [patches for patches, _ in (*self.points, *self.validations)]
        if span and self.interpolation is not None:
            level = [(min(span), self.interpolation), (max(span), self.interpolation)]
        lines = (self._training, self.points), (self._validation, self.validations), (self._interpolation, level)
        for line, points in lines:
            patches, loss = np.array(points, float).reshape(-1, 2).T
            line.setData(patches, loss)
