"""Computes one box of a volume in tiles and in one call, and compares the two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from napari_cropeq.core.geometry import Box
from napari_cropeq.evidence.verify.slices import Agreement, Assembly, Slices, Voxels, agreement

__all__ = ["TileCheck", "TilesFound"]


@dataclass(frozen=True)
class TilesFound:
    """Result of a check.

    Parameters
    ----------
    slices : Slices
        The network.
    box : Box
        The compared SR voxels.
    tile : int
        Side of the tiles, SR voxels.
    difference : array (z, y, x)
        |tile - whole| in source intensities.
    agreement : Agreement
        The same as numbers.
    """

    slices: Slices
    box: Box
    tile: int
    difference: Voxels
    agreement: Agreement

    @property
    def sentence(self) -> str:
        """The result in a sentence or two."""
        found, exactness = self.agreement, self.slices.exactness
        what = f"Tiles of {self.tile} and the whole, {found.voxels:,} voxels ({self.slices.kind} network)"
        if found.exact:
            return f"{what}: all voxels are equal to the last bit."
        text = f"{what}: {found.differing:,} voxels differ, by at most {found.largest:.3g}"
        if exactness is None:
            return f"{text}. The tiles of a zero-padded network are not exact."
        if found.largest <= self.slices.promised:
            return f"{text}. The check of this device allows this ({exactness})."
        return f"{text}. This is more than the check of this device allows ({exactness}): please report it."


class TileCheck:
    """Computes a box of SR voxels in two ways.

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
        """Yield the share that is done, and finally the result."""
        both = self._slices.whole(self._box), self._slices.tiled(self._box, self._tile)
        assemblies = [Assembly(parts, self._box) for parts in both]
        for number, assembly in enumerate(assemblies):
            for share in assembly.run():
                yield (number + share) / 2
        whole, tiled = (assembly.voxels for assembly in assemblies)
        yield TilesFound(self._slices, self._box, self._tile, np.abs(tiled - whole), agreement(tiled, whole))
