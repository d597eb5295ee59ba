"""Coarser levels of a volume, with no shift between levels.

A coarse voxel m is the mean of the fine voxels 2m - 1, 2m, 2m + 1 with weights 1, 2, 1 along each axis, so its centre
is the centre of the fine voxel 2m. Means of 2 x 2 x 2 voxels would be shifted by half a fine voxel, which programs
that use the ratio of the shapes, such as napari, do not correct.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, int_triple
from napari_cropeq.core.tiles import divide
from napari_cropeq.formats.ome_zarr.write import Level

__all__ = ["coarser", "level_shapes", "levels_of", "parents", "support"]

SMALLEST = 256  # levels are added until no side is longer than this, voxels


def level_shapes(shape: IntTriple) -> Iterator[IntTriple]:
    """Yield the shapes (z, y, x) of all levels, the finest first; each side is halved and rounded up."""
    yield shape
    while max(shape) > SMALLEST:
        shape = int_triple([-(-n // 2) for n in shape])
        yield shape


def levels_of(shape: IntTriple) -> list[Level]:
    """Return the levels of a volume (z, y, x), finest first; none is shifted."""
    levels = []
    for number, _ in enumerate(level_shapes(shape)):
        z, y, x = (2.0**number if n > 1 else 1.0 for n in shape)
        levels.append(Level(str(number), (z, y, x)))
    return levels


def support(box: Box, fine_shape: IntTriple) -> Box:
    """Return the fine voxels from which the coarse voxels of ``box`` are computed."""
    start = [max(0, 2 * a - 1) for a in box.start]
    stop = [min(n, 2 * b) for b, n in zip(box.stop, fine_shape, strict=True)]
    return Box(int_triple(start), int_triple(stop))


def parents(box: Box, coarse_shape: IntTriple) -> Box:
    """Return the coarse voxels that depend on fine voxels of ``box``."""
    stop = [min(n, b // 2 + 1) for b, n in zip(box.stop, coarse_shape, strict=True)]
    start = [min(a // 2, b) for a, b in zip(box.start, stop, strict=True)]
    return Box(int_triple(start), int_triple(stop))


def halve(fine: npt.NDArray[np.floating], first: IntTriple) -> npt.NDArray[np.floating]:
    """Return coarse voxels from fine ones (z, y, x).

    Parameters
    ----------
    fine : array (z, y, x)
        The support of the coarse voxels.
    first : (z, y, x)
        Fine index of its first voxel; even at the border of the volume, where the fine voxel before it is mirrored.
    """
    for axis in range(3):
        along = np.moveaxis(fine, axis, 0)
        if first[axis] % 2 == 0:
            along = np.concatenate([along[1:2] if len(along) > 1 else along[:1], along])
        if len(along) % 2 == 0:  # there is no voxel after the last fine one
            along = np.concatenate([along, along[-2:-1]])
        means = along[1:-1:2] * 2
        means += along[:-2:2]
        means += along[2::2]
        means *= 0.25
        fine = np.moveaxis(means, 0, axis)
    return fine


def coarser(fine: Any, leading: tuple[int, ...], box: Box, labels: bool = False) -> npt.NDArray[Any]:
    """Return voxels of a level, computed from the next finer level.

    Parameters
    ----------
    fine : array-like
        The finer level, with its leading axes.
    leading : tuple of int
        Indices along the leading axes.
    box : Box
        Coarse voxels (z, y, x); they are computed in parts, to limit the memory.
    labels : bool
        Whether values are labels, which cannot be averaged: every second voxel is taken.
    """
    dtype, shape = np.dtype(fine.dtype), int_triple(fine.shape[-3:])
    out = np.empty(box.shape, dtype)
    for part in divide(box, int_triple([max(1, -(-n // 2)) for n in box.shape])):
        below = support(part, shape)
        voxels = np.asarray(fine[(*leading, *below.slices)])
        if labels:
            at = [slice(2 * a - b, None, 2) for a, b in zip(part.start, below.start, strict=True)]
            means = voxels[tuple(at)]
        else:
            means = halve(voxels.astype(_exact(dtype)), below.start)
            means = np.rint(means) if dtype.kind in "ui" else means
        out[part.relative_to(box.start).slices] = means.astype(dtype)
    return out


def _exact(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a floating-point type that can represent all values of ``dtype`` and their means."""
    return np.dtype(np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64)
