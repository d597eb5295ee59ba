"""Boxes, and where the source grid and the SR grid lie in each other.

Everything here is a pure function of absolute voxel coordinates, so neighbouring tiles agree about every voxel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real

import numpy as np
import numpy.typing as npt

from napari_cropeq.errors import ArgumentError, ImageError, VoxelSizeError

__all__ = ["FWHM_PER_SIGMA", "Acquisition", "Box", "IntTriple", "LeadingIndex", "Triple", "blur_fwhm", "guess_axial"]

Triple = tuple[float, float, float]
IntTriple = tuple[int, int, int]
LeadingIndex = tuple[int, ...]
"""Index along the leading axes (t, c) of an image."""

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
LATERAL_TOLERANCE = 0.01
MIN_SLICES = 4
# A larger ratio of the axial to the lateral step is a mistyped voxel size, not a microscope.
MAX_FACTOR = 32.0
AXIS_NAMES = "zyx"
TAPS = 20
"""Samples of the source that an SR sample is interpolated from, on either side of its position."""


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels, ``start <= index < stop``, axis order z, y, x."""

    start: IntTriple
    stop: IntTriple

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """Return the box of a whole volume of ``shape`` (z, y, x)."""
        return cls((0, 0, 0), int_triple(shape))

    @property
    def shape(self) -> IntTriple:
        """Number of voxels along z, y, x."""
        return int_triple([b - a for a, b in zip(self.start, self.stop, strict=True)])

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into an array whose first voxel is the origin."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def grow(self, margin: Sequence[int]) -> Box:
        """Return the box with ``margin`` (z, y, x) more voxels on either side."""
        return Box(
            int_triple([a - m for a, m in zip(self.start, margin, strict=True)]),
            int_triple([b + m for b, m in zip(self.stop, margin, strict=True)]),
        )

    def intersect(self, other: Box) -> Box | None:
        """Return the box that both have in common, or None."""
        start = int_triple([max(a, b) for a, b in zip(self.start, other.start, strict=True)])
        stop = int_triple([min(a, b) for a, b in zip(self.stop, other.stop, strict=True)])
        return Box(start, stop) if all(a < b for a, b in zip(start, stop, strict=True)) else None

    def relative_to(self, origin: Sequence[int]) -> Box:
        """Return the box in coordinates relative to ``origin`` (z, y, x)."""
        return Box(
            int_triple([a - o for a, o in zip(self.start, origin, strict=True)]),
            int_triple([b - o for b, o in zip(self.stop, origin, strict=True)]),
        )


def int_triple(values: Sequence[int]) -> IntTriple:
    """Return three whole numbers as a tuple."""
    z, y, x = (int(v) for v in values)
    return z, y, x


@dataclass(frozen=True)
class Acquisition:
    """How a volume was sampled; decides where the SR grid lies.

    Parameters
    ----------
    voxel_size : (z, y, x)
        Distance between sample centres, in ``unit``.
    axial : int
        Index into z, y, x of the low-resolution axis.
    fwhm : float, optional
        Width of the slice profile along the axial axis, in ``unit``. The axial step by default.
    unit : str
        Name of the unit of length.
    lateral_fwhm : float, optional
        Width of the lateral point spread function, in ``unit``: training then blurs lateral slices by the
        difference of the two variances. With 0, as in the paper, lateral slices count as perfectly sharp.

    Raises
    ------
    VoxelSizeError
        If a step is not a positive number, the lateral steps differ by more than 1 %, or the axial step is not
        larger than the lateral one.
    ArgumentError
        If there is no such axial axis, or an FWHM is not possible.
    """

    voxel_size: Triple
    axial: int = 0
    fwhm: float = field(default=0.0)
    unit: str = "micrometer"
    lateral_fwhm: float = 0.0

    def __post_init__(self) -> None:
        if self.axial not in (0, 1, 2):
            raise ArgumentError(
                f"The axial axis cannot be {self.axial!r}.", "Choose 0, 1 or 2 (z, y or x).", setting="axial"
            )
        check_voxel_size(self.voxel_size)
        one, other = (self.voxel_size[a] for a in self.lateral)
        if abs(one - other) > LATERAL_TOLERANCE * max(one, other) * (1 + 1e-9):
            raise VoxelSizeError(
                f"The lateral steps ({one:g} and {other:g} {self.unit}) differ by more than 1 %.",
                "Correct the voxel size, choose another axial axis, or resample the volume.",
                setting="voxel_size",
            )
        if self.fwhm == 0:
            object.__setattr__(self, "fwhm", self.voxel_size[self.axial])
        _check_fwhm(self.fwhm, self.lateral_fwhm, f" {self.unit}")
        self._check_factor()

    def _check_factor(self) -> None:
        step = self.voxel_size[self.axial]
        if self.factor <= 1 + LATERAL_TOLERANCE:
            kind = "isotropic" if self.factor >= 1 - LATERAL_TOLERANCE else "finer axially than laterally"
            raise VoxelSizeError(
                f"The volume is {kind}: the axial step ({step:g} {self.unit}) is not larger than the lateral step "
                f"({self.lateral_step:g} {self.unit}).",
                "Correct the voxel size or choose another axial axis.",
                setting="voxel_size",
            )
        if self.factor > MAX_FACTOR:
            raise VoxelSizeError(
                f"The axial step is {self.factor:.4g} times the lateral step, more than {MAX_FACTOR:g} times.",
                "Correct the voxel size.",
                setting="voxel_size",
            )
        if self.fwhm > 8 * step:
            raise ArgumentError(
                f"The FWHM of the slice profile ({self.fwhm:g} {self.unit}) is larger than 8 axial steps of {step:g} "
                f"{self.unit}.",
                "Correct the FWHM.",
                setting="fwhm",
            )

    @property
    def lateral(self) -> tuple[int, int]:
        """The two lateral axes, as indices into z, y, x."""
        first, second = (a for a in range(3) if a != self.axial)
        return first, second

    @property
    def lateral_step(self) -> float:
        """Mean of the two lateral steps, in ``unit``: the step of the isotropic SR grid."""
        first, second = self.lateral
        return (self.voxel_size[first] + self.voxel_size[second]) / 2

    @property
    def factor(self) -> float:
        """Axial step over lateral step; need not be an integer."""
        return self.voxel_size[self.axial] / self.lateral_step

    @property
    def fwhm_px(self) -> float:
        """Width of the slice profile in SR voxels."""
        return self.fwhm / self.lateral_step

    @property
    def blur_px(self) -> float:
        """FWHM of the Gaussian that makes lateral slices as blurred as the axial direction, SR voxels."""
        return blur_fwhm(self.fwhm, self.lateral_fwhm) / self.lateral_step

    def with_profile_of(self, other: Acquisition) -> Acquisition:
        """Return this acquisition with the slice profile of ``other``, which has the same width in px here."""
        scale = self.lateral_step / other.lateral_step
        fwhm = min(other.fwhm * scale, 8 * self.voxel_size[self.axial])  # factors may differ a little
        return replace(self, fwhm=fwhm, lateral_fwhm=other.lateral_fwhm * scale)

    def sr_shape(self, shape: Sequence[int]) -> IntTriple:
        """Return the shape (z, y, x) of the SR grid over a source of ``shape``."""
        return int_triple([sr_length(n, self.factor) if a == self.axial else n for a, n in enumerate(shape)])

    @property
    def sr_voxel_size(self) -> Triple:
        """Step of the SR grid along z, y, x, in ``unit``; lateral steps stay as they are."""
        z, y, x = (v / self.factor if a == self.axial else v for a, v in enumerate(self.voxel_size))
        return z, y, x

    @property
    def sr_offset(self) -> Triple:
        """Centre of the first SR voxel in source index coordinates (z, y, x)."""
        z, y, x = ((1 / self.factor - 1) / 2 if a == self.axial else 0.0 for a in range(3))
        return z, y, x


def blur_fwhm(fwhm: float, lateral_fwhm: float = 0.0) -> float:
    """Return the FWHM of the Gaussian that makes a lateral slice as blurred as the axial direction.

    Parameters
    ----------
    fwhm : float
        FWHM of the slice profile, in lateral pixels (or any unit of length).
    lateral_fwhm : float
        FWHM of the blur that the lateral image already has, in the same unit: variances of Gaussians add, so
        only their difference is missing. With 0, the slice profile is applied directly, as in the paper.

    Raises
    ------
    ArgumentError
        If either is not a finite length, or the lateral FWHM is not smaller than that of the slice profile.
    """
    _check_fwhm(fwhm, lateral_fwhm)
    return math.sqrt(fwhm**2 - lateral_fwhm**2)


def _check_fwhm(fwhm: float, lateral_fwhm: float, unit: str = "") -> None:
    """Raise ArgumentError unless ``fwhm`` is a length, and ``lateral_fwhm`` 0 or a smaller one."""
    if not (math.isfinite(fwhm) and fwhm > 0):
        raise ArgumentError(
            f"The FWHM of the slice profile ({fwhm:g}{unit}) is not a positive length.",
            "Correct the FWHM.",
            setting="fwhm",
        )
    if not (math.isfinite(lateral_fwhm) and lateral_fwhm >= 0):
        raise ArgumentError(
            f"The lateral FWHM ({lateral_fwhm:g}{unit}) is not a length of 0 or more.",
            "Correct the lateral FWHM. Set it to 0 if it is not known.",
            setting="lateral_fwhm",
        )
    if lateral_fwhm >= fwhm:
        raise ArgumentError(
            f"The lateral FWHM ({lateral_fwhm:g}{unit}) is not smaller than the FWHM of the slice profile "
            f"({fwhm:g}{unit}).",
            "Correct one of them, or set the lateral FWHM to 0 to blur by the slice profile directly.",
            setting="lateral_fwhm",
        )


def check_voxel_size(voxel_size: Sequence[float]) -> None:
    """Raise VoxelSizeError unless ``voxel_size`` is three positive, finite numbers (z, y, x)."""
    numbers = [v for v in voxel_size if isinstance(v, Real) and not isinstance(v, bool)]
    if len(numbers) != 3 or len(voxel_size) != 3 or not all(math.isfinite(v) and v > 0 for v in numbers):
        size = ", ".join(f"{v:g}" if v in numbers else repr(v) for v in voxel_size)
        raise VoxelSizeError(
            f"The voxel size ({size}) is not three positive numbers (z, y, x).",
            "Give the steps between voxels along (z, y, x).",
            setting="voxel_size",
        )


def guess_axial(voxel_size: Sequence[float]) -> int:
    """Return the axis whose step differs from two that agree, else the one with the largest step."""
    z, y, x = voxel_size
    agree = [abs(a - b) <= LATERAL_TOLERANCE * max(a, b) for a, b in ((y, x), (z, x), (z, y))]
    return agree.index(True) if agree.count(True) == 1 else int(np.argmax(np.asarray(voxel_size)))


def check_shape(shape: Sequence[int], acquisition: Acquisition, min_lateral: int) -> None:
    """Raise ImageError if a source of ``shape`` (z, y, x) is too thin, or smaller laterally than ``min_lateral``."""
    slices = shape[acquisition.axial]
    if slices < MIN_SLICES:
        raise ImageError(
            f"The volume has {slices} {'slice' if slices == 1 else 'slices'} along {AXIS_NAMES[acquisition.axial]}, "
            f"fewer than {MIN_SLICES}.",
            "Choose another axial axis or a thicker stack.",
            setting="axial",
        )
    smallest = min(shape[a] for a in acquisition.lateral)
    if smallest < min_lateral:
        raise ImageError(
            f"The smaller lateral side of the volume has {smallest} voxels, fewer than {min_lateral}.",
            "Use a wider field of view.",
        )


def sr_length(length: int, factor: float) -> int:
    """Return how many SR samples cover ``length`` source samples."""
    return math.floor(length * factor + 1e-6)


def source_positions(start: int, stop: int, factor: float) -> npt.NDArray[np.float64]:
    """Return the positions of SR samples ``start`` to ``stop`` on the source grid, in source index coordinates.

    Samples lie at the centres of their intervals and both grids cover the same extent: SR index j is at
    (j + 1/2) / factor - 1/2. Indices may lie beyond the volume on either side.
    """
    index = np.arange(start, stop, dtype=np.float64)
    return (index + 0.5) / factor - 0.5


def source_range(start: int, stop: int, factor: float, taps: int = TAPS) -> tuple[int, int]:
    """Return the absolute range of source samples that SR samples ``start`` to ``stop`` need; may cross the border."""
    low, high = source_positions(start, start + 1, factor)[0], source_positions(stop - 1, stop, factor)[0]
    return int(np.floor(low)) - (taps - 1), int(np.floor(high)) + taps + 1


def mirror(index: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Fold indices back into ``0 <= i < length`` about the first and last voxel centre, repeatedly if necessary."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    folded = np.mod(index, period)
    inside: npt.NDArray[np.int64] = np.minimum(folded, period - folded)
    return inside


def mirrored_range(start: int, stop: int, length: int) -> tuple[int, int]:
    """Return the range, inside ``0 <= i < length``, of indices ``start`` to ``stop``, some of which are mirrored."""
    index = mirror(np.arange(start, stop, dtype=np.int64), length)
    return int(index.min()), int(index.max()) + 1
