"""What the memory of a process does: glibc is kept from giving large temporaries back; running out is recognised."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys

import torch

__all__ = ["give_freed_memory_back", "is_out_of_memory", "keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30


@functools.lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let freed blocks be used again instead of unmapping them, once a process.

    Feature maps are allocated and freed for every layer; mapping their pages anew each time costs
    up to three quarters of the throughput. Does nothing where the C library is not glibc.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def give_freed_memory_back() -> None:
    """Return what :func:`keep_freed_memory` has kept: after an allocation failed, or when the work is over."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch, its CPU library or Python ran out of memory."""
    text = str(error).lower()
    # oneDNN says no more than that it could not create a primitive.
    told = ("out of memory", "can't allocate", "bad_alloc", "could not create a", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(t in text for t in told)
