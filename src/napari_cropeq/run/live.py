"""The one worker that fills a lazy view: the tiles looked at first, then, if asked to, the whole volume."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_cropeq.compute.events import Done, Failed, Filled
from napari_cropeq.compute.scheduler import Scheduler, Wish
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.allocator import give_freed_memory_back
from napari_cropeq.core.geometry import Box, IntTriple, Lead
from napari_cropeq.run.whole_run import WholeRun
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.memory import MemoryStore, TileCache
from napari_cropeq.store.protocol import TileStore, covers
from napari_cropeq.view.in_view import InView
from napari_cropeq.view.lazy import LazyView
from napari_cropeq.view.view import View, nearest_first

__all__ = ["TileWorker"]

IDLE_STEPS = 8  # of half a second


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
    in_view : InView
        The tiles that are looked at.
    failures : deque of Failed
        Boxes that could not be computed and that nobody has taken notice of.
    saved : deque of path
        Stores that are complete and that nobody has taken notice of.
    """

    def __init__(self, cache: TileCache, source: Hashable) -> None:
        self._cache, self._source = cache, source
        self._next: tuple[Callable[[], SuperResolution], Hashable] | None = None
        self._lock = threading.RLock()
        self._closed = self._preparing = False
        self._scheduler: Scheduler | None = None
        self._stores: dict[int | None, MemoryStore] = {}  # by the axis looked along
        self._interpolated: dict[int | None, MemoryStore] = {}
        self._outdated: list[MemoryStore] = []  # another model's, shown until the new tiles are there
        self._whole: WholeRun | None = None
        self._run = 0  # number of the last wish for every tile, or for none any more
        self._opening: int | None = None  # for which of them a store is being opened
        self.in_view = InView()
        self.result: SuperResolution | None = None
        self.view: LazyView | None = None
        self.failures: deque[Failed] = deque()
        self.saved: deque[Path] = deque()
        self.changes = 0  # of what can be read; parts of a tile under way cannot

    # -- wishes, from any thread -----------------------------------------------------------------

    def look(self, view: View | None) -> None:
        """Ask for the tiles of a view, nearest its centre first; of none any more with None."""
        with self._lock:
            self.in_view.look(view)
            if self._scheduler is not None:
                self._look(self._scheduler)

    def run_all(self, open_disk: Callable[[], DiskStore] | None = None) -> None:
        """Ask for every tile, into memory or a store on disk; the worker must be ready.

        Parameters
        ----------
        open_disk : callable, optional
            Opens the store, in the worker's thread: an unfinished one is read, which may take a while.

        Raises
        ------
        ValueError
            If the result does not fit into memory.
        """
        with self._lock:
            assert self._scheduler is not None and self.result is not None and self._whole is not None
            self._run += 1
            if open_disk is None:
                self._check_memory(self.result)
                self._fill(self._whole.memory)
            else:
                self._opening = self._run
                self._scheduler.add_background(self._open(open_disk, self._run))

    def stop_all(self) -> None:
        """Stop asking for every tile; what is finished stays, and others can go on with an unfinished store."""
        with self._lock:
            self._run += 1
            if self._scheduler is not None:
                self._scheduler.stop_all()
                self._scheduler.add_background(self._released())

    def pause_all(self, paused: bool = True) -> None:
        """Hold the run over the volume after the box under way, or let it go on."""
        if self._scheduler is not None:
            self._scheduler.pause_all(paused)

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
    def disk(self) -> DiskStore | None:
        """The store on disk that the run over the volume fills, if there is one."""
        return None if self._whole is None else self._whole.disk

    @property
    def has_something(self) -> bool:
        """Whether something is seen everywhere in the view, if only the interpolation, or no more will come."""
        with self._lock:
            if self.view is None:
                return False
            view = self.in_view.view
            if view is None:
                return any(map(len, self.view.stores)) or self.view.overview.any
            if view.lead in self.view.overview or not self.looking:
                return True
            store = self._interpolated.get(view.across)
            return store is not None and covers(store, view.lead, view.box)

    @property
    def tiles(self) -> tuple[int, int]:
        """Finished and all tiles of the store that the last run over the volume fills."""
        return (0, 0) if self._whole is None else self._whole.tiles

    @property
    def fraction(self) -> float:
        """Share of the whole volume that is done, parts of a tile under way counted."""
        return 0.0 if self._whole is None else self._whole.fraction

    @property
    def running_all(self) -> bool:
        """Whether a run over the whole volume is under way."""
        return self._opening == self._run or (self._scheduler is not None and self._scheduler.running_all)

    @property
    def paused(self) -> bool:
        """Whether the run over the whole volume is held."""
        return self._scheduler is not None and self._scheduler.paused

    @property
    def looking(self) -> bool:
        """Whether tiles in view are still to come."""
        return self._changing or (self._scheduler is not None and self._scheduler.looking)

    @property
    def busy(self) -> bool:
        """Whether anything is wanted."""
        return self._changing or self._scheduler is None or not self._scheduler.idle

    @property
    def _changing(self) -> bool:
        """Whether another model is wanted, or being prepared."""
        return self._next is not None or self._preparing

    # -- the worker's thread ---------------------------------------------------------------------

    def steps(self) -> Iterator[object]:
        """Compute what is wanted until :meth:`close`, yielding whenever something has happened, None if nothing has."""
        while (wanted := self._take()) is not None:
            prepare, key = wanted
            result = prepare()
            scheduler = self._begin(result, key)
            self._preparing = False
            if scheduler is None:  # closed, or another model wanted meanwhile
                continue
            yield result
            try:
                yield from self._events(scheduler)
            finally:
                self._opening = None
                if self._whole is not None:
                    self._whole.close()

    def _events(self, scheduler: Scheduler) -> Iterator[object]:
        idle = 0
        for event in scheduler.run(wait=True):
            idle = 0 if event is not None else idle + 1
            if idle == IDLE_STEPS:  # the window's own large images are in it as well
                give_freed_memory_back()
            if event is not None and not (isinstance(event, Done) and not event.tiles):
                self.changes += 1
            if isinstance(event, Done):
                self._note(event)
            elif isinstance(event, Failed):
                self.failures.append(event)
            elif isinstance(event, Filled):
                self._end_run(event)
            if self._outdated and not scheduler.looking:
                self._drop_outdated()
            yield event

    def _take(self) -> tuple[Callable[[], SuperResolution], Hashable] | None:
        with self._lock:
            wanted, self._next = self._next, None
            self._preparing = wanted is not None
            return None if self._closed else wanted

    def _begin(self, result: SuperResolution, key: Hashable) -> Scheduler | None:
        with self._lock:
            if self._closed or self._next is not None:
                return None
            return self._make_scheduler(result, key)

    def _make_scheduler(self, result: SuperResolution, key: Hashable) -> Scheduler:
        scheduler = Scheduler()
        self._outdated += self._stores.values()
        self._stores = {
            across: MemoryStore(result.sr_shape, result.view_tile(across), self._cache, (key, across))
            for across in (0, 1, 2, None)
        }
        current = {store.key for store in self._stores.values()}
        self._outdated = [store for store in self._outdated if store.key not in current]
        self._whole = WholeRun(result, MemoryStore(result.sr_shape, result.bulk_part, self._cache, (key, "whole")))
        if self.view is None:
            self.view = LazyView(result, [])
        if not self.view.overview.whole and not self._interpolated:
            self._interpolated = {
                across: MemoryStore(
                    result.sr_shape, plane_tile(across), self._cache, (self._source, result.dtype.str, across)
                )
                for across in (0, 1, 2, None)
            }
        self.view.overview.restart()  # its steps went with the last scheduler
        self.result, self._scheduler = result, scheduler
        self._show_stores()
        self._look(scheduler)
        self._begin_overview(scheduler, result.leads[0] if self.in_view.view is None else self.in_view.view.lead)
        return scheduler

    def _look(self, scheduler: Scheduler) -> None:
        view, result = self.in_view.view, self.result
        if view is None or result is None or self.view is None:
            scheduler.look_at([])
            return
        store, lead = self._stores[view.across], view.lead
        missing = self.in_view.missing(store, [held for held in self.finished_stores() if len(held)])
        wishes = [Wish(store, tile, self._compute) for tile in missing]
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
        view = self.in_view.view
        near = 0.0 if view is None else view.centre[self.result.acquisition.axial]
        steps = self.view.overview.begin(lead, round(near))
        if steps is not None:
            scheduler.add_background(steps)

    def _note(self, done: Done) -> None:
        """Count a finished box."""
        if done.store in self._stores.values():
            self.in_view.note()
        if self._whole is not None:
            self._whole.note(done)

    def _end_run(self, filled: Filled) -> None:
        """Complete the store on disk; tell where tiles are missing."""
        assert self._whole is not None
        try:
            path = self._whole.end(filled)
            if path is not None:
                self.saved.append(path)
        except Exception as error:  # noqa: BLE001 (the user is told, and the view goes on)
            self.failures.append(Failed(error, bulk=True))

    def _drop_outdated(self) -> None:
        with self._lock:
            for store in self._outdated:
                store.clear()
            self._outdated = []
            self._show_stores()

    def _open(self, open_disk: Callable[[], DiskStore], run: int) -> Iterator[None]:
        """Open a store and fill it, unless that is not wanted any more."""
        assert self._whole is not None
        try:
            self._whole.give_up_disk()
            disk = open_disk()
            with self._lock:
                self._whole.disk = disk
                self._show_stores()
                if run == self._run:
                    self._fill(disk)
                else:
                    disk.release()
        finally:
            if self._opening == run:
                self._opening = None
        yield

    def _fill(self, store: TileStore) -> None:
        assert self._scheduler is not None and self._whole is not None
        self._scheduler.fill(self._whole.fill(store, self.finished_stores))

    def _released(self) -> Iterator[None]:
        if self._whole is not None:
            self._whole.release()
        yield

    def finished_stores(self) -> list[TileStore]:
        """Return the stores that hold tiles of the model in use."""
        whole = [] if self._whole is None else self._whole.stores
        return [*whole, *self._stores.values()]

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
