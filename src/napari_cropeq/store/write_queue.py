"""Tiles that wait to be written, by a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy.typing as npt

from napari_cropeq.store.protocol import Tile

__all__ = ["WAITING", "WriteQueue"]

WAITING = 2  # tiles that may wait: what is computed must not outrun the disk


class WriteQueue:
    """Hands tiles to a thread that writes them, one after another; after a failure none is tried any more.

    Parameters
    ----------
    write : callable
        Writes a tile's voxels (z, y, x).
    told : callable
        Makes what is raised of what went wrong.
    """

    def __init__(
        self,
        write: Callable[[Tile, npt.NDArray[Any]], None],
        told: Callable[[BaseException], BaseException],
    ) -> None:
        self._write, self._told = write, told
        self._waiting: dict[Tile, npt.NDArray[Any]] = {}
        self._writer: ThreadPoolExecutor | None = None
        self._room = threading.Semaphore(WAITING)
        self._error: BaseException | None = None

    def __contains__(self, tile: Tile) -> bool:
        return tile in self._waiting

    def __iter__(self) -> Iterator[Tile]:
        return iter(list(self._waiting))

    def get(self, tile: Tile) -> npt.NDArray[Any] | None:
        """Return the voxels (z, y, x) of a tile that is not written yet, else None."""
        return self._waiting.get(tile)

    def put(self, tile: Tile, voxels: npt.NDArray[Any]) -> None:
        """Have a tile written; wait while too many others are being so.

        Raises
        ------
        Exception
            If an earlier one could not be written.
        """
        self._check()
        self._room.acquire()
        self._waiting[tile] = voxels
        if self._writer is None:  # of the priority of the thread that computes
            self._writer = ThreadPoolExecutor(1, "cropeq store")
        self._writer.submit(self._write_one, tile).add_done_callback(self._written)

    def flush(self) -> None:
        """Wait until all tiles are written.

        Raises
        ------
        Exception
            If one could not be.
        """
        self._shut()
        self._check()

    def drop(self) -> None:
        """Finish the tile under way and forget the others."""
        self._shut(cancel=True)
        self._waiting.clear()

    def _shut(self, cancel: bool = False) -> None:
        if self._writer is not None:
            self._writer.shutdown(cancel_futures=cancel)
            self._writer = None

    def _check(self) -> None:
        if self._error is not None:
            self._waiting.clear()  # first, so that the writer tries none of it
            error, self._error = self._error, None
            raise self._told(error) from error

    def _write_one(self, tile: Tile) -> None:
        voxels = self._waiting.get(tile)
        if self._error is None and voxels is not None:
            self._write(tile, voxels)
            self._waiting.pop(tile, None)

    def _written(self, future: Future[None]) -> None:
        self._room.release()
        if not future.cancelled() and future.exception() is not None:
            self._error = future.exception()
