"""The slice profile: the lateral width, and a suggestion for the axial width from the image."""

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
    "Power of the axial spectrum relative to the lateral one. Points: measured. Line: lateral slices blurred by the "
    "suggested width. Band: the ends of the interval. Points and line should agree up to the highest frequency."
)
SMALLEST = 1e-4  # fraction of the lateral power; smaller values are noise


class ProfileSection(Section):
    """Settings of the slice profile besides its width; folded.

    A suggestion is shown with its interval and the measured spectra. It is applied only by the button.

    Parameters
    ----------
    fwhm : FloatSpinBox
        The field of the axial width, which a suggestion is applied to.
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
        self.suggest.setToolTip(
            "Estimate the FWHM by comparing axial and lateral spectra. Takes some seconds; nothing is changed"
        )
        self.found = QLabel("")
        self.found.setWordWrap(True)
        self.apply = QPushButton("Apply")
        self.apply.setToolTip("Enter the suggestion as FWHM")
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
        """Remove the suggestion, which belongs to another layer."""
        self.suggestion = None
        self.found.setText("")
        for widget in (self.found, self.plot, self.apply):
            widget.setVisible(False)

    def wait(self) -> None:
        """Show that a suggestion is being computed."""
        self.clear()
        self.suggest.setEnabled(False)
        self.found.setText("Comparing spectra …")
        self.found.setVisible(True)

    def done(self) -> None:
        """Show that the work has ended, with or without a suggestion."""
        self.suggest.setEnabled(True)
        if self.suggestion is None:
            self.clear()

    def show_suggestion(self, suggestion: Suggestion, unit: str) -> None:
        """Show the spectra, and the suggestion if it is reliable; lengths are in ``unit``."""
        self.suggestion = suggestion
        if suggestion.reliable:
            self.found.setText(
                f"Suggested FWHM: <b>{suggestion.fwhm:.3g} {unit}</b> (between {suggestion.low:.3g} and "
                f"{suggestion.high:.3g} {unit}). Check it in the plot."
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
        self.plot.plot(frequency, middle, pen=pyqtgraph.mkPen("#5ac8fa", width=2), name="lateral, blurred")
        shown = suggestion.axial > SMALLEST
        dots = {"pen": None, "symbol": "o", "symbolSize": 5, "symbolBrush": "#f0a35e", "symbolPen": None}
        self.plot.plot(frequency[shown], suggestion.axial[shown], name="axial, measured", **dots)

    def _apply(self) -> None:
        if self.suggestion is not None and self.suggestion.reliable:
            self._fwhm.value = self.suggestion.fwhm
