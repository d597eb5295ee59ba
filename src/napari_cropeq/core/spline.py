"""Quintic B-spline interpolation as a finite FIR filter at absolute coordinates.

The cardinal quintic spline decays as 0.4306**|n|; with 20 taps on each side the error is 6e-8 of the data range.
Weights depend on the absolute SR index alone, and taps are summed elementwise, one by one in a fixed order, so the
bits of a voxel do not depend on the box it is computed in. (A matrix product or a convolution may use another order
for another shape.)
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_cropeq.core.geometry import Box, mirror, source_positions

__all__ = ["TAPS", "ArrayLike", "degradation", "interpolate", "interpolation_weights", "read_mirrored"]

TAPS = 20
"""Taps on either side of a sample position."""


class ArrayLike(Protocol):
    """What a source must support, as numpy, Dask and Zarr arrays do. Axis order z, y, x."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""

    @property
    def dtype(self) -> Any:
        """The dtype of a voxel."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return a box."""


@functools.lru_cache(maxsize=1)
def _cardinal() -> tuple[npt.NDArray[np.float64], int]:
    centre = 64  # so far from the array's border that it does not affect the prefiltered impulse
    impulse = np.zeros(2 * centre + 1)
    impulse[centre] = 1.0
    return ndimage.spline_filter1d(impulse, order=5, output=np.float64), centre


def _tap_weights(
    positions: npt.NDArray[np.float64], taps: int = TAPS
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the first tap's index (n,) and the weights (n, 2 * taps), normalised to sum 1."""
    coefficients, centre = _cardinal()
    floor = np.floor(positions)
    first = floor.astype(np.int64) - (taps - 1)
    distance = (positions - floor)[:, None] + (taps - 1) - np.arange(2 * taps)  # position minus tap
    weights = ndimage.map_coordinates(coefficients, [centre + distance], order=5, prefilter=False)
    return first, weights / weights.sum(axis=1, keepdims=True)


def interpolation_weights(
    start: int, stop: int, factor: float, taps: int = TAPS
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the filter, with ``taps`` on each side, that interpolates SR samples ``start`` to ``stop``.

    Returns
    -------
    first : (n,) int64
        Absolute source index of the first tap of each SR sample; may lie beyond the volume.
    weights : (n, 2 * taps) float64
        One row per SR sample; each sums to 1.
    """
    return _tap_weights(source_positions(start, stop, factor), taps)


def read_mirrored(source: ArrayLike, box: Box) -> npt.NDArray[Any]:
    """Read ``box`` (z, y, x) of a source; voxels beyond the border are mirrored about the border voxel's centre.

    Only the part inside the source is read, once.
    """
    folded = [
        mirror(np.arange(a, b, dtype=np.int64), n) for a, b, n in zip(box.start, box.stop, source.shape, strict=True)
    ]
    inside = tuple(slice(int(i.min()), int(i.max()) + 1) for i in folded)
    data = np.asarray(source[inside])
    for axis, (index, part) in enumerate(zip(folded, inside, strict=True)):
        local = index - part.start
        if len(local) != data.shape[axis] or not np.array_equal(local, np.arange(len(local))):
            data = np.take(data, local, axis=axis)
    return data


def interpolate(
    samples: npt.NDArray[Any], first_sample: int, start: int, stop: int, factor: float, taps: int = TAPS
) -> npt.NDArray[Any]:
    """Interpolate along the first axis to SR samples ``start`` to ``stop``.

    Parameters
    ----------
    samples : (n, ...) float32 or float64
        Source samples, starting at absolute index ``first_sample``; they must include every tap.
    first_sample : int
        Absolute source index of ``samples[0]``.
    start, stop : int
        Absolute SR indices.
    factor : float
        Axial step over lateral step.
    taps : int
        Taps on either side of a position.

    Returns
    -------
    (stop - start, ...) array of the dtype of ``samples``
    """
    first, weights = interpolation_weights(start, stop, factor, taps)
    weights = weights.astype(samples.dtype)
    out = np.zeros((stop - start, *samples.shape[1:]), samples.dtype)
    term = np.empty(samples.shape[1:], samples.dtype)
    # Plane by plane: the working set is two planes, which stay in the cache.
    for row, tap0, plane_weights in zip(out, first - first_sample, weights, strict=True):
        for tap, weight in enumerate(plane_weights, int(tap0)):
            np.multiply(samples[tap], weight, out=term)
            row += term
    return out


def source_range(start: int, stop: int, factor: float, taps: int = TAPS) -> tuple[int, int]:
    """Return the absolute range of source samples that SR samples ``start`` to ``stop`` need; may cross the border."""
    low, high = source_positions(start, start + 1, factor)[0], source_positions(stop - 1, stop, factor)[0]
    return int(np.floor(low)) - (taps - 1), int(np.floor(high)) + taps + 1


def degradation(
    start: int, stop: int, factor: float, sigma: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]:
    """Return the two matrices that turn a high-resolution line into an interpolated low-resolution one.

    The line is blurred by the slice profile, sampled at the exact positions of the axial step (the grids of
    :func:`source_positions`, in the other direction), and interpolated back to the SR grid as in
    :func:`interpolation_weights`.

    Parameters
    ----------
    start, stop : int
        Absolute SR indices of the requested line.
    factor : float
        Axial step over lateral step.
    sigma : float
        Standard deviation of the Gaussian slice profile, in SR voxels.

    Returns
    -------
    up : (stop - start, n) float64
        From ``n`` low-resolution samples back to the SR grid.
    down : (n, m) float64
        From ``m`` high-resolution samples to the low-resolution ones: blur, then spline at exact positions.
    first : int
        Absolute SR index of the first high-resolution sample.
    """
    low, high = source_range(start, stop, factor)
    first_tap, weights = interpolation_weights(start, stop, factor)
    up = _band(first_tap - low, weights, high - low)

    positions = (np.arange(low, high, dtype=np.float64) + 0.5) * factor - 0.5
    tap, weights = _tap_weights(positions)
    radius = int(np.ceil(4 * sigma))
    profile = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-6)) ** 2)
    blurred = np.stack([np.convolve(row, profile / profile.sum()) for row in weights])
    first = int(tap.min()) - radius
    width = int(tap.max()) + 2 * TAPS + radius - first
    return up, _band(tap - radius - first, blurred, width), first


def _band(first: npt.NDArray[np.int64], rows: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    matrix = np.zeros((len(rows), width))
    for line, column, row in zip(matrix, first, rows, strict=True):
        line[column : column + len(row)] = row
    return matrix
