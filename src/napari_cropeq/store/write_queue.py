"""A queue of tiles that a separate thread writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy.typing as npt

from napari_cropeq.store.protocol import Tile

__all__ = ["WAITING", "WriteQueue"]

WAITING = 2  # tiles that may wait, so that computing cannot run ahead of the disk


class WriteQueue:
    """Passes tiles to a thread that writes them one by one; after a failure it writes no more.

    Parameters
    ----------
    write : callable
        Writes a tile's voxels (z, y, x).
    wrap : callable
        Converts an error of ``write`` to the one that is raised.
    """

    def __init__(
        self,
        write: Callable[[Tile, npt.NDArray[Any]], None],
        wrap: Callable[[BaseException], BaseException],
    ) -> None:
        self._write, self._wrap = write, wrap
        self._waiting: dict[Tile, npt.NDArray[Any]] = {}
        self._writer: ThreadPoolExecutor | None = None
        self._room = threading.Semaphore(WAITING)
        self._error: BaseException | None = None

    def __contains__(self, tile: Tile) -> bool:
        return tile in self._waiting

    def __iter__(self) -> Iterator[Tile]:
        return iter(list(self._waiting))

    def get(self, tile: Tile) -> npt.NDArray[Any] | None:
        """Return the voxels (z, y, x) of a tile that is not written yet, or None."""
        return self._waiting.get(tile)

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Add a tile to the queue; wait if too many others are waiting.

        Raises
        ------
        Exception
            If an earlier tile could not be written.
        """
        self._room.acquire()
        try:
            self._check()  # also for the tile that there was no room for: it may have failed meanwhile
        except BaseException:
            self._room.release()
            raise
        self._waiting[tile] = voxels
        if self._writer is None:  # started here to get the priority of the computing thread
            self._writer = ThreadPoolExecutor(1, "cropeq store")
        self._writer.submit(self._write_one, tile).add_done_callback(self._written)

    def flush(self) -> None:
        """Wait until all tiles are written.

        Raises
        ------
        Exception
            If one could not be written.
        """
        self._shut()
        self._check()

    def drop(self) -> None:
        """Finish the current tile and drop the others."""
        self._shut(cancel=True)
        self._waiting.clear()

    def _shut(self, cancel: bool = False) -> None:
        if self._writer is not None:
            self._writer.shutdown(cancel_futures=cancel)
            self._writer = None

    def _check(self) -> None:
        if self._error is not None:
            self._waiting.clear()  # first, so that the writer skips the rest
            error, self._error = self._error, None
            wrapped = self._wrap(error)
            if wrapped is error:  # an error must not be its own cause
                raise error
            raise wrapped from error

    def _write_one(self, tile: Tile) -> None:
        voxels = self._waiting.get(tile)
        if self._error is None and voxels is not None:
            self._write(tile, voxels)
            self._waiting.pop(tile, None)

    def _written(self, future: Future[None]) -> None:
        if not future.cancelled() and future.exception() is not None:
            self._error = future.exception()
        self._room.release()
