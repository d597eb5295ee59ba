"""The interface of stores of SR tiles, in memory (:mod:`~.memory`) and on disk (:mod:`~.disk`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex
from napari_cropeq.core.tiles import TileGrid

__all__ = ["Indices", "Tile", "TileStore", "Tiles", "covers", "finished", "take"]

Indices = npt.NDArray[np.int64]
"""Indices of voxels along one axis."""

Tile = tuple[LeadingIndex, IntTriple]
"""Leading indices, and number of the tile along z, y, x."""


class Tiles(Protocol):
    """The interface that the lazy layer reads."""

    @property
    def grid(self) -> TileGrid:
        """The grid of its tiles."""

    def __contains__(self, tile: Tile) -> bool: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Tile]: ...

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        """Return ``part`` (SR voxels, inside the tile) of a finished tile, or None; never compute."""


class TileStore(Tiles, Protocol):
    """The interface that the scheduler writes."""

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Store a finished tile."""

    def flush(self) -> None:
        """Wait until all tiles are stored permanently; raise OSError if one could not be."""


def finished(store: Tiles, leading: LeadingIndex, box: Box) -> list[IntTriple]:
    """Return the numbers of the finished tiles at these leading indices that touch ``box`` (SR voxels)."""
    grid = store.grid
    if grid.count_in(box) <= len(store):
        return [index for index in grid.indices(box) if (leading, index) in store]
    # A large box touches more tiles than are finished.
    return [index for own, index in store if own == leading and grid.box(index).intersect(box) is not None]


def covers(store: Tiles, leading: LeadingIndex, box: Box) -> bool:
    """Return whether finished tiles cover all of ``box`` (SR voxels)."""
    return len(store) > 0 and all((leading, index) in store for index in store.grid.indices(box))


def take(array: npt.NDArray[Any], indices: tuple[Indices, ...]) -> npt.NDArray[Any]:
    """Return the voxels of ``array`` at ``indices`` along each of its axes, as ``array[np.ix_(*indices)]``.

    Takes one axis after another, the one that shrinks most first: seven times as fast when a plane is magnified.
    """
    for axis in sorted(range(array.ndim), key=lambda a: len(indices[a]) / array.shape[a]):
        array = array.take(indices[axis], axis)
    return array
