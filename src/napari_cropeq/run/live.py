"""The worker behind a window: it computes the tiles in view first, then, on request, the whole volume."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from napari_cropeq.compute.fill import Done, Failed, Filled, TileFiller
from napari_cropeq.compute.scheduler import Scheduler
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.compute.tile_source import TileSource
from napari_cropeq.core.devices.out_of_memory import give_memory_back
from napari_cropeq.core.geometry import Box
from napari_cropeq.errors import ArgumentError
from napari_cropeq.run.export import failure_of
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.memory import MemoryStore, TileCache
from napari_cropeq.store.protocol import TileStore
from napari_cropeq.view.in_view import InView
from napari_cropeq.view.view import View

__all__ = ["LiveWorker", "RunState", "WholeVolume"]

IDLE_STEPS = 8  # of half a second

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunState:
    """State of a worker at one moment: everything that a window reads from it."""

    exactness: str = ""  # result of the check of the device; empty until the worker is ready
    changes: int = 0  # number of changes to readable tiles so far
    shown: bool = False  # whether the view is covered, at least coarsely, or nothing more will be computed
    looking: bool = False  # whether tiles in view are still missing
    busy: bool = True  # whether there is work to do
    in_view: tuple[int, int] = (0, 0)  # finished and all tiles in view
    computed: int = 0  # tiles in view computed since the start
    rate: float = 0.0  # tiles in view per second
    running: bool = False  # whether a run over the whole volume is under way
    paused: bool = False
    tiles: tuple[int, int] = (0, 0)  # finished and all tiles of the last run over the volume
    fraction: float = 0.0  # of the whole volume, including parts of unfinished tiles
    damaged: int = 0  # shards of an earlier run that are computed again

    @property
    def ready(self) -> bool:
        """Whether source and model have been opened."""
        return bool(self.exactness)

    @property
    def complete(self) -> bool:
        """Whether every tile of the last run over the volume is finished."""
        done, total = self.tiles
        return total > 0 and done == total


class WholeVolume:
    """The stores of the tiles of the whole volume: in memory and, if requested, on disk.

    Parameters
    ----------
    result : SuperResolution
        Computes tiles.
    memory : MemoryStore
        Holds tiles that are not saved to a file.

    Attributes
    ----------
    disk : DiskStore, optional
        The store on disk, if there is one.
    """

    def __init__(self, result: SuperResolution, memory: MemoryStore) -> None:
        self._result, self.memory = result, memory
        self.disk: DiskStore | None = None
        self._filled: TileStore | None = None  # the store of the current run, or of the last one
        self._part = 0.0  # finished parts of unfinished tiles, in tiles

    @property
    def stores(self) -> list[TileStore]:
        """The stores that hold tiles."""
        disk = self.disk  # read once: another thread may close it
        return [self.memory] if disk is None else [disk, self.memory]

    @property
    def tiles(self) -> tuple[int, int]:
        """Finished and all tiles."""
        filled = self._filled  # read once, as above
        return (0, 0) if filled is None else (len(filled), filled.grid.count * len(self._result.leading_indices))

    @property
    def fraction(self) -> float:
        """Share that is done, including parts of unfinished tiles."""
        done, total = self.tiles
        return min(1.0, (done + self._part) / total) if total else 0.0

    def begin(self, store: TileStore) -> None:
        """Count the tiles of ``store`` from now on."""
        self._filled, self._part = store, 0.0

    def note(self, done: Done) -> None:
        """Count a finished box."""
        if done.store is self._filled:
            size = Box.whole(done.store.grid.tile).size
            self._part = 0.0 if done.tiles else self._part + done.box.size / size

    def end(self, filled: Filled) -> Path | Failed | None:
        """Complete the store on disk, if it was filled, and return its path, or the failure."""
        store = filled.store
        if filled.failures:
            return Failed(failure_of(filled.failures, self._result.source.axes), bulk=True)
        if not isinstance(store, DiskStore) or store is not self.disk or store.folder.finished:
            return None
        try:
            store.finish()
        except Exception as error:  # noqa: BLE001 (the error is shown, and the view stays usable)
            return Failed(error, bulk=True)
        return store.folder.path

    def release(self, forget: bool = False) -> None:
        """Stop writing to an unfinished store on disk, so that others can resume it; ``forget`` drops it altogether."""
        if self.disk is not None and not self.disk.folder.finished:
            self.disk.release()
        if forget:
            self.disk = self._filled = None

    def release_steps(self) -> Iterator[None]:
        """Release the store; to be run by the thread that writes to it."""
        self.release()
        yield


class LiveWorker:
    """Computes requested tiles of a result; :meth:`steps` belongs to one thread, any thread may call the rest.

    Preview and volume differ only in the tiles that they request; each uses the tiles computed for the other.

    Parameters
    ----------
    cache : TileCache
        Holds the tiles in memory.
    source : hashable
        Identifies the source and its geometry.

    Attributes
    ----------
    in_view : InView
        The tiles in view, and the lazy layers that show them.
    result : SuperResolution, optional
        Computes tiles; None until the worker is ready.
    whole : WholeVolume, optional
        The stores of the whole volume; None until the worker is ready.
    failures : deque of Failed
        Boxes that could not be computed; the caller removes those that it has shown.
    saved : deque of path
        Stores that are complete; the caller removes those that it has shown.
    """

    def __init__(self, cache: TileCache, source: Hashable) -> None:
        self._cache = cache
        self._next: tuple[Callable[[], SuperResolution], Hashable] | None = None
        self._lock = threading.RLock()
        self._closed = self._preparing = False
        self._scheduler: Scheduler | None = None
        self.whole: WholeVolume | None = None
        self._run = 0  # number of the last call of run_all or stop_all
        self._opening: int | None = None  # number of the call for which a store is being opened
        self._changes = 0
        self.in_view = InView(cache, source)
        self.result: SuperResolution | None = None
        self.failures: deque[Failed] = deque()
        self.saved: deque[Path] = deque()

    # -- requests, from any thread ---------------------------------------------------------------

    def look(self, view: View | None) -> None:
        """Request the tiles of a view, starting at its centre; None requests no tiles."""
        with self._lock:
            self.in_view.look(view)
            if self._scheduler is not None:
                self._look(self._scheduler)

    def compare(self, on: bool) -> None:
        """Request the interpolation of every view as well, even where no tile is missing."""
        with self._lock:
            self.in_view.compared = on
            if self._scheduler is not None:
                self._look(self._scheduler)

    def run_all(self, open_disk: Callable[[], DiskStore] | None = None) -> None:
        """Request every tile, into memory or a store on disk; the worker must be ready.

        Parameters
        ----------
        open_disk : callable, optional
            Opens the store. It is called in the worker's thread, since reading an unfinished store may take a while.

        Raises
        ------
        ArgumentError
            If the result does not fit into memory.
        """
        with self._lock:
            assert self._scheduler is not None and self.result is not None and self.whole is not None
            self._run += 1
            if open_disk is None:
                check_memory(self.result, self._cache)
                self._fill(self.whole.memory)
            else:
                self._opening = self._run
                self._scheduler.add_background(self._open(open_disk, self._run))

    def pause_all(self, paused: bool = True) -> None:
        """Pause the run over the volume after the current box, or resume it."""
        if self._scheduler is not None:
            self._scheduler.bulk.pause(paused)

    def stop_all(self) -> None:
        """Stop requesting every tile; finished tiles stay, and others can resume an unfinished store."""
        with self._lock:
            self._run += 1
            if self._scheduler is not None:
                self._scheduler.bulk.stop()
                if self.whole is not None:
                    self._scheduler.add_background(self.whole.release_steps())

    def use(self, prepare: Callable[[], SuperResolution], key: Hashable) -> None:
        """Use a model, or switch to another one; the old tiles are shown until the new ones are computed.

        Parameters
        ----------
        prepare : callable
            Opens source and model, on the same grid each time; called in the worker's thread.
        key : hashable
            Identifies everything that determines the bits of a tile.
        """
        with self._lock:
            self._next = (prepare, key)
            if self._scheduler is not None:
                self._scheduler.close()

    def close(self) -> None:
        """End the work before the next call of the network."""
        with self._lock:
            self._closed = True
            if self._scheduler is not None:
                self._scheduler.close()

    @property
    def state(self) -> RunState:
        """The current state.

        It is determined at each access, since a full cache drops tiles without a step of the worker: a result that is
        reported as complete can be saved.
        """
        with self._lock:
            scheduler, whole, in_view = self._scheduler, self.whole, self.in_view
            changing = self._next is not None or self._preparing
            looking = changing or (scheduler is not None and scheduler.looking)
            disk = None if whole is None else whole.disk
            return RunState(
                exactness="" if self.result is None else str(self.result.exactness),
                changes=self._changes,
                shown=in_view.has_something(looking),
                looking=looking,
                busy=changing or scheduler is None or not scheduler.idle,
                in_view=in_view.progress,
                computed=in_view.computed,
                rate=in_view.rate,
                running=self._opening == self._run or (scheduler is not None and scheduler.bulk.running),
                paused=scheduler is not None and scheduler.bulk.paused,
                tiles=(0, 0) if whole is None else whole.tiles,
                fraction=0.0 if whole is None else whole.fraction,
                damaged=0 if disk is None else len(disk.damaged),
            )

    @property
    def finished_stores(self) -> list[TileStore]:
        """The stores with tiles of the current model."""
        return [*([] if self.whole is None else self.whole.stores), *self.in_view.stores]

    # -- the worker's thread ---------------------------------------------------------------------

    def steps(self) -> Iterator[RunState | None]:
        """Compute requested tiles until :meth:`close`; yield the state at each change, None while there is no work."""
        while True:
            with self._lock:
                following, self._next = self._next, None
                self._preparing = following is not None
            if following is None or self._closed:
                return
            prepare, key = following
            started = self._begin(prepare(), key)
            self._preparing = False
            if started is None:  # closed, or another model was requested meanwhile
                continue
            yield self.state
            try:
                yield from self._events(*started)
            finally:
                self._opening = None
                started[1].release()

    def _begin(self, result: SuperResolution, key: Hashable) -> tuple[Scheduler, WholeVolume] | None:
        with self._lock:
            if self._closed or self._next is not None:
                return None
            memory = MemoryStore(result.sr_shape, result.shapes.bulk, self._cache, (key, "whole"))
            self.in_view.use(result, key)
            self.result, self._scheduler, self.whole = result, Scheduler(), WholeVolume(result, memory)
            logger.info("%s is ready, %s", result.source.name, result.exactness)
            self.in_view.show(self.whole.stores)
            self._look(self._scheduler, begins=True)
            return self._scheduler, self.whole

    def _events(self, scheduler: Scheduler, whole: WholeVolume) -> Iterator[RunState | None]:
        assert self.result is not None
        idle, device = 0, torch.device(self.result.exactness.device)
        for event in scheduler.run(wait=True):
            idle = 0 if event is not None else idle + 1
            if idle == IDLE_STEPS:  # this frees memory of the window's large images, too
                give_memory_back(device)
            if event is not None and not (isinstance(event, Done) and not event.tiles):
                self._changes += 1
            if isinstance(event, Done):
                self.in_view.note(event.store)
                whole.note(event)
            ended = whole.end(event) if isinstance(event, Filled) else event
            if isinstance(ended, Failed):
                self.failures.append(ended)
            elif isinstance(ended, Path):
                self.saved.append(ended)
            if not scheduler.looking:
                with self._lock:
                    if self.in_view.forget_outdated():
                        self.in_view.show(whole.stores)
            yield None if event is None else self.state

    def _look(self, scheduler: Scheduler, begins: bool = False) -> None:
        scheduler.look_at(self.in_view.requests(self.finished_stores))
        steps = self.in_view.overview_steps(begins)
        if steps is not None:
            scheduler.add_background(steps)

    def _open(self, open_disk: Callable[[], DiskStore], run: int) -> Iterator[None]:
        """Open a store and fill it, unless the run has been stopped meanwhile."""
        assert self.whole is not None
        try:
            self.whole.release(forget=True)
            disk = open_disk()
            with self._lock:
                self.whole.disk = disk
                self.in_view.show(self.whole.stores)
                if run == self._run:
                    self._fill(disk)
                else:
                    disk.release()
        finally:
            if self._opening == run:
                self._opening = None
        yield

    def _fill(self, store: TileStore) -> None:
        assert self._scheduler is not None and self.whole is not None and self.result is not None
        self.whole.begin(store)
        others = TileSource(self.result, lambda: [s for s in self.finished_stores if s is not store])
        self._scheduler.fill(TileFiller(store, others))


def check_memory(result: SuperResolution, cache: TileCache) -> None:
    """Raise ArgumentError if a result does not fit into memory."""
    if result.nbytes > cache.cap:
        raise ArgumentError(
            f"The result ({result.nbytes / 1e9:.1f} GB) is larger than the memory limit ({cache.cap / 1e9:.1f} GB).",
            "Choose a destination on disk, or raise the limit.",
            setting="memory_limit",
        )
