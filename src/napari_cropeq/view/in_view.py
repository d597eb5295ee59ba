"""What is in view: which tiles it is made of, how many of them are there, and how quickly they come."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from napari_cropeq.store.memory import MemoryStore
from napari_cropeq.store.protocol import Tile, TileStore, covers
from napari_cropeq.view.view import View, nearest_first

__all__ = ["InView"]

RATE_TILES = 16


class InView:
    """Keeps account of the tiles in view; the thread that computes them may be another than the one that asks.

    Attributes
    ----------
    view : View, optional
        What is looked at.
    store : MemoryStore, optional
        Where its tiles are kept; None while nothing is looked at.
    computed : int
        Tiles in view that were computed, since the beginning.
    """

    def __init__(self) -> None:
        self.view: View | None = None
        self.store: MemoryStore | None = None
        self.computed = 0
        self._tiles: list[Tile] = []  # not there when it was looked at
        self._ready = 0  # the others
        self._times: deque[float] = deque(maxlen=RATE_TILES)

    def look(self, view: View | None) -> None:
        """Look at another view, of which nothing is known yet."""
        self.view, self.store, self._tiles, self._ready = view, None, [], 0
        self._times.clear()

    def missing(self, store: MemoryStore, held: Sequence[TileStore]) -> list[Tile]:
        """Return the tiles in view that no store holds, nearest the centre first; from now on they are awaited."""
        assert self.view is not None
        lead, numbers = self.view.lead, nearest_first(store.grid, self.view)
        self._tiles = [
            (lead, index) for index in numbers if not any(covers(s, lead, store.grid.box(index)) for s in held)
        ]
        self.store, self._ready = store, len(numbers) - len(self._tiles)
        return self._tiles

    def note(self) -> None:
        """Count a tile that has been computed."""
        self.computed += 1
        self._times.append(time.monotonic())

    @property
    def progress(self) -> tuple[int, int]:
        """Finished and all tiles."""
        store, tiles = self.store, self._tiles
        if store is None:
            return 0, 0
        return self._ready + sum(tile in store for tile in tiles), self._ready + len(tiles)

    @property
    def rate(self) -> float:
        """Tiles a second, of the last ones that were computed."""
        times = list(self._times)
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
