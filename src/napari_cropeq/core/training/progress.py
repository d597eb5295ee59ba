"""What a training tells of itself between two steps: frozen, so that it can cross threads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Progress", "Thumbnail"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands."""

    patches: int
    seconds: float
    fraction: float  # of the budget
    loss: float
    validation: float | None  # only where just measured
    rate: float = math.nan  # patches/s
    note: str = ""  # what the user should know: out of memory, converged
    seconds_left: float = math.inf  # estimated, to the end of the budget


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A validation patch, normalised (rows along the degraded axis, columns)."""

    input: npt.NDArray[np.float32]  # the interpolation
    output: npt.NDArray[np.float32]
    truth: npt.NDArray[np.float32]
