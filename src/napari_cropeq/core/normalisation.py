"""One linear intensity scale for a source, from a bounded, seeded sample of its voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import AXIS_NAMES
from napari_cropeq.core.spline import ArrayLike

__all__ = ["Normalisation", "check_dtype", "check_finite", "sample"]

SAMPLE_VOXELS = 8_000_000
GRID = 512  # of the boxes that are read of wide planes, voxels
PERCENTILES = (0.1, 99.9)


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
        ValueError
            If the dtype holds no intensities, or voxels are NaN or infinite, or all are equal.
        """
        return cls.of(sample(source, seed))

    @classmethod
    def of(cls, voxels: npt.NDArray[Any]) -> Normalisation:
        """Return the scale of a :func:`sample`.

        Raises
        ------
        ValueError
            As :meth:`measure`.
        """
        check_dtype(voxels.dtype)
        check_finite(voxels, "the volume")
        low, high = (float(p) for p in np.percentile(voxels, PERCENTILES))
        if low == high:
            low, high = float(voxels.min()), float(voxels.max())
        if low == high:
            raise ValueError(
                f"Got a constant image (every voxel is {low:g}), expected one with structure: choose another volume."
            )
        return cls(low, high)

    def apply(self, voxels: npt.NDArray[Any], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Return normalised voxels; computed in float64, so that 32-bit integers lose nothing before the scaling."""
        return ((voxels.astype(np.float64) - self.low) / (self.high - self.low)).astype(dtype)

    def undo(self, voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return source intensities from normalised voxels, in the dtype given."""
        kind = voxels.dtype.type
        restored: npt.NDArray[Any] = voxels * kind(self.high - self.low) + kind(self.low)
        return restored


def sample(source: ArrayLike, seed: int = 0) -> npt.NDArray[Any]:
    """Return all voxels of a small source (z, y, x), else boxes at seeded places spread along the longest axis.

    Raises
    ------
    ValueError
        If the dtype holds no intensities.
    """
    check_dtype(source.dtype)
    shape = source.shape
    if np.prod(shape, dtype=np.float64) <= SAMPLE_VOXELS:
        return np.asarray(source[:, :, :]).ravel()
    rng = np.random.default_rng(seed)
    thin = int(np.argmin(shape))  # the axis a stack is stored along, as a rule: whole planes are read
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
    """Return start and size of a box along a lateral axis, whatever the chunks are in which the source is stored.

    Wide planes come in chunks as a rule: a box on a grid touches few of them.
    """
    if length >= 8 * GRID and side > GRID:
        return GRID * int(rng.integers(0, length // GRID)), GRID
    return int(rng.integers(0, max(length - side, 0) + 1)), min(side, length)


def check_dtype(dtype: npt.DTypeLike) -> None:
    """Raise ValueError unless ``dtype`` holds real intensities."""
    kind = np.dtype(dtype)
    if kind.kind not in "uif":
        raise ValueError(
            f"Got voxels of type {kind}, expected integers or floats: convert the volume, e.g. to float32."
        )


def check_finite(voxels: npt.NDArray[Any], where: str, start: tuple[int, ...] | None = None) -> None:
    """Raise ValueError if any voxel is NaN or infinite, saying where."""
    if voxels.dtype.kind != "f" or np.isfinite(voxels).all():
        return
    count, place = f"{np.count_nonzero(~np.isfinite(voxels))} ", ""
    if start is not None:  # beyond the border voxels are mirrored, so that they cannot be counted here
        count, place = "", " at " + ", ".join(f"{n} from {s}" for n, s in zip(AXIS_NAMES, start, strict=True))
    raise ValueError(
        f"Got {count}NaN or infinite voxels in {where}{place}, expected finite intensities: "
        "replace them (for instance by 0) and try again."
    )
