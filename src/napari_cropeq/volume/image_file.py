"""Any image as an OME-Zarr or OME-TIFF, however large it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr

from napari_cropeq.core.geometry import Box, IntTriple
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.volume.bricks import Bricks
from napari_cropeq.volume.export import output_kind
from napari_cropeq.volume.image_info import ImageInfo
from napari_cropeq.volume.ome_metadata import Level, write_metadata
from napari_cropeq.volume.ome_tiff import write_ome_tiff
from napari_cropeq.volume.pyramid import SMALLEST, build_pyramid, levels_of
from napari_cropeq.volume.store import PARTIAL, check_space, remove, replace_folder

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
    ValueError
        If the name ends in something else.
    """
    kind = output_kind(path)
    check_space(path.parent, int(data.nbytes))
    # An OME-TIFF is written plane by plane and once more for each level: from here, not from the source.
    folder = path.with_name(path.name + (PARTIAL if kind == ".ome.zarr" else ".tiles.zarr" + PARTIAL))
    partial = path.with_name(path.name + PARTIAL)
    try:
        finest = _write_finest(data, folder, image)
        if kind == ".ome.zarr":
            write_metadata(folder, image, _write_levels(folder, image))
        else:
            write_ome_tiff(finest, partial, image)
        check()
        replace_folder(partial, path)
    finally:
        remove(folder)
        remove(partial)


def _write_finest(data: da.Array, folder: Path, image: ImageInfo) -> Any:
    """Write the finest level of an image that begins in ``folder``."""
    remove(folder)
    volume_shape: IntTriple = (data.shape[-3], data.shape[-2], data.shape[-1])
    depth = _depth(data)
    # Thin chunks are wide instead.
    side = 64 if depth >= 64 else SIDE
    chunk = [min(64, depth), side, side]
    shard = [min(s, -(-n // c) * c) for s, n, c in zip((depth, SIDE, SIDE), volume_shape, chunk, strict=True)]
    grid = TileGrid(volume_shape, (shard[0], shard[1], shard[2]))
    ones = (1,) * (data.ndim - 3)
    array: Any = zarr.open_group(folder, mode="w", zarr_format=3).create_array(
        "0",
        shape=data.shape,
        dtype=data.dtype,
        chunks=(*ones, *chunk),
        shards=(*ones, *shard),
        dimension_names=list(image.axes),
    )
    for lead in np.ndindex(*data.shape[:-3]):
        bricks = Bricks(data[lead], HELD)
        for index in grid.indices(Box.whole(volume_shape)):
            slices = grid.box(index).slices
            array[(*lead, *slices)] = bricks[slices]
    return array


def _depth(data: da.Array) -> int:
    """Return how deep shards are so that the chunks a row of them needs are held together."""
    z, y, _ = data.chunksize[-3:]
    rows = min(data.shape[-2], SIDE + 2 * y)  # of the chunks that a row of shards touches
    plane = rows * data.shape[-1] * data.dtype.itemsize
    depth = DEPTH
    while depth > z and (depth + z) * plane > HELD:
        depth //= 2
    return depth


def _write_levels(folder: Path, image: ImageInfo) -> list[Level]:
    """Write the coarser levels of the image in ``folder``; return all."""
    if image.labels:
        return _sample_pyramid(folder)
    for _ in build_pyramid(folder):
        pass
    return levels_of(folder)


def _sample_pyramid(folder: Path) -> list[Level]:
    """Write levels that take every second voxel of the last along z, y, x, where there are several."""
    group = zarr.open_group(folder, mode="r+")
    fine: Any = group["0"]
    factor = np.ones(3, int)
    levels = [Level("0")]
    while max(fine.shape[-3:]) > SMALLEST:
        step = np.array([2 if n > 1 else 1 for n in fine.shape[-3:]])
        factor = factor * step
        shape = tuple(-(-n // s) for n, s in zip(fine.shape[-3:], step, strict=True))
        coarse: Any = group.create_array(
            str(len(levels)),
            shape=(*fine.shape[:-3], *shape),
            dtype=fine.dtype,
            chunks=fine.chunks,
            shards=fine.shards,
            dimension_names=fine.metadata.dimension_names,
        )
        shard = coarse.shards[-3:]
        grid = TileGrid((shape[0], shape[1], shape[2]), (shard[0], shard[1], shard[2]))
        for lead in np.ndindex(*fine.shape[:-3]):
            for index in grid.indices(Box.whole(shape)):
                box = grid.box(index)
                wanted = (slice(a * s, (b - 1) * s + 1, s) for a, b, s in zip(box.start, box.stop, step, strict=True))
                coarse[(*lead, *box.slices)] = fine[(*lead, *wanted)]
        z, y, x = (float(f) for f in factor)
        levels.append(Level(coarse.path.rpartition("/")[2], (z, y, x)))
        fine = coarse
    return levels
