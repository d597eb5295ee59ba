"""Resolution along the axial axis, before and after, by decorrelation analysis (Descloux et al. 2019).

It finds the finest structure in a cone around the axial axis, in one image. The acquired slices are interpolated first,
so that both are measured on one grid: the estimates of cubic for slices that lie further apart than their pixels are
wrong, or missing. Fourier shell correlation is not used: halves of a single image must have independent noise, which
the voxels of a result do not have. Regions fade out towards all sides, because the edges of an image, repeated by the
Fourier transform, are structure along the axes: on a phantom they made interpolated slices look as sharp as the truth.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import AXIS_NAMES, Acquisition, Box, int_triple
from napari_cropeq.core.predict import never
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.core.tiles import TileGrid
from napari_cropeq.errors import MissingPackageError, StoppedError
from napari_cropeq.formats.ome_tiff import UNITS

__all__ = ["AxialResolution", "check_cubic", "measure_resolution"]

SIDE = 96  # of a region, SR voxels
REGIONS, CANDIDATES = 6, 24
FEWEST_SLICES = 8
CONE = 30  # degrees from the axial axis
FILTERS = 6
UNIT = 0.1  # cubic takes a spacing of exactly 1 for none at all

Quartiles = tuple[float, float, float]


@dataclass(frozen=True)
class AxialResolution:
    """The finest structure along the axial axis; small numbers are better.

    Parameters
    ----------
    axis, unit : str
        Name of the axial axis, and the unit of the lengths.
    limit : float
        The finest structure that the acquired slices can carry: two axial steps.
    before, after : tuple of float, optional
        Lower quartile, median and upper quartile over regions of the acquired slices, and of the result. None if no
        region could be measured.
    regions : int
        Regions that were measured.
    """

    axis: str
    unit: str
    limit: float
    before: Quartiles | None
    after: Quartiles | None
    regions: int

    @property
    def text(self) -> str:
        """The resolution in words."""
        if self.after is None:
            return f"The resolution along {self.axis} could not be measured: there are too few slices or structures."
        unit = UNITS.get(self.unit, self.unit)
        before, after = (None if q is None else _of(q, unit, self.regions > 1) for q in (self.before, self.after))
        theirs = "none was found in them" if before is None else f"theirs is {before}"
        several = f"Medians and quartiles of {self.regions} regions."
        return (
            f"The finest structure of the result along {self.axis} is {after}. The acquired slices can carry "
            f"{self.limit:.3g} {unit} at most (two steps); {theirs}. "
            f"{several if self.regions > 1 else 'Of one region only, so the uncertainty is not known.'}"
        )

    @property
    def warning(self) -> str:
        """What the figures do not say; empty if nothing was measured."""
        if self.after is None:
            return ""
        unit = UNITS.get(self.unit, self.unit)
        return (
            f"Whatever is finer than {self.limit:.3g} {unit} along {self.axis} was not acquired but inferred. A "
            "network can make a result sharper without making it true, so this figure is no proof of resolution."
        )


def check_cubic() -> Callable[..., Any]:
    """Return the decorrelation analysis of cubic.

    Raises
    ------
    MissingPackageError
        If cubic is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of CuPy and Cellpose, which are not needed
        try:
            from cubic.metrics.spectral import dcr_curve_3d_sectioned
        except ImportError as error:
            raise MissingPackageError(
                "The package cubic, which measures the resolution, is not installed.",
                'Install it with: pip install "napari-cropeq[trust]"',
            ) from error
    analysis: Callable[..., Any] = dcr_curve_3d_sectioned
    return analysis


def measure_resolution(
    interpolated: Callable[[Box], npt.NDArray[Any]],
    result: ArrayLike,
    acquisition: Acquisition,
    stop: Callable[[], bool] = never,
) -> AxialResolution:
    """Measure the resolution along the axial axis, in the regions with the most contrast.

    Parameters
    ----------
    interpolated : callable
        Returns the acquired slices, interpolated to the SR voxels (z, y, x) of a box.
    result : array-like (z, y, x)
        The SR voxels.
    acquisition : Acquisition
        Grid of the source.
    stop : callable
        Called before each region.

    Raises
    ------
    MissingPackageError
        If cubic is not installed.
    StoppedError
        If ``stop`` returned True.
    """
    analyse, axial, side = check_cubic(), acquisition.axial, acquisition.lateral_step
    limit, before, after = 2 * acquisition.voxel_size[axial], [], []
    for box in _regions(result) if result.shape[axial] >= FEWEST_SLICES * acquisition.factor else []:
        if stop():
            raise StoppedError
        # Interpolation has nothing finer than two steps: an estimate below that is that of noise, or of leakage.
        before.append(max(limit, side * _finest(analyse, interpolated(box), axial)))
        after.append(max(2 * side, side * _finest(analyse, result[box.slices], axial)))
    measured = [[value for value in values if math.isfinite(value)] for values in (before, after)]
    found = [_quartiles(values) for values in measured]
    return AxialResolution(AXIS_NAMES[axial], acquisition.unit, limit, found[0], found[1], len(measured[1]))


def _regions(result: ArrayLike) -> list[Box]:
    """Return the regions with the most contrast, of some that are spread over the volume."""
    shape = int_triple(result.shape)
    grid = TileGrid(shape, int_triple([min(SIDE, n) for n in shape]))
    whole = [box for box in grid.touching(Box.whole(shape)) if min(box.shape) >= min(SIDE // 2, *shape)]
    chosen = [whole[number] for number in np.unique(np.linspace(0, len(whole) - 1, CANDIDATES).astype(int))]
    contrast = [float(np.std(np.asarray(result[box.slices][::2, ::2, ::2], np.float64))) for box in chosen]
    best = np.argsort(contrast, kind="stable")[::-1][:REGIONS]
    return [chosen[number] for number in sorted(best) if contrast[number] > 0]


def _finest(analyse: Callable[..., Any], voxels: npt.NDArray[Any], axial: int) -> float:
    """Return the finest structure along the axial axis, in SR voxels; infinite if none is found."""
    volume = np.moveaxis(np.asarray(voxels, np.float64), axial, 0)
    volume = volume - volume.mean()
    for axis, length in enumerate(volume.shape):
        volume *= np.hanning(length + 2)[1:-1].reshape([-1 if a == axis else 1 for a in range(3)])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = analyse(
            volume.astype(np.float32),
            spacing=(UNIT, UNIT, UNIT),
            angle_delta=CONE,
            num_highpass=FILTERS,
            windowing=False,
            refine=False,
        )
    resolution = float(found["z"]["resolution"]) / UNIT
    return resolution if math.isfinite(resolution) and resolution > 0 else math.inf


def _quartiles(values: list[float]) -> Quartiles | None:
    if not values:
        return None
    low, middle, high = (float(v) for v in np.quantile(values, (0.25, 0.5, 0.75)))
    return low, middle, high


def _of(quartiles: Quartiles, unit: str, spread: bool) -> str:
    low, middle, high = quartiles
    return f"{middle:.3g} {unit} ({low:.3g} to {high:.3g})" if spread else f"{middle:.3g} {unit}"
