"""A linear intensity scale for a source, measured on a bounded, seeded sample of its voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_cropeq.core.devices.transfer import HELD, upload
from napari_cropeq.core.geometry import AXIS_NAMES
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.errors import ImageError

_Values = TypeVar("_Values", npt.NDArray[Any], Tensor)

__all__ = ["Normalisation", "check_dtype", "check_finite", "sample"]

SAMPLE_VOXELS = 8_000_000
GRID = 512  # spacing of the boxes that are read from wide planes, voxels
PERCENTILES = (0.1, 99.9)
WITHOUT_FLOAT64 = ("mps", "xpu")  # on many Intel GPUs it is missing, too


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Maps source intensities ``low`` to 0 and ``high`` to 1. Elementwise, so tiles agree."""

    low: float
    high: float

    @classmethod
    def measure(cls, source: ArrayLike, seed: int = 0) -> Normalisation:
        """Measure the scale of a source (z, y, x), reading at most about 8 million voxels.

        Raises
        ------
        ImageError
            If the dtype holds no intensities, or voxels are NaN or infinite, or all are equal.
        """
        return cls.of(sample(source, seed))

    @classmethod
    def of(cls, voxels: npt.NDArray[Any]) -> Normalisation:
        """Return the scale of a :func:`sample`.

        Raises
        ------
        ImageError
            As :meth:`measure`.
        """
        check_dtype(voxels.dtype)
        check_finite(voxels, "the volume")
        low, high = (float(p) for p in np.percentile(voxels, PERCENTILES))
        if low == high:
            low, high = float(voxels.min()), float(voxels.max())
        if low == high:
            raise ImageError(
                f"The image is constant (every voxel is {low:g}).", "Choose another volume, one with structure."
            )
        return cls(low, high)

    def apply(self, voxels: npt.NDArray[Any], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Return normalised voxels; computed in float64, so 32-bit integers keep their precision before the scaling."""
        return ((voxels.astype(np.float64) - self.low) / (self.high - self.low)).astype(dtype)

    def on_device(self, voxels: npt.NDArray[Any], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Return what :meth:`apply` does as a tensor, computed on ``device`` if that has float64."""
        if device.type in WITHOUT_FLOAT64 or voxels.dtype.newbyteorder("=") not in HELD:
            kind = np.float64 if dtype is torch.float64 else np.float32
            return upload(self.apply(voxels, kind), device)
        return (upload(voxels, device).to(torch.float64) - self.low).div_(self.high - self.low).to(dtype)

    def undo(self, voxels: _Values) -> _Values:
        """Return source intensities from normalised voxels, in their dtype."""
        return voxels * (self.high - self.low) + self.low


def sample(source: ArrayLike, seed: int = 0) -> npt.NDArray[Any]:
    """Return all voxels of a small source (z, y, x), or boxes at seeded places spread along its thinnest axis.

    Raises
    ------
    ImageError
        If the dtype holds no intensities.
    """
    check_dtype(source.dtype)
    shape = source.shape
    if np.prod(shape, dtype=np.float64) <= SAMPLE_VOXELS:
        return np.asarray(source[:, :, :]).ravel()
    rng = np.random.default_rng(seed)
    thin = int(np.argmin(shape))  # stacks are usually stored along this axis: whole planes are read
    planes = np.linspace(0, shape[thin] - 1, min(shape[thin], 24)).round().astype(int)
    side = int((SAMPLE_VOXELS / len(planes)) ** 0.5)
    parts = []
    for plane in planes:
        box = []
        for axis, length in enumerate(shape):
            start, size = (int(plane), 1) if axis == thin else _span(length, side, rng)
            box.append(slice(start, start + size))
        parts.append(np.asarray(source[tuple(box)]).ravel())
    return np.concatenate(parts)


def _span(length: int, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return start and size of a box along a lateral axis, independent of how the source is chunked.

    Wide planes are usually stored in chunks: a box on a grid touches few of them.
    """
    if length >= 8 * GRID and side > GRID:
        return GRID * int(rng.integers(0, length // GRID)), GRID
    return int(rng.integers(0, max(length - side, 0) + 1)), min(side, length)


def check_dtype(dtype: npt.DTypeLike) -> None:
    """Raise ImageError unless ``dtype`` holds real intensities."""
    kind = np.dtype(dtype)
    if kind.kind not in "uif":
        raise ImageError(
            f"The voxels are of type {kind}, not integers or floats.", "Convert the volume, for instance to float32."
        )


def check_finite(voxels: npt.NDArray[Any], where: str, start: tuple[int, ...] | None = None) -> None:
    """Raise ImageError if any voxel is NaN or infinite; the message says where."""
    if voxels.dtype.kind != "f" or np.isfinite(voxels).all():
        return
    if start is None:
        number = int(np.count_nonzero(~np.isfinite(voxels)))
        problem = f"{number} voxel{'s' * (number > 1)} in {where} {'are' if number > 1 else 'is'} NaN or infinite."
    else:  # voxels beyond the border are mirrored, so they cannot be counted here
        place = ", ".join(f"{n} from {s}" for n, s in zip(AXIS_NAMES, start, strict=True))
        problem = f"Voxels in {where} are NaN or infinite (at {place})."
    raise ImageError(problem, "Replace them, for instance by 0, and try again.")
