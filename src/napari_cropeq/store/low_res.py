"""A low-resolution copy in memory of the finished tiles on disk, for zoomed-out views."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex
from napari_cropeq.store.protocol import Indices, take

__all__ = ["LowResCopy"]

VOXELS = 2**24


class LowResCopy:
    """Every few voxels of the finished tiles: at most 16 million for all channels and time points together.

    Parameters
    ----------
    leading_shape : tuple of int
        Lengths of the leading axes.
    shape : (z, y, x)
        Shape of the SR volume.
    dtype : dtype
        Dtype of the result.
    """

    def __init__(self, leading_shape: LeadingIndex, shape: IntTriple, dtype: npt.DTypeLike) -> None:
        leading_indices = int(np.prod(leading_shape, dtype=np.int64))
        self.step = 1
        while leading_indices * np.prod([-(-n // self.step) for n in shape], dtype=np.float64) > VOXELS:
            self.step *= 2
        self._voxels = np.zeros((*leading_shape, *(-(-n // self.step) for n in shape)), dtype)

    def put(self, leading: LeadingIndex, box: Box, voxels: npt.NDArray[np.generic]) -> None:
        """Copy the samples from the voxels of ``box``."""
        first = tuple(slice(-a % self.step, None, self.step) for a in box.start)
        into = tuple(slice(-(-a // self.step), -(-b // self.step)) for a, b in zip(box.start, box.stop, strict=True))
        self._voxels[leading][into] = voxels[first]

    def sample(self, leading: LeadingIndex, box: Box, indices: tuple[Indices, ...]) -> npt.NDArray[np.generic] | None:
        """Return the samples of ``box`` nearest to SR ``indices`` (z, y, x) inside it; None if it has none."""
        at = []
        for i, a, b in zip(indices, box.start, box.stop, strict=True):
            low, high = -(-a // self.step), -(-b // self.step) - 1
            if low > high:
                return None
            at.append(np.clip((i + self.step // 2) // self.step, low, high))
        found: npt.NDArray[np.generic] = take(self._voxels[leading], tuple(at))
        return found
