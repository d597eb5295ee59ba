"""Reads the source of the next part while the network works on this one."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor

from napari_cropeq.core.geometry import Box
from napari_cropeq.volume.superres import Lead, SuperResolution

__all__ = ["ReadAhead"]


class ReadAhead:
    """Has one box at a time read in a thread of its own; what is read is kept with the source's other bricks.

    Parameters
    ----------
    result : SuperResolution
        Knows what a box is made of.
    """

    def __init__(self, result: SuperResolution) -> None:
        self._result = result
        self._reader: ThreadPoolExecutor | None = None
        self._reading: Future[None] | None = None

    def __call__(self, lead: Lead, box: Box) -> None:
        """Begin to read what ``box`` (SR voxels) is made of, unless another is still being read."""
        if self._reading is not None and not self._reading.done():
            return
        if self._reader is None:  # of the priority of the thread that computes
            self._reader = ThreadPoolExecutor(1, "cropeq reader")
        self._reading = self._reader.submit(self._read, lead, box)

    def close(self) -> None:
        """Wait for what is being read."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
            self._reader = None

    def _read(self, lead: Lead, box: Box) -> None:
        with contextlib.suppress(Exception):  # whoever needs the box reads it again, and tells
            self._result.read_ahead(lead, box)
