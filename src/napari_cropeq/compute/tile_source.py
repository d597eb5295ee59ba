"""Source of voxels for a run over a volume: finished tiles, or else the network on prefetched source voxels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.compute.super_resolution import Region, SuperResolution
from napari_cropeq.core.geometry import Box, LeadingIndex, int_triple
from napari_cropeq.core.predict import never
from napari_cropeq.store.protocol import TileStore, finished

__all__ = ["TileSource"]

Stores = Callable[[], Iterable[TileStore]]


class TileSource:
    """Returns SR boxes of a result, and computes only voxels that no finished tile has.

    The bits of a voxel do not depend on the box it is computed in, so finished and computed parts fit together.

    A group of tiles is computed in parts that share most of their source voxels. A separate thread reads these once
    for all parts, while the network works on the previous group. This matters for large chunks, such as whole pages.

    Parameters
    ----------
    result : SuperResolution
        Computes boxes.
    computed : callable
        Returns the stores whose finished tiles are used; called for every box.
    side_by_side : int, optional
        Number of boxes computed in parallel; the best for the result by default.
    dtype : dtype, optional
        :func:`~.super_resolution.with_error` of the result, to get the expected errors as well.

    Attributes
    ----------
    leading_indices : list of tuple of int
        All channels and time points.
    part : (z, y, x)
        Best box to compute at once, SR voxels.
    """

    def __init__(
        self,
        result: SuperResolution,
        computed: Stores = tuple,
        side_by_side: int | None = None,
        dtype: np.dtype[Any] | None = None,
    ) -> None:
        self._result, self._computed, self._dtype = result, computed, dtype
        self.leading_indices, self.part = result.leading_indices, result.shapes.bulk
        self.side_by_side = result.side_by_side if side_by_side is None else side_by_side
        # Threads in parallel have started one part more than there are threads, at worst each of another group.
        self._most = 2 if self.side_by_side == 1 else self.side_by_side + 2
        self._reader: ThreadPoolExecutor | None = None
        self._regions: dict[tuple[LeadingIndex, Box], Future[Region]] = {}

    def prefetch(self, leading: LeadingIndex, box: Box) -> None:
        """Start to read the source voxels of the group ``box`` (SR voxels), unless that has started already."""
        if (leading, box) in self._regions:
            return
        if self._reader is None:  # started here to get the priority of the computing thread
            self._reader = ThreadPoolExecutor(1, "cropeq reader")
        while len(self._regions) >= self._most:
            self._regions.pop(next(iter(self._regions))).cancel()
        self._regions[leading, box] = self._reader.submit(self._result.prefetch, leading, box)

    def __call__(self, leading: LeadingIndex, box: Box, stop: Callable[[], bool] = never) -> npt.NDArray[Any]:
        """Return the SR voxels of ``box`` (z, y, x) at the leading indices ``leading``.

        Raises
        ------
        StoppedError
            If ``stop`` returned True before the end.
        """
        voxels: npt.NDArray[Any] | None = None
        missing = np.ones(box.shape, bool)
        for store in self._computed():
            for index in finished(store, leading, box):
                part = store.grid.box(index).intersect(box)
                stored = None if part is None else store.read((leading, index), part)
                if part is not None and stored is not None:
                    voxels = np.empty(box.shape, stored.dtype) if voxels is None else voxels
                    inside = part.relative_to(box.start).slices
                    voxels[inside], missing[inside] = stored, False
        if voxels is None:
            return self._compute(leading, box, stop)
        if missing.any():
            rest = bounding_box(missing)
            voxels[rest.slices] = self._compute(leading, rest.relative_to([-s for s in box.start]), stop)
        return voxels

    def close(self) -> None:
        """Free the memory and stop reading; a read in progress ends by itself, without a wait."""
        self._regions.clear()
        if self._reader is not None:
            self._reader.shutdown(wait=False, cancel_futures=True)
            self._reader = None

    def _compute(self, leading: LeadingIndex, box: Box, stop: Callable[[], bool]) -> npt.NDArray[Any]:
        """Compute ``box`` from the prefetched group around it or, if there is none, directly from the source."""
        for (own, group), reading in list(self._regions.items()):
            if own == leading and group.intersect(box) == box:
                # If the prefetch failed, the source is read again directly, which raises the error.
                with contextlib.suppress(OSError, ValueError):
                    return self._result.compute(leading, box, stop, reading.result(), self._dtype)
        return self._result.compute(leading, box, stop, None, self._dtype)


def bounding_box(mask: npt.NDArray[np.bool_]) -> Box:
    """Return the smallest box around the true voxels of ``mask`` (z, y, x); there must be at least one."""
    along = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return Box(int_triple([int(i[0]) for i in along]), int_triple([int(i[-1]) + 1 for i in along]))
