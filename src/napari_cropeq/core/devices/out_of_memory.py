"""Whether an error means that memory has run out, and what to do then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from napari_cropeq.core.host import give_freed_memory_back
from napari_cropeq.errors import OutOfMemoryError

__all__ = ["SPOILT", "give_memory_back", "is_out_of_memory", "is_spoilt", "watched"]

ANYWHERE = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "status_alloc_failed",
    "unable to find an engine",
    "out_of_device_memory",
    "out_of_host_memory",
    "out_of_resources",
)
"""In messages of torch's allocators on Linux and Windows, of C++, of CUDA and its libraries, and of Intel's GPUs."""

SPOILT = "The memory of the GPU was full, and since then it may compute other bits."

_spoilt: set[str] = set()  # kinds of devices

AT_THE_START = ("could not create a primitive", "could not create a memory")
"""In messages of oneDNN, torch's CPU library, which says no more when it cannot allocate its kernels or buffers."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch, its CPU library or Python ran out of memory, so that less of it may suffice."""
    if isinstance(error, OutOfMemoryError):  # less was tried already
        return False
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    message = str(error).lower()
    matches = message.startswith(AT_THE_START) or any(words in message for words in ANYWHERE)
    return isinstance(error, RuntimeError) and matches


@contextmanager
def watched(device: torch.device) -> Iterator[None]:
    """Raise OutOfMemoryError if an allocation fails that nothing else reports, and do not use the device any more.

    cuDNN tries another kernel when there is no memory for the workspace of the best one, says nothing, and keeps that
    kernel for later calls: the values are right, but their bits are others.
    """
    failed = _failed_allocations(device)
    if not is_spoilt(device):
        yield
        if _failed_allocations(device) == failed:
            return
        _spoilt.add(device.type)
    raise OutOfMemoryError(
        f"{SPOILT} Finished tiles are right.",
        "Close other programs that use the GPU, then start this program again and resume.",
    )


def is_spoilt(device: torch.device) -> bool:
    """Return whether the device may compute other bits, because its memory was full: see :func:`watched`."""
    return device.type in _spoilt


def _failed_allocations(device: torch.device) -> int:
    """Return how many allocations on a CUDA GPU have failed in this process; 0 for other devices."""
    return int(torch.cuda.memory_stats(device).get("num_ooms", 0)) if device.type == "cuda" else 0


def give_memory_back(device: torch.device) -> None:
    """Return freed memory to the system, and that of a GPU to other programs.

    It is for when an allocation has failed, and for when there is no more work.
    """
    give_freed_memory_back()
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
