"""The linear step that keeps local mean intensities: what the result lacks when it is imaged again is added back.

A network that minimises an error draws unlikely intensities towards likely ones: dim regions become brighter or darker
than they were acquired. One low-passed step of iterative back-projection (Irani and Peleg 1991) restores the mean:

    result + smooth(acquired - image(result)),

where ``image`` is a :class:`~napari_cropeq.core.imaging.forward_model.ForwardModel`, and ``smooth`` is a Gaussian, wide
enough that hardly any noise returns. Both are finite filters at absolute coordinates, summed tap by tap in a fixed
order as in :mod:`napari_cropeq.core.spline`, so tiles have the bits of the whole; the halo grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_cropeq.core.devices.transfer import upload
from napari_cropeq.core.geometry import (
    Acquisition,
    Box,
    IntTriple,
    int_triple,
    mirror,
    mirrored_range,
    source_positions,
)
from napari_cropeq.core.imaging.forward_model import ForwardModel
from napari_cropeq.core.spline import weighted_sums
from napari_cropeq.core.tiles import hull

__all__ = ["WIDEST", "BackProjection"]

WIDEST = 64.0
"""Largest width of the Gaussian that smooths, px: the halo of a tile grows with it."""

TRUNCATED = 2.0
"""Radius of the Gaussian that smooths, in standard deviations."""


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
        return hull([self.forward_model.sr_box(self.samples(box)), box])

    def samples(self, box: Box) -> Box:
        """Return the acquired samples (z, y, x), inside the volume, that are compared for the SR voxels of ``box``."""
        axial, radius = self.acquisition.axial, self._radius
        start, stop = [a - radius for a in box.start], [b + radius for b in box.stop]
        positions = source_positions(box.start[axial], box.stop[axial], self.acquisition.factor)
        reach = TRUNCATED * self.axial
        start[axial], stop[axial] = math.ceil(positions[0] - reach), math.floor(positions[-1] + reach) + 1
        ranges = [mirrored_range(a, b, n) for a, b, n in zip(start, stop, self.shape, strict=True)]
        return Box(int_triple([a for a, _ in ranges]), int_triple([b for _, b in ranges]))

    def apply(self, refined: Tensor, refined_box: Box, acquired: Tensor, box: Box) -> Tensor:
        """Return the SR voxels of ``box`` (z, y, x), corrected.

        Parameters
        ----------
        refined : tensor
            The SR voxels of ``refined_box``.
        refined_box : Box
            Their place: :meth:`sr_box`, or more.
        acquired : tensor
            The acquired voxels of :meth:`samples`, in the same units.
        box : Box
            The SR voxels to return.
        """
        axial, compared = self.acquisition.axial, self.samples(box)
        lacking = (acquired - self.forward_model.image(refined, refined_box, compared)).movedim(axial, 0)
        for place, axis in enumerate(self.acquisition.lateral, 1):
            reached = np.arange(box.start[axis] - self._radius, box.stop[axis] + self._radius, dtype=np.int64)
            index = upload(mirror(reached, self.shape[axis]) - compared.start[axis], lacking.device)
            lacking = self._smoothed(lacking.index_select(place, index), place)
        step = self._upwards(lacking, compared.start[axial], box.start[axial], box.stop[axial])
        return refined[box.relative_to(refined_box.start).slices] + step.movedim(0, axial)

    @property
    def forward_model(self) -> ForwardModel:
        """How the microscope images a result."""
        return ForwardModel(self.acquisition, self.shape)

    @property
    def _slices(self) -> int:
        return self.shape[self.acquisition.axial]

    @property
    def _radius(self) -> int:
        return math.ceil(TRUNCATED * self.lateral)

    @property
    def lateral_weights(self) -> npt.NDArray[np.float64]:
        """The weights of the Gaussian along a lateral axis."""
        offsets = np.arange(-self._radius, self._radius + 1)
        weights = np.exp(-0.5 * (offsets / self.lateral) ** 2)
        normalised: npt.NDArray[np.float64] = weights / weights.sum()
        return normalised

    def taps(self, start: int, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the first slice of each SR row (n,), which may be outside, and the weights of the Gaussian there."""
        positions = source_positions(start, stop, self.acquisition.factor)
        radius = TRUNCATED * self.axial
        first = np.ceil(positions - radius).astype(np.int64)
        distance = positions[:, None] - (first[:, None] + np.arange(math.floor(2 * radius) + 1))
        weights = np.exp(-0.5 * (distance / self.axial) ** 2) * (np.abs(distance) <= radius)
        return first, weights / weights.sum(axis=1, keepdims=True)

    def _smoothed(self, values: Tensor, place: int) -> Tensor:
        """Return ``values`` smoothed along the axis ``place``, without the margins that this needs."""
        length = values.shape[place] - 2 * self._radius
        smoothed = torch.zeros_like(values.narrow(place, 0, length))
        for shift, weight in enumerate(self.lateral_weights):
            smoothed += values.narrow(place, shift, length) * float(weight)
        return smoothed

    def _upwards(self, values: Tensor, first: int, start: int, stop: int) -> Tensor:
        """Return ``values``, which begin at slice ``first``, smoothed along the axial axis at SR rows."""
        taps, weights = self.taps(start, stop)
        index = mirror(taps[:, None] + np.arange(weights.shape[1]), self._slices) - first
        # A weight of 0 may belong to a slice that is not there.
        return weighted_sums(values, np.where(weights > 0, index, 0), weights)
