"""The regions that are drawn: the slab that is projected, and the square that is enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.errors import ArgumentError

__all__ = ["Slab", "Zoom", "chosen_slab", "given_slab"]

CROSSED = 32
"""Most bright voxels on a line through the whole volume; with more, structures hide each other."""

BRIGHT = 0.25
"""Share of the range of intensities above which a voxel is bright."""

THIN = 16
"""Depth of the slab that is projected instead, SR voxels."""

LEAST_SIDE = 64
"""Side of the enlarged square, SR voxels, unless the projection is smaller; with fewer, single voxels are all one sees.
"""


@dataclass(frozen=True)
class Slab:
    """A range of SR voxels along the projected axis.

    Parameters
    ----------
    start, stop : int
        First voxel, and the one after the last.
    length : int
        Voxels along the axis.
    crossed : float, optional
        Mean number of bright voxels on a line through the whole volume; None if the slab was given.
    """

    start: int
    stop: int
    length: int
    crossed: float | None = None

    @property
    def is_thinned(self) -> bool:
        """Whether it was chosen because structures hide each other in the whole depth."""
        return self.crossed is not None and self.stop - self.start < self.length


def given_slab(start: int, stop: int, length: int, axis: str) -> Slab:
    """Return a slab along an axis of ``length`` SR voxels, with this name.

    Raises
    ------
    ArgumentError
        If it is empty, or beyond the volume.
    """
    if not 0 <= start < stop <= length:
        raise ArgumentError(
            f"The slab {start} to {stop} is empty, or not within the {length} SR voxels along {axis}.",
            f"Choose a start below the stop, from 0 to {length}.",
            setting="slab",
        )
    return Slab(start, stop, length)


def chosen_slab(samples: Sequence[npt.NDArray[Any]], percentiles: tuple[float, float], length: int) -> Slab:
    """Return the whole depth of a volume of sparse structures, the middle of a dense one.

    Parameters
    ----------
    samples : sequence of arrays
        A sample of the voxels of each channel.
    percentiles : (float, float)
        Percentiles of a sample that bound its range of intensities.
    length : int
        SR voxels along the projected axis.
    """
    shares = []
    for voxels in samples:
        low, high = np.percentile(voxels, percentiles)
        shares.append(float(np.mean(voxels > low + BRIGHT * (high - low))))
    crossed = max(shares) * length
    depth = length if crossed <= CROSSED else THIN
    start = (length - depth) // 2
    return Slab(start, start + depth, length, crossed)


@dataclass(frozen=True)
class Zoom:
    """A square region of a projection, SR voxels, of which the part within the projection is shown.

    Parameters
    ----------
    axial, lateral : int
        First voxel.
    size : int
        Side.
    """

    axial: int
    lateral: int
    size: int

    def of(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the region of an ``image`` (lateral, axial, ...)."""
        return image[self.lateral : self.lateral + self.size, self.axial : self.axial + self.size]

    def shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the shape (lateral, axial) of the region of an image of ``shape``."""
        return min(self.size, shape[0]), min(self.size, shape[1])

    def check(self, shape: tuple[int, int], names: tuple[str, str]) -> None:
        """Raise ArgumentError unless it fits a projection whose axes (lateral, axial) have these shape and names."""
        largest = max(shape)
        if not 1 <= self.size <= largest:
            raise ArgumentError(
                f"The side of the zoom ({self.size} SR voxels) is not between 1 and {largest}, the longer side of the "
                "projection.",
                f"Choose another side, for example {min(largest, LEAST_SIDE)}.",
                setting="zoom",
            )
        lateral, axial = (length - side for length, side in zip(shape, self.shape(shape), strict=True))
        if not (0 <= self.axial <= axial and 0 <= self.lateral <= lateral):
            raise ArgumentError(
                f"The zoom of {self.size} SR voxels from {self.axial} along {names[1]} and {self.lateral} along "
                f"{names[0]} is not within the projection.",
                f"Start at 0 to {axial} and 0 to {lateral}, or make it smaller.",
                setting="zoom",
            )

    @classmethod
    def on_most(cls, change: npt.NDArray[np.float64]) -> Zoom:
        """Return the square with the largest sum of ``change`` (lateral, axial).

        Its side is a third of the shorter side of the projection, but not less than :data:`LEAST_SIDE`, or than half of
        the longer side of a small projection.
        """
        short, long = sorted(change.shape)
        size = max(1, short // 3, min(LEAST_SIDE, long // 2))
        high, wide = min(size, change.shape[0]), min(size, change.shape[1])
        sums = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # of everything above and to the left
        inside = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
        lateral, axial = np.unravel_index(int(inside.argmax()), inside.shape)
        return cls(int(axial), int(lateral), size)
