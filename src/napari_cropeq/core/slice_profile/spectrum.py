"""Three-dimensional power spectra of a source, averaged over rings of lateral frequency, from bounded reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft, sparse

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.normalisation import check_finite
from napari_cropeq.core.spline import ArrayLike

__all__ = ["Spectra"]

WINDOWS = 3
"""Ranges of slices that are read."""

DEPTH = 48
"""Slices in a range, and in a tile."""

READ_SIDE = 768
"""Largest lateral side that is read, px."""

TILE_SIDES = (96, 64)
"""Lateral sides of a tile, px: the first that fits is used."""

TILES = 32
"""Tiles used from a range of slices, those with the most contrast."""

RINGS = 24
RING_RANGE = (0.05, 0.5)  # cycles/px; lower frequencies depend on a few large structures
CONTRAST_RANGE = (0.1, 0.35)  # cycles/px; where most images have signal


@dataclass(frozen=True)
class Spectra:
    """Power of tiles by axial frequency and ring of lateral frequency, scaled by each tile's contrast.

    Frequencies along a lateral axis (within 1.5 bins of it) are left out: they contain steps between slices, stripes
    of a scanner or a light sheet, and the tile's mean.
    """

    power: npt.NDArray[np.float64]
    """(tiles, 2, axial frequencies, rings): the second axis is for rings' sectors about the two lateral axes."""

    axial: npt.NDArray[np.float64]
    """(axial frequencies,) from 0 to the Nyquist frequency, in cycles per slice."""

    rings: npt.NDArray[np.float64]
    """(rings,) mean lateral frequency, in cycles per lateral pixel."""

    modes: npt.NDArray[np.float64]
    """(2, rings) number of Fourier modes of a tile in each ring's sector."""

    depth: int
    """Slices in a tile."""

    @classmethod
    def measure(cls, source: ArrayLike, acquisition: Acquisition, seed: int = 0) -> Spectra | None:
        """Measure a source (z, y, x), reading at most 3 boxes of 48 slices by 768 × 768 px.

        Returns None if every tile is constant.

        Raises
        ------
        ImageError
            If voxels are NaN or infinite.
        """
        side = next((s for s in TILE_SIDES if s <= min(source.shape[a] for a in acquisition.lateral)), TILE_SIDES[-1])
        depth = min(DEPTH, source.shape[acquisition.axial])
        window, gather, rings, modes = _window(depth, side), *_rings(side)
        power = []
        for box in _boxes(source.shape, acquisition, depth, np.random.default_rng(seed)):
            voxels = np.asarray(source[box])
            check_finite(voxels, "the volume")
            for tile in _tiles(np.moveaxis(voxels, acquisition.axial, 0), side):
                found = gather @ _periodogram(tile, window).reshape(depth, -1).T  # (2 * rings, depth)
                found = (found + np.roll(found[:, ::-1], 1, axis=1))[:, : depth // 2 + 1] / 2  # +k and -k
                power.append(found.reshape(2, RINGS, -1).transpose(0, 2, 1))
        if not power:
            return None
        return cls(_levelled(np.array(power), rings), np.arange(depth // 2 + 1) / depth, rings, modes, depth)


def _boxes(
    shape: tuple[int, ...], acquisition: Acquisition, depth: int, rng: np.random.Generator
) -> list[tuple[slice, ...]]:
    """Spread ranges of slices over the volume; laterally they lie near its middle, where the object usually is."""
    slices = shape[acquisition.axial]
    count = min(WINDOWS, -(-slices // depth))
    boxes = []
    for part in range(count):
        box = [slice(None)] * 3
        first = (slices - depth) * part // (count - 1) if count > 1 else 0
        if slices > 2 * WINDOWS * depth:  # the ends of a long stack are often empty
            first = slices * (2 * part + 1) // (2 * count) - depth // 2
        box[acquisition.axial] = slice(first, first + depth)
        for axis in acquisition.lateral:
            extent = min(READ_SIDE, shape[axis])
            start = int((shape[axis] - extent + 1) * rng.uniform(0, 1, 2).mean())
            box[axis] = slice(start, start + extent)
        boxes.append(tuple(box))
    return boxes


def _tiles(voxels: npt.NDArray[Any], side: int) -> list[npt.NDArray[np.float32]]:
    """Cut half-overlapping tiles (depth, side, side) of zero mean, and keep those with the most contrast."""
    starts = [np.linspace(0, n - side, -(-(n - side) // (side // 2)) + 1).astype(int) for n in voxels.shape[1:]]
    cut = [voxels[:, y : y + side, x : x + side] for y in starts[0] for x in starts[1]]
    contrast = np.array([float(tile[::4, ::3, ::3].std(dtype=np.float64)) for tile in cut])
    chosen = np.argsort(-contrast, kind="stable")[:TILES]
    kept = [cut[i].astype(np.float64) for i in np.sort(chosen) if contrast[i] > 0]
    return [(tile - tile.mean()).astype(np.float32) for tile in kept]


def _window(depth: int, side: int) -> npt.NDArray[np.float32]:
    """Return a separable Hann window (depth, side, side) whose squares sum to 1."""
    deep, wide = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in (depth, side))
    window = deep[:, None, None] * wide[:, None] * wide
    unit: npt.NDArray[np.float32] = (window / np.sqrt((window**2).sum())).astype(np.float32)
    return unit


def _periodogram(tile: npt.NDArray[np.float32], window: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the power (depth, side, side // 2 + 1) of a tile of zero mean."""
    spectrum = fft.rfftn(tile * window)
    power: npt.NDArray[np.float32] = spectrum.real**2 + spectrum.imag**2
    return power


def _rings(side: int) -> tuple[sparse.csr_array, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the matrix (2 * rings, modes) that averages a tile's modes, the rings' frequencies and mode counts."""
    ky = np.abs(fft.fftfreq(side))[:, None] + np.zeros(side // 2 + 1)
    kx = np.arange(side // 2 + 1) / side + np.zeros((side, 1))
    radius = np.hypot(ky, kx)
    edges = np.linspace(*RING_RANGE, RINGS + 1)
    ring = np.digitize(radius, edges) - 1
    inside = (ring >= 0) & (ring < RINGS) & (ky > 1.5 / side) & (kx > 1.5 / side)
    label = (ring + RINGS * (ky > kx))[inside]  # sector 0: about the last axis, 1: about the one before
    modes = np.bincount(label, minlength=2 * RINGS).astype(np.float64)
    gather = sparse.csr_array(
        ((1 / modes[label]).astype(np.float32), (label, np.flatnonzero(inside))), shape=(2 * RINGS, radius.size)
    )
    weighted = np.bincount(label, radius[inside], 2 * RINGS).reshape(2, RINGS).sum(axis=0)
    modes = modes.reshape(2, RINGS)
    return gather, weighted / modes.sum(axis=0), modes


def _levelled(power: npt.NDArray[np.float64], rings: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale tiles so that a bright one does not dominate, and an empty one counts less than the others."""
    middle = (rings > CONTRAST_RANGE[0]) & (rings < CONTRAST_RANGE[1])
    contrast = power[:, :, :2, middle].mean(axis=(1, 2, 3))
    levelled: npt.NDArray[np.float64] = power / (contrast + np.median(contrast) + 1e-300)[:, None, None, None]
    return levelled
