"""Where a network's input and output samples lie along the axial axis, among the samples of the SR grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.network import Network
from napari_cropeq.core.spline import interpolate, interpolation_weights, source_range

__all__ = ["AxialGrid"]

TAPS = 6
"""Taps a side that carry sub-positions to the SR grid where the factor is no integer.

The network is trained through them, so that they need not be those of an exact interpolation: 6 a side leave
0.4306**6 = 0.6 % of a residual that is itself small.
"""


@dataclass(frozen=True, slots=True)
class AxialGrid:
    """The axial samples of a network: each input sample becomes ``subpositions`` outputs.

    On the SR grid an input sample is an SR voxel and its own output. On the source grid it is an acquired sample;
    output k lies at source position (k + 1/2) / subpositions - 1/2, which is an SR voxel for an integer
    factor, and is carried to the SR grid by a short FIR otherwise.

    Parameters
    ----------
    factor : float
        Axial step over lateral step.
    subpositions : int
        Outputs an input sample.
    on_source_grid : bool
        Whether input samples are acquired samples.
    """

    factor: float
    subpositions: int
    on_source_grid: bool

    @classmethod
    def of(cls, network: Network, factor: float) -> AxialGrid:
        """Return the grid of a network for a factor."""
        return cls(factor, network.subpositions, network.on_source_grid)

    @property
    def exact(self) -> bool:
        """Whether outputs are SR voxels themselves."""
        return not self.on_source_grid or abs(self.subpositions - self.factor) < 1e-9

    @property
    def step(self) -> float:
        """SR voxels an input sample."""
        return self.factor if self.on_source_grid else 1.0

    def input_samples(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range of input samples whose outputs SR voxels ``start`` to ``stop`` are made of."""
        if not self.exact:
            start, stop = source_range(start, stop, self.factor / self.subpositions, TAPS)
        return start // self.subpositions, -(-stop // self.subpositions)

    def carry(
        self, outputs: npt.NDArray[np.floating], first_cell: int, start: int, stop: int
    ) -> npt.NDArray[np.floating]:
        """Return SR voxels ``start`` to ``stop`` from outputs (n, ...), which begin with those of ``first_cell``."""
        first = first_cell * self.subpositions
        if self.exact:
            return outputs[start - first : stop - first]
        return interpolate(outputs, first, start, stop, self.factor / self.subpositions, TAPS)

    def inside(self, first_cell: int, cells: int) -> tuple[int, int]:
        """Return the SR voxels the outputs of ``cells`` input samples suffice for; their number depends on it only."""
        if self.exact:
            return first_cell * self.subpositions, (first_cell + cells) * self.subpositions
        scale = self.factor / self.subpositions
        # SR voxel j sits at output (j + 1/2) / scale - 1/2; it needs TAPS outputs on either side.
        low = (first_cell * self.subpositions + TAPS - 1 + 0.5) * scale - 0.5
        start = int(np.ceil(low - 1e-9))
        count = int(np.floor((cells * self.subpositions - 2 * TAPS) * scale - 1e-9))
        return start, start + count

    def matrix(self, first_cell: int, cells: int, start: int, stop: int) -> npt.NDArray[np.float32] | None:
        """Return :meth:`carry` as a matrix (stop - start, cells * subpositions); None where it only crops."""
        if self.exact:
            return None
        first, weights = interpolation_weights(start, stop, self.factor / self.subpositions, TAPS)
        out = np.zeros((stop - start, cells * self.subpositions), np.float32)
        for row, tap, values in zip(out, first - first_cell * self.subpositions, weights, strict=True):
            row[tap : tap + len(values)] = values
        return out
