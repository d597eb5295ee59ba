"""How far a result agrees with the acquired slices: the distribution of the differences, and a sentence about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.imaging.consistency import NoiseLevel

__all__ = ["Agreement"]

MUCH = 3.0
"""A difference that noise alone exceeds in 0.3 % of the voxels, standard deviations."""

OUTLIERS = 0.001
"""Share of the voxels, those with the largest differences, that the root mean square leaves out."""

OCTAVES, STEPS = 12, 32  # of the bins of differences: 2 % wide, from 0.0007 to 12,000 standard deviations
EDGES = MUCH * 2.0 ** (np.arange(-OCTAVES * STEPS, OCTAVES * STEPS + 1) / STEPS)


@dataclass(frozen=True)
class Agreement:
    """How far a result agrees with the acquired slices: the distribution of the differences.

    Parts add up, in any order, to the same numbers.

    Parameters
    ----------
    noise : NoiseLevel
        The unit of the differences.
    counts : array of int
        Voxels in each bin of the absolute difference.
    """

    noise: NoiseLevel
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(EDGES) + 1, np.int64))

    def adding(self, differences: npt.NDArray[np.floating]) -> Agreement:
        """Return the agreement with the voxels of :meth:`Consistency.differences` added."""
        bins = np.searchsorted(EDGES, np.abs(differences).ravel(), side="left")
        return Agreement(self.noise, self.counts + np.bincount(bins, minlength=len(self.counts)))

    @cached_property
    def rms(self) -> float:
        """Root mean square of the differences, without the largest 0.1 %: single outliers do not change it."""
        middles = np.concatenate([[0.0], np.sqrt(EDGES[1:] * EDGES[:-1]), EDGES[-1:]])
        total = int(self.counts.sum())
        kept = np.diff(np.minimum(np.cumsum(self.counts), total - int(OUTLIERS * total)), prepend=0)
        return math.sqrt(float((kept * middles**2).sum()) / max(int(kept.sum()), 1))

    @property
    def beyond(self) -> float:
        """Share of the voxels whose difference is larger than three standard deviations."""
        return float(self.counts[OCTAVES * STEPS + 1 :].sum()) / max(int(self.counts.sum()), 1)

    @property
    def text(self) -> str:
        """The agreement as a sentence; in per cent of the range of intensities, if there is hardly any noise."""
        if self.noise.measurable:
            return (
                f"Re-imaged, the result differs from the acquired slices by {_number(self.rms)} × their noise; "
                f"{_number(100 * self.beyond)} % of voxels by more than {MUCH:g} ×."
            )
        unit = 100 * self.noise.floor / (self.noise.high - self.noise.low)
        return (
            f"Re-imaged, the result differs from the acquired slices, which have hardly any noise, by "
            f"{_number(self.rms * unit)} % of the range of intensities; {_number(100 * self.beyond)} % of voxels by "
            f"more than {_number(MUCH * unit)} %."
        )


def _number(value: float) -> str:
    """Return a number with two digits at most, without an exponent."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.095 else f"{value:.1g}"
