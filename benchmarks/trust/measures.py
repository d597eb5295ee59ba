"""What the trust benchmark measures: how well an expected error tells the true one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

Voxels = npt.NDArray[Any]

LARGE = 3.0  # a large error exceeds that many medians
TOP = 0.2  # share of the voxels that counts as flagged
SAMPLE = 200_000  # voxels that a rank correlation is computed from


def coverage(error: Voxels, expected: Voxels, intervals: Mapping[float, float]) -> dict[str, float]:
    """Return the share of voxels, in %, whose true error is within each interval."""
    ratio = np.abs(error) / expected
    return {f"{100 * level:g} %": 100 * float((ratio <= width).mean()) for level, width in intervals.items()}


def rank_correlation(error: Voxels, expected: Voxels) -> float:
    """Return Spearman's correlation of the absolute error with the expected one, on a sample of the voxels."""
    absolute, expected = np.abs(error).ravel(), expected.ravel()
    if absolute.size > SAMPLE:
        chosen = np.random.default_rng(0).choice(absolute.size, SAMPLE, replace=False)
        absolute, expected = absolute[chosen], expected[chosen]
    return float(spearmanr(absolute, expected).statistic)


def flagged(error: Voxels, expected: Voxels, where: Voxels | None = None) -> float:
    """Return the share of large errors, in %, that lie in the top fifth of the expected error.

    Median and fifth are those of all voxels; only large errors in ``where`` count. NaN if there are none.
    """
    absolute = np.abs(error)
    large = absolute > LARGE * np.median(absolute)
    if where is not None:
        large &= where
    if not large.any():
        return float("nan")
    return 100 * float((expected[large] >= np.quantile(expected, 1 - TOP)).mean())


def rank_correlation_if_exact(expected: Voxels) -> float:
    """Return the rank correlation that an expected error has if it is exact: errors of Laplace's distribution.

    A large error is expected to be large only on average, so this is far from 1 if most voxels expect similar errors.
    """
    drawn = np.random.default_rng(12345).laplace(size=expected.shape)
    return rank_correlation(drawn * expected, expected)


def judged(error: Voxels, expected: Voxels, intervals: Mapping[float, float]) -> dict[str, float]:
    """Return all measures of an expected error."""
    return {
        **coverage(error, expected, intervals),
        "rank correlation": rank_correlation(error, expected),
        "rank correlation if exact": rank_correlation_if_exact(expected),
        "error / expected": float(np.abs(error).mean() / expected.mean()),
        "flagged (%)": flagged(error, expected),
    }


def summary(values: Sequence[float | None]) -> str:
    """Return mean and standard deviation in words; the mean alone if there is one value. None does not count."""
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return ""
    return f"{known.mean():.3g}" if len(known) == 1 else f"{known.mean():.3g} ± {known.std(ddof=1):.2g}"
