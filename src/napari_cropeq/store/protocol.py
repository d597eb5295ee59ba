"""What keeps SR tiles: one interface for memory (:mod:`~.memory`) and disk (:mod:`~.disk`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex
from napari_cropeq.core.tiles import TileGrid

__all__ = ["Indices", "Tile", "TileStore", "Tiles", "covers", "finished", "take"]

Indices = npt.NDArray[np.int64]
"""Which voxels along one axis."""

Tile = tuple[LeadingIndex, IntTriple]
"""Leading indices and the tile's number along z, y, x."""


class Tiles(Protocol):
    """What the lazy layer reads."""

    @property
    def grid(self) -> TileGrid:
        """Where its tiles lie."""

    def __contains__(self, tile: Tile) -> bool: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Tile]: ...

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        """Return the voxels of ``part`` (SR voxels, inside the tile) if the tile is finished. Never computes."""


class TileStore(Tiles, Protocol):
    """What the scheduler writes, too."""

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Keep a finished tile."""

    def flush(self) -> None:
        """Wait until what was put is kept for good; raise OSError where it could not be."""


def finished(store: Tiles, leading: LeadingIndex, box: Box) -> list[IntTriple]:
    """Return the numbers of the store's finished tiles at ``lead`` that touch ``box`` (SR voxels)."""
    grid = store.grid
    if grid.count_in(box) <= len(store):
        return [index for index in grid.indices(box) if (leading, index) in store]
    # A box of the whole volume touches more tiles than there are.
    return [index for own, index in store if own == leading and grid.box(index).intersect(box) is not None]


def covers(store: Tiles, leading: LeadingIndex, box: Box) -> bool:
    """Return whether the store's finished tiles hold all of ``box`` (SR voxels)."""
    return len(store) > 0 and all((leading, index) in store for index in store.grid.indices(box))


def take(array: npt.NDArray[Any], indices: tuple[Indices, ...]) -> npt.NDArray[Any]:
    """Return the voxels of ``array`` at ``indices`` along each of its axes, as ``array[np.ix_(*indices)]``.

    One axis after another, that which gets shortest first: seven times as fast where a plane is magnified.
    """
    for axis in sorted(range(array.ndim), key=lambda a: len(indices[a]) / array.shape[a]):
        array = array.take(indices[axis], axis)
    return array
