"""Decide which tile is computed next: tiles in view first, then all others; outdated requests are dropped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from napari_cropeq.compute.fill import Done, Event, Failed, Filled, Stepped, TileFiller
from napari_cropeq.core.geometry import Box, LeadingIndex
from napari_cropeq.errors import StoppedError
from napari_cropeq.store.protocol import Tile, TileStore

__all__ = ["Bulk", "Compute", "Scheduler", "TileRequest"]

Compute = Callable[[LeadingIndex, Box, Callable[[], bool]], npt.NDArray[Any]]
"""Returns the voxels of an SR box, or raises StoppedError once the given function returns True."""

WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class TileRequest:
    """A request for a tile in view: its store, its number, and the function that computes its voxels."""

    store: TileStore
    tile: Tile
    compute: Compute

    @property
    def key(self) -> tuple[int, Tile]:
        """Requests with the same key are for the same tile."""
        return id(self.store), self.tile


class Bulk:
    """The run over the whole volume: one at a time, after all tiles in view.

    Parameters
    ----------
    changed : Condition
        Notified when there is new work.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._events: Generator[Event | None, None, None] | None = None
        self._dropped: list[Generator[Event | None, None, None]] = []  # the thread that runs them ends them
        self._paused = False

    @property
    def running(self) -> bool:
        """Whether a run is under way or paused."""
        return self._events is not None

    @property
    def paused(self) -> bool:
        """Whether the run is paused."""
        return self._paused and self.running

    def begin(self, events: Generator[Event | None, None, None]) -> None:
        """Start the run ``events``; the previous run is dropped."""
        with self._changed:
            self._drop()
            self._events, self._paused = events, False
            self._changed.notify_all()

    def pause(self, paused: bool = True) -> None:
        """Pause the run after the current box, or resume it."""
        with self._changed:
            self._paused = paused
            self._changed.notify_all()

    def stop(self) -> None:
        """Drop the run."""
        with self._changed:
            self._drop()
            self._changed.notify_all()

    def is_current(self, events: Generator[Event | None, None, None]) -> bool:
        """Return whether ``events`` is the current run: neither dropped nor finished."""
        return self._events is events

    def step(self) -> Event | None:
        """Compute the next part, unless the run is paused."""
        with self._changed:
            events = None if self._paused else self._events
        if events is None:
            return None
        event: Event | None
        over = False
        try:
            event = next(events)
        except StopIteration:
            event, over = None, True
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 (tiles in view continue, and the caller reports the error)
            event, over = Failed(error, bulk=True), True
        if over or isinstance(event, Filled):
            with self._changed:
                if self._events is events:
                    self._events = None
        return event

    def end_dropped(self) -> None:
        """End the dropped runs; must be called by the thread that computes."""
        while self._dropped:
            self._dropped.pop().close()

    def _drop(self) -> None:
        if self._events is not None:
            self._dropped.append(self._events)
            self._events = None


class Scheduler:
    """Takes requests, tiles in view before all others; :meth:`run` computes them in the calling thread.

    Requests may come from any thread at any time. A new request for visible tiles replaces the previous one: its
    tiles are dropped, and the current tile is stopped at the next call of the network unless it is still wanted.

    Attributes
    ----------
    bulk : Bulk
        The run over the whole volume.
    generation : int
        Number of the last request for visible tiles.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._visible: deque[TileRequest] = deque()
        self._wanted: frozenset[tuple[int, Tile]] = frozenset()
        self._background: deque[Iterator[object]] = deque()
        self._free = threading.Event()  # cleared while a visible tile is computed
        self._free.set()
        self._closed = self._working = False
        self.bulk = Bulk(self._changed)
        self.generation = 0

    def look_at(self, requests: Iterable[TileRequest]) -> int:
        """Request the tiles in view, the most important first; return the generation of this request."""
        with self._changed:
            self.generation += 1
            self._visible = deque(request for request in requests if request.tile not in request.store)
            self._wanted = frozenset(request.key for request in self._visible)
            self._changed.notify_all()
            return self.generation

    def add_background(self, steps: Iterator[object]) -> None:
        """Run ``steps`` one by one when no tile in view is wanted, before the run over the volume."""
        with self._changed:
            self._background.append(steps)
            self._changed.notify_all()

    def fill(self, filler: TileFiller) -> None:
        """Request all tiles of a filler, after those in view."""

        def stop() -> bool:
            self._free.wait()
            return self._closed or not self.bulk.is_current(events)

        events = filler.events(stop, lambda: self.generation, lambda: bool(self._visible or self._background))
        self.bulk.begin(events)

    def close(self) -> None:
        """Drop all requests and end :meth:`run` after the current call of the network."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        bulk = self.bulk.running and not self.bulk.paused
        return not (self._visible or self._background or self._working or bulk)

    @property
    def looking(self) -> bool:
        """Whether tiles in view are wanted or being computed."""
        return bool(self._visible) or (self._working and bool(self._wanted))

    def run(self, wait: bool = False) -> Iterator[Event | None]:
        """Compute the requests box by box, yielding each box when it is done.

        Parameters
        ----------
        wait : bool
            Wait for requests when there are none, until :meth:`close`; None is yielded from time to time, so that the
            caller can do other work.
        """
        try:
            yield from self._run(wait)
        except GeneratorExit:
            self.bulk.stop()
            raise
        finally:
            if self._closed:
                self.bulk.stop()
            self.bulk.end_dropped()

    def _run(self, wait: bool) -> Iterator[Event | None]:
        while not self._closed:
            self.bulk.end_dropped()
            self._working = True
            try:
                event = self._step()
            except StoppedError:
                continue
            finally:
                self._working = False
            if event is not None:
                yield event
            elif not self.idle:
                continue
            elif not wait:
                return
            else:
                yield None
                with self._changed:
                    if self.idle and not self._closed:
                        self._changed.wait(WAIT_SECONDS)

    def _step(self) -> Event | None:
        """Compute the next box: first visible tiles, then steps in the background, then parts of the bulk."""
        with self._changed:
            request = self._next_request()
            background = self._background[0] if self._background else None
        if request is not None:
            return self._tile(request)
        if background is not None:
            return self._advance(background)
        return self.bulk.step()

    def _next_request(self) -> TileRequest | None:
        while self._visible:
            request = self._visible.popleft()
            if request.tile not in request.store:
                return request
        self._wanted = frozenset()
        return None

    def _tile(self, request: TileRequest) -> Done | Failed:
        generation, (leading, index) = self.generation, request.tile
        box = request.store.grid.box(index)

        def outdated() -> bool:
            return self._closed or (self.generation != generation and request.key not in self._wanted)

        self._free.clear()
        try:
            request.store.put(request.tile, request.compute(leading, box, outdated))
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 (the other tiles continue, and the caller reports the error)
            return Failed(error, bulk=False)
        finally:
            self._free.set()
        return Done(request.store, leading, box, 1, generation)

    def _advance(self, background: Iterator[object]) -> Event:
        over = False
        event: Event = Stepped()
        try:
            over = next(background, self) is self
        except Exception as error:  # noqa: BLE001 (as above)
            over, event = True, Failed(error, bulk=False)
        if over:
            with self._changed:
                self._background.remove(background)
        return event
