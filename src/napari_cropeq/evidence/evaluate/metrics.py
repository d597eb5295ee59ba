"""Peak signal-to-noise ratio of a volume and its truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cropeq.core.geometry import Box
from napari_cropeq.core.tiles import divide
from napari_cropeq.errors import ArgumentError

__all__ = ["PART", "psnr"]

PART = 192
"""Side of the boxes that are compared at once, voxels."""


def psnr(image: npt.NDArray[Any], truth: npt.NDArray[Any], border: int = 0) -> float:
    """Return the peak signal-to-noise ratio in dB; the peak is the range of ``truth`` inside the border.

    It is infinite for equal volumes. The mean is taken box by box, so that memory does not grow with the volume.

    Parameters
    ----------
    image, truth : (z, y, x)
        Volumes of the same shape.
    border : int
        Voxels left out on every side.

    Raises
    ------
    ArgumentError
        If the shapes differ.
    """
    if image.shape != truth.shape:
        raise ArgumentError(f"The volumes have different shapes: {image.shape} and {truth.shape}.", "Crop one of them.")
    inner = tuple(slice(border, n - border) for n in truth.shape)
    image, truth = image[inner], truth[inner]
    whole = Box.whole(truth.shape)
    squares = 0.0
    for box in divide(whole, (PART, PART, PART)):
        one, other = (volume[box.slices].astype(np.float64) for volume in (image, truth))
        squares += float(np.mean((one - other) ** 2)) * box.size
    peak = float(truth.max()) - float(truth.min())
    return math.inf if squares == 0 else 10 * math.log10(peak**2 / (squares / whole.size))
