"""One box of a volume, tile by tile and all at once: the check behind a button."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from napari_cropeq.core.geometry import Box
from napari_cropeq.evidence.verify.slices import Agreement, Assembly, Slices, Voxels, agreement

__all__ = ["TileCheck", "TilesFound"]


@dataclass(frozen=True)
class TilesFound:
    """What a check has found.

    Parameters
    ----------
    slices : Slices
        The network.
    box : Box
        SR voxels that were compared.
    tile : int
        Side of the tiles, SR voxels.
    difference : array (z, y, x)
        |tile - whole| in source intensities.
    agreement : Agreement
        In numbers.
    """

    slices: Slices
    box: Box
    tile: int
    difference: Voxels
    agreement: Agreement

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        found, exactness = self.agreement, self.slices.exactness
        what = f"Tiles of {self.tile} against all at once, {found.voxels:,} voxels ({self.slices.kind} network)"
        if found.exact:
            return f"{what}: every voxel has the bits of the whole."
        told = f"{what}: {found.differing:,} voxels differ, by at most {found.largest:.3g}"
        if exactness is None:
            return f"{told}: tiles of a zero-padded network are not exact."
        if found.largest <= self.slices.promised:
            return f"{told}, as this device's check foresees ({exactness})."
        return f"{told}, which must not be: please report it."


class TileCheck:
    """Computes a box of SR voxels twice.

    Parameters
    ----------
    slices : Slices
        The network and its volume.
    box : Box
        SR voxels.
    tile : int
        Side of the tiles in the planes that go through the network.
    """

    def __init__(self, slices: Slices, box: Box, tile: int) -> None:
        self._slices, self._box, self._tile = slices, box, tile

    def run(self) -> Iterator[float | TilesFound]:
        """Yield the share that is done, and what was found last of all."""
        both = self._slices.whole(self._box), self._slices.tiled(self._box, self._tile)
        assemblies = [Assembly(parts, self._box) for parts in both]
        for number, assembly in enumerate(assemblies):
            for share in assembly.run():
                yield (number + share) / 2
        whole, tiled = (assembly.voxels for assembly in assemblies)
        yield TilesFound(self._slices, self._box, self._tile, np.abs(tiled - whole), agreement(tiled, whole))
