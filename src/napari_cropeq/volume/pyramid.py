"""Coarser levels of a finished store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr

from napari_cropeq.volume.ome_metadata import Level

__all__ = ["block_means", "build_pyramid", "levels_of"]

SMALLEST = 256  # levels are added until no side is longer, voxels


def level_shapes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of the coarser levels: z, y and x longer than one voxel are halved."""
    while max(shape[-3:]) > SMALLEST:
        shape = (*shape[:-3], *(max(1, n // 2) for n in shape[-3:]))
        yield shape


def build_pyramid(folder: Path) -> Iterator[int]:
    """Write coarser levels (means of 2 x 2 x 2 voxels) beside level 0, yielding each level's number."""
    group = zarr.open_group(folder, mode="r+")
    fine: Any = group["0"]
    for level, shape in enumerate(level_shapes(fine.shape), 1):
        coarse = group.create_array(
            str(level),
            shape=shape,
            dtype=fine.dtype,
            chunks=fine.chunks,
            shards=fine.shards or fine.chunks,
            dimension_names=fine.metadata.dimension_names,
        )
        factors = [1 if m == n else 2 for n, m in zip(fine.shape, shape, strict=True)]
        shard = fine.shards or fine.chunks
        source: Any = da.from_array(fine, chunks=tuple(s * f for s, f in zip(shard, factors, strict=True)))
        source = source[tuple(slice(0, m * f) for m, f in zip(shape, factors, strict=True))]
        means: Any = source.map_blocks(
            block_means,
            tuple(factors),
            dtype=fine.dtype,
            chunks=tuple(tuple(c // f for c in cs) for cs, f in zip(source.chunks, factors, strict=True)),
        )
        da.store(means, coarse, lock=False, scheduler="synchronous")  # type: ignore[arg-type]
        fine = coarse
        yield level


def block_means(block: npt.NDArray[Any], factors: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return means over ``factors`` voxels along each axis, in the dtype of ``block``."""
    split = [n for size, f in zip(block.shape, factors, strict=True) for n in (size // f, f)]
    kind = np.float64 if block.dtype.kind != "f" else block.dtype
    means = block.reshape(split).mean(axis=tuple(range(1, len(split), 2)), dtype=kind)
    out: npt.NDArray[Any] = (np.rint(means) if block.dtype.kind != "f" else means).astype(block.dtype)
    return out


def levels_of(folder: Path) -> list[Level]:
    """Return where each level of a pyramid of block means lies, finest first."""
    group = zarr.open_group(folder, mode="r")
    levels: list[Level] = []
    shape: tuple[int, ...] = ()
    factor, shift = np.ones(3), np.zeros(3)
    for path in sorted(group.array_keys(), key=int):
        array: Any = group[path]
        if levels:
            step = np.where(np.array(array.shape[-3:]) == shape, 1, 2)
            shift, factor = shift + (step - 1) / 2 * factor, factor * step
        shape = array.shape[-3:]
        (z, y, x), (dz, dy, dx) = factor.tolist(), shift.tolist()
        levels.append(Level(path, (z, y, x), (dz, dy, dx)))
    return levels
