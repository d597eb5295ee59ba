"""Estimate the width of the slice profile from a volume itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cropeq.api.image import sampled
from napari_cropeq.core.slice_profile.suggestion import Suggestion, suggest_fwhm
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.short_repr import ShortRepr

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FwhmEstimate", "estimate_fwhm"]

SMALLEST = 1e-4
"""Relative power below which there is only noise."""


@dataclass(frozen=True, repr=False)
class FwhmEstimate(ShortRepr):
    """Estimate of the FWHM of the slice profile of a volume; ``float`` gives the value."""

    value: float
    """In ``unit``; NaN if the FWHM cannot be estimated."""

    interval: tuple[float, float]
    """Range in which the FWHM is expected, in ``unit``."""

    unit: str
    reason: str
    """Why there is no value; empty if there is one."""

    spectra: Suggestion
    """The measured spectra."""

    def __float__(self) -> float:
        return self.value

    def _title(self) -> str:
        return "FWHM of the slice profile"

    def _facts(self) -> dict[str, str]:
        if math.isnan(self.value):
            return {"value": "not found", "reason": self.reason}
        low, high = self.interval
        return {
            "value": f"{self.value:.3g} {self.unit}",
            "interval": f"{low:.3g} to {high:.3g} {self.unit}",
            "plot": "plot() shows the measured spectra",
        }

    def plot(self, axes: Axes | None = None) -> Axes:
        """Plot the measured axial power over the lateral power degraded by the estimate.

        Parameters
        ----------
        axes : matplotlib.axes.Axes, optional
            Axes to draw into; a new figure by default.
        """
        if axes is None:
            from matplotlib import pyplot

            axes = pyplot.subplots()[1]
        spectra = self.spectra
        narrow, middle, wide = np.clip(spectra.degraded, SMALLEST, None)
        axes.fill_between(spectra.frequency, narrow, wide, alpha=0.3, label="within the interval")
        axes.plot(spectra.frequency, middle, label="lateral, degraded")
        seen = spectra.axial > SMALLEST
        axes.plot(spectra.frequency[seen], spectra.axial[seen], "o", label="axial, measured")
        axes.set(xlabel=f"axial frequency (1/{self.unit})", ylabel="relative power", yscale="log")
        axes.legend()
        return axes


def estimate_fwhm(
    data: Any,
    voxel_size: Sequence[float] | None = None,
    *,
    axial: str | int | None = None,
    lateral_fwhm: float = 0.0,
    channel: int = 0,
) -> FwhmEstimate:
    """Estimate the width of the slice profile from the volume itself.

    Parameters
    ----------
    data : array, Image, xarray.DataArray or path
        An array is (z, y, x), (c, z, y, x) or (t, c, z, y, x); the first of several time points is used.
    voxel_size : (z, y, x), optional
        Steps between voxels, in the unit of the data, or in µm if they have none; the data's own by default.
    axial : {'z', 'y', 'x'} or int, optional
        The axis of low resolution; that of the largest step by default.
    lateral_fwhm : float
        Width of the lateral point spread, in the same unit; 0 if it is not known.
    channel : int
        Channel to measure, from 0.

    Returns
    -------
    FwhmEstimate
        ``value`` and ``interval`` in the unit of the voxel size, and ``plot()`` to judge them. If the FWHM cannot be
        estimated, the value is NaN and ``reason`` gives the reason.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the volume is too small.
    OSError
        If the data cannot be read.
    """
    image, acquisition = sampled(data, voxel_size, axial, None, lateral_fwhm)
    found = suggest_fwhm(
        ChunkCache(image.volume(channel), threads=image.threads), acquisition, acquisition.lateral_fwhm
    )
    return FwhmEstimate(found.fwhm, (found.low, found.high), found.unit, found.reason, found)
