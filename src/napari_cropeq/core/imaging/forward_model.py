"""How the microscope images a volume: blurred along the axial axis by the slice profile, and sampled at the slices.

It is a finite filter at absolute coordinates, summed tap by tap in a fixed order as in
:mod:`napari_cropeq.core.spline`, so the image of a tile has the bits of the crop of the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition, Box, IntTriple, int_triple, mirror, mirrored_range
from napari_cropeq.core.spline import weighted_sums

__all__ = ["ForwardModel"]

TRUNCATED = 3.0
"""Radius of the slice profile, in standard deviations."""

NARROWEST = 0.5  # standard deviation of the slice profile, SR voxels: a narrower one has no voxel at some samples

BEYOND = 0.02  # share of a slice that may come from beyond the volume


@dataclass(frozen=True, slots=True)
class ForwardModel:
    """Makes the acquired samples of SR voxels.

    Parameters
    ----------
    acquisition : Acquisition
        Grid and slice profile of the source.
    shape : (z, y, x)
        Shape of the source.
    """

    acquisition: Acquisition
    shape: IntTriple

    def sr_box(self, samples: Box) -> Box:
        """Return the SR voxels (z, y, x), inside the volume, that acquired ``samples`` (z, y, x) are an image of."""
        axial = self.acquisition.axial
        first, last = (self.profile(sample)[0] for sample in (samples.start[axial], samples.stop[axial] - 1))
        start, stop = list(samples.start), list(samples.stop)
        start[axial], stop[axial] = mirrored_range(int(first[0]), int(last[-1]) + 1, self._rows)
        return Box(int_triple(start), int_triple(stop))

    def image(self, voxels: Tensor, box: Box, samples: Box) -> Tensor:
        """Return acquired ``samples`` (z, y, x), as they show SR voxels, in the dtype of these.

        Parameters
        ----------
        voxels : tensor (z, y, x)
            The SR voxels of ``box``.
        box : Box
            Their place: :meth:`sr_box`, or more.
        samples : Box
            The samples to return.
        """
        axial, inside = self.acquisition.axial, samples.relative_to(box.start).slices
        z, y, x = (slice(None) if axis == axial else inside[axis] for axis in range(3))
        profiles = [self.profile(sample) for sample in range(samples.start[axial], samples.stop[axial])]
        taps = max(len(rows) for rows, _ in profiles)
        index, weights = np.zeros((len(profiles), taps), np.int64), np.zeros((len(profiles), taps))
        for place, row_weights, (rows, profile) in zip(index, weights, profiles, strict=True):
            place[: len(rows)] = mirror(rows, self._rows) - box.start[axial]
            row_weights[: len(rows)] = profile
        return weighted_sums(voxels[z, y, x].movedim(axial, 0), index, weights).movedim(0, axial)

    @property
    def covered(self) -> tuple[int, int]:
        """The range of acquired slices that show hardly anything beyond the volume; all of them if there are none.

        What lies beyond the first and the last slice is not known. :meth:`image` mirrors the volume there.
        """
        slices = self.shape[self.acquisition.axial]
        start, stop = 0, slices
        while start < slices and self._beyond(start) > BEYOND:
            start += 1
        while stop > start and self._beyond(stop - 1) > BEYOND:
            stop -= 1
        return (start, stop) if start < stop else (0, slices)

    def _beyond(self, sample: int) -> float:
        """Return the share of an acquired slice that comes from beyond the volume."""
        rows, weights = self.profile(sample)
        return float(weights[(rows < 0) | (rows >= self._rows)].sum())

    @property
    def _rows(self) -> int:
        return self.acquisition.sr_shape(self.shape)[self.acquisition.axial]

    def profile(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the SR rows, some perhaps outside, that an acquired slice is the weighted sum of, and the weights."""
        sigma = max(self.acquisition.blur_px / FWHM_PER_SIGMA, NARROWEST)
        centre, radius = (sample + 0.5) * self.acquisition.factor - 0.5, TRUNCATED * sigma
        rows = np.arange(math.ceil(centre - radius), math.floor(centre + radius) + 1, dtype=np.int64)
        weights = np.exp(-0.5 * ((rows - centre) / sigma) ** 2)
        return rows, weights / weights.sum()
