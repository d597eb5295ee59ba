"""Sample data: a synthetic light-sheet volume with known ground truth, and a real volume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cropeq.formats.image import Image
from napari_cropeq.formats.phantom import draw_background, draw_neurons, draw_vessels

YEAST_MITOCHONDRIA = Path(__file__).parents[1] / "samples" / "yeast_mitochondria.ome.tif"
"""A real volume; samples/README.md says where it is from, and its licence."""

STEP = 1.0  # µm between slices
AXIAL_FWHM = 2.2  # µm, width of the slice profile
FACTOR = 2.433  # axial step over lateral step
LATERAL_FWHM = 1.4  # lateral pixels
OFFSET, GAIN, READ_NOISE = 100.0, 2.0, 3.0  # camera: counts, counts per photon, counts (standard deviation)

_SLICES, _SIDE = 48, 256
_SIGMA_PER_FWHM = 1 / (2 * math.sqrt(2 * math.log(2)))
_MARGIN = 12  # SR planes beyond each end, more than the width of the axial blur
_PHOTONS = (240.0, 260.0)  # of the brightest vessel and cell body
_GLOW = (7.0, 10.0)  # photons of the tissue's background


def light_sheet_sample(seed: int = 0) -> tuple[Image, Image]:
    """Make a noisy anisotropic light-sheet volume and its isotropic noise-free truth.

    Both show the same vessels and neurons and cover the same extent. A source slice is the truth, blurred
    along z to an FWHM of 2.2 µm and sampled at the centre of the slice, seen by a camera with shot noise,
    read-out noise and an offset.

    Parameters
    ----------
    seed
        Equal seeds give equal volumes.

    Returns
    -------
    source : Image
        czyx (2, 48, 256, 256), uint16, voxels of 1 × 0.411 × 0.411 µm.
    truth : Image
        czyx (2, 116, 256, 256), float32, voxels of 0.411 µm a side, in the counts of the source.
    """
    planes = math.floor(_SLICES * FACTOR + 1e-6)
    noise, *chances = np.random.default_rng(seed).spawn(3)
    acquired = np.empty((2, _SLICES, _SIDE, _SIDE), np.uint16)
    truth = np.empty((2, planes, _SIDE, _SIDE), np.float32)
    for channel, (draw, rng) in enumerate(zip((draw_vessels, draw_neurons), chances, strict=True)):
        shape = (planes + 2 * _MARGIN, _SIDE, _SIDE)
        photons = _PHOTONS[channel] * draw(rng, shape) + _GLOW[channel] * draw_background(rng, shape)
        photons = ndimage.gaussian_filter(photons, LATERAL_FWHM * _SIGMA_PER_FWHM, mode="nearest")
        truth[channel] = OFFSET + GAIN * photons[_MARGIN:-_MARGIN]
        acquired[channel] = _photographed(noise, _blurred_slices(photons))
    lateral = STEP / FACTOR
    return (
        _source("light-sheet sample", acquired, (STEP, lateral, lateral), 0.0),
        _source("light-sheet truth", truth, (lateral, lateral, lateral), (1 / FACTOR - 1) / 2 * STEP),
    )


def _blurred_slices(photons: NDArray[np.float32]) -> NDArray[np.float64]:
    """Blur along z and sample at the slices' centres.

    Parameters
    ----------
    photons
        (z, y, x) on the SR grid, with margins. It already has the lateral blur along all axes, so only the
        difference of the variances is added.

    Returns
    -------
    numpy.ndarray
        (slices, y, x)
    """
    variance = ((AXIAL_FWHM / STEP * FACTOR) ** 2 - LATERAL_FWHM**2) * _SIGMA_PER_FWHM**2
    centres = (np.arange(_SLICES) + 0.5) * FACTOR - 0.5  # in SR planes
    distance = np.arange(len(photons)) - _MARGIN - centres[:, None]
    weights = np.exp(-0.5 * distance**2 / variance)
    weights /= weights.sum(axis=1, keepdims=True)
    slices: NDArray[np.float64] = np.tensordot(weights, photons, axes=1)
    return slices


def _photographed(rng: np.random.Generator, photons: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Simulate a camera: shot noise, gain, offset, read-out noise, rounding."""
    counts = OFFSET + GAIN * rng.poisson(photons) + READ_NOISE * rng.standard_normal(photons.shape, np.float32)
    return np.clip(np.rint(counts), 0, np.iinfo(np.uint16).max).astype(np.uint16)


def _source(name: str, data: NDArray[Any], voxel_size: tuple[float, float, float], shift: float) -> Image:
    lazy = da.from_array(data, chunks=(1, 1, *data.shape[2:]), name=False)
    return Image(
        data=lazy,
        axes="czyx",
        voxel_size=voxel_size,
        unit="micrometer",
        translate=(shift, 0.0, 0.0),
        name=name,
        channel_names=("vessels", "neurons"),
        channel_colors=("#ff00ff", "#00ffff"),
    )
