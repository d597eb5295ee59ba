"""PSNR and scikit-image's SSIM against a truth, in bounded memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from napari_cropeq.core.geometry import Box
from napari_cropeq.core.tiles import divide
from napari_cropeq.errors import ArgumentError, ImageError
from napari_cropeq.evidence.evaluate.metrics import PART, psnr

__all__ = ["BORDER", "WINDOW", "Score", "score"]

BORDER = 16
"""Default width of the border, voxels: the reach of the network beyond the edge of the volume."""

WINDOW = 7
"""Side of SSIM's uniform window, voxels: scikit-image's default."""


@dataclass(frozen=True, slots=True)
class Score:
    """How close a volume is to its truth, without a border.

    Parameters
    ----------
    psnr : float
        dB, with ``data_range`` as the peak; infinite for equal volumes.
    ssim : float
        Mean structural similarity, 3D, uniform window of 7 voxels, at most 1.
    data_range : float
        Largest minus smallest intensity of the truth inside the border.
    border : int
        Voxels left out on every side; ``rim`` in records.
    shape : (z, y, x)
        Voxels compared along each axis.
    """

    psnr: float
    ssim: float
    data_range: float
    border: int
    shape: tuple[int, int, int]

    def as_json(self) -> dict[str, Any]:
        """Return the values for a record, where the border is called ``rim``."""
        values = asdict(self)
        return {"rim" if name == "border" else name: value for name, value in values.items()}


def score(image: npt.NDArray[Any], truth: npt.NDArray[Any], border: int = BORDER) -> Score:
    """Compare a volume with its truth.

    The scores equal ``skimage.metrics.peak_signal_noise_ratio`` and ``structural_similarity`` of the whole, but means
    are taken box by box, so that memory does not grow with the volume.

    Parameters
    ----------
    image, truth : (z, y, x)
        Volumes of one shape, in the same intensities.
    border : int
        Voxels to leave out on every side.

    Raises
    ------
    ArgumentError
        If the shapes differ, or fewer voxels than SSIM's window are left inside the border.
    ImageError
        If the truth is constant inside the border.
    """
    inner = inside(truth.shape, border)
    data_range = check_range(truth[inner], border)
    ratio = psnr(image, truth, border)
    image, truth = image[inner], truth[inner]
    similarity = 0.0
    # SSIM is averaged where its window lies inside the volume. It needs about ten boxes in float64.
    centres = Box.whole([n - (WINDOW - 1) for n in truth.shape])
    for box in divide(centres, (PART, PART, PART)):
        seen = tuple(slice(a, b + WINDOW - 1) for a, b in zip(box.start, box.stop, strict=True))
        one, other = (volume[seen].astype(np.float64) for volume in (truth, image))
        similarity += float(structural_similarity(one, other, win_size=WINDOW, data_range=data_range)) * box.size
    return Score(ratio, similarity / centres.size, data_range, border, Box.whole(truth.shape).shape)


def inside(shape: tuple[int, ...], border: int) -> tuple[slice, ...]:
    """Return the index of a volume of ``shape`` (z, y, x) without its border.

    Raises
    ------
    ArgumentError
        If the border is negative, or fewer voxels than SSIM's window are left.
    """
    if border < 0:
        raise ArgumentError(f"The border of {border} voxels is negative.", "Choose 0 or more voxels.", setting="border")
    if min(shape) - 2 * border < WINDOW:
        text = " x ".join(map(str, shape))
        raise ArgumentError(
            f"A border of {border} voxels on every side is too wide to compare {text} voxels: at least {WINDOW} must "
            "remain along each axis.",
            "Choose a smaller border or a larger truth.",
            setting="border",
        )
    return tuple(slice(border, n - border) for n in shape)


def check_range(truth: npt.NDArray[Any], border: int) -> float:
    """Return the range of the intensities of a ``truth`` whose border has been removed.

    Raises
    ------
    ImageError
        If all are equal.
    """
    low, high = float(truth.min()), float(truth.max())
    if low == high:
        raise ImageError(
            f"The truth is constant inside its border of {border} voxels: every voxel is {low:g}.",
            "Choose a smaller border or another volume.",
            setting="border",
        )
    return high - low
