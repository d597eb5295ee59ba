"""Which tile next: what is looked at first, then everything; what is outdated is dropped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, int_triple
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.volume.store import BULK, Tile, TileStore
from napari_cropeq.volume.superres import Lead

__all__ = ["Done", "Scheduler"]

Compute = Callable[[Lead, Box], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Done:
    """A box that has just been finished."""

    lead: Lead
    box: Box
    tiles: int  # of the store, finished by this box
    generation: int  # of the wish it belonged to


class Scheduler:
    """Decides the order of tiles; :meth:`run` computes them in the thread that calls it.

    Wishes may come from any thread at any time. A new wish for visible tiles replaces the last one,
    whose tiles are dropped unless they are under way.

    Parameters
    ----------
    compute : callable
        ``compute(lead, box)`` gives the voxels of an SR box.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._changed = threading.Condition()
        self._visible: deque[tuple[TileStore, Tile]] = deque()
        self._bulk: Iterator[tuple[TileStore, Lead, Box]] = iter(())
        self._bulk_pending = False
        self._closed = False
        self.generation = 0

    def look_at(self, store: TileStore, tiles: Iterable[Tile]) -> int:
        """Ask for the tiles in view, most wanted first; return the wish's generation."""
        with self._changed:
            self.generation += 1
            self._visible = deque((store, tile) for tile in tiles if tile not in store)
            self._changed.notify_all()
            return self.generation

    def run_all(self, store: TileStore, leads: Iterable[Lead]) -> None:
        """Ask for every tile in storage order, behind those in view."""
        with self._changed:
            self._bulk = self._bulk_boxes(store, list(leads))
            self._bulk_pending = True
            self._changed.notify_all()

    def stop_all(self) -> None:
        """Drop the wish for every tile; those in view stay wanted."""
        with self._changed:
            self._bulk, self._bulk_pending = iter(()), False

    def close(self) -> None:
        """Drop all wishes and end :meth:`run` after the box under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether nothing is wanted."""
        return not self._visible and not self._bulk_pending

    def run(self, wait: bool = False) -> Iterator[Done | None]:
        """Compute what is wanted, one box at a time, yielding each when it is in its store.

        Parameters
        ----------
        wait : bool
            Go on waiting for wishes when there are none (yielding None now and then, so that the
            caller can look up), until :meth:`close`.
        """
        while not self._closed:
            task = self._next()
            if task is not None:
                yield self._finish(*task)
            elif not wait:
                return
            else:
                with self._changed:
                    if self.idle and not self._closed:
                        self._changed.wait(0.5)
                yield None

    def _next(self) -> tuple[TileStore, Lead, Box, int] | None:
        with self._changed:
            while self._visible:
                store, (lead, index) = self._visible.popleft()
                if (lead, index) not in store:
                    return store, lead, store.grid.box(index), self.generation
            for store, lead, box in self._bulk:
                if any((lead, index) not in store for index in store.grid.indices(box)):
                    return store, lead, box, self.generation
            self._bulk_pending = False
            return None

    def _finish(self, store: TileStore, lead: Lead, box: Box, generation: int) -> Done:
        voxels = self._compute(lead, box)
        tiles = 0
        for index in store.grid.indices(box):
            part = store.grid.box(index)
            store.put((lead, index), voxels[part.relative_to(box.start).slices])
            tiles += 1
        return Done(lead, box, tiles, generation)

    @staticmethod
    def _bulk_boxes(store: TileStore, leads: list[Lead]) -> Iterator[tuple[TileStore, Lead, Box]]:
        """Yield boxes of whole tiles, large because recompute falls with size."""
        grid = store.grid
        if grid.shape is None:
            raise ValueError("Got a store without a shape, expected a finite one: give it the shape of the SR grid.")
        size: IntTriple = int_triple([max(1, b // t) * t for b, t in zip(BULK, grid.tile, strict=True)])
        boxes = list(TileGrid(grid.shape, size).touching(Box.whole(grid.shape)))
        for lead in leads:
            for box in boxes:
                yield store, lead, box
