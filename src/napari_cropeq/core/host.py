"""What our work changes in the process that it runs in: each change, what it gains, and how long it lasts.

A plugin is a guest. Three changes reach beyond our own objects, and each ends with the work that needs it:

- :func:`freed_memory_kept`: glibc keeps large freed blocks while a box is computed or a model is trained. Without it up
  to three quarters of the throughput of a training are lost, and about a sixth of a prediction's. Afterwards its
  thresholds are those that glibc's own adjustment reaches in a process that has freed an image of 32 MiB.
- :func:`short_turns`: threads take turns ten times as often while a job works in a window, not while it waits. 50
  calls into Qt beside a thread that computes in Python took 270 ms, and 37 ms with it. Afterwards the interval is
  what it was.
- :func:`torch_threads`: how many threads torch computes with, for the moment in which threads of ours begin, or while a
  task computes on a worker of a cluster, which is given some cores. Afterwards the number is what it was.

``NAPARI_CROPEQ_HOST=untouched`` in the environment switches all of them off. The bits of results are the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch

__all__ = ["freed_memory_kept", "give_freed_memory_back", "is_untouched", "short_turns", "torch_threads"]

VARIABLE = "NAPARI_CROPEQ_HOST"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30
# Where glibc's own adjustment ends. Setting a threshold stops that adjustment for good, so that its first value,
# 128 KiB, would not do: numpy's temporaries of 4 MiB took 12 times as long afterwards.
MMAP_BYTES, TRIM_BYTES = 2**25, 2**26
SWITCH_SECONDS = 0.0005


def is_untouched() -> bool:
    """Return whether the user wants nothing of the process changed."""
    return os.environ.get(VARIABLE) == "untouched"


class _Change:
    """A change of the process that lasts while anybody is inside.

    Parameters
    ----------
    begin : callable
        Makes the change, and returns what undoes it.
    """

    def __init__(self, begin: Callable[[], Callable[[], object]]) -> None:
        self._begin, self._lock, self._users = begin, threading.Lock(), 0
        self._undo: Callable[[], object] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0 and not is_untouched():
                self._undo = self._begin()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._undo is not None:
                undo, self._undo = self._undo, None
                undo()


def freed_memory_kept() -> AbstractContextManager[None]:
    """Let freed blocks be used again instead of unmapping them.

    Feature maps are allocated and freed for every layer, and mapping their pages each time is slow. Does nothing where
    the C library is not glibc.
    """
    return _memory


def short_turns() -> AbstractContextManager[None]:
    """Let threads take turns ten times as often as Python does by default.

    A window gives the interpreter away with every call into Qt, and a thread that computes in Python keeps it for the
    whole interval.
    """
    return _turns


@contextlib.contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Have torch compute with some number of threads, in the calling thread and in those that first compute now.

    How many they are is kept for each thread that calls torch, and decided at its first call by a number that all
    share.
    """
    before = torch.get_num_threads()
    if is_untouched() or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def give_freed_memory_back() -> None:
    """Return freed memory to the system: after an allocation failed, or when the work is over."""
    libc = None if is_untouched() else _libc()
    if libc is not None:
        libc.malloc_trim(0)


def _keep() -> Callable[[], object]:
    _set_thresholds(KEPT_BYTES, KEPT_BYTES)
    return lambda: _set_thresholds(MMAP_BYTES, TRIM_BYTES)


def _set_thresholds(mapped: int, trimmed: int) -> None:
    libc = _libc()
    if libc is not None:
        libc.mallopt(M_MMAP_THRESHOLD, mapped)
        libc.mallopt(M_TRIM_THRESHOLD, trimmed)


def _libc() -> ctypes.CDLL | None:
    """Return glibc, None where there is another C library."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        if libc.mallopt and libc.malloc_trim:
            return libc
    return None


def _shorten_turns() -> Callable[[], object]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(SWITCH_SECONDS, before))
    ours = sys.getswitchinterval()

    def undo() -> None:
        if sys.getswitchinterval() == ours:  # what another has set meanwhile stays
            sys.setswitchinterval(before)

    return undo


_memory, _turns = _Change(_keep), _Change(_shorten_turns)
