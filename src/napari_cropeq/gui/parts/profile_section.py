"""The slice profile: the lateral width, and what the image itself suggests for the axial one."""

from __future__ import annotations

import numpy as np
import pyqtgraph
from magicgui.widgets import FloatSpinBox
from qtpy.QtCore import QSize, Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_cropeq.core.slice_profile import Suggestion
from napari_cropeq.gui.parts.curves import themed_plot
from napari_cropeq.gui.parts.section import Section

__all__ = ["ProfileSection"]

LEGEND = (
    "The fall of the spectrum along the axial axis, over that of lateral structure of the same size. Measured (points) "
    "and lateral slices degraded by the width suggested (line) should agree up to the highest frequency; the band "
    "are the ends of the interval."
)
SMALLEST = 1e-4  # of the lateral power; below is noise


class ProfileSection(Section):
    """What belongs to the slice profile beside its width; folded away.

    A suggestion is shown with its interval and the spectra behind it. Only the button applies it.

    Parameters
    ----------
    fwhm : FloatSpinBox
        The field of the width, for a suggestion that is applied.
    lateral_fwhm : FloatSpinBox
        The field of the lateral width, which is shown here.
    foreground : str
        Colour of axes and text.
    """

    asked = Signal()

    def __init__(self, fwhm: FloatSpinBox, lateral_fwhm: FloatSpinBox, foreground: str) -> None:
        super().__init__("Slice profile")
        self._fwhm = fwhm
        self.suggestion: Suggestion | None = None
        self.suggest = QPushButton("Suggest FWHM from image")
        self.suggest.setToolTip("Compare axial with lateral spectra; takes some seconds and changes nothing")
        self.found = QLabel("")
        self.found.setWordWrap(True)
        self.apply = QPushButton("Apply")
        self.plot = themed_plot(foreground, "axial frequency", "relative power")
        self.plot.sizeHint = lambda: QSize(320, 190)
        self.plot.setMinimumSize(200, 150)
        self.plot.setToolTip(LEGEND)
        self.plot.setLogMode(y=True)
        self.plot.addLegend(offset=(5, -5), labelTextColor=foreground)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        form = QFormLayout()
        self.lateral_label = QLabel(lateral_fwhm.label)
        self.lateral_label.setToolTip(lateral_fwhm.tooltip)
        form.addRow(self.lateral_label, lateral_fwhm.native)
        layout.addLayout(form)
        for widget in (self.suggest, self.found, self.plot, self.apply):
            layout.addWidget(widget)
        self.addWidget(body)
        self.suggest.clicked.connect(lambda: self.asked.emit())
        self.apply.clicked.connect(self._apply)
        self.clear()

    def clear(self) -> None:
        """Forget the suggestion: it belongs to another layer."""
        self.suggestion = None
        self.found.setText("")
        for widget in (self.found, self.plot, self.apply):
            widget.setVisible(False)

    def wait(self) -> None:
        """Tell that a suggestion is on its way."""
        self.clear()
        self.suggest.setEnabled(False)
        self.found.setText("Comparing spectra ...")
        self.found.setVisible(True)

    def done(self) -> None:
        """Tell that the work has ended, with a suggestion or without."""
        self.suggest.setEnabled(True)
        if self.suggestion is None:
            self.clear()

    def show_suggestion(self, suggestion: Suggestion, unit: str) -> None:
        """Show what was found, lengths in ``unit``: a number only where there is an honest one, the spectra always."""
        self.suggestion = suggestion
        if suggestion.reliable:
            self.found.setText(
                f"Suggested FWHM: <b>{suggestion.fwhm:.3g} {unit}</b>, expected between {suggestion.low:.3g} and "
                f"{suggestion.high:.3g} {unit}. Judge it by the plot."
            )
            self.apply.setText(f"Apply {suggestion.fwhm:.3g} {unit}")
        else:
            self.found.setText(f"No suggestion: {suggestion.reason}")
        self._draw(suggestion, unit)
        self.found.setVisible(True)
        self.plot.setVisible(True)
        self.apply.setVisible(suggestion.reliable)
        self.expand(animate=False)

    def _draw(self, suggestion: Suggestion, unit: str) -> None:
        self.plot.clear()
        self.plot.setLabel("bottom", f"axial frequency (1/{unit})")
        frequency = suggestion.frequency
        if not len(frequency):
            return
        narrow, middle, wide = (np.clip(power, SMALLEST, None) for power in suggestion.degraded)
        ends = [self.plot.plot(frequency, power, pen=pyqtgraph.mkPen("#5ac8fa40")) for power in (narrow, wide)]
        self.plot.addItem(pyqtgraph.FillBetweenItem(*ends, brush="#5ac8fa40"))
        told = "lateral, degraded"
        self.plot.plot(frequency, middle, pen=pyqtgraph.mkPen("#5ac8fa", width=2), name=told)
        seen = suggestion.axial > SMALLEST
        dots = {"pen": None, "symbol": "o", "symbolSize": 5, "symbolBrush": "#f0a35e", "symbolPen": None}
        self.plot.plot(frequency[seen], suggestion.axial[seen], name="axial, measured", **dots)

    def _apply(self) -> None:
        if self.suggestion is not None and self.suggestion.reliable:
            self._fwhm.value = self.suggestion.fwhm
