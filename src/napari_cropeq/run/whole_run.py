"""The run over a whole volume: what it fills, how far it is, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from napari_cropeq.compute.events import Done, Filled
from napari_cropeq.compute.fill import Filling
from napari_cropeq.compute.read_ahead import ReadAhead
from napari_cropeq.compute.reuse import Reuse
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.run.export import failure_of
from napari_cropeq.store.disk import DiskStore
from napari_cropeq.store.memory import MemoryStore
from napari_cropeq.store.protocol import TileStore

__all__ = ["WholeRun"]


class WholeRun:
    """Has every tile of a result computed, into memory or a store on disk, and again into another one.

    Parameters
    ----------
    result : SuperResolution
        Computes tiles.
    memory : MemoryStore
        Holds what goes into no file.

    Attributes
    ----------
    disk : DiskStore, optional
        The store on disk, if there is one.
    filling : TileStore, optional
        What is filled, or was the last time.
    """

    def __init__(self, result: SuperResolution, memory: MemoryStore) -> None:
        self._result, self.memory = result, memory
        self.disk: DiskStore | None = None
        self.filling: TileStore | None = None
        self._part = 0.0  # of a tile, that is done of those under way
        self._ahead = ReadAhead(result, result.side_by_side)

    @property
    def stores(self) -> list[TileStore]:
        """Where its tiles are."""
        return [self.memory] if self.disk is None else [self.disk, self.memory]

    @property
    def tiles(self) -> tuple[int, int]:
        """Finished and all tiles."""
        filling = self.filling  # another thread may let go of it meanwhile
        return (0, 0) if filling is None else (len(filling), filling.grid.count * len(self._result.leads))

    @property
    def fraction(self) -> float:
        """Share that is done, parts of a tile under way counted."""
        done, total = self.tiles
        return min(1.0, (done + self._part) / total) if total else 0.0

    def fill(self, store: TileStore, computed: Callable[[], Iterable[TileStore]]) -> Filling:
        """Return what computes the tiles that a store lacks, but for those that ``computed`` stores hold."""
        self.filling, self._part, result = store, 0.0, self._result
        compute = Reuse(lambda: [other for other in computed() if other is not store], self._ahead.compute)
        return Filling(store, result.leads, result.bulk_part, compute, self._ahead, side_by_side=result.side_by_side)

    def note(self, done: Done) -> None:
        """Count a finished box."""
        if done.store is self.filling:
            size = Box.whole(done.store.grid.tile).size
            self._part = 0.0 if done.tiles else self._part + done.box.size / size

    def end(self, filled: Filled) -> Path | None:
        """Complete the store on disk, if it is that which was filled, and return its path.

        Raises
        ------
        ValueError, OSError, MemoryError
            If tiles are missing, which could not be computed, or the store cannot be written.
        """
        store = filled.store
        if filled.failures:
            raise failure_of(filled.failures, self._result.source.axes)
        if not isinstance(store, DiskStore) or store is not self.disk or store.finished:
            return None
        store.finish()
        return store.path

    def give_up_disk(self) -> None:
        """Let go of the store on disk; one that is not complete can be gone on with."""
        self.release()
        self.disk = self.filling = None

    def release(self) -> None:
        """Let others go on with an unfinished store on disk; no more may be written to it from here."""
        if self.disk is not None and not self.disk.finished:
            self.disk.release()

    def close(self) -> None:
        """Read nothing any more, and write nothing."""
        self.release()
        self._ahead.close()
