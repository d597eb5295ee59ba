"""How close a result is to the truth, and how the results of peers are placed on its grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage
from scores import FLAT, LOCAL, bias, noise_gain
from stacks import Stack
from volumes import Volume, image

from napari_cropeq.evidence.evaluate.metrics import psnr
from napari_cropeq.evidence.evaluate.score import BORDER, score

SHIFTS = np.arange(-4, 5) / 2
"""Shifts along z that are tried for a peer, truth voxels from where its result says that it lies."""

LIGHT = 0.05
"""Local mean, share of the largest, from which the bias counts: a percentage of nearly nothing says nothing."""

WIDE = 3.0
"""Standard deviation of the Gaussian that takes away what is no noise, voxels."""


def scores_of(result: Volume, base: Volume, stack: Stack) -> dict[str, Any]:
    """Return the scores of a result (z, y, x); ``base`` is the quintic interpolation.

    Noise is the difference from the truth, less what is smooth in it, where the truth is flat: one definition for
    methods that can be applied to a second image, and for those that cannot.
    """
    truth = stack.truth
    found = score(result, truth)
    means = ndimage.uniform_filter(stack.clean, LOCAL, mode="mirror")
    found_bias = bias(image(result, stack.acquisition), stack.clean, means, means > LIGHT * means.max())
    scores: dict[str, Any] = {
        "psnr": round(found.psnr, 3),
        "ssim": round(found.ssim, 5),
        **{name: [float(value) for value in values] for name, values in found_bias.items()},
    }
    if stack.raw.dtype.kind == "u":  # photons
        slope, local = ndimage.gaussian_gradient_magnitude(truth, 1.0), ndimage.gaussian_filter(truth, 2.0)
        bright = local > np.quantile(local, 0.9)
        relative = slope / np.maximum(truth, 1e-3 * float(truth.max()))
        flat = {
            "dim": ~bright & (slope < np.quantile(slope[~bright], FLAT)),
            "bright": bright & (relative < np.quantile(relative[bright], FLAT)),
        }
        noise = [fine(volume - truth) for volume in (result, base)]
        scores |= {f"gain {name}": round(noise_gain(*noise, where), 4) for name, where in flat.items()}
    return scores


def fine(volume: Volume) -> Volume:
    """Return a volume less what is smooth in it."""
    rest: Volume = volume - ndimage.gaussian_filter(volume, WIDE)
    return rest


def placed(result: Volume, start: float, step: float, truth: Volume) -> tuple[Volume, float]:
    """Return a peer's result on the grid of the truth, with the shift along z that fits the truth best.

    Parameters
    ----------
    result : (z, y, x)
        Its voxels.
    start, step : float
        Where its first plane lies along z, and the distance of its planes, in voxels of the truth.
    truth : (z, y, x)
        The truth.
    """
    index = (np.arange(len(truth)) - start) / step
    tried = {shift: at(result, index + shift / step) for shift in SHIFTS}
    best = max(tried, key=lambda shift: psnr(tried[shift], truth, BORDER))
    return tried[best], float(best)


def at(volume: Volume, positions: Volume) -> Volume:
    """Return the planes of ``volume`` (z, y, x) at ``positions`` along z, by quintic splines."""
    lines = np.eye(len(volume))  # interpolation is linear, and the same for every line
    weights = [ndimage.map_coordinates(line, [positions], order=5, mode="mirror") for line in lines]
    return np.tensordot(np.stack(weights, axis=1), volume, 1).astype(np.float32)
