"""The linear step that keeps local mean intensities: what the result lacks when it is imaged again is added back.

A network that minimises an error draws unlikely intensities towards likely ones: dim regions become brighter or darker
than they were acquired. One low-passed step of iterative back-projection (Irani and Peleg 1991) restores the mean:

    result + smooth(acquired - image(result)),

where ``image`` blurs along the axial axis by the slice profile and samples at the acquired slices, and ``smooth`` is a
Gaussian, wide enough that hardly any noise returns. Both are finite filters at absolute coordinates, summed tap by tap
in a fixed order as in :mod:`napari_cropeq.core.spline`, so tiles have the bits of the whole; the halo grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import (
    FWHM_PER_SIGMA,
    Acquisition,
    Box,
    IntTriple,
    int_triple,
    mirror,
    source_positions,
)
from napari_cropeq.core.tiles import hull

__all__ = ["WIDEST", "BackProjection"]

WIDEST = 64.0
"""Largest width of the Gaussian that smooths, px: the halo of a tile grows with it."""

TRUNCATED = 2.0
"""Radius of the Gaussian that smooths, in standard deviations."""

PROFILE_TRUNCATED = 3.0
"""Radius of the slice profile, in standard deviations."""

NARROWEST = 0.5  # standard deviation of the slice profile, SR voxels: a narrower one has no voxel at some samples

Values = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class BackProjection:
    """One step of back-projection, smoothed by a Gaussian.

    Parameters
    ----------
    acquisition : Acquisition
        Grid and slice profile of the source.
    shape : (z, y, x)
        Shape of the source.
    lateral : float
        Standard deviation of the Gaussian along the lateral axes, px.
    axial : float
        The same along the axial axis, slices.
    """

    acquisition: Acquisition
    shape: IntTriple
    lateral: float
    axial: float = 1.0

    def sr_box(self, box: Box) -> Box:
        """Return the SR voxels (z, y, x), inside the volume, that the step needs for those of ``box``."""
        compared, axial = self.samples(box), self.acquisition.axial
        rows = [self._profile(sample)[0] for sample in (compared.start[axial], compared.stop[axial] - 1)]
        start, stop = list(compared.start), list(compared.stop)
        start[axial], stop[axial] = self._hull(int(rows[0][0]), int(rows[1][-1]) + 1, axial, self._sr_shape)
        return hull([Box(int_triple(start), int_triple(stop)), box])

    def samples(self, box: Box) -> Box:
        """Return the acquired samples (z, y, x), inside the volume, that are compared for the SR voxels of ``box``."""
        axial, radius = self.acquisition.axial, self._radius
        start, stop = [a - radius for a in box.start], [b + radius for b in box.stop]
        positions = source_positions(box.start[axial], box.stop[axial], self.acquisition.factor)
        reach = TRUNCATED * self.axial
        start[axial], stop[axial] = math.ceil(positions[0] - reach), math.floor(positions[-1] + reach) + 1
        ranges = [self._hull(a, b, axis, self.shape) for axis, (a, b) in enumerate(zip(start, stop, strict=True))]
        return Box(int_triple([a for a, _ in ranges]), int_triple([b for _, b in ranges]))

    @staticmethod
    def _hull(start: int, stop: int, axis: int, shape: IntTriple) -> tuple[int, int]:
        """Return the range, inside the volume, of ``start`` to ``stop``, of which a part may be mirrored."""
        index = mirror(np.arange(start, stop, dtype=np.int64), shape[axis])
        return int(index.min()), int(index.max()) + 1

    def apply(self, refined: Values, refined_box: Box, acquired: Values, box: Box) -> Values:
        """Return the SR voxels of ``box`` (z, y, x), corrected.

        Parameters
        ----------
        refined : array
            The SR voxels of ``refined_box``.
        refined_box : Box
            Their place: :meth:`sr_box`, or more.
        acquired : array
            The acquired voxels of :meth:`samples`, in the same units.
        box : Box
            The SR voxels to return.
        """
        axial, compared = self.acquisition.axial, self.samples(box)
        inside = compared.relative_to(refined_box.start).slices
        lateral = tuple(slice(None) if a == axial else inside[a] for a in range(3))
        imaged = self._imaged(np.moveaxis(refined[lateral], axial, 0), refined_box.start[axial], compared)
        lacking: Values = np.moveaxis(acquired, axial, 0) - imaged
        for place, axis in enumerate(self.acquisition.lateral, 1):
            reached = np.arange(box.start[axis] - self._radius, box.stop[axis] + self._radius, dtype=np.int64)
            index = mirror(reached, self.shape[axis]) - compared.start[axis]
            lacking = self._smoothed(np.take(lacking, index, axis=place), place)
        step = self._upwards(lacking, compared.start[axial], box.start[axial], box.stop[axial])
        kept = refined[box.relative_to(refined_box.start).slices]
        corrected: Values = kept + np.moveaxis(step, 0, axial)
        return corrected

    @property
    def _sr_shape(self) -> IntTriple:
        return self.acquisition.sr_shape(self.shape)

    @property
    def _slices(self) -> int:
        return self.shape[self.acquisition.axial]

    @property
    def _radius(self) -> int:
        return math.ceil(TRUNCATED * self.lateral)

    @property
    def _sigma(self) -> float:
        """Standard deviation of the slice profile, SR voxels."""
        return max(self.acquisition.blur_px / FWHM_PER_SIGMA, NARROWEST)

    def _taps(self, start: int, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the first slice of each SR row (n,), which may be outside, and the weights of the Gaussian there."""
        positions = source_positions(start, stop, self.acquisition.factor)
        radius = TRUNCATED * self.axial
        first = np.ceil(positions - radius).astype(np.int64)
        distance = positions[:, None] - (first[:, None] + np.arange(math.floor(2 * radius) + 1))
        weights = np.exp(-0.5 * (distance / self.axial) ** 2) * (np.abs(distance) <= radius)
        return first, weights / weights.sum(axis=1, keepdims=True)

    def _profile(self, sample: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the SR rows, some perhaps outside, that an acquired slice is the weighted sum of, and the weights."""
        centre, sigma = (sample + 0.5) * self.acquisition.factor - 0.5, self._sigma
        radius = PROFILE_TRUNCATED * sigma
        rows = np.arange(math.ceil(centre - radius), math.floor(centre + radius) + 1, dtype=np.int64)
        weights = np.exp(-0.5 * ((rows - centre) / sigma) ** 2)
        return rows, weights / weights.sum()

    def _imaged(self, refined: Values, first: int, compared: Box) -> Values:
        """Return the result (axial axis first, from row ``first`` on) as the slices of ``compared`` would show it."""
        axial = self.acquisition.axial
        start, stop = compared.start[axial], compared.stop[axial]
        imaged = np.zeros((stop - start, *refined.shape[1:]), refined.dtype)
        for sample, plane in enumerate(imaged, start):
            rows, weights = self._profile(sample)
            for row, weight in zip(mirror(rows, self._sr_shape[axial]) - first, weights, strict=True):
                plane += refined[row] * refined.dtype.type(weight)
        return imaged

    def _smoothed(self, values: Values, place: int) -> Values:
        """Return ``values`` smoothed along the axis ``place``, without the margins that this needs."""
        offsets = np.arange(-self._radius, self._radius + 1)
        weights = np.exp(-0.5 * (offsets / self.lateral) ** 2)
        length = values.shape[place] - 2 * self._radius
        along = np.moveaxis(values, place, 0)
        smoothed = np.zeros_like(along[:length])
        for shift, weight in enumerate(weights / weights.sum()):
            smoothed += along[shift : shift + length] * values.dtype.type(weight)
        return np.moveaxis(smoothed, 0, place)

    def _upwards(self, values: Values, first: int, start: int, stop: int) -> Values:
        """Return ``values``, which begin at slice ``first``, smoothed along the axial axis at SR rows."""
        taps, weights = self._taps(start, stop)
        out = np.zeros((stop - start, *values.shape[1:]), values.dtype)
        for row, tap, row_weights in zip(out, taps, weights, strict=True):
            reached = np.flatnonzero(row_weights)
            index = mirror(tap + reached.astype(np.int64), self._slices) - first
            for sample, weight in zip(index, row_weights[reached], strict=True):
                row += values[sample] * values.dtype.type(weight)
        return out
