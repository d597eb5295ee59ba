"""Gives the two images of a training pair the noise of real samples, and independent noise.

A pair is made from one noisy slice: its samples from the blurred slice, its target from the slice itself. Taken as they
are, the samples have too little noise, because blurring averages it, and the noise that they have is in the target too:
a network learns to keep it, and to sharpen it. Here each photon goes to one image only:

- **Photons** of a voxel, about intensity over :attr:`NoiseModel.slope` of them, are shared at random. Each goes to a
  sample with the probability that the slice profile gives it, or stays in the target. The photons of a sample are then
  as many as a real sample would have, independent between samples, and independent of those in the target (thinning of
  counts, Neufeld et al. 2024; the target is that of Noise2Noise, Lehtinen et al. 2018). A single photon is never
  divided, so the noise keeps its shape.
- **Read-out noise** is symmetrical: Gaussian noise is added to the samples, up to its variance, and subtracted from the
  target so that the two are uncorrelated (Pang et al. 2021, Eq. 3, for a sampled blur).

Both leave the mean of either image as it was, whatever the estimate of the noise is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.training.noise import NoiseModel
from napari_cropeq.core.training.plane_pool import LEAST_WEIGHT

__all__ = ["chances_of", "dark_of", "share_noise", "target_variance"]

MOST_SHARED = 0.9  # largest share of a voxel's photons that samples get
LEAST_FRESH = 0.2  # of the read-out noise of a sample: with less, the target would get too much

Values = npt.NDArray[np.float32]


def share_noise(
    model: NoiseModel, sharp: Values, down: Values, kept: Values, rng: np.random.Generator
) -> tuple[Values, Values]:
    """Return the noise to add to the samples of a slice, and to the slice itself as their target.

    Parameters
    ----------
    model : NoiseModel
        Noise of the slice.
    sharp : (rows, columns)
        The slice, or a part of it, normalised.
    down : (samples, rows)
        The weights that blur and sample it.
    kept : (samples,)
        Share of a voxel's noise variance that remains in each sample.
    rng : Generator
        Draws the noise.

    Returns
    -------
    (samples, columns), (rows, columns) float32
    """
    of_samples = np.zeros((len(down), sharp.shape[1]), np.float32)
    of_target = np.zeros(sharp.shape, np.float32)
    dark, variance = dark_of(model)
    if model.slope > 0:
        _share_photons(np.maximum(sharp - np.float32(dark), 0), model.slope, down, rng, of_samples, of_target)
    if variance > 0:
        fresh = np.maximum(1 - kept, 0)
        added = rng.standard_normal(of_samples.shape, np.float32) * np.sqrt(fresh * variance)[:, None]
        of_samples += added
        of_target -= down.T @ (added / np.maximum(fresh, LEAST_FRESH)[:, None])
    return of_samples, of_target


def target_variance(model: NoiseModel, target: Values, down: Values, kept: Values) -> Values:
    """Return the variance of the noise of a target, (rows, columns).

    The error of a network is its difference from the target less this variance, on average over many voxels.

    Parameters
    ----------
    model : NoiseModel
        Noise of the slice.
    target : (rows, columns)
        The slice with the noise of :func:`share_noise`.
    down : (samples, rows)
        The weights that blur and sample it.
    kept : (samples,)
        Share of a voxel's noise variance that remains in each sample.
    """
    _, chances = chances_of(down)
    remaining = 1 - chances.sum(axis=0)
    dark, variance = dark_of(model)
    light = np.maximum(target - np.float32(dark), 0)
    fresh = np.maximum(1 - kept, 0)
    read_out = variance * (1 + np.square(down.T) @ (fresh / np.square(np.maximum(fresh, LEAST_FRESH))))
    found: Values = (light * (model.slope / remaining)[:, None] + read_out[:, None]).astype(np.float32)
    return found


def dark_of(model: NoiseModel) -> tuple[float, float]:
    """Return the intensity without light, and the variance of the read-out noise."""
    if model.offset < 0:  # there is light of this intensity where the line reaches 0
        return -model.offset / model.slope, 0.0
    return 0.0, model.offset


def _share_photons(
    light: Values, photon: float, down: Values, rng: np.random.Generator, of_samples: Values, of_target: Values
) -> None:
    """Share the photons of ``light`` (rows, columns); add what samples and target get beyond their mean."""
    samples, chances = chances_of(down)
    count = np.floor(light / photon + rng.random(light.shape)).astype(np.int64)
    left = np.where(light > 0, np.maximum(count, 1), 0)
    size = light / np.maximum(left, 1)
    remaining = np.ones(len(light))
    for sample, chance in zip(samples, chances, strict=True):  # a binomial after the other: a multinomial
        taken = rng.binomial(left, np.minimum(chance / remaining, 1.0)[:, None])
        np.add.at(of_samples, sample, (taken * size - chance[:, None] * light).astype(np.float32))
        left, remaining = left - taken, remaining - chance
    of_target += (left * size / remaining[:, None] - light).astype(np.float32)


def chances_of(down: Values) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Return the samples that each row's photons can go to, and the probabilities, both (n, rows).

    Rows of samples that no weight reaches have a probability of 0.
    """
    weights = np.where(down > LEAST_WEIGHT, down, 0).astype(np.float64)
    weights *= down.sum(axis=1, keepdims=True) / np.maximum(weights.sum(axis=1, keepdims=True), LEAST_WEIGHT)
    weights *= min(1.0, MOST_SHARED / max(float(weights.sum(axis=0).max()), LEAST_WEIGHT))
    order = np.argsort(-weights, axis=0, kind="stable")[: int((weights > 0).sum(axis=0).max())]
    return order, np.take_along_axis(weights, order, axis=0)
