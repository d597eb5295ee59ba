"""The shards of one level of an OME-Zarr image: written once each, synced, and read back chunk by chunk."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import default_buffer_prototype

from napari_cropeq.core.geometry import Box, IntTriple, int_triple
from napari_cropeq.core.tiles import TileGrid, hull
from napari_cropeq.formats.paths import PARTIAL
from napari_cropeq.store.journal import Record, digest_of, sync_file, sync_folder
from napari_cropeq.store.memory import MemoryStore, TileCache
from napari_cropeq.store.protocol import Tile

__all__ = [
    "Shards",
]


class Shards:
    """One level on disk, as a store of tiles that are its shards.

    Parameters
    ----------
    folder : path
        The OME-Zarr image.
    level : int
        Which level.
    decoded : TileCache
        Where decoded chunks are held.
    """

    def __init__(self, folder: Path, level: int, decoded: TileCache) -> None:
        self.level = level
        self._lock = threading.Lock()  # between a reader and the renaming of the folder
        self.done: set[Tile] = set()
        self._open(folder)
        shape, chunks, shards = (a[-3:] for a in (self.array.shape, self.array.chunks, self.array.shards))
        self.grid = TileGrid(int_triple(shape), int_triple(shards))
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
        """Whether every shard is there."""
        return len(self.done) == self.grid.count * int(np.prod(self.array.shape[:-3], dtype=np.int64))

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        """Read ``part`` (voxels of this level) of a finished shard, else None; decoded chunks are kept.

        A shard whose file has been damaged since is not finished any more: a view shows what it has without it, nobody
        takes the whole for complete, and whoever needs its voxels computes them again.

        Raises
        ------
        OSError
            If the file cannot be reached.
        """
        if tile not in self.done:
            return None
        leading, chunks = tile[0], self._chunks
        wanted = {index: chunks.grid.box(index) for index in chunks.grid.indices(part)}
        held: dict[IntTriple, npt.NDArray[Any]] = {}
        for index, box in wanted.items():
            voxels = chunks.read((leading, index), box)
            if voxels is not None:
                held[index] = voxels
        missing = [index for index in wanted if index not in held]
        if missing:
            region = hull([wanted[index] for index in missing])
            try:
                with self._lock:
                    decoded = np.asarray(self.array[(*leading, *region.slices)])
            except (OSError, MemoryError):
                raise
            except Exception:  # noqa: BLE001 (what a codec makes of damaged bytes has no type in common)
                self.done.discard(tile)
                return None
            for index in missing:
                held[index] = decoded[wanted[index].relative_to(region.start).slices]
                chunks.put((leading, index), held[index])
        out = np.empty(part.shape, self.array.dtype)
        for index, box in wanted.items():
            inside = box.intersect(part)
            assert inside is not None
            out[inside.relative_to(part.start).slices] = held[index][inside.relative_to(box.start).slices]
        return out

    def write(self, tile: Tile, voxels: npt.NDArray[Any]) -> Record:
        """Write a shard and have it on the disk itself; what was there is replaced at once.

        Nothing is kept of what another run has written, and whoever reads or writes the same shard meanwhile, as a
        process that was thought dead may do, finds it whole.
        """
        path, content = self.path(tile), self._encoded(tile, voxels)
        if content is None:
            unlink(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
            try:
                new.write_bytes(content)
                sync_file(new)
                os.replace(new, path)
            except BaseException:
                new.unlink(missing_ok=True)
                raise
            sync_folder(path.parent)
        return self._record(tile, content)

    def record(self, tile: Tile) -> Record:
        """Return what the file of a shard is now."""
        path = self.path(tile)
        return self._record(tile, path.read_bytes() if path.exists() else None)

    def _record(self, tile: Tile, content: bytes | None) -> Record:
        leading, index = tile
        if content is None:
            return Record((self.level, leading, index), None, "")
        return Record((self.level, leading, index), len(content), digest_of(content))

    def _encoded(self, tile: Tile, voxels: npt.NDArray[Any]) -> bytes | None:
        """Return the bytes of a shard's file, None where all is fill value: for that there is no file."""
        (leading, index), files = tile, dict(self._metadata)
        array: Any = zarr.open_array(zarr.storage.MemoryStore(files), mode="r+")
        array[(*leading, *self.grid.box(index).slices)] = voxels
        content = files.get("/".join(("c", *map(str, (*leading, *index)))))
        return None if content is None else content.to_bytes()

    def holds(self, record: Record) -> bool:
        """Return whether the bytes on the disk are those that were claimed."""
        _, leading, index = record.shard
        if len(leading) != len(self.array.shape) - 3 or any(
            i >= n for i, n in zip(index, self.grid.counts, strict=True)
        ):
            return False
        path = self.path((leading, index))
        size = path.stat().st_size if path.exists() else None
        return size == record.size and self.record((leading, index)) == record

    def path(self, tile: Tile) -> Path:
        """Return the file of a shard."""
        leading, index = tile
        return self._folder.joinpath(str(self.level), "c", *map(str, (*leading, *index)))

    @contextmanager
    def moved(self, folder: Path) -> Iterator[None]:
        """Keep readers out while the store is given another name, and read from there afterwards."""
        with self._lock:
            yield
            self._open(folder)


def unlink(path: Path) -> None:
    """Remove a shard's file."""
    path.unlink(missing_ok=True)
