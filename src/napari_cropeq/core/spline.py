"""Quintic B-spline interpolation as a finite FIR filter at absolute coordinates.

The cardinal quintic spline decays as 0.4306**|n|; with 20 taps on each side the error is 6e-8 of the data range.
Weights depend on the absolute SR index alone and are computed on the CPU in float64. Taps are summed elementwise, one
by one in a fixed order, so the bits of a voxel do not depend on the box it is computed in, on any device. (A matrix
product or a convolution may use another order for another shape, and an operation that multiplies and adds at once
rounds once or twice.)
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from napari_cropeq.core.devices.transfer import upload
from napari_cropeq.core.geometry import TAPS, Box, mirror, source_positions, source_range

__all__ = ["TAPS", "ArrayLike", "degradation", "interpolate", "interpolation_weights", "read_mirrored", "weighted_sums"]

AT_ONCE = 2**15 - 1  # values that are summed at once on the CPU; torch uses its threads for more
MOST_THREADS = 8  # an operation takes 20 µs: more threads would wait for Python's lock


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


def interpolate(samples: Tensor, first_sample: int, start: int, stop: int, factor: float, taps: int = TAPS) -> Tensor:
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
    (stop - start, ...) tensor of the dtype of ``samples``, on their device
    """
    first, weights = interpolation_weights(start, stop, factor, taps)
    return weighted_sums(samples, (first - first_sample)[:, None] + np.arange(2 * taps), weights)


def weighted_sums(values: Tensor, index: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]) -> Tensor:
    """Return sums of weighted rows, added one by one in the given order.

    Parameters
    ----------
    values : (m, ...) float32 or float64
        The rows.
    index : (n, taps)
        Which rows are added for each result.
    weights : (n, taps) float64
        Rounded to the dtype of ``values``; a weight of 0 changes no bit.

    Returns
    -------
    (n, ...) tensor of the dtype of ``values``, on their device
    """
    flat = values.reshape(len(values), -1)
    kind = np.float64 if values.dtype is torch.float64 else np.float32
    places = upload(index.T, values.device)  # (taps, n)
    factors = upload(weights.T.astype(kind), values.device)[..., None]  # (taps, n, 1)
    sums = torch.zeros(len(index), flat.shape[1], dtype=values.dtype, device=values.device)

    @torch.inference_mode()
    def add(columns: slice) -> None:
        part, into = flat[:, columns].contiguous(), sums[:, columns]
        for rows, factor in zip(places, factors, strict=True):
            into += part.index_select(0, rows).mul_(factor)

    if values.device.type != "cpu":
        add(slice(None))
        return sums.reshape(len(index), *values.shape[1:])
    # Parts stay in the cache, and torch computes each operation in one thread: it would wait for others at each end.
    each = max(1, AT_ONCE // max(1, len(index), len(values)))
    parts = [slice(start, start + each) for start in range(0, flat.shape[1], each)]
    threads = min(torch.get_num_threads(), MOST_THREADS, len(parts))
    if threads < 2:
        for part in parts:
            add(part)
    else:
        with ThreadPoolExecutor(threads, "cropeq sums") as pool:
            list(pool.map(add, parts))
    return sums.reshape(len(index), *values.shape[1:])


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
