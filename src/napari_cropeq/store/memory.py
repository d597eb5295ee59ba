"""Finished tiles in memory, in one cache with a byte cap that the stores of all results share."""

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
    """Tiles of any number of stores; above a byte cap the least recently used are dropped. Thread-safe.

    Parameters
    ----------
    cap : int
        Maximum number of bytes; may be changed at any time.
    """

    def __init__(self, cap: int = 2**31) -> None:
        self._cap, self._nbytes = cap, 0
        self._tiles: OrderedDict[tuple[Hashable, Tile], npt.NDArray[Any]] = OrderedDict()
        self._of: dict[Hashable, set[Tile]] = {}
        self._lock = threading.Lock()

    @property
    def cap(self) -> int:
        """Maximum number of bytes."""
        return self._cap

    @cap.setter
    def cap(self, cap: int) -> None:
        with self._lock:
            self._cap = cap
            self._shrink()

    @property
    def nbytes(self) -> int:
        """Current number of bytes."""
        return self._nbytes

    def tiles(self, key: Hashable) -> set[Tile]:
        """Return the cached tiles of ``key``."""
        with self._lock:
            return set(self._of.get(key, ()))

    def count(self, key: Hashable) -> int:
        """Return the number of cached tiles of ``key``."""
        return len(self._of.get(key, ()))

    def holds(self, key: Hashable, tile: Tile) -> bool:
        """Return whether a tile is cached."""
        return (key, tile) in self._tiles

    def get(self, key: Hashable, tile: Tile) -> npt.NDArray[Any] | None:
        """Return a tile if it is cached, and make it the most recently used."""
        with self._lock:
            voxels = self._tiles.get((key, tile))
            if voxels is not None:
                self._tiles.move_to_end((key, tile))
            return voxels

    def put(self, key: Hashable, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Cache a copy of a tile; a view would keep a larger array alive."""
        voxels = voxels.copy()
        with self._lock:
            self._forget(key, tile)
            self._tiles[key, tile] = voxels
            self._of.setdefault(key, set()).add(tile)
            self._nbytes += voxels.nbytes
            self._shrink()

    def drop(self, key: Hashable) -> None:
        """Drop all tiles of ``key``."""
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
        Shape of the SR volume.
    tile : (z, y, x)
        Size of a tile, small enough to be interactive.
    cache : TileCache, optional
        Where tiles are cached; a separate cache by default.
    key : hashable, optional
        Identifies the tiles in the cache. Stores with the same key share tiles, so it must include everything that
        decides their bits.
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
        """Return ``part`` (SR voxels) of a tile, or None if it is not cached."""
        voxels = self.cache.get(self.key, tile)
        return None if voxels is None else voxels[part.relative_to(self.grid.box(tile[1]).start).slices]

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Cache a tile."""
        self.cache.put(self.key, tile, voxels)

    def flush(self) -> None:
        """Do nothing: tiles in memory need no flush."""

    def clear(self) -> None:
        """Drop all tiles."""
        self.cache.drop(self.key)
