"""SR tiles on disk: an OME-Zarr 0.5 image that survives a kill of the process that fills it.

A tile is a shard, written as a whole. Only the journal decides which shards are finished, not the presence of files: a
new file is written and synced, it replaces the old one, and then it is recorded. Shards of coarser levels are computed
as soon as all shards below them are finished.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.core.whole_file import write_whole
from napari_cropeq.errors import ImageError
from napari_cropeq.formats.ome_zarr.write import fitted
from napari_cropeq.formats.paths import check_output
from napari_cropeq.formats.pyramid import level_shapes
from napari_cropeq.store.disk_errors import disk_error, disk_errors
from napari_cropeq.store.folder import MODEL, StoreFolder
from napari_cropeq.store.journal import Record
from napari_cropeq.store.levels import Levels
from napari_cropeq.store.low_res import LowResCopy
from napari_cropeq.store.metadata import Metadata
from napari_cropeq.store.protocol import Tile
from napari_cropeq.store.spec import StoreSpec
from napari_cropeq.store.unfinished import Settings
from napari_cropeq.store.write_queue import WriteQueue

__all__ = ["BULK", "DiskStore"]

logger = logging.getLogger(__name__)

BULK: IntTriple = (128, 256, 256)
"""Size of a shard, which is computed, written and recorded at once; larger ones recompute less."""


class DiskStore:
    """Tiles in an OME-Zarr 0.5 image that gets its name only when it is complete.

    Until :meth:`finish` the folder is called ``NAME.partial.ome.zarr``. A separate thread writes the tiles, and only
    a few may wait for it.

    Parameters
    ----------
    path : path
        The output.
    spec : StoreSpec
        Shape, dtype, axes, metadata, and everything that decides the bits.
    tile : int or (z, y, x), optional
        Side of a tile in SR voxels, or its size, instead of 128 x 256 x 256 or, to resume, of that in the store.
    existing : str
        What to do about an existing output, complete or unfinished: ``refuse``, ``resume`` or ``overwrite``.
    part : (int, int)
        Number of this process among those that share the work, and their count.

    Attributes
    ----------
    folder : StoreFolder
        The folder on disk, and its locks.
    levels : Levels
        The finest first.
    low_res : LowResCopy
        Samples of the tiles that were put, for zoomed-out views.
    damaged : list of Shard
        Shards in the journal that are missing or damaged on disk.
    fingerprint : dict
        Everything that decides the bits.

    Raises
    ------
    OutputExistsError
        If something exists there that must not be replaced.
    InUseError
        If another process writes to the store.
    MismatchError
        If the unfinished store was started with settings that give other bits.
    ArgumentError
        If an input would be removed.
    AccessError
        If the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        spec: StoreSpec,
        tile: int | IntTriple | None = None,
        existing: str = "refuse",
        part: tuple[int, int] = (0, 1),
    ) -> None:
        check_output(path, existing if part[1] == 1 or existing != "refuse" else "resume", spec.inputs)
        self.folder = StoreFolder(path, part, existing == "overwrite")
        self.leading_indices = spec.leading_indices
        started = Settings() if existing == "overwrite" else Settings.of(self.folder.partial)
        shard = ((tile, tile, tile) if isinstance(tile, int) else tile) or started.shard or BULK
        sizes = [fitted(shard, shape) for shape in level_shapes(spec.volume_shape)]
        tiles = {"shard": list(sizes[0][0]), "chunk": list(sizes[0][1]), "levels": len(sizes)}
        self.fingerprint = dict(spec.fingerprint) | {"tile grid": tiles}
        self.damaged: list[tuple[int, LeadingIndex, IntTriple]] = []
        self.low_res = LowResCopy(spec.leading_shape, spec.volume_shape, spec.dtype)
        self._queue = WriteQueue(
            lambda *tile: self.levels.write(0, *tile), lambda error: disk_error(error, self.folder.partial.name)
        )
        folder = self.folder
        with folder.opening():
            if folder.journal.exists:
                self._metadata = Metadata.of_header(folder.resume(self.fingerprint), spec, sizes)
                with disk_errors(folder.partial.name):
                    self._metadata.repair(folder.partial)
            else:
                self._metadata = Metadata.of_spec(spec, sizes)
                with disk_errors(folder.partial.name), folder.creating():
                    self._metadata.write(folder.partial)  # so that any reader can open the store
                    write_whole(folder.journal.folder / MODEL, spec.model)
                    folder.write_header(spec.description, self.fingerprint, self._metadata)
            self.levels = Levels(folder.partial, len(sizes), folder.journal)
        try:
            self._verify(part)  # the lock of this process is kept, but others need not wait
        except BaseException:
            folder.release()
            raise

    # -- tiles -------------------------------------------------------------------------------------

    @property
    def grid(self) -> TileGrid:
        """The grid of its tiles."""
        return self.levels[0].grid

    def __contains__(self, tile: Tile) -> bool:
        return tile in self.levels[0] or tile in self._queue

    def __len__(self) -> int:
        return len(self.levels[0])

    def __iter__(self) -> Iterator[Tile]:
        return iter(self.levels[0].done | set(self._queue))

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        """Return ``part`` (absolute SR voxels) of a finished tile, or None if the tile is not finished."""
        waiting = self._queue.get(tile)
        if waiting is not None:
            return waiting[part.relative_to(self.grid.box(tile[1]).start).slices]
        return self.levels[0].read(tile, part)

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Pass a tile to the writing thread; wait if too many others are waiting.

        Raises
        ------
        AccessError
            If an earlier tile could not be written.
        """
        self._queue.put(tile, voxels)
        self.low_res.put(tile[0], self.grid.box(tile[1]), voxels)

    def flush(self) -> None:
        """Wait until all tiles are on disk.

        Raises
        ------
        AccessError
            If one could not be written.
        """
        self._queue.flush()

    def take(self, record: Record) -> None:
        """Record a shard that another process has written for this one.

        Raises
        ------
        AccessError
            If the store cannot be written.
        """
        try:
            self.levels.record(record)
        except OSError as error:
            raise disk_error(error, self.folder.partial.name) from error

    def is_last(self) -> bool:
        """Return whether this process, which has finished its tiles, must complete the store.

        If several processes share the work, the last one completes the store, after it has computed the shards of
        others again that are missing or damaged; the others release it.
        """
        self.flush()
        lock, journal = self.folder.lock, self.folder.journal
        if journal.part[1] == 1:
            return True
        with lock.exclusive(), disk_errors(self.folder.partial.name):
            journal.end_part()
            if not lock.alone() or not (journal.ended or self.levels.recorded):
                self.release()
                return False
        self._verify((0, 1))
        return True

    def _verify(self, part: tuple[int, int]) -> None:
        """Read the journals of all processes; shards of a part that differ from their records are not finished."""
        with disk_errors(self.folder.partial.name):
            self.levels.read_journal()
            self.damaged = self.levels.verify(part)
        for shard in self.damaged:
            logger.warning("Shard %s of %s is missing or damaged: it is computed again", shard, self.folder.partial)

    # -- the end -----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Complete the pyramid and give the store its name; an existing output is replaced only now.

        Raises
        ------
        ImageError
            If tiles are missing.
        OutputExistsError
            If something exists there that must not be replaced.
        OSError
            If something could not be written.
        """
        self.complete_levels()
        self.folder.check_place()
        self.release()  # some systems cannot move open files
        self.folder.give_name(self.levels)

    def complete_levels(self) -> None:
        """Complete the pyramid, without giving the store its name.

        Raises
        ------
        ImageError
            If tiles are missing.
        """
        with disk_errors(self.folder.partial.name):
            self.flush()
            self.folder.token.revoke()  # everything is written, and the folder will be renamed
            total = self.grid.count * len(self.leading_indices)
            if not self.levels[0].complete:
                raise ImageError(
                    f"{len(self)} of {total} tiles are finished.", "Compute the whole volume before you save it."
                )
            self.levels.complete(self.leading_indices)
            self.folder.sweep()
            self._metadata.repair(self.folder.partial)
            self.folder.sync()

    def discard(self) -> None:
        """Remove the store, because its content was written to another file."""
        self.release()
        self.folder.remove()
        self.folder.lock.remove()

    def release(self) -> None:
        """Let other processes resume the store; its tiles can still be read. An empty store is removed."""
        self.folder.revoke()
        self._queue.drop()
        self.folder.release(empty=not len(self) and not self.damaged)
