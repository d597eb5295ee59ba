"""Process-wide changes that the package makes: what each gains, and how long it lasts.

A plugin shares its process. Four changes affect more than our own objects, and each ends with the work that needs it:

- :func:`freed_memory_kept`: glibc keeps large freed blocks while a box is computed or a model is trained. Without it,
  training loses up to three quarters of its throughput, and prediction about a sixth. Afterwards the thresholds are
  those that glibc's own adjustment reaches in a process that has freed an image of 32 MiB.
- :func:`short_turns`: threads switch ten times as often while a job works in a window, not while it waits. 50
  calls into Qt next to a thread that computes in Python took 270 ms, and 37 ms with it. Afterwards the interval is
  restored.
- :func:`exact_convolutions`: a GPU computes in float32, in the same way each time, while a box is computed. Afterwards
  the settings are restored.
- :func:`torch_threads`: how many threads torch computes with, while our threads start, or while a task computes on a
  cluster worker, which has some cores. Afterwards the number is restored.

``NAPARI_CROPEQ_HOST=untouched`` in the environment switches all but the third off. Results have the same bits either
way.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch

__all__ = [
    "exact_convolutions",
    "freed_memory_kept",
    "give_freed_memory_back",
    "is_untouched",
    "short_turns",
    "torch_threads",
]

VARIABLE = "NAPARI_CROPEQ_HOST"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30
# The values that glibc's own adjustment reaches. Setting a threshold stops that adjustment for good, so its initial
# value, 128 KiB, is too low: numpy's temporaries of 4 MiB took 12 times as long afterwards.
MMAP_BYTES, TRIM_BYTES = 2**25, 2**26
SWITCH_SECONDS = 0.0005


def is_untouched() -> bool:
    """Return whether the user has switched the changes off."""
    return os.environ.get(VARIABLE) == "untouched"


class _Change:
    """A change of the process that lasts while at least one thread is inside the context.

    Parameters
    ----------
    make : callable
        Makes the change, and returns a function that undoes it.
    decides_bits : bool
        Results depend on it, so it cannot be switched off.
    """

    def __init__(self, make: Callable[[], Callable[[], object]], decides_bits: bool = False) -> None:
        self._make, self._lock, self._users, self._decides_bits = make, threading.Lock(), 0, decides_bits
        self._undo: Callable[[], object] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0 and (self._decides_bits or not is_untouched()):
                self._undo = self._make()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._undo is not None:
                undo, self._undo = self._undo, None
                undo()


def freed_memory_kept() -> AbstractContextManager[None]:
    """Reuse freed blocks instead of unmapping them.

    Feature maps are allocated and freed for every layer, and mapping their pages each time is slow. Does nothing if
    the C library is not glibc.
    """
    return _memory


def short_turns() -> AbstractContextManager[None]:
    """Switch threads ten times as often as Python does by default.

    A window releases the interpreter with every call into Qt, and a thread that computes in Python keeps it for the
    whole interval.
    """
    return _turns


@contextlib.contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Set torch's number of threads for the calling thread, and for threads that call torch for the first time.

    torch keeps the number for each calling thread, and sets it at that thread's first call from a global number.
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
    """Return freed memory to the system: after an allocation has failed, or when the work is finished."""
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
    """Return glibc, or None if there is another C library."""
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
        if sys.getswitchinterval() == ours:  # other code may have set it meanwhile
            sys.setswitchinterval(before)

    return undo


def exact_convolutions(device: torch.device) -> AbstractContextManager[None]:
    """Convolve in float32 without TF32, deterministically and without autotuning.

    torch has one setting for all threads. The CPU and Apple's GPUs have none.
    """
    return _convolutions.get(device.type) or contextlib.nullcontext()


def _set_flags(kind: str) -> Callable[[], object]:
    backend: Any = torch.backends.cudnn if kind == "cuda" else torch.backends.mkldnn
    # Since torch 2.9, `allow_tf32 = False` alone lets operations take the precision of all of torch, which may be TF32.
    parts = [getattr(backend, name, None) for name in ("conv", "rnn")]
    precise = [(part, "fp32_precision", "ieee") for part in parts if hasattr(part, "fp32_precision")]
    wanted: list[tuple[Any, str, Any]] = [(backend, "deterministic", True), *precise]
    if kind == "cuda":
        wanted = [(backend, "benchmark", False), (backend, "allow_tf32", False), *wanted]
    elif not precise:
        wanted = [(backend, "allow_tf32", False), *wanted]
    before = []
    for owner, name, _ in wanted:
        with contextlib.suppress(AttributeError, RuntimeError):  # an older torch, or settings that it cannot sum up
            before.append((owner, name, getattr(owner, name)))
    for owner, name, value in wanted:
        with contextlib.suppress(AttributeError):
            setattr(owner, name, value)

    def undo() -> None:
        for owner, name, value in before:
            setattr(owner, name, value)

    return undo


_memory, _turns = _Change(_keep), _Change(_shorten_turns)
_convolutions = {kind: _Change(functools.partial(_set_flags, kind), decides_bits=True) for kind in ("cuda", "xpu")}
