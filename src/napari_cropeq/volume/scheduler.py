"""Which tile next: what is looked at first, then everything; what is outdated is dropped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, int_triple
from napari_cropeq.core.predict import StoppedError
from napari_cropeq.core.tiles import TileGrid, divide
from napari_cropeq.volume.store import Tile, TileStore
from napari_cropeq.volume.superres import Lead

__all__ = ["Compute", "Done", "Failed", "Scheduler", "Stepped", "Wish"]


Compute = Callable[[Lead, Box, Callable[[], bool]], npt.NDArray[Any]]
"""Gives the voxels of an SR box, or raises StoppedError once the function it is given returns True."""


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


@dataclass(frozen=True, slots=True)
class Done:
    """A box that has just been computed."""

    store: TileStore
    lead: Lead
    box: Box
    tiles: int  # of the store, finished by this box; 0 for a part of a larger tile
    generation: int  # of the last wish when it was begun


@dataclass(frozen=True, slots=True)
class Failed:
    """What could not be computed; whatever else is wanted goes on."""

    error: Exception
    bulk: bool  # whether the wish for every tile ended with it


@dataclass(frozen=True, slots=True)
class Stepped:
    """A step in the background."""


Event = Done | Failed | Stepped


class Scheduler:
    """Decides the order of tiles; :meth:`run` computes them in the thread that calls it.

    Wishes may come from any thread at any time. A new wish for visible tiles replaces the last one: its tiles
    are dropped, and the one under way is stopped at the next call of the network unless it is still wanted.

    Parameters
    ----------
    part : (z, y, x)
        What is computed at once in bulk, SR voxels: large enough that halos cost little, small enough that
        visible tiles need not wait long.
    """

    def __init__(self, part: IntTriple) -> None:
        self._part = part
        self._changed = threading.Condition()
        self._visible: deque[Wish] = deque()
        self._wanted: frozenset[tuple[int, Tile]] = frozenset()
        self._background: deque[Iterator[object]] = deque()
        self._bulk: Iterator[Done] | None = None
        self._closed = self._working = False
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

    def run_all(self, store: TileStore, leads: Iterable[Lead], compute: Compute) -> None:
        """Ask for every tile in storage order, behind those in view."""
        with self._changed:
            self._bulk = self._fill(store, list(leads), compute)
            self._changed.notify_all()

    def stop_all(self) -> None:
        """Drop the wish for every tile; those in view stay wanted."""
        with self._changed:
            self._bulk = None

    def close(self) -> None:
        """Drop all wishes and end :meth:`run` after the call of the network under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether nothing is wanted."""
        return not (self._visible or self._background or self._working) and self._bulk is None

    @property
    def looking(self) -> bool:
        """Whether tiles in view are wanted or under way."""
        return bool(self._visible) or (self._working and bool(self._wanted))

    @property
    def running_all(self) -> bool:
        """Whether every tile is wanted and not all are done."""
        return self._bulk is not None

    def run(self, wait: bool = False) -> Iterator[Event | None]:
        """Compute what is wanted, one box at a time, yielding each when it is done.

        Parameters
        ----------
        wait : bool
            Go on waiting for wishes when there are none (yielding None now and then, so that the
            caller can look up), until :meth:`close`.
        """
        while not self._closed:
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
            bulk = self._bulk
        if wish is not None:
            return self._tile(wish)
        if background is not None:
            return self._advance(background)
        return None if bulk is None else self._bulk_part(bulk)

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

        try:
            wish.store.put(wish.tile, wish.compute(lead, box, outdated))
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 (the other tiles go on, and the caller tells the user)
            return Failed(error, bulk=False)
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

    def _bulk_part(self, bulk: Iterator[Done]) -> Done | Failed | None:
        event: Done | Failed | None
        try:
            event = next(bulk, None)
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 (as above)
            event = Failed(error, bulk=True)
        if not isinstance(event, Done):
            with self._changed:
                if self._bulk is bulk:
                    self._bulk = None
        return event

    def _fill(self, store: TileStore, leads: Sequence[Lead], compute: Compute) -> Iterator[Done]:
        """Compute groups of tiles part by part, yielding every part, and put each group's tiles when it is whole."""
        grid = store.grid
        if grid.shape is None:
            raise ValueError("Got a store without a shape, expected a finite one: give it the shape of the SR grid.")
        # Small tiles are grouped to a part, since recompute falls with size; large ones are computed in parts.
        group = int_triple([max(1, p // t) * t for p, t in zip(self._part, grid.tile, strict=True)])
        groups = list(TileGrid(grid.shape, group).touching(Box.whole(grid.shape)))
        for lead in leads:
            for box in groups:
                missing = [index for index in grid.indices(box) if (lead, index) not in store]
                if missing:
                    yield from self._fill_group(store, lead, box, missing, compute)

    def _fill_group(
        self, store: TileStore, lead: Lead, box: Box, missing: list[IntTriple], compute: Compute
    ) -> Iterator[Done]:
        me, voxels = self._bulk, None
        parts = list(divide(box, self._part))
        for number, part in enumerate(parts, 1):
            computed = compute(lead, part, lambda: self._closed or self._bulk is not me)
            if voxels is None:
                voxels = np.empty(box.shape, computed.dtype)
            voxels[part.relative_to(box.start).slices] = computed
            if number < len(parts):
                yield Done(store, lead, part, 0, self.generation)
        if voxels is not None:
            for index in missing:
                store.put((lead, index), voxels[store.grid.box(index).relative_to(box.start).slices])
        yield Done(store, lead, parts[-1], len(missing), self.generation)
