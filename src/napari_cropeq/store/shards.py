"""The shards of one level of an OME-Zarr image: each is written and synced once, and read chunk by chunk."""

from __future__ import annotations

import logging
import stat
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import default_buffer_prototype

from napari_cropeq.core.geometry import Box, IntTriple, int_triple
from napari_cropeq.core.tiles import TileGrid, hull
from napari_cropeq.core.whole_file import remove_file, rename
from napari_cropeq.errors import AccessError
from napari_cropeq.formats.paths import PARTIAL
from napari_cropeq.store.journal import Record, digest_of, sync_file, sync_folder
from napari_cropeq.store.memory import MemoryStore, TileCache
from napari_cropeq.store.numbering import Numbering
from napari_cropeq.store.protocol import Tile

__all__ = ["Shards"]

logger = logging.getLogger(__name__)


class Shards:
    """One level on disk, as a store whose tiles are the shards.

    Parameters
    ----------
    folder : path
        The OME-Zarr image.
    level : int
        Number of the level.
    decoded : TileCache
        Cache of decoded chunks.
    """

    def __init__(self, folder: Path, level: int, decoded: TileCache) -> None:
        self.level = level
        self._lock = threading.Lock()  # readers wait while the folder is renamed
        self.done: set[Tile] = set()
        self._named: set[Path] = set()  # folders whose names this process has synced
        self._open(folder)
        shape, chunks, shards = (a[-3:] for a in (self.array.shape, self.array.chunks, self.array.shards))
        self.grid = TileGrid(int_triple(shape), int_triple(shards))
        self.numbering = Numbering((*self.array.shape[:-3], *self.grid.counts))
        self._chunks = MemoryStore(int_triple(shape), int_triple(chunks), decoded)

    def _open(self, folder: Path) -> None:
        self._folder = folder
        self.array: Any = zarr.open_array(folder / str(self.level), mode="r")
        metadata = (folder / str(self.level) / "zarr.json").read_bytes()
        self._metadata = {"zarr.json": default_buffer_prototype().buffer.from_bytes(metadata)}

    def __contains__(self, tile: Tile) -> bool:
        return tile in self.done

    def __len__(self) -> int:
        return len(self.done)

    def __iter__(self) -> Iterator[Tile]:
        return iter(set(self.done))

    @property
    def complete(self) -> bool:
        """Whether every shard is finished."""
        return len(self.done) == len(self.numbering)

    @property
    def whole(self) -> Whole:
        """All its voxels; those of shards that are not finished are fill value."""
        return Whole(self.array, self._folder.name)

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        """Return ``part`` (voxels of this level) of a finished shard, or None; decoded chunks are cached.

        A shard whose file was damaged later is not finished any more: a view shows something else in its place, the
        store does not count as complete, and its voxels are computed again when they are needed.

        Raises
        ------
        OSError
            If the file cannot be accessed.
        """
        if tile not in self.done:
            return None
        leading, chunks = tile[0], self._chunks
        wanted = {index: chunks.grid.box(index) for index in chunks.grid.indices(part)}
        decoded: dict[IntTriple, npt.NDArray[Any]] = {}
        for index, box in wanted.items():
            voxels = chunks.read((leading, index), box)
            if voxels is not None:
                decoded[index] = voxels
        missing = [index for index in wanted if index not in decoded]
        if missing:
            region = hull([wanted[index] for index in missing])
            try:
                with self._lock:
                    read = np.asarray(self.array[(*leading, *region.slices)])
            except (OSError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 (errors of codecs on damaged bytes have no common type)
                logger.warning("%s is damaged and is computed again: %s", self.path(tile), error)
                self.done.discard(tile)
                return None
            for index in missing:
                decoded[index] = read[wanted[index].relative_to(region.start).slices]
                chunks.put((leading, index), decoded[index])
        out = np.empty(part.shape, self.array.dtype)
        for index, box in wanted.items():
            inside = box.intersect(part)
            assert inside is not None
            out[inside.relative_to(part.start).slices] = decoded[index][inside.relative_to(box.start).slices]
        return out

    def write(self, tile: Tile, voxels: npt.NDArray[Any]) -> Record:
        """Write a shard and sync it to disk; an existing file is replaced atomically.

        Nothing that another run has written is kept. Another process that reads or writes the same shard at the same
        time, such as one that was thought dead, always finds a whole file.
        """
        path, content = self.path(tile), self._encoded(tile, voxels)
        if content is None:
            unlink(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            sync_names(path.parent, self._folder / str(self.level), self._named)
            new = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
            try:
                new.write_bytes(content)
                sync_file(new)
                rename(new, path)
            except BaseException:
                new.unlink(missing_ok=True)
                raise
            sync_folder(path.parent)
        return self._record(tile, content)

    def record(self, tile: Tile) -> Record:
        """Return the record of the current file of a shard."""
        path = self.path(tile)
        return self._record(tile, path.read_bytes() if path.exists() else None)

    def _record(self, tile: Tile, content: bytes | None) -> Record:
        leading, index = tile
        if content is None:
            return Record((self.level, leading, index), None, "")
        return Record((self.level, leading, index), len(content), digest_of(content))

    def _encoded(self, tile: Tile, voxels: npt.NDArray[Any]) -> bytes | None:
        """Return the bytes of a shard's file, or None if all is fill value, which has no file."""
        (leading, index), files = tile, dict(self._metadata)
        array: Any = zarr.open_array(zarr.storage.MemoryStore(files), mode="r+")
        array[(*leading, *self.grid.box(index).slices)] = voxels
        content = files.get("/".join(("c", *map(str, (*leading, *index)))))
        return None if content is None else content.to_bytes()

    def holds(self, record: Record) -> bool:
        """Return whether the bytes on disk match the record."""
        tile = record.shard[1:]
        return self.state(tile)[0] == record.size and self.record(tile) == record

    def state(self, tile: Tile) -> tuple[int | None, int]:
        """Return the size of a shard's file, bytes, and when it was last changed, ns; None and 0 if there is none."""
        try:
            found = self.path(tile).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None, 0
        return found.st_size if stat.S_ISREG(found.st_mode) else -1, found.st_mtime_ns

    def path(self, tile: Tile) -> Path:
        """Return the path of a shard's file."""
        leading, index = tile
        return self._folder.joinpath(str(self.level), "c", *map(str, (*leading, *index)))

    @contextmanager
    def moved(self, folder: Path) -> Iterator[None]:
        """Make readers wait while the store is renamed to ``folder``, and read from there afterwards."""
        with self._lock:
            yield
            self._open(folder)


@dataclass(frozen=True, slots=True)
class Whole:
    """All voxels of a level, read like an array; :meth:`Shards.read` is for views, which can do without."""

    array: Any
    name: str  # of the store

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its voxels."""
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Leading axes, then z, y, x."""
        return tuple(self.array.shape)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of a chunk."""
        return tuple(self.array.chunks)

    def __getitem__(self, where: Any) -> npt.NDArray[Any]:
        """Read voxels.

        Raises
        ------
        AccessError
            If a shard was damaged after it had been verified.
        """
        try:
            return np.asarray(self.array[where])
        except (OSError, MemoryError):
            raise
        except Exception as error:  # errors of codecs on damaged bytes have no common type
            raise AccessError(
                f"A shard of {self.name} was damaged while the output was made ({error}).",
                "Check the disk and resume: the shard is computed again.",
            ) from error


def sync_names(folder: Path, root: Path, synced: set[Path]) -> None:
    """Sync the names of a folder and of those above it up to ``root``, if they are not among those ``synced``.

    A folder that exists may have just been made by another process.
    """
    for inner in (folder, *folder.parents):
        if inner == root or inner in synced:
            return
        sync_folder(inner.parent)
        synced.add(inner)


def unlink(path: Path) -> None:
    """Remove a shard's file."""
    remove_file(path)
