"""Whether an error means that memory has run out, and what to do then."""

from __future__ import annotations

import torch

from napari_cropeq.core.host import give_freed_memory_back

__all__ = ["failed_allocations", "give_memory_back", "is_out_of_memory"]

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

AT_THE_START = ("could not create a primitive", "could not create a memory")
"""In messages of oneDNN, torch's CPU library, which says no more when it cannot allocate its kernels or buffers."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch, its CPU library or Python ran out of memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    message = str(error).lower()
    matches = message.startswith(AT_THE_START) or any(words in message for words in ANYWHERE)
    return isinstance(error, RuntimeError) and matches


def failed_allocations(device: torch.device) -> int:
    """Return how many allocations on a CUDA GPU have failed in this process; 0 for other devices.

    cuDNN tries another kernel when there is no memory for the workspace of the best one, and says nothing: the values
    are right, but their bits are others.
    """
    return int(torch.cuda.memory_stats(device).get("num_ooms", 0)) if device.type == "cuda" else 0


def give_memory_back(device: torch.device) -> None:
    """Return freed memory to the system, and that of a GPU to other programs.

    It is for when an allocation has failed, and for when there is no more work.
    """
    give_freed_memory_back()
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()
