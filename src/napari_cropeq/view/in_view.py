"""The tiles in view of one source, and what is shown until they are ready."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy.typing as npt

from napari_cropeq.compute.scheduler import TileRequest
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex
from napari_cropeq.store.memory import MemoryStore, TileCache
from napari_cropeq.store.protocol import Tile, TileStore, covers
from napari_cropeq.view.lazy import LazyView
from napari_cropeq.view.maps import Maps
from napari_cropeq.view.view import View, nearest_first

__all__ = ["InView"]

RATE_TILES = 16
AXES = (0, 1, 2, None)  # possible lines of sight; None stands for a 3D display


class InView:
    """Chooses and counts the tiles that a view needs; the lazy layers stay when the model changes.

    There is a store for each possible line of sight, with tiles that are thin along it. Tiles of the previous model
    are shown until those in view are ready. If the overview does not have every voxel, interpolated tiles fill the
    plane in view first.

    Parameters
    ----------
    cache : TileCache
        Cache of all tiles.
    source : hashable
        Identifies the source and its geometry.

    Attributes
    ----------
    view : View, optional
        The current view.
    lazy : LazyView, optional
        The lazy layers; None until there is a result.
    store : MemoryStore, optional
        Store of the tiles in view; None without a view.
    computed : int
        Number of tiles computed for views so far.
    compared : bool
        Whether the interpolation is looked at as well, so that it is needed in every view.
    maps : Maps
        Maps of what is in view.
    """

    def __init__(self, cache: TileCache, source: Hashable) -> None:
        self._cache, self._source = cache, source
        self._result: SuperResolution | None = None
        self._stores: dict[int | None, MemoryStore] = {}  # by the line of sight
        self._interpolated: dict[int | None, MemoryStore] = {}
        self._outdated: list[MemoryStore] = []  # of another model, shown until the new tiles are ready
        self.view: View | None = None
        self.lazy: LazyView | None = None
        self.store: MemoryStore | None = None
        self.computed = 0
        self.compared = False
        self._finished: Sequence[TileStore] = ()
        self.maps = Maps(cache, lambda: self._finished)
        self._tiles: list[tuple[TileStore, Tile]] = []  # missing when the view was set
        self._ready = 0  # number of the other tiles in view
        self._times: deque[float] = deque(maxlen=RATE_TILES)

    def look(self, view: View | None) -> None:
        """Change to another view; its tiles are not known yet."""
        self.view, self.store, self._tiles, self._ready = view, None, [], 0
        self._times.clear()

    def use(self, result: SuperResolution, key: Hashable) -> None:
        """Show a result from now on; ``key`` identifies everything that decides the bits of its tiles."""
        self._outdated += self._stores.values()
        shape = result.sr_shape
        self._stores = {
            across: MemoryStore(shape, result.shapes.for_view(across), self._cache, (key, across)) for across in AXES
        }
        current = {store.key for store in self._stores.values()}
        self._outdated = [store for store in self._outdated if store.key not in current]
        self.maps.use(result, key)
        if self.lazy is None:
            self.lazy = LazyView(result, [])
        if not self.lazy.overview.whole and not self._interpolated:
            kind = (self._source, result.dtype.str)
            self._interpolated = {
                across: MemoryStore(shape, plane_tile(across), self._cache, (*kind, across)) for across in AXES
            }
        self.lazy.overview.restart()  # the last scheduler dropped its steps
        self._result = result

    @property
    def interpolated(self) -> LazyView:
        """The interpolation by itself, with the same overview as the lazy layers; there must be a result."""
        assert self.lazy is not None
        return LazyView(self.lazy.result, [*self._interpolated.values()], self.lazy.overview)

    @property
    def stores(self) -> list[MemoryStore]:
        """Stores of the current result."""
        return list(self._stores.values())

    def show(self, whole: Sequence[TileStore] = ()) -> None:
        """Make the layers show the stores ``whole``, those of the view, and substitutes for missing tiles."""
        assert self.lazy is not None
        self.lazy.stores = (*whole, *self.stores, *self._outdated, *self._interpolated.values())

    def forget_outdated(self) -> bool:
        """Drop the tiles of previous models; return whether there were any."""
        outdated, self._outdated = self._outdated, []
        for store in outdated:
            store.clear()
        return bool(outdated)

    def requests(self, finished: Sequence[TileStore]) -> list[TileRequest]:
        """Return the tiles that the view needs beyond ``finished`` stores, nearest first; counting starts again."""
        view, result = self.view, self._result
        if view is None or result is None or self.lazy is None:
            return []
        self.store, leading = self._stores[view.across], view.leading
        self._finished = finished
        filled = [store for store in finished if len(store)]
        numbers, grid = nearest_first(self.store.grid, view), self.store.grid
        missing = {i for i in numbers if not any(covers(s, leading, grid.box(i)) for s in filled)}
        requests = [TileRequest(self.store, (leading, i), self._compute) for i in numbers if i in missing]
        if self.maps.wanted:
            requests = self.maps.requests(view, self.store, numbers, requests)
        self._tiles = [(request.store, request.tile) for request in requests]
        self._ready = max(0, len(numbers) - len(self._tiles))
        between: list[TileRequest] = []
        if (requests or self.compared) and self._interpolated:
            plane = self._interpolated[view.across]
            between = [
                TileRequest(plane, (leading, index), lambda own, box, _: result.interpolated(own, box))
                for index in nearest_first(plane.grid, view)
            ]
        # The interpolation of the view is quick; if something is shown already, the first tile comes before it.
        first = 1 if leading in self.lazy.overview else 0
        return [*requests[:first], *between, *requests[first:]]

    def overview_steps(self, starts: bool = False) -> Iterator[None] | None:
        """Return the steps that fill the overview of the view; None if they have started already.

        Without a view there are none either, except when the work on a result ``starts``.
        """
        assert self.lazy is not None and self._result is not None
        if self.view is None:
            return self.lazy.overview.begin(self._result.leading_indices[0]) if starts else None
        near = self.view.centre[self._result.acquisition.axial]
        return self.lazy.overview.begin(self.view.leading, round(near))

    def note(self, store: TileStore) -> None:
        """Count a computed tile if ``store`` is one of the stores for views."""
        if store in self._stores.values() or store in self.maps:
            self.computed += 1
            self._times.append(time.monotonic())

    def has_something(self, looking: bool) -> bool:
        """Return whether all of the view shows something, if only the interpolation, or nothing more will come."""
        if self.lazy is None:
            return False
        view = self.view
        if view is None:
            return any(map(len, self.lazy.stores)) or self.lazy.overview.any
        if view.leading in self.lazy.overview or not looking:
            return True
        store = self._interpolated.get(view.across)
        return store is not None and covers(store, view.leading, view.box)

    @property
    def progress(self) -> tuple[int, int]:
        """Number of finished tiles in view, and of all tiles in view."""
        store, tiles = self.store, self._tiles
        if store is None:
            return 0, 0
        return self._ready + sum(tile in own for own, tile in tiles), self._ready + len(tiles)

    @property
    def rate(self) -> float:
        """Tiles per second, over the last computed tiles."""
        times = list(self._times)
        seconds = times[-1] - times[0] if times else 0.0
        return (len(times) - 1) / seconds if seconds > 0 else 0.0

    def _compute(self, leading: LeadingIndex, box: Box, stop: Callable[[], bool]) -> npt.NDArray[Any]:
        """Compute a box in view; if the overview is quick to fill, fill it first."""
        assert self.lazy is not None and self._result is not None
        if self.lazy.overview.quick:
            for _ in self.lazy.overview.fill(leading):
                pass
        return self._result.compute(leading, box, stop)


def plane_tile(across: int | None) -> IntTriple:
    """Return the size (z, y, x) of an interpolated tile: a part of the visible plane, one voxel deep."""
    z, y, x = (1 if axis == across else 64 if across is None else 256 for axis in range(3))
    return z, y, x
