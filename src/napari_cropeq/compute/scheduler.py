"""Which tile next: what is looked at first, then everything; what is outdated is dropped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

from napari_cropeq.compute.events import Done, Event, Failed, Filled, Stepped
from napari_cropeq.compute.fill import Compute, Filling
from napari_cropeq.errors import StoppedError
from napari_cropeq.store.protocol import Tile, TileStore

__all__ = ["Scheduler", "Wish"]


@dataclass(frozen=True, slots=True)
class Wish:
    """A tile in view: where it is kept, which it is, and what gives its voxels."""

    store: TileStore
    tile: Tile
    compute: Compute

    @property
    def key(self) -> tuple[int, Tile]:
        """What makes two wishes the same."""
        return id(self.store), self.tile


class Scheduler:
    """Decides the order of tiles; :meth:`run` computes them in the thread that calls it.

    Wishes may come from any thread at any time. A new wish for visible tiles replaces the last one: its tiles
    are dropped, and the one under way is stopped at the next call of the network unless it is still wanted.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._visible: deque[Wish] = deque()
        self._wanted: frozenset[tuple[int, Tile]] = frozenset()
        self._background: deque[Iterator[object]] = deque()
        self._bulk: Generator[Event | None, None, None] | None = None
        self._dropped: list[Generator[Event | None, None, None]] = []  # to be ended by the thread that runs them
        self._free = threading.Event()  # unless a visible tile is being computed
        self._free.set()
        self._closed = self._working = self._paused = False
        self.generation = 0

    def look_at(self, wishes: Iterable[Wish]) -> int:
        """Ask for the tiles in view, most wanted first; return the generation of this wish."""
        with self._changed:
            self.generation += 1
            self._visible = deque(wish for wish in wishes if wish.tile not in wish.store)
            self._wanted = frozenset(wish.key for wish in self._visible)
            self._changed.notify_all()
            return self.generation

    def add_background(self, steps: Iterator[object]) -> None:
        """Take ``steps`` one by one whenever nothing in view is wanted, before every tile."""
        with self._changed:
            self._background.append(steps)
            self._changed.notify_all()

    def fill(self, filling: Filling) -> None:
        """Ask for every tile that a filling is to compute, behind those in view."""

        def stop() -> bool:
            self._free.wait()
            return self._closed or self._bulk is not events

        with self._changed:
            self._drop()
            events = filling.events(stop, lambda: self.generation, lambda: bool(self._visible or self._background))
            self._bulk, self._paused = events, False
            self._changed.notify_all()

    def pause_all(self, paused: bool = True) -> None:
        """Hold the run over the volume after the box under way, or let it go on; tiles in view are still computed."""
        with self._changed:
            self._paused = paused
            self._changed.notify_all()

    def stop_all(self) -> None:
        """Drop the wish for every tile; those in view stay wanted."""
        with self._changed:
            self._drop()
            self._changed.notify_all()

    def close(self) -> None:
        """Drop all wishes and end :meth:`run` after the call of the network under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether nothing is wanted."""
        return not (self._visible or self._background or self._working) and (self._bulk is None or self._paused)

    @property
    def looking(self) -> bool:
        """Whether tiles in view are wanted or under way."""
        return bool(self._visible) or (self._working and bool(self._wanted))

    @property
    def running_all(self) -> bool:
        """Whether every tile is wanted and not all are done, if only later."""
        return self._bulk is not None

    @property
    def paused(self) -> bool:
        """Whether the run over the volume is held."""
        return self._paused and self._bulk is not None

    def run(self, wait: bool = False) -> Iterator[Event | None]:
        """Compute what is wanted, one box at a time, yielding each when it is done.

        Parameters
        ----------
        wait : bool
            Go on waiting for wishes when there are none (yielding None now and then, so that the
            caller can look up), until :meth:`close`.
        """
        try:
            yield from self._run(wait)
        except GeneratorExit:
            self.stop_all()
            raise
        finally:
            if self._closed:
                self.stop_all()
            self._end_dropped()

    def _run(self, wait: bool) -> Iterator[Event | None]:
        while not self._closed:
            self._end_dropped()
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
                        self._changed.wait(0.5)

    def _step(self) -> Event | None:
        """Compute the next box: a visible tile before a step in the background before a part of the bulk."""
        with self._changed:
            wish = self._next_wish()
            background = self._background[0] if self._background else None
            bulk = None if self._paused else self._bulk
        if wish is not None:
            return self._tile(wish)
        if background is not None:
            return self._advance(background)
        return None if bulk is None else self._bulk_part(bulk)

    def _drop(self) -> None:
        if self._bulk is not None:
            self._dropped.append(self._bulk)
            self._bulk = None

    def _end_dropped(self) -> None:
        while self._dropped:
            self._dropped.pop().close()

    def _next_wish(self) -> Wish | None:
        while self._visible:
            wish = self._visible.popleft()
            if wish.tile not in wish.store:
                return wish
        self._wanted = frozenset()
        return None

    def _tile(self, wish: Wish) -> Done | Failed:
        generation, (lead, index) = self.generation, wish.tile
        box = wish.store.grid.box(index)

        def outdated() -> bool:
            return self._closed or (self.generation != generation and wish.key not in self._wanted)

        self._free.clear()
        try:
            wish.store.put(wish.tile, wish.compute(lead, box, outdated))
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 (the other tiles go on, and the caller tells the user)
            return Failed(error, bulk=False)
        finally:
            self._free.set()
        return Done(wish.store, lead, box, 1, generation)

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

    def _bulk_part(self, bulk: Generator[Event | None, None, None]) -> Event | None:
        event: Event | None
        over = False
        try:
            event = next(bulk)
        except StopIteration:
            event, over = None, True
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 (as above)
            event, over = Failed(error, bulk=True), True
        if over or isinstance(event, Filled):
            with self._changed:
                if self._bulk is bulk:
                    self._bulk = None
        return event
