"""Any image as an OME-Zarr or OME-TIFF, however large it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr

from napari_cropeq.core.geometry import Box, int_triple
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.ome_tiff import write_ome_tiff
from napari_cropeq.formats.ome_zarr_write import create_array, fitted, write_metadata
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

DEPTH, SIDE = 128, 256  # of a shard, voxels
HELD = 2**29  # of the source at once, bytes


def write_image(data: da.Array, path: Path, image: ImageInfo, check: Callable[[], None] = lambda: None) -> None:
    """Write an image to ``path``, reading a chunk as seldom as memory allows.

    Nothing bears the final name before it is complete; what stands there is replaced only then.

    Parameters
    ----------
    data : dask array
        In the order of ``image.axes``.
    path : path
        Ends in ``.ome.zarr``, ``.zarr``, ``.ome.tif`` or ``.ome.tiff``.
    image : ImageInfo
        Axes, place, channels.
    check : callable, optional
        Called when all is written and has not got its name yet; what it raises leaves things as they were.

    Raises
    ------
    OSError
        If the file cannot be written or the disk is too full.
    FileExistsError
        If something that is not ours stands where the unfinished one is kept, ``NAME.partial``.
    ValueError
        If the name ends in something else.
    """
    kind = output_kind(path)
    check_space(path.parent, int(data.nbytes))
    # An OME-TIFF is written plane by plane and once more for each level: from the tiles, not from the source.
    work = path.with_name(path.name + PARTIAL)
    folder, partial = work / "tiles.ome.zarr", work / path.name
    if is_ours(work):
        put_back(work, path)
    claim(work)
    try:
        levels = _write_levels(data, folder, image, None if kind == ".ome.zarr" else 1)
        if kind == ".ome.zarr":
            write_metadata(folder, image, levels_of(int_triple(data.shape[-3:])))
        else:
            write_ome_tiff(levels[0], partial, image)
        check()
        replace_folder(folder if kind == ".ome.zarr" else partial, path, old_of(work))
    finally:
        put_back(work, path)  # what stood there, if the new file has not got its name
        remove_ours(work)


def _write_levels(data: da.Array, folder: Path, image: ImageInfo, count: int | None) -> list[Any]:
    """Write an image into ``folder``, finest level first; return the arrays of all levels, or of the first few."""
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
            bricks = ChunkCache(data[leading], HELD)
            for box in grid.touching(Box.whole(shape)):
                voxels = coarser(arrays[-2], leading, box, image.labels) if number else bricks[box.slices]
                arrays[-1][(*leading, *box.slices)] = voxels
    return arrays


def _depth(data: da.Array) -> int:
    """Return how deep shards are so that the chunks a row of them needs are held together."""
    z, y, _ = data.chunksize[-3:]
    rows = min(data.shape[-2], SIDE + 2 * y)  # of the chunks that a row of shards touches
    plane = rows * data.shape[-1] * data.dtype.itemsize
    depth = DEPTH
    while depth > z and (depth + z) * plane > HELD:
        depth //= 2
    return depth
