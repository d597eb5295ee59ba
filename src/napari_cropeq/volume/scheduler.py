"""Which tile next: what is looked at first, then everything; what is outdated is dropped."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, int_triple
from napari_cropeq.core.predict import StoppedError
from napari_cropeq.core.tiles import TileGrid, divide
from napari_cropeq.volume.store import Tile, TileStore
from napari_cropeq.volume.superres import Lead

__all__ = ["Compute", "Done", "Scheduler"]


Compute = Callable[[Lead, Box, Callable[[], bool]], npt.NDArray[Any]]
"""Gives the voxels of an SR box, or raises StoppedError once the function it is given returns True."""


@dataclass(frozen=True, slots=True)
class Done:
    """A box that has just been computed."""

    lead: Lead
    box: Box
    tiles: int  # of the store, finished by this box; 0 for a part of a larger tile
    generation: int  # of the last wish when it was begun


class Scheduler:
    """Decides the order of tiles; :meth:`run` computes them in the thread that calls it.

    Wishes may come from any thread at any time. A new wish for visible tiles replaces the last one,
    whose tiles are dropped unless they are under way.

    Parameters
    ----------
    compute : callable
        ``compute(lead, box, stop)`` gives the voxels of an SR box.
    part : (z, y, x)
        What is computed at once in bulk: large enough that halos cost little, small enough that visible
        tiles need not wait long.
    """

    def __init__(self, compute: Compute, part: IntTriple) -> None:
        self._compute, self._part = compute, part
        self._changed = threading.Condition()
        self._visible: deque[tuple[TileStore, Tile]] = deque()
        self._bulk: Iterator[Done] | None = None
        self._closed = self._working = False
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
            self._bulk = self._fill(store, list(leads))
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
        return not self._visible and self._bulk is None and not self._working

    @property
    def running_all(self) -> bool:
        """Whether every tile is wanted and not all are done."""
        return self._bulk is not None

    def run(self, wait: bool = False) -> Iterator[Done | None]:
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
                done = self._step()
            except StoppedError:
                continue
            finally:
                self._working = False
            if done is not None:
                yield done
            elif not self.idle:
                continue
            elif not wait:
                return
            else:
                yield None
                with self._changed:
                    if self.idle and not self._closed:
                        self._changed.wait(0.5)

    def _step(self) -> Done | None:
        """Compute the next box, a visible tile before a part of the bulk."""
        with self._changed:
            while self._visible:
                store, tile = self._visible.popleft()
                if tile not in store:
                    break
            else:
                store = None
            bulk = self._bulk
        if store is not None:
            return self._tile(store, tile)
        if bulk is None:
            return None
        done = next(bulk, None)
        if done is None:
            with self._changed:
                if self._bulk is bulk:
                    self._bulk = None
        return done

    def _tile(self, store: TileStore, tile: Tile) -> Done:
        generation, box = self.generation, store.grid.box(tile[1])
        # A tile is short work: only closing stops it; an outdated one is finished and kept.
        store.put(tile, self._compute(tile[0], box, lambda: self._closed))
        return Done(tile[0], box, 1, generation)

    def _fill(self, store: TileStore, leads: list[Lead]) -> Iterator[Done]:
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
                    yield from self._fill_group(store, lead, box, missing)

    def _fill_group(self, store: TileStore, lead: Lead, box: Box, missing: list[IntTriple]) -> Iterator[Done]:
        me, voxels = self._bulk, None
        parts = list(divide(box, self._part))
        for number, part in enumerate(parts, 1):
            computed = self._compute(lead, part, lambda: self._closed or self._bulk is not me)
            if voxels is None:
                voxels = np.empty(box.shape, computed.dtype)
            voxels[part.relative_to(box.start).slices] = computed
            if number < len(parts):
                yield Done(lead, part, 0, self.generation)
        if voxels is not None:
            for index in missing:
                store.put((lead, index), voxels[store.grid.box(index).relative_to(box.start).slices])
        yield Done(lead, parts[-1], len(missing), self.generation)
