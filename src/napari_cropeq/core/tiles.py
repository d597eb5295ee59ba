"""Tile grids: which boxes to read, compute and write."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from napari_cropeq.core.geometry import Acquisition, Box, IntTriple, int_triple, source_range

__all__ = ["TileGrid", "divide", "hull", "pick", "read_box"]


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Equal tiles that start at the origin of the SR grid, axis order z, y, x.

    Parameters
    ----------
    shape : (z, y, x) or None
        The volume in SR voxels; a tile that reaches beyond it is cropped, never shifted, since shifting
        would change its sampling phase. None for an infinite grid, where tiles are not cropped.
    tile : (z, y, x)
        Size of a tile in SR voxels.
    """

    shape: IntTriple | None
    tile: IntTriple

    def box(self, index: IntTriple) -> Box:
        """Return the box of the tile with ``index`` (z, y, x)."""
        start = int_triple([i * t for i, t in zip(index, self.tile, strict=True)])
        stop = [a + t for a, t in zip(start, self.tile, strict=True)]
        if self.shape is not None:
            stop = [min(b, n) for b, n in zip(stop, self.shape, strict=True)]
        return Box(start, int_triple(stop))

    def indices(self, region: Box) -> Iterator[IntTriple]:
        """Yield the indices (z, y, x) of the tiles that touch ``region``, last axis fastest."""
        yield from itertools.product(*self._ranges(region))

    def count_in(self, region: Box) -> int:
        """Return how many tiles touch ``region``."""
        return math.prod(map(len, self._ranges(region)))

    def _ranges(self, region: Box) -> list[range]:
        return [range(a // t, -(-b // t)) for a, b, t in zip(region.start, region.stop, self.tile, strict=True)]

    def touching(self, region: Box) -> Iterator[Box]:
        """Yield the boxes of the tiles that touch ``region``, last axis fastest."""
        return map(self.box, self.indices(region))

    @property
    def counts(self) -> IntTriple:
        """Number of tiles along z, y, x of a finite grid."""
        if self.shape is None:
            raise ValueError("An infinite grid has no number of tiles. Give it a shape.")
        return int_triple([-(-n // t) for n, t in zip(self.shape, self.tile, strict=True)])

    @property
    def count(self) -> int:
        """Number of tiles of a finite grid."""
        return math.prod(self.counts)


def divide(box: Box, size: IntTriple) -> Iterator[Box]:
    """Yield parts of ``box`` of at most ``size`` (z, y, x), from its first voxel on."""
    for part in TileGrid(box.shape, size).touching(Box.whole(box.shape)):
        yield part.relative_to([-s for s in box.start])


def hull(boxes: Collection[Box]) -> Box:
    """Return the smallest box that contains all ``boxes``."""
    return Box(
        int_triple([min(box.start[a] for box in boxes) for a in range(3)]),
        int_triple([max(box.stop[a] for box in boxes) for a in range(3)]),
    )


def pick(axes: Collection[int], inside: int, outside: int) -> IntTriple:
    """Return a (z, y, x) triple with ``inside`` for the given ``axes`` and ``outside`` for the others."""
    return int_triple([inside if axis in axes else outside for axis in range(3)])


def read_box(box: Box, acquisition: Acquisition) -> Box:
    """Return the source box (z, y, x) that the SR voxels of ``box`` are interpolated from; it may cross the border.

    Laterally both grids are the same; axially the taps of the spline are added.
    """
    start, stop, axial = list(box.start), list(box.stop), acquisition.axial
    start[axial], stop[axial] = source_range(start[axial], stop[axial], acquisition.factor)
    return Box(int_triple(start), int_triple(stop))
