"""Estimate of the time, disk space and memory for a whole volume, measured on a small part of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.call_size import MAX_ELEMENTS, TEMPORARIES
from napari_cropeq.core.geometry import Box, LeadingIndex, int_triple
from napari_cropeq.core.predict import never
from napari_cropeq.core.thread_map import ThreadMap
from napari_cropeq.formats.chunk_cache import CAP
from napari_cropeq.formats.pyramid import level_shapes
from napari_cropeq.store.disk import BULK
from napari_cropeq.store.levels import DECODED
from napari_cropeq.store.write_queue import WAITING

__all__ = ["Estimate"]

PART = 64  # side of the part that is measured, SR voxels


@dataclass(frozen=True, slots=True)
class Estimate:
    """Time, disk space and memory of a run over a whole volume."""

    seconds: float  # of computing
    nbytes: int  # of the result, uncompressed, without coarser levels
    disk: int  # bytes of the compressed store, coarser levels included
    memory: int  # peak bytes, beyond those of the idle process
    rounding: str = ""  # what rounding does to the intensities, as a sentence

    @classmethod
    def of(cls, result: SuperResolution, stop: Callable[[], bool] = never) -> Estimate:
        """Measure a part in the middle of the volume.

        Parameters
        ----------
        result : SuperResolution
            It computes a few hundred thousand voxels for the measurement.
        stop : callable, optional
            Called before every call of the network; ends the measurement by returning True.

        Raises
        ------
        StoppedError
            If ``stop`` returned True.
        OSError, ValueError
            If that part of the source cannot be read.
        """
        size = [
            min(n, s)
            for n, s in zip(result.sr_shape, result.shapes.oriented(2 * PART, 2 * PART, PART // 4), strict=True)
        ]
        start = [(n - s) // 2 for n, s in zip(result.sr_shape, size, strict=True)]
        box = Box(int_triple(start), int_triple([a + s for a, s in zip(start, size, strict=True)]))
        leading = result.leading_indices[0]
        result.compute(leading, box, stop)  # the first call includes work that is done only once
        each, voxels = _measured(result, leading, box, stop)
        packed = len(blosc.compress(voxels.reshape(-1), b"zstd", 5, blosc.SHUFFLE)) / voxels.nbytes
        return cls(
            seconds=each * result.nbytes / result.dtype.itemsize,
            nbytes=result.nbytes,
            disk=round(min(1.0, packed) * result.nbytes * _with_levels(result)),
            memory=_memory(result),
            rounding=result.rounding,
        )


def _measured(
    result: SuperResolution, leading: LeadingIndex, box: Box, stop: Callable[[], bool]
) -> tuple[float, npt.NDArray[Any]]:
    """Return the seconds per voxel of ``box``, computed as in a run over the volume, and the voxels (z, y, x)."""
    boxes, threads = [box] * result.side_by_side, ThreadMap(result.side_by_side)
    try:
        started = time.perf_counter()
        parts = threads.map(lambda part: result.compute(leading, part, stop), boxes)
        found = [computed.result() for _, computed in parts]
        return (time.perf_counter() - started) / (len(boxes) * box.size), np.ascontiguousarray(found[0])
    finally:
        threads.dismiss()


def _with_levels(result: SuperResolution) -> float:
    sizes = [float(np.prod(shape, dtype=np.float64)) for shape in level_shapes(result.sr_shape)]
    return sum(sizes) / sizes[0]


def _memory(result: SuperResolution) -> int:
    """Return the peak memory: decoded source, shards being computed and written, the network, and displayed shards."""
    source = result.source.data
    chunks = min(CAP, math.prod(int(n) for n in source.shape[-3:]) * int(source.dtype.itemsize))
    shard = min(math.prod(BULK), math.prod(result.sr_shape)) * int(result.dtype.itemsize)
    network = TEMPORARIES * MAX_ELEMENTS * 4 * result.side_by_side
    return chunks + (2 + WAITING) * shard + network + min(DECODED, result.nbytes)
