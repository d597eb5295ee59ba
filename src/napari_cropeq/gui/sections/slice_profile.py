"""The slice profile: the lateral width, and a suggestion for the axial width from the image."""

from __future__ import annotations

import numpy as np
import pyqtgraph
from magicgui.widgets import FloatSpinBox
from qtpy.QtWidgets import QFormLayout, QLabel, QPushButton

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.slice_profile.suggestion import Suggestion, suggest_fwhm
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.gui.colours import Colours
from napari_cropeq.gui.parts.keyboard import with_mnemonic
from napari_cropeq.gui.sections.measurement import MeasurementSection

__all__ = ["ProfileSection"]

LEGEND = (
    "Power of the axial spectrum relative to the lateral one. Points: measured. Line: lateral slices blurred by the "
    "suggested width. Band: the ends of the interval. Points and line should agree up to the highest frequency."
)
SMALLEST = 1e-4  # fraction of the lateral power; smaller values are noise


class ProfileSection(MeasurementSection):
    """Settings of the slice profile besides its width; folded.

    A suggestion is shown with its interval and the measured spectra. It is applied only by the button.

    Parameters
    ----------
    fwhm : FloatSpinBox
        The field of the axial width, which a suggestion is applied to.
    lateral_fwhm : FloatSpinBox
        The field of the lateral width, which is shown here.
    colours : Colours
        For the theme of the window.
    """

    busy = "Comparing spectra …"

    def __init__(self, fwhm: FloatSpinBox, lateral_fwhm: FloatSpinBox, colours: Colours) -> None:
        tooltip = "Estimate the FWHM by comparing axial and lateral spectra"
        axes = "axial frequency", "relative power"
        super().__init__("Slice profile", "Suggest FWHM from image", tooltip, axes, colours)
        self._fwhm = fwhm
        self.apply = QPushButton(with_mnemonic("Apply"))
        self.apply.setToolTip("Enter the suggestion as FWHM")
        self.plot.setToolTip(LEGEND)
        self.plot.setLogMode(y=True)
        form = QFormLayout()
        self.lateral_label = QLabel(lateral_fwhm.label)
        self.lateral_label.setToolTip(lateral_fwhm.tooltip)
        form.addRow(self.lateral_label, lateral_fwhm.native)
        self.rows.insertLayout(0, form)
        self.rows.addWidget(self.apply)
        self.apply.clicked.connect(self._apply)
        self.clear()

    def measure(self, volume: ArrayLike, acquisition: Acquisition) -> Suggestion:
        """Return a suggestion for the FWHM of a volume (z, y, x)."""
        return suggest_fwhm(volume, acquisition, acquisition.lateral_fwhm)

    def clear(self) -> None:
        """Remove the suggestion, which belongs to another layer."""
        super().clear()
        self.apply.setVisible(False)

    def draw(self, result: Suggestion, unit: str) -> str:
        """Draw the spectra, and return the suggestion in words if it is reliable."""
        self._draw_spectra(result, unit)
        self.apply.setVisible(result.reliable)
        if not result.reliable:
            return f"No suggestion: {result.reason}"
        self.apply.setText(with_mnemonic(f"Apply {result.fwhm:.3g} {unit}", "Apply"))
        return (
            f"Suggested FWHM: <b>{result.fwhm:.3g} {unit}</b> (between {result.low:.3g} and "
            f"{result.high:.3g} {unit}). Check it in the plot."
        )

    def _draw_spectra(self, suggestion: Suggestion, unit: str) -> None:
        self.plot.setLabel("bottom", f"axial frequency (1/{unit})")
        frequency = suggestion.frequency
        if not len(frequency):
            return
        narrow, middle, wide = (np.clip(power, SMALLEST, None) for power in suggestion.degraded)
        faint = f"{self.colours.line}40"
        ends = [self.plot.plot(frequency, power, pen=pyqtgraph.mkPen(faint)) for power in (narrow, wide)]
        self.plot.addItem(pyqtgraph.FillBetweenItem(*ends, brush=faint))
        self.line(frequency, middle, "lateral, blurred")
        shown = suggestion.axial > SMALLEST
        self.points(frequency[shown], suggestion.axial[shown], "axial, measured")

    def _apply(self) -> None:
        if self.result is not None and self.result.reliable:
            self._fwhm.value = self.result.fwhm
