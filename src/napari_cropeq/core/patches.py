"""Training patches, drawn on the fly from the lateral slices of a source (internal supervision)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition, check_shape, mirror
from napari_cropeq.core.noise import NoiseModel
from napari_cropeq.core.normalisation import Normalisation, check_finite
from napari_cropeq.core.spline import ArrayLike, degradation

__all__ = ["MIN_LATERAL", "Pairs", "PatchSampler"]

MIN_LATERAL = 64
"""Smallest lateral side that can be trained on, px."""

POOL_BYTES = 256 * 2**20
PHASES = 64
BLOCK = 16  # side of the squares whose mean gradient decides where patches are drawn, px


@dataclass(frozen=True)
class Pairs:
    """A batch: interpolated low-resolution images and what they should become, normalised float32."""

    image: Tensor  # (N, 1, patch, patch)
    target: Tensor  # (N, 1, patch - shrink, patch - shrink)


class PatchSampler:
    """Draws (LR, HR) pairs from lateral slices of a source.

    A slice is flipped and transposed at random, so that either lateral axis serves as the axial one;
    its degraded axis is blurred by the slice profile, sampled at the axial step and interpolated back,
    by the code that interpolates at inference.

    Parameters
    ----------
    source : array-like (z, y, x)
        Slices are read when needed; at most 256 MiB of them are held.
    acquisition : Acquisition
        Step and slice profile to imitate.
    normalisation : Normalisation
        Intensity scale.
    patch : int
        Side of an input patch, px.
    shrink : int
        By how much a target is smaller than its input, px.
    seed : int
        Fixes every draw.
    match_noise : bool
        Give LR patches the noise of real axial samples.

    Raises
    ------
    ValueError
        If the source is too thin, too small laterally, or holds NaN or infinite voxels.
    """

    def __init__(
        self,
        source: ArrayLike,
        acquisition: Acquisition,
        normalisation: Normalisation,
        patch: int,
        shrink: int,
        seed: int = 0,
        match_noise: bool = True,
    ) -> None:
        check_shape(source.shape, acquisition, max(MIN_LATERAL, patch))
        self.source, self.acquisition, self.normalisation = source, acquisition, normalisation
        self.patch, self.shrink = patch, shrink
        self.sigma = acquisition.fwhm_px / FWHM_PER_SIGMA
        self.rng = np.random.default_rng(seed)
        self._pool: dict[int, _Slice] = {}
        side = [source.shape[a] for a in acquisition.lateral]
        self.slices = source.shape[acquisition.axial]
        self.capacity = max(4, min(self.slices, POOL_BYTES // (4 * side[0] * side[1])))
        self._fill_pool()
        self.noise = NoiseModel(0.0, 0.0)
        if match_noise:
            self.noise = NoiseModel.estimate(s.pixels for s in list(self._pool.values())[:16])

    def draw(self, count: int) -> Pairs:
        """Return ``count`` pairs."""
        if self.capacity < self.slices:
            self._replace_one()
        images = np.empty((count, 1, self.patch, self.patch), np.float32)
        side = self.patch - self.shrink
        targets = np.empty((count, 1, side, side), np.float32)
        for image, target in zip(images, targets, strict=True):
            image[0], target[0] = self._draw_one()
        return Pairs(torch.from_numpy(images), torch.from_numpy(targets))

    def _draw_one(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        rng, patch = self.rng, self.patch
        numbers = list(self._pool)
        plane = self._pool[numbers[int(rng.integers(len(numbers)))]]
        top, left = plane.place(rng, patch, self._support)
        up, down, kept, first = _matrices(int(rng.integers(PHASES)), patch, self.acquisition.factor, self.sigma)
        transposed = rng.random() < 0.5
        pixels = plane.pixels.T if transposed else plane.pixels
        if transposed:
            top, left = left, top
        rows = mirror(np.arange(top + first, top + first + down.shape[1]), pixels.shape[0])
        lines = pixels[rows, left : left + patch]  # (m, patch)
        target = pixels[top : top + patch, left : left + patch]
        if rng.random() < 0.5:
            lines, target = lines[:, ::-1], target[:, ::-1]
        coarse = self.noise.top_up(down @ lines, kept, rng)  # (n, patch)
        image = up @ coarse  # (patch, patch)
        margin = self.shrink // 2
        target = target[margin : patch - margin, margin : patch - margin]
        gain, shift = np.float32(rng.uniform(0.8, 1.2)), np.float32(rng.uniform(-0.1, 0.1))
        return image * gain + shift, target * gain + shift

    @property
    def _support(self) -> int:
        """How far the slice profile reaches beyond a patch, px (3 sigma)."""
        return int(np.ceil(3 * self.sigma))

    def _fill_pool(self) -> None:
        chosen = self.rng.permutation(self.slices)[: self.capacity]
        for number in np.sort(chosen):
            self._pool[int(number)] = self._read(int(number))

    def _replace_one(self) -> None:
        outside = int(self.rng.integers(self.slices))
        if outside not in self._pool:
            del self._pool[list(self._pool)[int(self.rng.integers(len(self._pool)))]]
            self._pool[outside] = self._read(outside)

    def _read(self, number: int) -> _Slice:
        key = tuple(number if a == self.acquisition.axial else slice(None) for a in range(3))
        raw = np.asarray(self.source[key])
        check_finite(raw, f"slice {number}")
        return _Slice(self.normalisation.apply(raw))


class _Slice:
    """A lateral slice, normalised, and where its structure is."""

    def __init__(self, pixels: npt.NDArray[np.float32]) -> None:
        self.pixels = pixels
        rows, columns = (n // BLOCK for n in pixels.shape)
        smooth = ndimage.gaussian_filter(pixels, 1.0)
        gradient = np.hypot(*np.gradient(smooth))[: rows * BLOCK, : columns * BLOCK]
        blocks = gradient.reshape(rows, BLOCK, columns, BLOCK).mean(axis=(1, 3))
        self._columns = columns
        weight = blocks.ravel() + 1e-12
        self._cumulative = np.cumsum(weight / weight.sum())

    def place(self, rng: np.random.Generator, patch: int, support: int) -> tuple[int, int]:
        """Return the first row and column of a patch; every second one where the gradient is high.

        Patches and the support of their blur lie inside the slice wherever it is large enough.
        """
        if rng.random() < 0.5:
            block = min(int(np.searchsorted(self._cumulative, rng.random())), len(self._cumulative) - 1)
            centre = [(block // self._columns + 0.5) * BLOCK, (block % self._columns + 0.5) * BLOCK]
            wanted = [c + rng.uniform(-BLOCK, BLOCK) - patch / 2 for c in centre]
        else:
            wanted = [rng.uniform(-0.5, n - patch + 0.5) for n in self.pixels.shape]
        starts = []
        for start, length in zip(wanted, self.pixels.shape, strict=True):
            margin = min(support, (length - patch) // 2)
            starts.append(int(np.clip(round(start), margin, length - patch - margin)))
        return starts[0], starts[1]


@functools.lru_cache(maxsize=4 * PHASES)
def _matrices(phase: int, patch: int, factor: float, sigma: float) -> tuple[Any, Any, Any, int]:
    """Return :func:`degradation` as float32, the noise kept per sample, and the first row's offset."""
    up, down, first = degradation(phase, phase + patch, factor, sigma)
    return up.astype(np.float32), down.astype(np.float32), (down**2).sum(axis=1), first - phase
