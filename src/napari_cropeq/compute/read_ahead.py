"""The source of the next group of tiles is read while the network works on this one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy.typing as npt

from napari_cropeq.compute.super_resolution import Held, SuperResolution
from napari_cropeq.core.geometry import Box, Lead
from napari_cropeq.core.predict import never

__all__ = ["ReadAhead"]


class ReadAhead:
    """Computes boxes of groups whose source it has been told to read, in one go and in a thread of its own.

    A group of tiles is computed in parts that share most of their source: it is read once for all of them, which
    matters where chunks are large, such as whole pages. The source is held of the groups that are computed, and of the
    next one.

    Parameters
    ----------
    result : SuperResolution
        Knows what a box is made of.
    side_by_side : int
        Boxes that are computed at the same time.
    """

    def __init__(self, result: SuperResolution, side_by_side: int = 1) -> None:
        self._result = result
        # A crew of some threads has begun one part more than it has threads, each of another group at the worst.
        self._most = 2 if side_by_side == 1 else side_by_side + 2
        self._reader: ThreadPoolExecutor | None = None
        self._groups: dict[tuple[Lead, Box], Future[Held]] = {}

    def __call__(self, lead: Lead, box: Box) -> None:
        """Begin to read what the group ``box`` (SR voxels) is made of, unless that was begun already."""
        if (lead, box) in self._groups:
            return
        if self._reader is None:  # of the priority of the thread that computes
            self._reader = ThreadPoolExecutor(1, "cropeq reader")
        while len(self._groups) >= self._most:
            self._groups.pop(next(iter(self._groups))).cancel()
        self._groups[lead, box] = self._reader.submit(self._result.hold, lead, box)

    def compute(self, lead: Lead, box: Box, stop: Callable[[], bool] = never) -> npt.NDArray[Any]:
        """Return the SR voxels of ``box``, of the group it lies in or, outside any, straight from the source.

        Raises
        ------
        StoppedError
            If ``stop`` returned True before the end.
        """
        for (own, group), reading in list(self._groups.items()):
            if own == lead and group.intersect(box) == box:
                # What could not be read is read again, straight from the source: then the error is told.
                with contextlib.suppress(OSError, ValueError):
                    return self._result.compute(lead, box, stop, reading.result())
        return self._result.compute(lead, box, stop)

    def close(self) -> None:
        """Wait for what is being read, and hold nothing any more."""
        self._groups.clear()
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
            self._reader = None
