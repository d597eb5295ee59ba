"""The one worker that fills a lazy view: the tiles looked at first, then, if asked to, the whole volume."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple
from napari_cropeq.volume.cache import MemoryStore, TileCache
from napari_cropeq.volume.export import finish
from napari_cropeq.volume.lazy import LazyView
from napari_cropeq.volume.reuse import Reuse
from napari_cropeq.volume.scheduler import Done, Failed, Scheduler, Wish
from napari_cropeq.volume.store import DiskStore, Tile, TileStore, covers
from napari_cropeq.volume.superres import Lead, SuperResolution
from napari_cropeq.volume.view import View, nearest_first

__all__ = ["TileWorker"]

RATE_TILES = 16


class TileWorker:
    """Prepares a result and computes what is wanted of it; :meth:`steps` belongs to one thread, wishes to any.

    Preview and volume only differ in which tiles they ask for; what is computed for one is there for the other.

    Parameters
    ----------
    cache : TileCache
        Where tiles are held.
    source : hashable
        Names the source and its geometry.

    Attributes
    ----------
    failures : deque of Failed
        Boxes that could not be computed and that nobody has taken notice of.
    saved : deque of path
        Stores that are complete and that nobody has taken notice of.
    """

    def __init__(self, cache: TileCache, source: Hashable) -> None:
        self._cache, self._source = cache, source
        self._next: tuple[Callable[[], SuperResolution], Hashable] | None = None
        self._lock = threading.RLock()
        self._closed = False
        self._scheduler: Scheduler | None = None
        self._sight: View | None = None
        self._tiles: list[Tile] = []  # in view and not there when it was looked at
        self._ready = 0  # the others in view
        self._store: MemoryStore | None = None  # where tiles in view are kept
        self._stores: dict[int | None, MemoryStore] = {}  # by the axis looked along
        self._interpolated: dict[int | None, MemoryStore] = {}
        self._outdated: list[MemoryStore] = []  # another model's, shown until the new tiles are there
        self._whole: MemoryStore | None = None
        self._part = 0.0
        self._leads: set[Lead] = set()  # whose overview has been asked for
        self.result: SuperResolution | None = None
        self.view: LazyView | None = None
        self.disk: DiskStore | None = None
        self.filling: TileStore | None = None  # what the last run over the volume fills
        self.failures: deque[Failed] = deque()
        self.saved: deque[Path] = deque()
        self.computed = 0  # tiles in view, since the beginning
        self._times: deque[float] = deque(maxlen=RATE_TILES)

    # -- wishes, from any thread -----------------------------------------------------------------

    def look(self, view: View | None) -> None:
        """Ask for the tiles of a view, nearest its centre first; of none any more with None."""
        with self._lock:
            self._sight = view
            self._times.clear()
            if self._scheduler is not None:
                self._look(self._scheduler)

    def run_all(self, disk: DiskStore | None = None) -> None:
        """Ask for every tile, into memory or an OME-Zarr; the worker must be ready.

        Raises
        ------
        ValueError
            If the result does not fit into memory.
        """
        with self._lock:
            assert self._scheduler is not None and self.result is not None
            assert self._whole is not None
            if disk is None:
                self._check_memory(self.result)
            elif disk is not self.disk:
                self._replace_disk(disk)
            store = self.filling = self._whole if disk is None else disk
            self._part = 0.0
            compute = Reuse(lambda: [s for s in self.finished_stores() if s is not store], self.result.compute)
            self._scheduler.run_all(store, self.result.leads, compute)

    def stop_all(self) -> None:
        """Stop asking for every tile; what is finished stays."""
        if self._scheduler is not None:
            self._scheduler.stop_all()

    def use(self, prepare: Callable[[], SuperResolution], key: Hashable) -> None:
        """Use a model, or another one from now on; the old one's tiles are shown until the new ones are there.

        Parameters
        ----------
        prepare : callable
            Opens source and model, the same grid each time; called in the worker's thread.
        key : hashable
            Names everything that decides the bits of a tile.
        """
        with self._lock:
            self._next = (prepare, key)
            if self._scheduler is not None:
                self._scheduler.close()

    def close(self) -> None:
        """End the work at the next call of the network."""
        with self._lock:
            self._closed = True
            if self._scheduler is not None:
                self._scheduler.close()

    # -- state -----------------------------------------------------------------------------------

    @property
    def in_view(self) -> tuple[int, int]:
        """Finished and all tiles of the view."""
        store, tiles = self._store, self._tiles
        if store is None:
            return 0, 0
        return self._ready + sum(tile in store for tile in tiles), self._ready + len(tiles)

    @property
    def in_view_store(self) -> MemoryStore | None:
        """Where the tiles in view are kept; None while nothing is looked at."""
        return self._store

    @property
    def rate(self) -> float:
        """Tiles in view a second, of the last ones that were computed."""
        times = list(self._times)
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0

    @property
    def has_something(self) -> bool:
        """Whether there is something to see everywhere in the view, if only the interpolation."""
        with self._lock:
            if self.view is None:
                return False
            view = self._sight
            if view is None:
                return any(map(len, self.view.stores)) or any(lead in self.view.overview for lead in self._leads)
            if view.lead in self.view.overview:
                return True
            store = self._interpolated.get(view.across)
            return store is not None and covers(store, view.lead, view.box)

    @property
    def tiles(self) -> tuple[int, int]:
        """Finished and all tiles of the store that the last run over the volume fills."""
        if self.filling is None or self.result is None:
            return 0, 0
        grid = self.filling.grid
        return len(self.filling), grid.count * len(self.result.leads)

    @property
    def fraction(self) -> float:
        """Share of the whole volume that is done, parts of a tile under way counted."""
        done, total = self.tiles
        return min(1.0, (done + self._part) / total) if total else 0.0

    @property
    def running_all(self) -> bool:
        """Whether a run over the whole volume is under way."""
        return self._scheduler is not None and self._scheduler.running_all

    @property
    def looking(self) -> bool:
        """Whether tiles in view are still to come."""
        return self._next is not None or (self._scheduler is not None and self._scheduler.looking)

    @property
    def busy(self) -> bool:
        """Whether anything is wanted."""
        return self._next is not None or self._scheduler is None or not self._scheduler.idle

    # -- the worker's thread ---------------------------------------------------------------------

    def steps(self) -> Iterator[object]:
        """Compute what is wanted until :meth:`close`, yielding whenever something has happened, None if nothing has."""
        while (wanted := self._take()) is not None:
            prepare, key = wanted
            result = prepare()
            scheduler = self._begin(result, key)
            if scheduler is None:  # closed, or another model wanted meanwhile
                continue
            yield result
            for event in scheduler.run(wait=True):
                if isinstance(event, Done):
                    self._note(event, result)
                elif isinstance(event, Failed):
                    self.failures.append(event)
                if self._outdated and not scheduler.looking:
                    self._drop_outdated()
                yield event

    def _take(self) -> tuple[Callable[[], SuperResolution], Hashable] | None:
        with self._lock:
            wanted, self._next = self._next, None
            return None if self._closed else wanted

    def _begin(self, result: SuperResolution, key: Hashable) -> Scheduler | None:
        with self._lock:
            if self._closed or self._next is not None:
                return None
            return self._make_scheduler(result, key)

    def _make_scheduler(self, result: SuperResolution, key: Hashable) -> Scheduler:
        scheduler = Scheduler(result.bulk_part)
        self._outdated += self._stores.values()
        self._stores = {
            across: MemoryStore(result.sr_shape, result.view_tile(across), self._cache, (key, across))
            for across in (0, 1, 2, None)
        }
        self._whole = MemoryStore(result.sr_shape, result.bulk_part, self._cache, (key, "whole"))
        if self.view is None:
            self.view = LazyView(result, [])
        if not self.view.overview.whole and not self._interpolated:
            self._interpolated = {
                across: MemoryStore(
                    result.sr_shape, plane_tile(across), self._cache, (self._source, result.dtype.str, across)
                )
                for across in (0, 1, 2, None)
            }
        self.result, self._scheduler = result, scheduler
        self._show_stores()
        self._look(scheduler)
        self._begin_overview(scheduler, result.leads[0] if self._sight is None else self._sight.lead)
        return scheduler

    def _look(self, scheduler: Scheduler) -> None:
        view, result = self._sight, self.result
        if view is None or result is None or self.view is None:
            self._tiles, self._ready, self._store = [], 0, None
            scheduler.look_at([])
            return
        store, lead = self._stores[view.across], view.lead
        held = [s for s in self.finished_stores() if len(s)]
        numbers = nearest_first(store.grid, view)
        missing = [index for index in numbers if not any(covers(s, lead, store.grid.box(index)) for s in held)]
        self._store, self._ready = store, len(numbers) - len(missing)
        self._tiles = [(lead, index) for index in missing]
        wishes = [Wish(store, tile, self._compute) for tile in self._tiles]
        between: list[Wish] = []
        if wishes and self._interpolated:
            plane = self._interpolated[view.across]
            numbers = nearest_first(plane.grid, view)
            between = [
                Wish(plane, (lead, index), lambda own, box, _: result.interpolated(own, box)) for index in numbers
            ]
        # The interpolation of the view is quick work; where something is seen already, the first tile goes before it.
        first = 1 if lead in self.view.overview else 0
        scheduler.look_at([*wishes[:first], *between, *wishes[first:]])
        self._begin_overview(scheduler, lead)

    def _compute(self, lead: Lead, box: Box, stop: Callable[[], bool]) -> npt.NDArray[Any]:
        """Compute a box that is looked at; where that is quick, what surrounds it first."""
        assert self.view is not None and self.result is not None
        if self.view.overview.quick:
            for _ in self.view.overview.fill(lead):
                pass
        return self.result.compute(lead, box, stop)

    def _begin_overview(self, scheduler: Scheduler, lead: Lead) -> None:
        assert self.view is not None and self.result is not None
        if lead not in self._leads:
            self._leads.add(lead)
            axial = self.result.acquisition.axial
            near = 0.0 if self._sight is None else self._sight.centre[axial]
            scheduler.add_background(self.view.overview.fill(lead, round(near)))

    def _note(self, done: Done, result: SuperResolution) -> None:
        """Count a finished box, and complete the store on disk with the last."""
        if done.store in self._stores.values():
            self.computed += 1
            self._times.append(time.monotonic())
        if done.store is not self.filling:
            return
        size = Box.whole(done.store.grid.tile).size
        self._part = 0.0 if done.tiles else self._part + done.box.size / size
        disk = self.disk
        if disk is not None and not disk.finished and len(disk) == disk.grid.count * len(result.leads):
            finish(disk, result)
            self.saved.append(disk.path)

    def _drop_outdated(self) -> None:
        with self._lock:
            for store in self._outdated:
                store.clear()
            self._outdated = []
            self._show_stores()

    def _replace_disk(self, store: DiskStore) -> None:
        """Fill ``store`` from now on; an unfinished one before it is given up."""
        if self.disk is not None:
            self.disk.discard()
        self.disk = store
        self._show_stores()

    def finished_stores(self) -> list[TileStore]:
        """Return the stores that hold tiles of the model in use."""
        held: list[TileStore] = [*self._stores.values()]
        return [s for s in (self.disk, self._whole) if s is not None] + held

    def _show_stores(self) -> None:
        assert self.view is not None
        self.view.stores = (*self.finished_stores(), *self._outdated, *self._interpolated.values())

    def _check_memory(self, result: SuperResolution) -> None:
        if result.nbytes > self._cache.cap:
            raise ValueError(
                f"Got a result of {result.nbytes / 1e9:.1f} GB and a memory cap of {self._cache.cap / 1e9:.1f} GB: "
                "choose a destination on disk, or raise the cap in the Preferences."
            )


def plane_tile(across: int | None) -> IntTriple:
    """Return the size (z, y, x) of an interpolated tile: a part of the plane that is seen, one voxel deep."""
    z, y, x = (1 if axis == across else 64 if across is None else 256 for axis in range(3))
    return z, y, x
