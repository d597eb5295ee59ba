"""Progress of a training between two steps: frozen, so it can be passed between threads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Progress", "Thumbnail"]


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


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A validation patch, normalised (rows along the degraded axis, columns)."""

    input: npt.NDArray[np.float32]  # the interpolation
    output: npt.NDArray[np.float32]
    truth: npt.NDArray[np.float32]
