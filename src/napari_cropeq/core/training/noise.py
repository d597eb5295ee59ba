"""The noise of a source: variance against intensity, measured on lateral slices (photon transfer).

Blurring a lateral slice to make a training pair also removes its noise, but the noise of real axial samples is not
blurred: a network trained on such pairs would learn to sharpen noise. :mod:`napari_cropeq.core.training.thinning` gives
pairs the noise that is measured here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.imaging.consistency import NoiseLevel
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.spline import ArrayLike
from napari_cropeq.core.training.plane_pool import PlaneReader, Volume

__all__ = ["NoiseModel", "PhotonTransfer", "measure_noise", "recorded_noise"]

Values = npt.NDArray[Any]

BINS = 24
MIN_PER_BIN = 200
NOISE_PLANES = 8
# A mask without response to planes and ramps in either direction (Immerkær 1996, Eq. 2); its squares sum to 36.
FOURTH_DIFFERENCE = np.array([1, -4, 6, -4, 1]) / 70**0.5
SQUARE = 16  # side, px
FEWEST_SQUARES = 8  # in a class
MOST_SATURATED = 0.05  # share of a square's voxels that have the largest intensity of its slice
LAPLACIAN_DIFFERENCE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
NORMALISED = Normalisation(0.0, 1.0)
LEAST_NOISE = 1e-3  # standard deviation that counts as noise, share of the range of intensities
ROUNDING = 12**-0.5  # standard deviation of rounding to whole numbers
MOST_CORRELATION = 1.0
HARMLESS_NOISE = 0.01  # standard deviation below which correlation does not matter, share of the range
# Root mean square of the relative deviations of the variances from the line: above the first, the line is approximate,
# above the second, it says nothing.
NOTED_DEVIATION, MOST_DEVIATION = 0.25, 0.5


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """Signal-dependent noise of normalised intensities: variance = ``slope`` * intensity + ``offset``, floored at 0.

    ``slope`` is the intensity of a photon, times the excess noise of its detector; ``offset`` is the variance of
    read-out noise, if an intensity of 0 means no light (Foi et al. 2008).
    """

    slope: float
    offset: float

    @classmethod
    def estimate(cls, slices: Iterable[npt.NDArray[np.float32]]) -> NoiseModel:
        """Estimate noise robustly from lateral slices of normalised intensities, each (rows, columns).

        The high-pass residual is binned by local intensity; the spread of each bin is computed from its
        median absolute value, which sparse structures hardly change. It does not see sparse noise either, such as
        single photons: :class:`PhotonTransfer` does.
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
    def _fit(cls, mean: Values, residual: Values) -> NoiseModel:
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
        return cls.line(intensity, variance, weight)

    @classmethod
    def line(cls, intensity: Values, variance: Values, weight: Values) -> NoiseModel:
        """Return the weighted least-squares line that falls nowhere and is negative at no ``intensity`` (n,)."""
        floor = max(0.0, -float(intensity.min()))
        design = np.stack([intensity + floor, np.ones_like(intensity)], axis=1) * weight[:, None]
        slope, offset = optimize.nnls(design, variance * weight)[0]
        return cls(float(slope), float(offset + slope * floor))

    def variance(self, intensity: Values) -> Values:
        """Return the noise variance at normalised intensities."""
        variance: Values = np.maximum(self.slope * intensity + self.offset, 0.0)
        return variance

    def top_up(self, lines: npt.NDArray[np.float32], kept: Values, rng: np.random.Generator) -> npt.NDArray[np.float32]:
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


@dataclass(frozen=True, slots=True)
class PhotonTransfer:
    """Variance against mean intensity, measured on lateral slices, and the line through it.

    The variance of each square of 16 x 16 px is the mean square of its residual after a filter of fourth differences
    along both axes, which keeps hardly anything of what an objective resolves. In each class of similar mean, the
    median over squares is taken, so structure in less than half of them does not count. A mean of squares sees sparse
    noise, such as single photons, which a median absolute residual does not.
    """

    intensity: Values
    """(n,) mean of each class."""

    variance: Values
    """(n,) median variance of its squares."""

    model: NoiseModel
    """The line."""

    correlation: float = 0.0
    """Excess of the variance at twice the distance, in the quarter of squares with least structure: 0 for white
    noise."""

    scale: Normalisation = NORMALISED
    """The lowest and the highest intensity, in the unit of ``intensity``: 0 and 1 if that is normalised."""

    @classmethod
    def measure(cls, slices: Iterable[Values]) -> PhotonTransfer:
        """Measure lateral slices of normalised intensities, each (rows, columns)."""
        squares = [_squares(plane) for plane in slices if min(plane.shape) >= SQUARE + 2 * len(FOURTH_DIFFERENCE)]
        mean, variance, coarse = np.concatenate(squares, axis=1) if squares else np.zeros((3, 0))
        if len(mean) < FEWEST_SQUARES:
            return cls(np.zeros(0), np.zeros(0), NoiseModel(0.0, 0.0))
        order = np.argsort(mean, kind="stable")
        classes = np.array_split(order, min(BINS, len(order) // FEWEST_SQUARES))
        intensity = np.array([mean[members].mean() for members in classes])
        typical = np.array([np.median(variance[members]) for members in classes])
        model = NoiseModel.line(intensity, typical, 1 / np.maximum(typical, 0.01 * typical.max()))
        quiet = coarse <= np.quantile(coarse, 0.25)
        excess = float(np.median(coarse[quiet]) / max(float(np.median(variance[quiet])), 1e-30)) - 1
        return cls(intensity, typical, model, excess)

    @classmethod
    def of_record(cls, record: Mapping[str, Any], line: Mapping[str, float], scale: Normalisation) -> PhotonTransfer:
        """Return what :meth:`record` describes, in the intensities of ``scale``; ``line`` is its noise model."""
        intensity, variance = (np.array(record[name], float) for name in ("intensity", "variance"))
        model = NoiseModel(line["slope"], line["offset"])
        return cls(intensity, variance, model, record["correlation"]).in_source_units(scale)

    def record(self) -> dict[str, Any]:
        """Return the measurement as JSON values of few digits, without the line."""
        intensity, variance = ([float(f"{v:.4g}") for v in values] for values in (self.intensity, self.variance))
        return {"intensity": intensity, "variance": variance, "correlation": float(f"{self.correlation:.4g}")}

    def in_source_units(self, scale: Normalisation) -> PhotonTransfer:
        """Return a normalised measurement in the intensities that ``scale`` normalises."""
        low, span = scale.low, scale.high - scale.low
        slope, offset = self.model.slope * span, self.model.offset * span * span
        model = NoiseModel(slope, offset - slope * low)
        return replace(
            self, intensity=self.intensity * span + low, variance=self.variance * span * span, model=model, scale=scale
        )

    def level(self, dtype: npt.DTypeLike) -> NoiseLevel:
        """Return the standard deviation of the noise of voxels that are stored as ``dtype``, in source units."""
        span = self.scale.high - self.scale.low
        rounding = ROUNDING if np.dtype(dtype).kind in "ui" else 0.0
        floor = max(LEAST_NOISE * span, rounding)
        return NoiseLevel(self.model.slope, self.model.offset, floor, self.scale.low, self.scale.high)

    @property
    def text(self) -> str:
        """The line in words; empty if nothing could be measured."""
        low, high = self.scale.low, self.scale.high
        if not len(self.intensity):
            return ""
        dark, bright = self._deviation(low), self._deviation(high)
        if bright < LEAST_NOISE * (high - low):
            return "No noise was found."
        if bright < 1.25 * dark:
            return f"The noise has a standard deviation of {_number(dark)} at all intensities."
        return (
            f"A photon counts about {_number(self.model.slope)} (with its excess noise). The standard deviation of the "
            f"noise is {_number(dark)} at the lowest intensity ({_number(low)}) and {_number(bright)} at the highest "
            f"({_number(high)})."
        )

    @property
    def doubt(self) -> str:
        """Why the estimate is uncertain, and what to do, as sentences; empty if there is no doubt."""
        if not len(self.intensity):
            return "No noise could be measured, because the slices are too small or do not vary."
        span = self.scale.high - self.scale.low
        if float(self.variance.max()) ** 0.5 < LEAST_NOISE * span:
            return ""
        middle = float(self.intensity[len(self.intensity) // 2])
        if self.correlation > MOST_CORRELATION and self._deviation(middle) > HARMLESS_NOISE * span:
            return (
                "Noise that is correlated between neighbouring pixels, or fine structure everywhere, makes the "
                "estimate of the noise uncertain. Bin the pixels, or train without matching the noise."
            )
        line = self.model.variance(self.intensity)
        relative = self.variance / np.maximum(line, 0.01 * self.variance.max()) - 1
        deviation = float(np.mean(relative**2)) ** 0.5
        if deviation > MOST_DEVIATION:
            return (
                "The noise does not depend on the intensity as that of a detector does, so its estimate is uncertain. "
                "Use the image as it was acquired, without denoising or a change of contrast, or train without "
                "matching the noise."
            )
        if deviation > NOTED_DEVIATION:
            most = float(relative[np.abs(relative).argmax()])
            return (
                f"The variances that were measured lie up to {abs(most):.0%} {'above' if most > 0 else 'below'} the "
                "line, so the estimate of the noise is approximate. Check flat regions of the result for sharpened "
                "noise."
            )
        return ""

    def _deviation(self, intensity: float) -> float:
        return float(self.model.variance(np.array(intensity)) ** 0.5)


def measure_noise(source: ArrayLike, acquisition: Acquisition, seed: int = 0) -> PhotonTransfer:
    """Measure the noise of a source (z, y, x), in its intensities, on the slices on which a training measures it.

    Raises
    ------
    ImageError
        If the dtype holds no intensities, or voxels are NaN or infinite, or all are equal.
    """
    scale = Normalisation.measure(source, seed)
    reader = PlaneReader([Volume(source, scale)], acquisition, oblique=False, room=(0, 0), seed=(seed, 0, 2))
    return PhotonTransfer.measure(reader.spread(0, NOISE_PLANES)).in_source_units(scale)


def recorded_noise(training: Mapping[str, Any], scales: Sequence[Normalisation]) -> list[PhotonTransfer]:
    """Return the noise of each channel that a ``training`` has recorded, in source intensities; empty if none.

    Parameters
    ----------
    training : mapping
        See :class:`napari_cropeq.core.model.Model`.
    scales : sequence of Normalisation
        Of the channels.
    """
    rows = zip(training.get("photon_transfer", ()), training.get("noise", ()), scales, strict=False)
    return [PhotonTransfer.of_record(*row) for row in rows]


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _squares(plane: Values) -> Values:
    """Return mean, variance, and variance at twice the distance of each square of a slice, (3, squares)."""
    plane = plane.astype(np.float64)
    parts = [plane]
    for distance in (1, 2):
        weights = np.zeros(distance * (len(FOURTH_DIFFERENCE) - 1) + 1)
        weights[::distance] = FOURTH_DIFFERENCE
        residual = ndimage.convolve1d(ndimage.convolve1d(plane, weights, 0, mode="mirror"), weights, 1, mode="mirror")
        parts.append(residual**2)
    margin = len(FOURTH_DIFFERENCE) - 1
    high, wide = ((n - 2 * margin) // SQUARE for n in plane.shape)
    inside = slice(margin, margin + high * SQUARE), slice(margin, margin + wide * SQUARE)
    cut = np.stack(parts)[:, *inside].reshape(3, high, SQUARE, wide, SQUARE)
    means: Values = cut.mean(axis=(2, 4)).reshape(3, -1)
    saturated = (cut[0] == plane.max()).mean(axis=(1, 3)).ravel() > MOST_SATURATED
    kept: Values = means[:, (means[1] > 0) & ~saturated]  # a square without any variance is a mask, or holds no photon
    return kept
