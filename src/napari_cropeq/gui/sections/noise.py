"""The noise of the image: variance against mean intensity, as a training measures it."""

from __future__ import annotations

import numpy as np

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.core.training.noise import PhotonTransfer, measure_noise
from napari_cropeq.gui.colours import Colours
from napari_cropeq.gui.sections.measurement import MeasurementSection

__all__ = ["NoiseSection"]

LEGEND = (
    "Variance of the noise against mean intensity, in the image's intensities. Points: measured on squares of 16 × 16 "
    "px of similar intensity. Line: the noise that training assumes. Its slope is what a photon counts."
)


class NoiseSection(MeasurementSection):
    """The noise that a training of the layer matches; folded.

    Parameters
    ----------
    colours : Colours
        For the theme of the window.
    """

    busy = "Measuring noise …"

    def __init__(self, colours: Colours) -> None:
        tooltip = "Measure how the noise depends on the intensity, as a training does"
        super().__init__("Noise", "Measure noise", tooltip, ("mean intensity", "variance"), colours)
        self.plot.setToolTip(LEGEND)
        self.clear()

    def measure(self, volume: ArrayLike, acquisition: Acquisition) -> PhotonTransfer:
        """Return the noise of a volume (z, y, x), in its intensities."""
        return measure_noise(volume, acquisition)

    def draw(self, result: PhotonTransfer, unit: str) -> str:
        """Draw the photon transfer, and return it in words."""
        intensity = result.intensity
        if len(intensity):
            ends = np.linspace(min(result.scale.low, intensity[0]), intensity[-1], 50)
            line = result.model.variance(ends)
            self.line(ends, line, "assumed in training")
            self.points(intensity, result.variance, "measured")
            self.plot.setYRange(0, max(line.max(), result.variance.max()))
        return f"{result.text} {result.doubt}".strip()
