"""Threads that compute side by side, each with its share of torch's threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from napari_cropeq.core.host import torch_threads

__all__ = ["ThreadMap"]

_T = TypeVar("_T")
_R = TypeVar("_R")


class ThreadMap:
    """Computes one thing after another, a few of them at the same time.

    Two boxes in two threads are done sooner than one after the other with two threads each: what only one thread can do
    (interpolation, copies) is then done beside the other's convolutions, and nobody waits for a thread at every layer.

    Parameters
    ----------
    size : int
        Threads; with one of them everything is computed by the caller's own.

    Attributes
    ----------
    over : bool
        Whether it has been dismissed: what it still computes is of no use to anybody.
    """

    def __init__(self, size: int = 1) -> None:
        self._size, self.over = size, False
        self._pool = None if size == 1 else _pool(size)

    def map(self, function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[tuple[_T, Future[_R]]]:
        """Yield each item with what ``function`` gives for it, in order; the next ones are begun meanwhile.

        Items are taken as threads become free, and one more.
        """
        ahead = 0 if self._pool is None else self._size
        started: deque[tuple[_T, Future[_R]]] = deque()
        for item in items:
            started.append((item, self._begin(function, item)))
            if len(started) > ahead:
                yield started.popleft()
        yield from started

    def dismiss(self) -> None:
        """Begin nothing more, and do not wait for what is under way."""
        self.over = True
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, function: Callable[[_T], _R], item: _T) -> Future[_R]:
        if self._pool is not None:
            return self._pool.submit(function, item)
        done: Future[_R] = Future()
        try:
            done.set_result(function(item))
        except BaseException as error:  # noqa: BLE001 (raised again by whoever asks for the result)
            done.set_exception(error)
        return done


def _pool(size: int) -> ThreadPoolExecutor:
    """Return threads that have begun, of the caller's priority, each with its share of torch's threads."""
    ready = threading.Barrier(size + 1)

    def begin(*_: Any) -> None:
        torch.get_num_threads()  # decides how many this thread computes with
        ready.wait()

    with torch_threads(max(1, torch.get_num_threads() // size)):
        pool = ThreadPoolExecutor(size, "cropeq pool", initializer=begin)
        for _ in range(size):
            pool.submit(int)
        ready.wait()
    return pool
