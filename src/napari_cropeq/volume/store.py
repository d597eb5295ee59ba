"""Where SR tiles are kept. One interface, two homes: OME-Zarr on disk here, memory in :mod:`~.cache`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import zarr

from napari_cropeq.core.geometry import Box, IntTriple
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.volume.superres import Lead, SuperResolution

__all__ = ["DiskStore", "Tile", "TileStore", "check_output", "covers", "finished"]

Tile = tuple[Lead, IntTriple]
"""Leading indices and the tile's number along z, y, x."""

BULK: IntTriple = (128, 256, 256)
"""A shard: computed, written and journalled as one; recompute falls with size."""

CHUNK = 64
PARTIAL = ".partial"


class TileStore(Protocol):
    """What the scheduler writes and the lazy layer reads."""

    grid: TileGrid

    def __contains__(self, tile: Tile) -> bool: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Tile]: ...

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        """Return the voxels of ``part`` (SR voxels, inside the tile) if the tile is finished. Never computes."""

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Keep a finished tile."""


def finished(store: TileStore, lead: Lead, box: Box) -> list[IntTriple]:
    """Return the numbers of the store's finished tiles at ``lead`` that touch ``box`` (SR voxels)."""
    grid = store.grid
    if grid.count_in(box) <= len(store):
        return [index for index in grid.indices(box) if (lead, index) in store]
    # A box of the whole volume touches more tiles than there are.
    return [index for own, index in store if own == lead and grid.box(index).intersect(box) is not None]


def covers(store: TileStore, lead: Lead, box: Box) -> bool:
    """Return whether the store's finished tiles hold all of ``box`` (SR voxels)."""
    return len(store) > 0 and all((lead, index) in store for index in store.grid.indices(box))


class DiskStore:
    """Tiles in an OME-Zarr 0.5 image that bears its name only once it is complete.

    Until :meth:`finish` the folder is called ``NAME.partial``; a tile is a shard, written once.

    Parameters
    ----------
    path : path
        The OME-Zarr folder to be.
    result : SuperResolution
        Gives shape, dtype, axes and metadata.
    tile : int, optional
        Side of a tile in SR voxels, instead of 128 x 256 x 256.

    Raises
    ------
    OSError
        If the folder cannot be written or the disk is too full.
    """

    def __init__(self, path: Path, result: SuperResolution, tile: int | None = None) -> None:
        self.path = path
        self.shape = (*result.lead_shape, *result.sr_shape)
        shard: IntTriple = (tile, tile, tile) if tile else BULK
        # A shard no larger than the volume needs: whole chunks of it.
        chunk = [min(CHUNK, s) if s % min(CHUNK, s) == 0 else s for s in shard]
        fitted = [min(s, -(-n // c) * c) for s, n, c in zip(shard, result.sr_shape, chunk, strict=True)]
        self.grid = TileGrid(result.sr_shape, (fitted[0], fitted[1], fitted[2]))
        self.partial = path.with_name(path.name + PARTIAL)
        check_space(path.parent, result.nbytes)
        remove(self.partial)
        ones = (1,) * len(result.lead_shape)
        try:
            group = zarr.open_group(self.partial, mode="w", zarr_format=3)
            group.create_array(
                "0",
                shape=self.shape,
                dtype=result.dtype,
                chunks=(*ones, *chunk),
                shards=(*ones, *self.grid.tile),
                dimension_names=list(result.source.axes),
            )
            self._array = self._open()
        except BaseException:
            self.discard()
            raise
        self._done: set[Tile] = set()
        self.finished = False

    def __contains__(self, tile: Tile) -> bool:
        return tile in self._done

    def __len__(self) -> int:
        return len(self._done)

    def __iter__(self) -> Iterator[Tile]:
        return iter(set(self._done))

    @property
    def folder(self) -> Path:
        """Where the data lie now."""
        return self.partial if self.partial.exists() else self.path

    @property
    def level0(self) -> Any:
        """The zarr array of the finest level."""
        return self._array

    def read(self, tile: Tile, part: Box) -> npt.NDArray[Any] | None:
        """Read ``part`` (absolute SR voxels) of a finished tile, else None."""
        lead, _ = tile
        return np.asarray(self._array[(*lead, *part.slices)]) if tile in self._done else None

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Write a tile to disk."""
        lead, index = tile
        self._array[(*lead, *self.grid.box(index).slices)] = voxels
        self._done.add(tile)

    def finish(self) -> None:
        """Give the complete store its name; one that stood there is replaced only now."""
        replace_folder(self.partial, self.path)
        self._array = self._open()
        self.finished = True

    def discard(self) -> None:
        """Remove an unfinished store."""
        # A write that was interrupted may be ending in zarr's own thread, and make its folder anew.
        for _ in range(20):
            remove(self.partial)
            time.sleep(0.05)
            if not self.partial.exists():
                break

    def _open(self) -> Any:
        return zarr.open_array(self.folder / "0", mode="r+")


def replace_folder(new: Path, final: Path) -> None:
    """Rename ``new`` to ``final``, putting a folder or file that stands there out of the way until it is done."""
    if not (new.is_dir() or final.is_dir()):
        os.replace(new, final)
        return
    old = final.with_name(final.name + ".old")
    remove(old)
    stands = final.exists()
    if stands:
        os.replace(final, old)
    try:
        os.replace(new, final)
    except BaseException:
        if stands:
            os.replace(old, final)
        raise
    remove(old)


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a file, where there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_space(folder: Path, needed: int) -> None:
    """Raise OSError if ``folder`` is no writable folder or has less than ``needed`` bytes free."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OSError(f"Got the folder {folder}, which does not exist or is not writable: choose another.")
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"Got {free / 1e9:.1f} GB free in {folder}, expected {needed / 1e9:.1f} GB for the result: "
            "make space or choose another disk."
        )


def check_output(path: Path, overwrite: bool) -> None:
    """Raise OSError if a result cannot be written to ``path``, or one stands there and is not to be replaced."""
    check_space(path.parent, 0)
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"Got {path}, which exists already: choose another name, or allow overwriting (--overwrite)."
        )
