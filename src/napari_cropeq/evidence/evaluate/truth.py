"""A volume with known voxels, and its degradation to thick slices as a microscope would acquire them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import (
    AXIS_NAMES,
    FWHM_PER_SIGMA,
    LATERAL_TOLERANCE,
    MAX_FACTOR,
    MIN_SLICES,
    Acquisition,
    Box,
    IntTriple,
    mirror,
    source_range,
    sr_length,
)
from napari_cropeq.core.normalisation import check_dtype, check_finite
from napari_cropeq.core.spline import degradation
from napari_cropeq.errors import ArgumentError, ImageError
from napari_cropeq.formats.image import Image, check_volume

__all__ = ["Degraded", "Truth", "acquisition_for", "along", "degrade"]

BLOCK = 2**24
"""Voxels that are multiplied with a matrix at once, in float64."""


@dataclass(frozen=True, eq=False)
class Truth:
    """A volume to degrade and to compare with, held in memory.

    Parameters
    ----------
    name : str
        Name in tables.
    voxels : (z, y, x)
        Intensities, in the dtype of the file.
    voxel_size : (z, y, x), optional
        In ``unit``; only used in notices, see :attr:`treatment`.
    unit : str
        Name of the unit of length.
    path : str, optional
        File it was read from.

    Raises
    ------
    ImageError
        If the voxels are not intensities, are NaN or infinite, or all equal.
    """

    name: str
    voxels: npt.NDArray[Any]
    voxel_size: tuple[float, float, float] | None = None
    unit: str = "pixel"
    path: str | None = None

    def __post_init__(self) -> None:
        check_volume(self.voxels, self.name)
        check_dtype(self.voxels.dtype)
        check_finite(self.voxels, self.name)
        if self.voxels.min() == self.voxels.max():
            raise ImageError(
                f"The truth {self.name} is constant: every voxel is {self.voxels.flat[0]:g}.", "Choose another volume."
            )

    @classmethod
    def of(cls, source: Image, channel: int = 0, time: int = 0) -> Truth:
        """Read one channel at one time point of a source."""
        volume = source.volume(channel, time)
        voxels = np.ascontiguousarray(volume.compute())
        return cls(source.name, voxels, source.voxel_size, source.unit, source.path)

    @property
    def shape(self) -> IntTriple:
        """Voxels along z, y, x."""
        z, y, x = self.voxels.shape
        return z, y, x

    @property
    def treatment(self) -> str | None:
        """Notice about voxels that are not cubes or of unknown size; None for an isotropic truth."""
        if self.voxel_size is None:
            what = f"The file of {self.name} does not store a voxel size."
        elif max(self.voxel_size) - min(self.voxel_size) > LATERAL_TOLERANCE * max(self.voxel_size):
            size = " x ".join(f"{v:g}" for v in self.voxel_size)
            what = f"{self.name} is not isotropic ({size} {self.unit})."
        else:
            return None
        return f"{what} Its voxels are treated as cubes: factor and FWHM count voxels."

    def describe(self) -> dict[str, Any]:
        """Return name, size and checksum, in values that JSON can hold."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": str(self.voxels.dtype),
            "voxel_size": None if self.voxel_size is None else list(self.voxel_size),
            "unit": self.unit,
            "treatment": self.treatment,
            "checksum": self.checksum,
        }

    @cached_property
    def checksum(self) -> str:
        """Hexadecimal digest of shape, dtype and voxels."""
        digest = hashlib.sha256(f"{self.shape} {self.voxels.dtype.newbyteorder('=')}".encode())
        digest.update(np.ascontiguousarray(self.voxels).data)
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Degraded:
    """A truth as if acquired with thick slices.

    Parameters
    ----------
    source : (z, y, x) float32 or integers
        The samples; fewer than those of the truth along the axial axis of ``acquisition``.
    acquisition : Acquisition
        Its grid, in truth voxels (unit ``pixel``).
    sr_shape : (z, y, x)
        The SR grid; it starts at the first voxel of the truth.
    cut : int
        Truth voxels at the end of the axial axis that the SR grid does not cover.
    """

    source: npt.NDArray[Any]
    acquisition: Acquisition
    sr_shape: IntTriple
    cut: int

    def beside(self, box: Box) -> Degraded:
        """Return the lateral part inside ``box`` (SR voxels), with all of its slices.

        Degradation and interpolations treat each axial line separately, so that they give the same result for a part
        as for the whole.
        """
        axial = self.acquisition.axial
        inside = tuple(slice(None) if a == axial else s for a, s in enumerate(box.slices))
        z, y, x = (n if a == axial else box.shape[a] for a, n in enumerate(self.sr_shape))
        return replace(self, source=self.source[inside], sr_shape=(z, y, x))


def acquisition_for(shape: IntTriple, axis: int, factor: float, fwhm: float | None = None) -> tuple[Acquisition, int]:
    """Return the grid to which a truth of ``shape`` (z, y, x) is degraded, and its number of slices.

    Parameters
    ----------
    shape : (z, y, x)
        Voxels of the truth.
    axis : int
        Index into z, y, x of the axis to degrade.
    factor : float
        Step between slices, truth voxels; any number, not only integers.
    fwhm : float, optional
        Width of the Gaussian slice profile, truth voxels; the factor by default.

    Raises
    ------
    ArgumentError
        If factor or FWHM is out of range, or too few slices would be left.
    """
    if axis not in (0, 1, 2):
        raise ArgumentError(f"There is no axis {axis!r}.", "Choose 0, 1 or 2 (z, y or x).", setting="axis")
    if not 1 + LATERAL_TOLERANCE < factor <= MAX_FACTOR:
        raise ArgumentError(
            f"The factor {factor:g} is outside the possible range.",
            f"Choose a factor above {1 + LATERAL_TOLERANCE:g} and at most {MAX_FACTOR:g}.",
            setting="factor",
        )
    if fwhm is not None and not fwhm > 0:
        raise ArgumentError(
            f"The FWHM ({fwhm:g} voxels) is not positive.", "Give the width of the slice profile.", setting="fwhm"
        )
    slices = int(shape[axis] / factor + 1e-6)
    if slices < MIN_SLICES:
        raise ArgumentError(
            f"The truth has {shape[axis]} voxels along {AXIS_NAMES[axis]}. Factor {factor:g} leaves {slices} slices, "
            f"fewer than {MIN_SLICES}.",
            "Choose a smaller factor, another axis or a larger truth.",
            setting="factor",
        )
    z, y, x = (factor if a == axis else 1.0 for a in range(3))
    return Acquisition((z, y, x), axis, fwhm or 0.0, "pixel"), slices


def degrade(truth: npt.NDArray[Any], axis: int, factor: float, fwhm: float | None = None) -> Degraded:
    """Blur a truth along one axis by a Gaussian slice profile, and sample it at the exact positions of the slices.

    Slice i lies at truth index (i + 1/2) · factor − 1/2, so that truth and SR grid coincide voxel for voxel. The truth
    is mirrored beyond its edges. The samples stay float32: they are not rounded to the truth's integers.

    Parameters
    ----------
    truth : (z, y, x)
        Intensities.
    axis, factor, fwhm
        See :func:`acquisition_for`.
    """
    z, y, x = truth.shape
    acquisition, slices = acquisition_for((z, y, x), axis, factor, fwhm)
    length = sr_length(slices, factor)
    source = along(_degradation_matrix(truth.shape[axis], length, slices, acquisition), truth, axis)
    shape = acquisition.sr_shape(source.shape)
    return Degraded(source, acquisition, shape, truth.shape[axis] - length)


def _degradation_matrix(voxels: int, length: int, slices: int, acquisition: Acquisition) -> npt.NDArray[np.float64]:
    """Return the matrix (slices, voxels) from truth voxels to samples, made by the same code as in training."""
    factor, sigma = acquisition.factor, acquisition.fwhm_px / FWHM_PER_SIGMA
    _, down, first = degradation(0, length, factor, sigma)
    low, _ = source_range(0, length, factor)  # samples beyond the edge, within reach of the interpolation
    rows = down[-low : slices - low]
    matrix = np.zeros((slices, voxels))
    np.add.at(matrix.T, mirror(np.arange(first, first + down.shape[1]), voxels), rows.T)
    return matrix


def along(matrix: npt.NDArray[np.float64], volume: npt.NDArray[Any], axis: int) -> npt.NDArray[np.float32]:
    """Multiply every line of ``volume`` (z, y, x) along ``axis`` with ``matrix`` (new, old), in float64."""
    shape = [len(matrix) if a == axis else n for a, n in enumerate(volume.shape)]
    out = np.empty(shape, np.float32)
    across = 1 if axis == 0 else 0
    step = max(1, BLOCK * volume.shape[across] // volume.size)
    for start in range(0, volume.shape[across], step):
        part = tuple(slice(start, start + step) if a == across else slice(None) for a in range(3))
        lines = np.tensordot(matrix, volume[part].astype(np.float64), (1, axis))  # (new, ...)
        out[part] = np.moveaxis(lines, 0, axis)
    return out
