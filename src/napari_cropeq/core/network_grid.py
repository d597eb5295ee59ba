"""Which input samples and source voxels a box of SR voxels needs: the geometry of a prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from napari_cropeq.core.axial_grid import AxialGrid
from napari_cropeq.core.call_size import CallSize, CanonicalTile
from napari_cropeq.core.geometry import Acquisition, Box, IntTriple, int_triple
from napari_cropeq.core.network import Network
from napari_cropeq.core.tiles import TileGrid, divide, hull, pick, read_box

__all__ = ["NetworkGrid"]


@dataclass(frozen=True, slots=True)
class NetworkGrid:
    """The boxes (z, y, x) of a network's input samples, of its outputs, and of the source voxels that they need.

    Parameters
    ----------
    acquisition : Acquisition
        Grid of the source.
    axial_grid : AxialGrid
        Positions of input samples and outputs along the axial axis.
    halo, axial_halo : int
        Input samples that the network crops on each side, in the plane and axially.
    filters : int
        Feature maps of the network.
    planes : tuple of int
        Lateral axes whose planes with the axial one go through the network.
    """

    acquisition: Acquisition
    axial_grid: AxialGrid
    halo: int
    axial_halo: int
    filters: int
    planes: tuple[int, ...]

    @classmethod
    def of(cls, network: Network, acquisition: Acquisition, planes: tuple[int, ...]) -> NetworkGrid:
        """Return the grid of a network over a source."""
        axial_grid = AxialGrid.of(network, acquisition.factor)
        return cls(acquisition, axial_grid, network.halo, network.axial_halo, network.filters, planes)

    def voxels_of(self, tile: CanonicalTile) -> IntTriple:
        """Return the SR voxels (axial axis, in the plane, across planes) that whole canonical tiles fill."""
        return max(1, int(tile.axial * self.axial_grid.step)), tile.side, tile.rows

    def input_samples(self, box: Box) -> Box:
        """Return the input samples whose outputs the SR voxels of ``box`` need."""
        axial = self.acquisition.axial
        return self._along(box, *self.axial_grid.input_samples(box.start[axial], box.stop[axial]))

    def outputs(self, samples: Box) -> Box:
        """Return the box of the network's outputs for a box of input samples."""
        axial, each = self.acquisition.axial, self.axial_grid.subpositions
        return self._along(samples, samples.start[axial] * each, samples.stop[axial] * each)

    def tiles(self, samples: Box, calls: CallSize | CanonicalTile) -> list[tuple[int, Box]]:
        """Return the tiles that the network computes for input ``samples``: the plane's lateral axis, and the box.

        Boxes lie inside ``samples`` and have a size for ``calls``, or they are whole canonical tiles.
        """
        return [(plane, tile) for plane in self.planes for tile in self._tiles_of(samples, plane, calls)]

    def with_halo(self, tile: Box, plane: int) -> Box:
        """Return the input samples that the network needs for ``tile``, with its halo."""
        return tile.grow(self._halo(plane))

    def source_box(self, box: Box, inputs: list[Box]) -> Box:
        """Return the source voxels for the SR voxels of ``box`` and boxes of input samples; may cross the border."""
        if not self.axial_grid.on_source_grid:
            inputs = [read_box(b, self.acquisition) for b in inputs]
        return hull([*inputs, read_box(box, self.acquisition)])

    def carry(self, outputs: Tensor, samples: Box, box: Box) -> Tensor:
        """Return the SR voxels of ``box`` (z, y, x) from the outputs for input ``samples``."""
        axial = self.acquisition.axial
        start, stop = box.start[axial], box.stop[axial]
        return self.axial_grid.carry(outputs.movedim(axial, 0), samples.start[axial], start, stop).movedim(0, axial)

    def _tiles_of(self, samples: Box, plane: int, calls: CallSize | CanonicalTile) -> Iterator[Box]:
        in_plane = (self.acquisition.axial, plane)
        if isinstance(calls, CallSize):
            return divide(samples, pick(in_plane, calls.side, self._rows(samples, plane, calls)))
        sizes = {self.acquisition.axial: calls.axial, plane: calls.side}
        size = int_triple([sizes.get(axis, calls.rows) for axis in range(3)])
        return TileGrid(None, size).touching(samples)

    def _rows(self, samples: Box, plane: int, calls: CallSize) -> int:
        """Return how many planes of input ``samples`` go through the network in one call."""
        halo, area = self._halo(plane), 1
        for a in (self.acquisition.axial, plane):
            area *= min(samples.shape[a], calls.side) + 2 * halo[a]
        return max(1, calls.elements // (area * self.filters))

    def _halo(self, plane: int) -> IntTriple:
        halos = {self.acquisition.axial: self.axial_halo, plane: self.halo}
        return int_triple([halos.get(a, 0) for a in range(3)])

    def _along(self, box: Box, start: int, stop: int) -> Box:
        """Return ``box`` with another range along the axial axis."""
        axial = self.acquisition.axial
        ends = zip(pick((axial,), 1, 0), box.start, box.stop, strict=True)
        ranges = [(start, stop) if is_axial else (a, b) for is_axial, a, b in ends]
        return Box(int_triple([a for a, _ in ranges]), int_triple([b for _, b in ranges]))
