"""Progress of a training between two steps, frozen, so it can be passed between threads; and the mean of its loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Progress", "RunningMean", "Thumbnail", "hardly_learnt"]

KEPT = 0.95  # weight of the earlier values


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a training."""

    patches: int
    seconds: float
    fraction: float  # of the budget
    loss: float
    validation: float | None  # only after a validation
    rate: float = math.nan  # patches/s
    note: str = ""  # message for the user: out of memory, converged
    seconds_left: float = math.inf  # estimated, to the end of the budget
    settled: bool = True  # whether the loss is the mean of enough batches to be compared with later ones
    # dB, how much better than interpolation the best weights so far are on held-out patches; NaN before the first look
    gain: float = math.nan


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A validation patch, normalised (rows along the degraded axis, columns)."""

    input: npt.NDArray[np.float32]  # the interpolation
    output: npt.NDArray[np.float32]
    truth: npt.NDArray[np.float32]


class RunningMean:
    """Mean of the last values, with exponential weights.

    It does not start from the first value alone, which may be that of a dark batch: as in Adam (Kingma & Ba 2015), the
    weights of the values so far sum to one. Even then, the mean of a few batches says little; see :attr:`settled`.
    """

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    @property
    def settled(self) -> bool:
        """Whether it is the mean of enough values: their weights are at least half of what they are in the end."""
        return self._weight >= 0.5

    def add(self, value: float) -> float:
        """Return the mean with another value."""
        self._sum = KEPT * self._sum + (1 - KEPT) * value
        self._weight = KEPT * self._weight + (1 - KEPT)
        return self._sum / self._weight


def hardly_learnt(gain: float) -> str:
    """Return a warning about a network that is only ``gain`` dB better than interpolation."""
    return (
        f"The network has hardly learnt: on held-out patches it is {gain:.1f} dB better than interpolation. "
        "Train longer, or check the axial axis and the FWHM."
    )
