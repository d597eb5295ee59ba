"""Estimates the noise of a source, and adds to training patches the noise that real axial samples have.

Blurring a lateral slice to make a training pair also removes its noise, but the noise of real axial samples is not
blurred: a network trained on such pairs would learn to sharpen noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

__all__ = ["NoiseModel"]

BINS = 24
MIN_PER_BIN = 200
# A mask without response to planes and ramps in either direction (Immerkær 1996, Eq. 2); its squares sum to 36.
LAPLACIAN_DIFFERENCE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """Signal-dependent noise of normalised intensities: variance = ``slope`` * intensity + ``offset``, floored at 0."""

    slope: float
    offset: float

    @classmethod
    def estimate(cls, slices: Iterable[npt.NDArray[np.float32]]) -> NoiseModel:
        """Estimate noise from lateral slices of normalised intensities, each (rows, columns).

        The high-pass residual is binned by local intensity; the spread of each bin is computed from its
        median absolute value, which sparse structures hardly change.
        """
        means, residuals = [], []
        for plane in slices:
            residual = ndimage.convolve(plane, LAPLACIAN_DIFFERENCE, mode="mirror")[1:-1, 1:-1]
            mean = ndimage.uniform_filter(plane, 5, mode="mirror")[1:-1, 1:-1]
            kept = (plane[1:-1, 1:-1] > plane.min()) & (plane[1:-1, 1:-1] < plane.max())  # clipped voxels have no noise
            means.append(mean[kept])
            residuals.append(np.abs(residual[kept]))
        if not means or sum(map(len, means)) < MIN_PER_BIN:
            return cls(0.0, 0.0)
        return cls._fit(np.concatenate(means), np.concatenate(residuals))

    @classmethod
    def _fit(cls, mean: npt.NDArray[Any], residual: npt.NDArray[Any]) -> NoiseModel:
        order = np.argsort(mean, kind="stable")
        mean, residual = mean[order], residual[order]
        edges = np.linspace(mean[0], mean[-1], BINS + 1)
        cuts = np.searchsorted(mean, edges)
        rows = []
        for a, b in itertools.pairwise(cuts):
            if b - a >= MIN_PER_BIN:
                rows.append((float(mean[a:b].mean()), (1.4826 * float(np.median(residual[a:b]))) ** 2, b - a))
        if not rows:
            return cls(0.0, (1.4826 * float(np.median(residual))) ** 2)
        intensity, variance, count = np.array(rows).T
        # The relative error of a variance depends on the number of voxels: weigh by count over variance.
        weight = np.sqrt(count) / np.maximum(variance, 1e-12)
        floor = max(0.0, -float(intensity.min()))
        design = np.stack([intensity + floor, np.ones_like(intensity)], axis=1) * weight[:, None]
        slope, offset = optimize.nnls(design, variance * weight)[0]
        return cls(float(slope), float(offset + slope * floor))

    def variance(self, intensity: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the noise variance at normalised intensities."""
        variance: npt.NDArray[Any] = np.maximum(self.slope * intensity + self.offset, 0.0)
        return variance

    def top_up(
        self, lines: npt.NDArray[np.float32], kept: npt.NDArray[Any], rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """Return low-resolution lines with the noise added that blurring removed.

        Parameters
        ----------
        lines : (n, columns)
            Blurred and sampled lines, one row per sample.
        kept : (n,)
            Share of a voxel's noise variance that remains in each sample: the sum of its squared weights.
        rng : Generator
            Draws the noise.
        """
        missing = self.variance(lines) * np.maximum(1.0 - kept, 0.0)[:, None]
        added: npt.NDArray[np.float32] = rng.standard_normal(lines.shape, np.float32)
        topped: npt.NDArray[np.float32] = lines + added * np.sqrt(missing).astype(np.float32)
        return topped
