"""Write an image of any size as an OME-Zarr or OME-TIFF."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr

from napari_cropeq.core.geometry import Box, int_triple
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.core.whole_file import sync_file, sync_folder
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.ome_tiff import write_ome_tiff
from napari_cropeq.formats.ome_zarr.write import create_array, fitted, write_metadata
from napari_cropeq.formats.paths import (
    PARTIAL,
    check_space,
    claim,
    is_ours,
    old_of,
    output_kind,
    put_back,
    remove_ours,
    replace_folder,
)
from napari_cropeq.formats.pyramid import coarser, level_shapes, levels_of

__all__ = ["write_image"]

logger = logging.getLogger(__name__)

DEPTH, SIDE = 128, 256  # of a shard, voxels
CACHED = 2**29  # of the source at once, bytes


def write_image(data: da.Array, path: Path, image: ImageInfo, check: Callable[[], None] = lambda: None) -> None:
    """Write an image to ``path``, reading each chunk as few times as the memory allows.

    The output gets its name only when it is complete; an existing file is replaced only then.

    Parameters
    ----------
    data : dask array
        In the order of ``image.axes``.
    path : path
        Ends in ``.ome.zarr``, ``.zarr``, ``.ome.tif`` or ``.ome.tiff``.
    image : ImageInfo
        Axes, position, channels.
    check : callable, optional
        Called when all is written, just before the output gets its name; if it raises, nothing is replaced.

    Raises
    ------
    AccessError
        If the folder is not writable or the disk is too full.
    OutputExistsError
        If ``NAME.partial``, where the unfinished output is kept, exists and this package has not made it.
    ArgumentError
        If the name ends in something else.
    """
    kind = output_kind(path)
    check_space(path.parent, int(data.nbytes))
    # An OME-TIFF is written plane by plane, once for each level: from the tiles, so that the source is read once.
    work = path.with_name(path.name + PARTIAL)
    folder, partial = work / "tiles.ome.zarr", work / path.name
    if is_ours(work):
        put_back(work, path)
    claim(work)
    start = time.monotonic()
    try:
        levels = _write_levels(data, folder, image, None if kind == ".ome.zarr" else 1)
        if kind == ".ome.zarr":
            write_metadata(folder, image, levels_of(int_triple(data.shape[-3:])))
            _sync(folder)
        else:
            write_ome_tiff(levels[0], partial, image)
        check()
        replace_folder(folder if kind == ".ome.zarr" else partial, path, old_of(work))
        logger.info("Wrote %s in %.1f s", path, time.monotonic() - start)
    finally:
        put_back(work, path)  # the old file, if the new one has not got its name
        remove_ours(work)


def _write_levels(data: da.Array, folder: Path, image: ImageInfo, count: int | None) -> list[Any]:
    """Write an image into ``folder``, finest level first; return the arrays of all levels, or the first ``count``."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    arrays: list[Any] = []
    for number, shape in enumerate(level_shapes(int_triple(data.shape[-3:]))):
        if number == count:
            break
        sizes = fitted((_depth(data), SIDE, SIDE), shape)
        create_array(group, str(number), data.shape[:-3], shape, data.dtype, sizes, image.axes)
        arrays.append(group[str(number)])
        grid = TileGrid(shape, sizes[0])
        for leading in np.ndindex(*data.shape[:-3]):
            chunks = ChunkCache(data[leading], CACHED)
            for box in grid.touching(Box.whole(shape)):
                voxels = coarser(arrays[-2], leading, box, image.labels) if number else chunks[box.slices]
                arrays[-1][(*leading, *box.slices)] = voxels
    return arrays


def _sync(path: Path) -> None:
    """Sync a folder to disk, with all files and folders in it."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync_file(Path(folder, name))
        sync_folder(Path(folder))


def _depth(data: da.Array) -> int:
    """Return the depth of shards for which all chunks of a row of shards fit in the cache."""
    z, y, _ = data.chunksize[-3:]
    rows = min(data.shape[-2], SIDE + 2 * y)  # rows of the chunks that a row of shards touches
    plane = rows * data.shape[-1] * data.dtype.itemsize
    depth = DEPTH
    while depth > z and (depth + z) * plane > CACHED:
        depth //= 2
    return depth
