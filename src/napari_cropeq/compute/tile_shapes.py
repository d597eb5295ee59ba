"""Shapes of the boxes to compute at once: large ones in bulk, thin ones for a view."""

from __future__ import annotations

from dataclasses import dataclass

from napari_cropeq.core.geometry import IntTriple
from napari_cropeq.errors import ArgumentError

__all__ = ["SMALLEST_TILE", "TileShapes", "check_tile"]

SMALLEST_TILE = 8  # side, SR voxels


def check_tile(tile: int | None) -> None:
    """Raise ArgumentError if tiles with this side (SR voxels) are too small; None stands for the default size."""
    if tile is not None and tile < SMALLEST_TILE:
        raise ArgumentError(
            f"Tiles of {tile} voxels are too small.", f"Choose {SMALLEST_TILE} or more.", setting="tile"
        )


@dataclass(frozen=True, slots=True)
class TileShapes:
    """The shapes of boxes in SR voxels, axis order z, y, x."""

    axial: int  # index of the axial axis
    planes: tuple[int, ...]  # lateral axes whose planes with the axial one go through the network
    canonical: IntTriple | None = None  # the only tile (axial, plane, row) to use if bits depend on the shape

    def oriented(self, axial: int, plane: int, row: int) -> IntTriple:
        """Return a shape (z, y, x) with the given sizes along the axial axis, in the plane, and across planes.

        If both lateral axes share planes with the axial one, neither is across.
        """
        first, second, third = (axial if a == self.axial else plane if a in self.planes else row for a in range(3))
        return first, second, third

    @property
    def bulk(self) -> IntTriple:
        """The best box to compute at once in bulk: one to three seconds of work.

        It is thick along every axis, because the step that keeps intensities needs a halo on all sides. It consists of
        whole canonical tiles if there are such tiles.
        """
        sizes = (128, 256, 64) if len(self.planes) == 1 else (128, 128, 128)
        if self.canonical is not None:
            axial, plane, row = (-(-size // tile) * tile for size, tile in zip(sizes, self.canonical, strict=True))
            sizes = axial, plane, row
        return self.oriented(*sizes)

    def for_view(self, across: int | None) -> IntTriple:
        """Return the tile for a view along the axis ``across``, or for a 3D display if it is None.

        Tiles are thin along the line of sight, since only one plane is seen; the others are ready when it moves.
        """
        if self.canonical is not None:
            return self.oriented(*self.canonical)
        if across is None:
            return self.oriented(64, 64, 16)
        if across == self.axial:
            return self.oriented(16, 128 if len(self.planes) == 1 else 64, 32)
        other = next(a for a in range(3) if a not in (self.axial, across))
        # Planes that go through the network need a larger halo along the line of sight.
        sizes = (
            {self.axial: 64, across: 16, other: 64}
            if across in self.planes
            else {self.axial: 64, across: 8, other: 128}
        )
        return sizes[0], sizes[1], sizes[2]
