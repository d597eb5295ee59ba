"""Moves voxels to the device that computes, and results back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["HELD", "PINNED", "convert", "download", "own_stream", "rounded", "upload"]

PINNED = ("cuda",)
"""Devices that copy from and to pinned memory while they compute."""

HELD = tuple(np.dtype(kind) for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"))
"""Types of voxels that torch has."""

ROUNDING = ("cpu", "cuda")
"""Devices with all integers of 8 and 16 bits; Apple's GPUs have no uint16."""

_idle_streams: list[Any] = []


def upload(voxels: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Return ``voxels``, of one of the types :data:`HELD`, on ``device``; on the CPU without a copy if possible."""
    native = np.require(voxels, voxels.dtype.newbyteorder("="), ("C", "W"))
    tensor = torch.from_numpy(native)
    if device.type in PINNED:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def download(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array in the memory of the CPU, after everything that computes it is done."""
    if tensor.device.type not in PINNED:
        return tensor.cpu().numpy()
    # Pinned memory is scarce: it is only passed through.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    return host.numpy().copy()


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Let the calling thread copy and compute while the device works for other threads.

    Operations of one thread follow each other; those of two threads overlap, so a box is copied while another is
    computed.
    """
    if device.type != "cuda":
        yield
        return
    # Streams are used again, because freed memory belongs to the stream that it was allocated for.
    stream = _idle_streams.pop() if _idle_streams else torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        _idle_streams.append(stream)


def rounded(tensor: Tensor, dtype: npt.DTypeLike) -> Tensor:
    """Return intensities in the dtype of a result, as :func:`convert` does.

    Only types whose limits a float32 holds are rounded here, on a device that has them; others stay as they are.
    """
    target = np.dtype(dtype)
    if tensor.device.type not in ROUNDING or target.kind not in "ui" or target.itemsize > 2:
        return tensor
    limits = np.iinfo(target)
    return tensor.round().clamp_(int(limits.min), int(limits.max)).to(getattr(torch, target.name))


def convert(voxels: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return voxels in the dtype of the export: integers are rounded and clipped."""
    target = np.dtype(dtype)
    if target.kind == "f":
        return voxels.astype(target)
    limits = np.iinfo(target)
    # float64 holds every 32-bit limit; the largest 64-bit ones are clipped to the float below them.
    high = np.nextafter(float(limits.max), 0.0) if target.itemsize == 8 else float(limits.max)
    return np.clip(np.rint(voxels.astype(np.float64)), float(limits.min), high).astype(target)
