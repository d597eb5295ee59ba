"""Whether a result contradicts what was acquired: its image, compared with the slices in units of their noise.

A structure that the microscope cannot see leaves no trace in the acquired slices, so this finds contradictions, not
inventions. The result is the one that is stored, rounded, in source intensities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_cropeq.core.geometry import Box, int_triple, source_positions
from napari_cropeq.core.imaging.forward_model import ForwardModel

__all__ = ["Consistency", "NoiseLevel"]

Values = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class NoiseLevel:
    """Standard deviation of the noise of acquired voxels: never less than a floor, because files round.

    Parameters
    ----------
    slope, offset : float
        The variance is ``slope`` times the intensity, plus ``offset``.
    floor : float
        Least standard deviation, in intensities.
    low, high : float
        The range of intensities.
    """

    slope: float
    offset: float
    floor: float
    low: float
    high: float

    @property
    def measurable(self) -> bool:
        """Whether there is more noise than the floor, at the highest intensity at least."""
        return bool(self.deviation(np.array(self.high)) > self.floor)

    def deviation(self, intensity: Values) -> Values:
        """Return the standard deviation at intensities."""
        variance = np.maximum(self.slope * intensity + self.offset, 0)
        deviation: Values = np.maximum(np.sqrt(variance), self.floor)
        return deviation


@dataclass(frozen=True, slots=True)
class Consistency:
    """Compares a result with the acquired slices.

    Parameters
    ----------
    forward : ForwardModel
        Images the result.
    noise : NoiseLevel
        The unit of the differences.
    """

    forward: ForwardModel
    noise: NoiseLevel

    def samples(self, box: Box) -> Box:
        """Return the acquired samples (z, y, x) that the map shows at the SR voxels of ``box``: the nearest ones."""
        axial, slices = self.forward.acquisition.axial, self.nearest(box)
        start, stop = list(box.start), list(box.stop)
        start[axial], stop[axial] = int(slices[0]), int(slices[-1]) + 1
        return Box(int_triple(start), int_triple(stop))

    def sr_box(self, box: Box) -> Box:
        """Return the SR voxels (z, y, x) of the result that the map of ``box`` needs."""
        return self.forward.sr_box(self.samples(box))

    def differences(
        self, result: npt.NDArray[Any], result_box: Box, acquired: npt.NDArray[Any], samples: Box
    ) -> Values:
        """Return how far acquired ``samples`` (z, y, x) differ from the image of the result, in its noise, float32.

        They are positive where the acquired intensity is higher.

        Parameters
        ----------
        result : array (z, y, x)
            The SR voxels of ``result_box``, in source intensities.
        result_box : Box
            Their place: :meth:`ForwardModel.sr_box` of the samples, or more.
        acquired : array (z, y, x)
            The acquired voxels of ``samples``.
        samples : Box
            Their place.
        """
        imaged = self.forward.image(torch.from_numpy(result.astype(np.float64)), result_box, samples).numpy()
        differences: Values = ((acquired - imaged) / self.noise.deviation(imaged)).astype(np.float32)
        return differences

    def map(self, result: npt.NDArray[Any], result_box: Box, acquired: npt.NDArray[Any], box: Box) -> Values:
        """Return the differences on the SR grid, (z, y, x) of ``box``: each row has those of the nearest slice.

        Parameters
        ----------
        result : array (z, y, x)
            The SR voxels of ``result_box``, in source intensities.
        result_box : Box
            Their place: :meth:`sr_box`, or more.
        acquired : array (z, y, x)
            The acquired voxels of :meth:`samples`.
        box : Box
            The SR voxels to return.
        """
        samples, axial = self.samples(box), self.forward.acquisition.axial
        found = self.differences(result, result_box, acquired, samples)
        return np.take(found, self.nearest(box) - samples.start[axial], axis=axial)

    def nearest(self, box: Box) -> npt.NDArray[np.int64]:
        """Return the nearest acquired slice of each SR row of ``box``, (n,)."""
        acquisition, axial = self.forward.acquisition, self.forward.acquisition.axial
        positions = source_positions(box.start[axial], box.stop[axial], acquisition.factor)
        nearest: npt.NDArray[np.int64] = np.floor(positions + 0.5).astype(np.int64)
        return np.clip(nearest, 0, self.forward.shape[axial] - 1)
