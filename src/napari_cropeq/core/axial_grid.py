"""The positions of a network's input and output samples along the axial axis, relative to the SR grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from napari_cropeq.core.geometry import source_range
from napari_cropeq.core.network import Network
from napari_cropeq.core.spline import interpolate, interpolation_weights

__all__ = ["AxialGrid"]

TAPS = 6
"""Taps on each side that interpolate sub-positions to the SR grid if the factor is not an integer.

The network is trained through them, so they need not interpolate exactly: 6 on each side leave an error of
0.4306**6 = 0.6 % of a residual that is itself small.
"""


@dataclass(frozen=True, slots=True)
class AxialGrid:
    """The axial samples of a network: each input sample gives ``subpositions`` outputs.

    On the SR grid an input sample is an SR voxel, and so is its output. On the source grid it is an acquired sample;
    output k lies at source position (k + 1/2) / subpositions - 1/2. This is an SR voxel for an integer factor; for
    other factors a short FIR filter interpolates outputs to the SR grid.

    Parameters
    ----------
    factor : float
        Axial step over lateral step.
    subpositions : int
        Outputs per input sample.
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
        """SR voxels per input sample."""
        return self.factor if self.on_source_grid else 1.0

    def input_samples(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range of input samples whose outputs SR voxels ``start`` to ``stop`` need."""
        if not self.exact:
            start, stop = source_range(start, stop, self.factor / self.subpositions, TAPS)
        return start // self.subpositions, -(-stop // self.subpositions)

    def carry(self, outputs: Tensor, first_input: int, start: int, stop: int) -> Tensor:
        """Return SR voxels ``start`` to ``stop`` from outputs (n, ...), which start with those of ``first_input``."""
        first = first_input * self.subpositions
        if self.exact:
            return outputs[start - first : stop - first]
        return interpolate(outputs, first, start, stop, self.factor / self.subpositions, TAPS)

    def inside(self, first_input: int, inputs: int) -> tuple[int, int]:
        """Return the range of SR voxels that the outputs of some input samples suffice for.

        Its length depends on the number of ``inputs`` only.
        """
        if self.exact:
            return first_input * self.subpositions, (first_input + inputs) * self.subpositions
        scale = self.factor / self.subpositions
        # SR voxel j is at output (j + 1/2) / scale - 1/2; it needs TAPS outputs on either side.
        low = (first_input * self.subpositions + TAPS - 1 + 0.5) * scale - 0.5
        start = int(np.ceil(low - 1e-9))
        count = int(np.floor((inputs * self.subpositions - 2 * TAPS) * scale - 1e-9))
        return start, start + count

    def matrix(self, first_input: int, inputs: int, start: int, stop: int) -> npt.NDArray[np.float32] | None:
        """Return :meth:`carry` as a matrix (stop - start, inputs * subpositions); None where it only crops."""
        if self.exact:
            return None
        first, weights = interpolation_weights(start, stop, self.factor / self.subpositions, TAPS)
        out = np.zeros((stop - start, inputs * self.subpositions), np.float32)
        for row, tap, values in zip(out, first - first_input * self.subpositions, weights, strict=True):
            row[tap : tap + len(values)] = values
        return out
