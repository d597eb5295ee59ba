"""PSNR and scikit-image's SSIM against a truth, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from napari_cropeq.core.geometry import Box
from napari_cropeq.core.tiles import divide
from napari_cropeq.evidence.evaluate.metrics import PART, psnr

__all__ = ["RIM", "WINDOW", "Score", "score"]

RIM = 16
"""Voxels left out on every side unless told otherwise: the reach of the network across the true border."""

WINDOW = 7
"""Side of SSIM's uniform window, voxels: scikit-image's default."""


@dataclass(frozen=True, slots=True)
class Score:
    """How close a volume is to its truth, less a rim.

    Parameters
    ----------
    psnr : float
        dB, with ``data_range`` as the peak; infinite for equal volumes.
    ssim : float
        Mean structural similarity, 3D, uniform window of 7 voxels, at most 1.
    data_range : float
        Largest less smallest intensity of the truth inside the rim.
    rim : int
        Voxels left out on every side.
    shape : (z, y, x)
        Voxels compared along each axis.
    """

    psnr: float
    ssim: float
    data_range: float
    rim: int
    shape: tuple[int, int, int]


def score(image: npt.NDArray[Any], truth: npt.NDArray[Any], rim: int = RIM) -> Score:
    """Compare a volume with its truth.

    Equals ``skimage.metrics.peak_signal_noise_ratio`` and ``structural_similarity`` of the whole, but takes the
    means box by box, so that memory does not grow with the volume.

    Parameters
    ----------
    image, truth : (z, y, x)
        Volumes of one shape, in the same intensities.
    rim : int
        Voxels to leave out on every side.

    Raises
    ------
    ValueError
        If the shapes differ, or what is left inside the rim is smaller than SSIM's window or constant.
    """
    inner = inside(truth.shape, rim)
    data_range = check_range(truth[inner], rim)
    ratio = psnr(image, truth, rim)
    image, truth = image[inner], truth[inner]
    similarity = 0.0
    # SSIM is averaged where its window lies inside the volume. It holds about ten boxes in float64.
    centres = Box.whole([n - (WINDOW - 1) for n in truth.shape])
    for box in divide(centres, (PART, PART, PART)):
        seen = tuple(slice(a, b + WINDOW - 1) for a, b in zip(box.start, box.stop, strict=True))
        one, other = (volume[seen].astype(np.float64) for volume in (truth, image))
        similarity += float(structural_similarity(one, other, win_size=WINDOW, data_range=data_range)) * box.size
    return Score(ratio, similarity / centres.size, data_range, rim, Box.whole(truth.shape).shape)


def inside(shape: tuple[int, ...], rim: int) -> tuple[slice, ...]:
    """Return what is left of a volume of ``shape`` (z, y, x) without its rim, as an index.

    Raises
    ------
    ValueError
        If the rim is negative or leaves less than SSIM's window.
    """
    if rim < 0 or min(shape) - 2 * rim < WINDOW:
        text = " x ".join(map(str, shape))
        raise ValueError(
            f"Got {text} voxels to compare with a rim of {rim} on every side, expected at least {WINDOW} voxels left "
            "along each axis: choose a smaller rim or a larger truth."
        )
    return tuple(slice(rim, n - rim) for n in shape)


def check_range(truth: npt.NDArray[Any], rim: int) -> float:
    """Return the range of the intensities of ``truth``, without its rim already.

    Raises
    ------
    ValueError
        If all are equal.
    """
    low, high = float(truth.min()), float(truth.max())
    if low == high:
        raise ValueError(
            f"Got a truth that is constant inside its rim of {rim} voxels (every voxel is {low:g}), expected one with "
            "structure there: choose a smaller rim or another volume."
        )
    return high - low
