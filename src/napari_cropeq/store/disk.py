"""SR tiles on disk: an OME-Zarr 0.5 image that survives whatever ends the process that fills it.

A tile is a shard, written as a whole. The journal says what is done, never the presence of files: the new file is
written and synced, it replaces the old one, and only then is it claimed. Coarser levels are shards like others, made as
soon as the shards they are means of are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import zarr

from napari_cropeq.core.geometry import Box, IntTriple, LeadingIndex
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.core.whole_file import write_whole
from napari_cropeq.formats.ome_zarr_write import create_array, fitted, write_metadata
from napari_cropeq.formats.paths import check_output
from napari_cropeq.formats.pyramid import level_shapes, levels_of
from napari_cropeq.store.disk_errors import disk_error, disk_errors
from napari_cropeq.store.folder import MODEL, StoreFolder
from napari_cropeq.store.journal import Record
from napari_cropeq.store.levels import Levels
from napari_cropeq.store.low_res import LowResCopy
from napari_cropeq.store.protocol import Tile
from napari_cropeq.store.spec import StoreSpec
from napari_cropeq.store.write_queue import WriteQueue

__all__ = ["BULK", "DiskStore"]

BULK: IntTriple = (128, 256, 256)
"""A shard: computed, written and journalled as one; recompute falls with size."""


class DiskStore:
    """Tiles in an OME-Zarr 0.5 image that bears its name only once it is complete.

    Until :meth:`finish` the folder is called ``NAME.partial.ome.zarr``. Tiles are written in a thread of the store's
    own, and only a few may wait for it.

    Parameters
    ----------
    path : path
        The output to be.
    spec : StoreSpec
        Shape, dtype, axes, metadata, and what decides the bits.
    tile : int, optional
        Side of a tile in SR voxels, instead of 128 x 256 x 256.
    existing : str
        What to do about an output, or an unfinished one, that is there: ``refuse``, ``resume`` or ``overwrite``.
    part : (int, int)
        Which of how many processes that share the work this one is.

    Attributes
    ----------
    folder : StoreFolder
        Where it lies, and who may write to it.
    levels : Levels
        The finest first.
    low_res : LowResCopy
        Samples of the tiles that were put, for views from afar.
    damaged : list of Shard
        What the journal claimed and the disk does not hold.
    fingerprint : dict
        What decides the bits.

    Raises
    ------
    FileExistsError
        If something stands there that is not to be touched.
    BlockingIOError
        If another process writes to the store.
    ValueError
        If the unfinished store was begun with anything that gives other bits, or an input would be removed.
    OSError
        If the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        spec: StoreSpec,
        tile: int | None = None,
        existing: str = "refuse",
        part: tuple[int, int] = (0, 1),
    ) -> None:
        check_output(path, existing if part[1] == 1 or existing != "refuse" else "resume", spec.inputs)
        self.folder = StoreFolder(path, part, existing == "overwrite")
        self.leading_indices = spec.leading_indices
        shapes = list(level_shapes(spec.volume_shape))
        sizes = [fitted((tile, tile, tile) if tile else BULK, shape) for shape in shapes]
        tiles = {"shard": list(sizes[0][0]), "chunk": list(sizes[0][1]), "levels": len(shapes)}
        self.fingerprint = dict(spec.fingerprint) | {"tile grid": tiles}
        self.damaged: list[tuple[int, LeadingIndex, IntTriple]] = []
        self.low_res = LowResCopy(spec.leading_shape, spec.volume_shape, spec.dtype)
        self._queue = WriteQueue(
            lambda *tile: self.levels.write(0, *tile), lambda error: disk_error(error, self.folder.partial.name)
        )
        folder = self.folder
        with folder.opening():
            if folder.journal.exists:
                folder.resume(self.fingerprint)
                self.levels = Levels(folder.partial, len(shapes), folder.journal)
                self.refresh()
            else:
                with disk_errors(folder.partial.name), folder.beginning():
                    self._create(spec, shapes, sizes)

    def _create(
        self, spec: StoreSpec, shapes: Sequence[IntTriple], sizes: Sequence[tuple[IntTriple, IntTriple]]
    ) -> None:
        """Make all arrays and their metadata, so that any reader can open the store; then begin."""
        folder = self.folder
        group = zarr.open_group(folder.partial, mode="a", zarr_format=3)  # "w" would remove our mark
        for number, (shape, size) in enumerate(zip(shapes, sizes, strict=True)):
            create_array(group, str(number), spec.leading_shape, shape, spec.dtype, size, spec.image.axes)
        self.levels = Levels(folder.partial, len(shapes), folder.journal)
        write_metadata(folder.partial, spec.image, levels_of(spec.volume_shape))
        write_whole(folder.journal.folder / MODEL, spec.model)
        folder.begin(spec.description, self.fingerprint)

    # -- tiles -------------------------------------------------------------------------------------

    @property
    def grid(self) -> TileGrid:
        """Where its tiles lie."""
        return self.levels[0].grid

    def __contains__(self, tile: Tile) -> bool:
        return tile in self.levels[0] or tile in self._queue

    def __len__(self) -> int:
        return len(self.levels[0])

    def __iter__(self) -> Iterator[Tile]:
        return iter(self.levels[0].done | set(self._queue))

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        """Read ``part`` (absolute SR voxels) of a finished tile, else None."""
        waiting = self._queue.get(tile)
        if waiting is not None:
            return waiting[part.relative_to(self.grid.box(tile[1]).start).slices]
        return self.levels[0].read(tile, part)

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Have a tile written; wait while too many others are being so.

        Raises
        ------
        OSError
            If an earlier one could not be written.
        """
        self._queue.put(tile, voxels)
        self.low_res.put(tile[0], self.grid.box(tile[1]), voxels)

    def flush(self) -> None:
        """Wait until all tiles are on the disk.

        Raises
        ------
        OSError
            If one could not be written.
        """
        self._queue.flush()

    def take(self, record: Record) -> None:
        """Claim a shard that another process has written for this one.

        Raises
        ------
        OSError
            If the store cannot be written.
        """
        try:
            self.levels.claim(record)
        except OSError as error:
            raise disk_error(error, self.folder.partial.name) from error

    def has_all(self) -> bool:
        """Return whether every tile is there, so that this process is to complete the store.

        Of processes that share the work it is the last one that does so: where others are still at it, this one lets
        go of the store.
        """
        self.flush()
        lock, journal = self.folder.lock, self.folder.journal
        if journal.part[1] == 1:
            return self.levels[0].complete
        with lock.beginning():
            claimed = {record.shard[1:] for record in journal.records() if record.shard[0] == 0}
            if len(claimed) == self.grid.count * len(self.leading_indices) and lock.alone():
                self.refresh()
                return self.levels[0].complete
            self.release()
        return False

    def refresh(self) -> None:
        """Read the journals of all processes; a shard whose bytes are not those that were claimed is not done."""
        self.damaged = self.levels.read_journal()

    # -- the end -----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Complete the pyramid and give the store its name; one that stood there is replaced only now.

        Raises
        ------
        ValueError
            If tiles are missing.
        FileExistsError
            If something stands there that was not to be replaced.
        OSError
            If something could not be written.
        """
        self.complete_levels()
        self.folder.check_place()
        self.release()  # where open files cannot be moved, this one could not
        self.folder.give_name(self.levels)

    def complete_levels(self) -> None:
        """Complete the pyramid, without giving the store its name.

        Raises
        ------
        ValueError
            If tiles are missing.
        """
        with disk_errors(self.folder.partial.name):
            self.flush()
            self.folder.token.revoke()  # everything is written, and the name will change
            total = self.grid.count * len(self.leading_indices)
            if not self.levels[0].complete:
                raise ValueError(
                    f"Got {len(self)} finished tiles, expected {total}: run the volume to its end before saving it."
                )
            self.levels.complete(self.leading_indices)
            self.folder.sweep()
            self.folder.sync()

    def discard(self) -> None:
        """Remove the store: its content has become another file."""
        self.release()
        self.folder.remove()
        self.folder.lock.remove()

    def release(self) -> None:
        """Let other processes resume the store; its tiles can still be read. One that holds nothing is removed."""
        self.folder.revoke()
        self._queue.drop()
        self.folder.release(empty=not len(self) and not self.damaged)
