"""SR tiles on disk: an OME-Zarr 0.5 image that survives whatever ends the process that fills it.

A tile is a shard, written as a whole. What is done is said by a journal, never by what files there are: the new file is
written and synced, it replaces the old one, and only then is it claimed. Coarser levels are shards like
others, made as soon as what they are the means of is there.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy.typing as npt
import zarr

from napari_cropeq.core.geometry import Box, IntTriple, Lead
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.core.whole_file import write_whole
from napari_cropeq.formats.ome_zarr_write import create_array, fitted, write_metadata
from napari_cropeq.formats.paths import (
    PARTIAL,
    check_output,
    claim,
    old_of,
    partial_of,
    put_back,
    remove,
    remove_ours,
    replace_folder,
)
from napari_cropeq.formats.pyramid import level_shapes, levels_of
from napari_cropeq.store.journal import FOLDER, Journal, Record, check_same, sync_file, sync_folder
from napari_cropeq.store.levels import Levels
from napari_cropeq.store.lock import StoreLock
from napari_cropeq.store.low_res import Sketch
from napari_cropeq.store.permit import Permit
from napari_cropeq.store.protocol import Tile
from napari_cropeq.store.spec import StoreSpec
from napari_cropeq.store.write_queue import WriteQueue

__all__ = ["BULK", "DiskStore", "sweep", "telling", "told", "unfinished"]

BULK: IntTriple = (128, 256, 256)
"""A shard: computed, written and journalled as one; recompute falls with size."""

FORMAT = 1
MODEL = "model.safetensors"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def unfinished(path: Path) -> Path | None:
    """Return the unfinished store of the output ``path``, None where there is none."""
    partial = partial_of(path)
    return partial if Journal(partial).exists else None


def sweep(path: Path) -> None:
    """Remove what a kill left of the store whose output ``path`` is complete.

    Raises
    ------
    BlockingIOError
        If another process is making a store for a long time.
    """
    partial = partial_of(path)
    lock = StoreLock(partial)
    with lock.beginning():  # a store without a header is made by nobody else now
        if not Journal(partial).exists:
            remove_ours(partial)
            if path.is_dir():
                remove(path / FOLDER)
            lock.remove()


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
    levels : Levels
        The finest first.
    damaged : list of Shard
        What the journal claimed and the disk does not hold.
    permit : Permit
        Under which other processes may write shards that :meth:`take` claims.
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
        self.path, self.partial = path, partial_of(path)
        self._spec, self.leads = spec, spec.leads
        shapes = list(level_shapes(spec.volume_shape))
        self._sizes = [fitted((tile, tile, tile) if tile else BULK, shape) for shape in shapes]
        tiles = {"shard": list(self._sizes[0][0]), "chunk": list(self._sizes[0][1]), "levels": len(shapes)}
        self.fingerprint = dict(spec.fingerprint) | {"tile grid": tiles}
        self._journal, self._lock = Journal(self.partial, part), StoreLock(self.partial, part)
        self.permit = Permit(self.partial)
        self.damaged: list[tuple[int, Lead, IntTriple]] = []
        self.finished = self._held = False
        self._replaces = existing == "overwrite"  # what stands there; a run that is gone on with has said so
        self._queue = WriteQueue(
            lambda *tile: self.levels.write(0, *tile), lambda error: told(error, self.partial.name)
        )
        with self._lock.beginning():
            self._lock.acquire()
            try:
                self.permit.revoke()  # of a run that was killed: its workers may not know yet
                put_back(self.partial, path)
                if existing == "overwrite" and part[1] == 1:
                    self._remove()
                if self._journal.exists:
                    self._resume()
                elif part[1] > 1 and path.exists():
                    raise FileExistsError(
                        f"Got {path}, which another process has just completed: nothing is left to do."
                    )
                else:
                    with telling(self.partial.name):
                        claim(self.partial)
                        self._create(shapes)
                self._held = True
            except BaseException:
                self._lock.release()
                raise

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

    @property
    def level0(self) -> Any:
        """The zarr array of the finest level."""
        return self.levels[0].array

    @property
    def complete(self) -> bool:
        """Whether every tile is there."""
        return self.levels[0].complete

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
        self.sketch.put(tile[0], self.grid.box(tile[1]), voxels)

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
            raise told(error, self.partial.name) from error

    def has_all(self) -> bool:
        """Return whether every tile is there, so that this process is to complete the store.

        Of processes that share the work it is the last one that does so: where others are still at it, this one lets
        go of the store.
        """
        self.flush()
        if self._journal.part[1] == 1:
            return self.complete
        with self._lock.beginning():
            claimed = {record.shard[1:] for record in self._journal.records() if record.shard[0] == 0}
            if len(claimed) == self.grid.count * len(self.leads) and self._lock.alone():
                self.refresh()
                return self.complete
            self.release()
        return False

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
        self.check_place()
        self.release()  # where open files cannot be moved, this one could not
        with self._lock.beginning(), self.levels.moved(self.path):
            replace_folder(self.partial, self.path, old_of(self.partial))
        sync_folder(self.path.parent)
        remove(self.path / FOLDER)
        self._lock.remove()
        self.finished = True

    def complete_levels(self) -> None:
        """Complete the pyramid, without giving the store its name.

        Raises
        ------
        ValueError
            If tiles are missing.
        """
        with telling(self.partial.name):
            self.flush()
            self.permit.revoke()  # everything is written, and the name will change
            total = self.grid.count * len(self.leads)
            if not self.complete:
                raise ValueError(
                    f"Got {len(self)} finished tiles, expected {total}: run the volume to its end before saving it."
                )
            self.levels.complete(self.leads)
            self._sweep()
            for file in self.partial.rglob("zarr.json"):
                sync_file(file)
                sync_folder(file.parent)
            self._journal.finish()

    def check_place(self) -> None:
        """Raise FileExistsError if something has come to bear the name of the output that was not to be replaced."""
        if not self._replaces and self.path.exists():
            raise FileExistsError(
                f"Got {self.path}, which has come into being since it was begun as {self.partial.name}, expected "
                "nothing there: move it away and resume, what is done is kept."
            )

    def discard(self) -> None:
        """Remove the store: its content has become another file."""
        self.release()
        self._remove()
        self._lock.remove()

    def release(self) -> None:
        """Let others go on with the store; what it holds can still be read. One that holds nothing is removed."""
        if self.permit.word:
            with suppress(BlockingIOError):  # who goes on waits for it again
                self.permit.revoke()
        self._queue.drop()
        self._journal.close()
        if self._held and not len(self) and not self.damaged and self._journal.part[1] == 1:
            self._remove()
            self._lock.remove()
        self._lock.release()
        self._held = False

    def _remove(self) -> None:
        self._journal.forget()
        remove_ours(self.partial)

    # -- making and resuming -----------------------------------------------------------------------

    def _create(self, shapes: Sequence[IntTriple]) -> None:
        """Make all arrays and their metadata, so that the store can be looked at with any reader; then begin."""
        spec = self._spec
        try:
            group = zarr.open_group(self.partial, mode="a", zarr_format=3)  # "w" would remove our mark
            for number, (shape, sizes) in enumerate(zip(shapes, self._sizes, strict=True)):
                create_array(group, str(number), spec.lead_shape, shape, spec.dtype, sizes, spec.image.axes)
            self._open_levels()
            write_metadata(self.partial, spec.image, levels_of(spec.volume_shape))
            write_whole(self._journal.folder / MODEL, spec.model)
            header = {"format": FORMAT, "output": self.path.name, "replaces": self._replaces}
            self._journal.begin(header | {"result": dict(spec.description), "fingerprint": self.fingerprint})
        except BaseException:
            remove_ours(self.partial)
            raise

    def _resume(self) -> None:
        """Take over what the journal claims and the disk holds; sweep what a kill left."""
        header = self._journal.header
        if header.get("format") != FORMAT:
            raise ValueError(
                f"Got {self.partial.name} of format {header.get('format')}, expected {FORMAT}: go on with the version "
                "that began it, or start it anew (--overwrite)."
            )
        check_same(header.get("fingerprint", {}), self.fingerprint, self.partial.name)
        self._replaces = bool(header.get("replaces", True))  # earlier versions did not say it
        self.check_place()
        if self._lock.alone():
            self._sweep()
        self._open_levels()
        self.refresh()

    def refresh(self) -> None:
        """Read the journals of all processes; a shard whose bytes are not those that were claimed is not done."""
        self.damaged = self.levels.read_journal()

    def _sweep(self) -> None:
        """Remove halves of files, which whoever was killed has left."""
        for file in self.partial.rglob(f"*{PARTIAL}"):
            file.unlink(missing_ok=True)

    def _open_levels(self) -> None:
        self.levels = Levels(self.partial, len(self._sizes), self._journal)
        self.sketch = Sketch(self._spec.lead_shape, self._spec.volume_shape, self._spec.dtype)


@contextmanager
def telling(name: str) -> Iterator[None]:
    """Say in a sentence that the disk is full where that ends the writing of ``name``."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise told(error, name) from error
        raise


def told(error: BaseException, name: str) -> BaseException:
    """Return the error as a sentence where it is one that a user can mend."""
    if isinstance(error, OSError) and error.errno in FULL:
        return OSError(
            f"Got a full disk while writing {name}, expected more room: make space and resume, what is done is kept."
        )
    if isinstance(error, OSError):
        return OSError(f"Got {name}, which cannot be written any further ({error}): see to the disk and resume.")
    return error
