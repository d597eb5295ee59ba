"""A pool of threads that compute at the same time, each with a part of torch's threads."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from napari_cropeq.core.host import torch_threads

__all__ = ["ThreadMap"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_R = TypeVar("_R")


class ThreadMap:
    """Applies a function to items, a few of them at the same time.

    Two boxes in two threads are faster than one after the other with two torch threads each: the single-threaded parts
    (interpolation, copies) of one run during the convolutions of the other, and threads need not meet at every layer.

    Parameters
    ----------
    size : int
        Number of threads; with 1 everything is computed in the caller's thread.

    Attributes
    ----------
    over : bool
        Whether it has been dismissed: results still being computed are not used.
    """

    def __init__(self, size: int = 1) -> None:
        self._size, self.over = size, False
        self._pool = None if size == 1 else _pool(size)

    def map(self, function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[tuple[_T, Future[_R]]]:
        """Yield each item with the future of its result, in order; the next ones are started meanwhile.

        Items are taken as threads become free, and one more.
        """
        ahead = 0 if self._pool is None else self._size
        started: deque[tuple[_T, Future[_R]]] = deque()
        for item in items:
            started.append((item, self._start(function, item)))
            if len(started) > ahead:
                yield started.popleft()
        yield from started

    def dismiss(self) -> None:
        """Start nothing more, and do not wait for running items."""
        self.over = True
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, function: Callable[[_T], _R], item: _T) -> Future[_R]:
        if self._pool is not None:
            return self._pool.submit(function, item)
        done: Future[_R] = Future()
        try:
            done.set_result(function(item))
        except BaseException as error:  # noqa: BLE001 (raised again when the caller asks for the result)
            done.set_exception(error)
        return done


def _pool(size: int) -> ThreadPoolExecutor:
    """Return a pool of threads that have started, with the caller's priority, each with a part of torch's threads."""
    ready = threading.Barrier(size + 1)

    def start(*_: Any) -> None:
        torch.get_num_threads()  # sets how many threads this thread computes with
        ready.wait()

    each = max(1, torch.get_num_threads() // size)
    logger.info("%d pieces of work at the same time, each with %d threads", size, each)
    with torch_threads(each):
        pool = ThreadPoolExecutor(size, "cropeq pool", initializer=start)
        for _ in range(size):
            pool.submit(int)
        ready.wait()
    return pool
