"""Coarser levels whose voxels lie on voxels of the finer one, so that no level is shifted against another.

A coarse voxel m is the mean of the fine voxels 2m - 1, 2m, 2m + 1 with weights 1, 2, 1 along each axis: its centre is
the centre of the fine voxel 2m. Means of 2 x 2 x 2 voxels would lie half a fine voxel off, which programs that go by
the ratio of shapes, napari among them, do not correct.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box, IntTriple, int_triple

__all__ = ["block_means", "halve", "level_shapes", "parents", "support"]

SMALLEST = 256  # levels are added until no side is longer, voxels


def level_shapes(shape: IntTriple) -> Iterator[IntTriple]:
    """Yield the shapes (z, y, x) of all levels, the finest first: each side is halved, rounded up."""
    yield shape
    while max(shape) > SMALLEST:
        shape = int_triple([-(-n // 2) for n in shape])
        yield shape


def support(box: Box, fine_shape: IntTriple) -> Box:
    """Return the fine voxels that the coarse voxels of ``box`` are made of."""
    start = [max(0, 2 * a - 1) for a in box.start]
    stop = [min(n, 2 * b) for b, n in zip(box.stop, fine_shape, strict=True)]
    return Box(int_triple(start), int_triple(stop))


def parents(box: Box, coarse_shape: IntTriple) -> Box:
    """Return the coarse voxels that fine voxels of ``box`` take part in."""
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
        Fine index of its first voxel: even at the border of the volume, where the fine voxel before it is mirrored.
    """
    for axis in range(3):
        along = np.moveaxis(fine, axis, 0)
        if first[axis] % 2 == 0:
            along = np.concatenate([along[1:2] if len(along) > 1 else along[:1], along])
        if len(along) % 2 == 0:  # the last fine voxel has none after it
            along = np.concatenate([along, along[-2:-1]])
        means = along[1:-1:2] * 2
        means += along[:-2:2]
        means += along[2::2]
        means *= 0.25
        fine = np.moveaxis(means, 0, axis)
    return fine


def block_means(block: npt.NDArray[np.generic], factors: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """Return means over ``factors`` voxels along each axis, in the dtype of ``block``."""
    split = [n for size, f in zip(block.shape, factors, strict=True) for n in (size // f, f)]
    kind = np.float64 if block.dtype.kind != "f" else block.dtype
    means = block.reshape(split).mean(axis=tuple(range(1, len(split), 2)), dtype=kind)
    out: npt.NDArray[np.generic] = (np.rint(means) if block.dtype.kind != "f" else means).astype(block.dtype)
    return out
