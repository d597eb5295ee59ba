"""Finished tiles in memory: one cache with a byte cap, shared by the stores of all results."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Any

import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.store.protocol import Tile

__all__ = ["MemoryStore", "TileCache"]

MEMORY_TILE: IntTriple = (32, 16, 64)


class TileCache:
    """Tiles of any number of stores, the least recently used dropped beyond a byte cap. Safe for threads.

    Parameters
    ----------
    cap : int
        Bytes to hold at most; may be changed at any time.
    """

    def __init__(self, cap: int = 2**31) -> None:
        self._cap, self._nbytes = cap, 0
        self._tiles: OrderedDict[tuple[Hashable, Tile], npt.NDArray[Any]] = OrderedDict()
        self._of: dict[Hashable, set[Tile]] = {}
        self._lock = threading.Lock()

    @property
    def cap(self) -> int:
        """Bytes to hold at most."""
        return self._cap

    @cap.setter
    def cap(self, cap: int) -> None:
        with self._lock:
            self._cap = cap
            self._shrink()

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._nbytes

    def tiles(self, key: Hashable) -> set[Tile]:
        """Return the tiles held for ``key``."""
        with self._lock:
            return set(self._of.get(key, ()))

    def count(self, key: Hashable) -> int:
        """Return the number of tiles held for ``key``."""
        return len(self._of.get(key, ()))

    def holds(self, key: Hashable, tile: Tile) -> bool:
        """Return whether a tile is held."""
        return (key, tile) in self._tiles

    def get(self, key: Hashable, tile: Tile) -> npt.NDArray[Any] | None:
        """Return a tile that is still held, which makes it the most recently used."""
        with self._lock:
            voxels = self._tiles.get((key, tile))
            if voxels is not None:
                self._tiles.move_to_end((key, tile))
            return voxels

    def put(self, key: Hashable, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Hold a tile; it is copied, so that a view does not keep a larger array alive."""
        voxels = voxels.copy()
        with self._lock:
            self._forget(key, tile)
            self._tiles[key, tile] = voxels
            self._of.setdefault(key, set()).add(tile)
            self._nbytes += voxels.nbytes
            self._shrink()

    def drop(self, key: Hashable) -> None:
        """Forget all tiles of ``key``."""
        with self._lock:
            for tile in list(self._of.get(key, ())):
                self._forget(key, tile)

    def _shrink(self) -> None:
        while self._nbytes > self._cap and len(self._tiles) > 1:
            self._forget(*next(iter(self._tiles)))

    def _forget(self, key: Hashable, tile: Tile) -> None:
        voxels = self._tiles.pop((key, tile), None)
        if voxels is None:
            return
        self._nbytes -= voxels.nbytes
        self._of[key].discard(tile)
        if not self._of[key]:
            del self._of[key]


class MemoryStore:
    """The tiles of one result in a :class:`TileCache`.

    Parameters
    ----------
    shape : (z, y, x)
        The SR volume.
    tile : (z, y, x)
        Size of a tile; small enough to be interactive.
    cache : TileCache, optional
        Where tiles are held; one of its own by default.
    key : hashable, optional
        Under what they are held: whoever comes with the same key finds them again, so that it must name
        everything that decides their bits.
    """

    def __init__(
        self,
        shape: IntTriple,
        tile: IntTriple = MEMORY_TILE,
        cache: TileCache | None = None,
        key: Hashable = None,
    ) -> None:
        self.grid = TileGrid(shape, tile)
        self.cache = TileCache() if cache is None else cache
        self.key: Hashable = object() if key is None else (key, tile)

    def __contains__(self, tile: Tile) -> bool:
        return self.cache.holds(self.key, tile)

    def __len__(self) -> int:
        return self.cache.count(self.key)

    def __iter__(self) -> Iterator[Tile]:
        return iter(self.cache.tiles(self.key))

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        """Return ``part`` (SR voxels) of a tile that is still held, else None."""
        voxels = self.cache.get(self.key, tile)
        return None if voxels is None else voxels[part.relative_to(self.grid.box(tile[1]).start).slices]

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Hold a tile."""
        self.cache.put(self.key, tile, voxels)

    def flush(self) -> None:
        """Do nothing: what is in memory is kept at once."""

    def clear(self) -> None:
        """Forget all tiles."""
        self.cache.drop(self.key)
