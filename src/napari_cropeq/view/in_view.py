"""What a window shows of one source: the tiles in view, and what is shown where there are none yet."""

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
from napari_cropeq.view.view import View, nearest_first

__all__ = ["InView"]

RATE_TILES = 16
AXES = (0, 1, 2, None)  # what can be looked along; None stands for a 3D display


class InView:
    """Chooses the tiles that a view needs, and counts them; models may change, the lazy layers stay.

    There is a store for each axis that can be looked along, with tiles that are thin along it. Tiles of the model
    before are shown until those in view are there. Where the overview does not hold every voxel, interpolated tiles
    fill the plane in view first.

    Parameters
    ----------
    cache : TileCache
        Where tiles are held.
    source : hashable
        Names the source and its geometry.

    Attributes
    ----------
    view : View, optional
        What is looked at.
    lazy : LazyView, optional
        The layers; None until there is a result.
    store : MemoryStore, optional
        Where the tiles in view are kept; None while nothing is looked at.
    computed : int
        Tiles in view that were computed, since the beginning.
    """

    def __init__(self, cache: TileCache, source: Hashable) -> None:
        self._cache, self._source = cache, source
        self._result: SuperResolution | None = None
        self._stores: dict[int | None, MemoryStore] = {}  # by the axis looked along
        self._interpolated: dict[int | None, MemoryStore] = {}
        self._outdated: list[MemoryStore] = []  # of another model, shown until the new tiles are there
        self.view: View | None = None
        self.lazy: LazyView | None = None
        self.store: MemoryStore | None = None
        self.computed = 0
        self._tiles: list[Tile] = []  # missing when it was looked at
        self._ready = 0  # the others
        self._times: deque[float] = deque(maxlen=RATE_TILES)

    def look(self, view: View | None) -> None:
        """Look at another view, of which nothing is known yet."""
        self.view, self.store, self._tiles, self._ready = view, None, [], 0
        self._times.clear()

    def use(self, result: SuperResolution, key: Hashable) -> None:
        """Show a result from now on; ``key`` names everything that decides the bits of its tiles."""
        self._outdated += self._stores.values()
        shape = result.sr_shape
        self._stores = {
            across: MemoryStore(shape, result.shapes.for_view(across), self._cache, (key, across)) for across in AXES
        }
        current = {store.key for store in self._stores.values()}
        self._outdated = [store for store in self._outdated if store.key not in current]
        if self.lazy is None:
            self.lazy = LazyView(result, [])
        if not self.lazy.overview.whole and not self._interpolated:
            kind = (self._source, result.dtype.str)
            self._interpolated = {
                across: MemoryStore(shape, plane_tile(across), self._cache, (*kind, across)) for across in AXES
            }
        self.lazy.overview.restart()  # its steps went with the last scheduler
        self._result = result

    @property
    def stores(self) -> list[MemoryStore]:
        """Where tiles of the result in use are."""
        return list(self._stores.values())

    def show(self, whole: Sequence[TileStore] = ()) -> None:
        """Have the layers show these stores, those of the view, and what stands in for missing tiles."""
        assert self.lazy is not None
        self.lazy.stores = (*whole, *self.stores, *self._outdated, *self._interpolated.values())

    def forget_outdated(self) -> bool:
        """Forget the tiles of models that were used before; return whether there were any."""
        outdated, self._outdated = self._outdated, []
        for store in outdated:
            store.clear()
        return bool(outdated)

    def requests(self, finished: Sequence[TileStore]) -> list[TileRequest]:
        """Return what the view needs beyond ``finished`` stores, nearest its centre first; it is counted from now."""
        view, result = self.view, self._result
        if view is None or result is None or self.lazy is None:
            return []
        self.store, leading = self._stores[view.across], view.leading
        held = [store for store in finished if len(store)]
        numbers, grid = nearest_first(self.store.grid, view), self.store.grid
        self._tiles = [(leading, i) for i in numbers if not any(covers(s, leading, grid.box(i)) for s in held)]
        self._ready = len(numbers) - len(self._tiles)
        requests = [TileRequest(self.store, tile, self._compute) for tile in self._tiles]
        between: list[TileRequest] = []
        if requests and self._interpolated:
            plane = self._interpolated[view.across]
            between = [
                TileRequest(plane, (leading, index), lambda own, box, _: result.interpolated(own, box))
                for index in nearest_first(plane.grid, view)
            ]
        # The interpolation of the view is quick work; where something is seen already, the first tile goes before it.
        first = 1 if leading in self.lazy.overview else 0
        return [*requests[:first], *between, *requests[first:]]

    def overview_steps(self, begins: bool = False) -> Iterator[None] | None:
        """Return the steps that fill the overview of what is looked at; None where they have begun already.

        Where nothing is looked at, there are none either, but when the work on a result ``begins``.
        """
        assert self.lazy is not None and self._result is not None
        if self.view is None:
            return self.lazy.overview.begin(self._result.leading_indices[0]) if begins else None
        near = self.view.centre[self._result.acquisition.axial]
        return self.lazy.overview.begin(self.view.leading, round(near))

    def note(self, store: TileStore) -> None:
        """Count a tile that has been computed into ``store``, if it is one for views."""
        if store in self._stores.values():
            self.computed += 1
            self._times.append(time.monotonic())

    def has_something(self, looking: bool) -> bool:
        """Return whether something is shown everywhere in the view, if only the interpolation, or no more will come."""
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
        """Finished and all tiles in view."""
        store, tiles = self.store, self._tiles
        if store is None:
            return 0, 0
        return self._ready + sum(tile in store for tile in tiles), self._ready + len(tiles)

    @property
    def rate(self) -> float:
        """Tiles a second, of the last ones that were computed."""
        times = list(self._times)
        seconds = times[-1] - times[0] if times else 0.0
        return (len(times) - 1) / seconds if seconds > 0 else 0.0

    def _compute(self, leading: LeadingIndex, box: Box, stop: Callable[[], bool]) -> npt.NDArray[Any]:
        """Compute a box that is looked at; where that is quick, what surrounds it first."""
        assert self.lazy is not None and self._result is not None
        if self.lazy.overview.quick:
            for _ in self.lazy.overview.fill(leading):
                pass
        return self._result.compute(leading, box, stop)


def plane_tile(across: int | None) -> IntTriple:
    """Return the size (z, y, x) of an interpolated tile: a part of the plane that is seen, one voxel deep."""
    z, y, x = (1 if axis == across else 64 if across is None else 256 for axis in range(3))
    return z, y, x
