"""The volumes of the noise benchmark: clean truths, how they are acquired, and real stacks without a truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition, sr_length
from napari_cropeq.core.training.plane_pool import downwards
from napari_cropeq.formats.image import Image
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.phantom import draw_background, draw_neurons

Volume = npt.NDArray[Any]

BRIGHTEST = 99.95  # percentile of the truth that counts as the brightest voxel
GLOW = 0.04  # background of the phantom, share of the brightest
SHAPE = (150, 192, 192)
REAL = {
    "brain, signal": ("mouse_brain_2ch_5x2x2um.ome.tif", 0),
    "brain, background": ("mouse_brain_2ch_5x2x2um.ome.tif", 1),
    "whole brain": ("mouse_brain_whole_50x40x40um.ome.tif", 0),
    "confocal, green": ("confocal_green_0p646x0p328um.imagej.tif", 0),
    "confocal, red": ("confocal_red_0p646x0p328um.imagej.tif", 0),
}


@dataclass(frozen=True)
class Cell:
    """A truth, and how it is acquired."""

    truth: str  # phantom, MRI, EM
    photons: float  # at the brightest voxel
    camera: str  # a key of CAMERAS
    factor: float = 2.5
    width: float = 1.0  # FWHM over step

    @property
    def name(self) -> str:
        """Short, for file names."""
        return f"{self.truth}-{self.photons:g}-{self.camera}-x{self.factor:g}-w{self.width:g}".lower()

    @property
    def acquisition(self) -> Acquisition:
        """Grid and slice profile."""
        return Acquisition((self.factor, 1.0, 1.0), fwhm=self.factor * self.width)


CORE = (
    *(Cell("phantom", photons, camera) for photons in (1, 10, 100) for camera in ("poisson", "pmt")),
    Cell("phantom", 10, "scmos"),
    Cell("phantom", 10, "offset"),
    Cell("phantom", 10, "correlated"),
    Cell("phantom", 10, "poisson", width=2.2),
    Cell("phantom", 10, "poisson", factor=4.0),
    Cell("MRI", 10, "poisson"),
    Cell("EM", 10, "poisson"),
)
FULL = tuple(
    Cell(truth, photons, camera, factor, width)
    for truth in ("phantom", "MRI", "EM")
    for photons in (1, 3, 10, 30, 100)
    for camera in ("poisson", "pmt", "scmos", "offset", "correlated")
    for factor in (2.165, 2.5, 4.0)
    for width in (1.0, 2.2)
)


CLEAN = {"MRI x2": ("MRI", 2.0), "MRI x4": ("MRI", 4.0), "EM x4": ("EM", 4.0), "whole brain x4": ("whole brain", 4.0)}
"""Volumes that are degraded without noise: what the default training gains or loses there."""


@dataclass(frozen=True)
class Acquired:
    """A cell with its voxels: everything in the units of the camera, less its offset."""

    cell: Cell
    truth: Volume  # (z, y, x) on the SR grid, without noise
    clean: Volume  # (slices, y, x), without noise
    raw: Volume  # (slices, y, x), what the camera gives, with its offset
    again: Volume  # a second image of the same truth, which nothing is trained on
    offset: float
    hot: Volume  # (y, x), which pixels are hot in all slices

    @classmethod
    def make(cls, cell: Cell, seed: int, data: Path) -> Acquired:
        """Make the voxels of a cell; another seed gives another phantom, and other noise."""
        truth = phantom(seed) if cell.truth == "phantom" else real_truth(cell.truth, data)
        truth = truth / np.percentile(truth, BRIGHTEST) * cell.photons
        clean = image(truth, cell.acquisition)
        raw, gain, offset = photograph(clean, cell.camera, np.random.default_rng(1000 + seed))
        again, *_ = photograph(clean, cell.camera, np.random.default_rng(2000 + seed))
        rows = sr_length(len(clean), cell.factor)
        hot = hot_pixels(clean.shape[1:]) > 0 if cell.camera == "scmos" else np.zeros(clean.shape[1:], bool)
        return cls(cell, truth[:rows] * gain, clean * gain, raw, again, offset, hot)


def phantom(seed: int) -> Volume:
    """Return neurons on a dim background (z, y, x), blurred to what an objective resolves."""
    rng = np.random.default_rng(seed)
    drawn = draw_neurons(rng, SHAPE) + GLOW * draw_background(rng, SHAPE)
    blurred: Volume = ndimage.gaussian_filter(drawn, 1.4 / FWHM_PER_SIGMA, mode="nearest")
    return blurred


def real_truth(name: str, data: Path) -> Volume:
    """Return an isotropic real volume (z, y, x), without negative intensities."""
    file, crop = {
        "MRI": ("mri_t1_isotropic_1mm.nii.gz", np.s_[20:150, 20:200, 20:170]),
        "EM": ("em_isotropic_8nm.tif", np.s_[:, :, :]),
        "whole brain": ("mouse_brain_whole_50x40x40um.ome.tif", np.s_[50:210, :, 40:240]),
    }[name]
    return np.maximum(np.asarray(open_image(data / file).data, np.float32)[crop], 0)


def image(volume: Volume, acquisition: Acquisition) -> Volume:
    """Return the slices that an SR volume (axial axis first) shows through the slice profile."""
    slices = math.ceil((len(volume) - 1e-6) / acquisition.factor)
    if sr_length(slices, acquisition.factor) > len(volume):  # the last slice is not whole
        slices -= 1
    weights, _ = downwards(slices, acquisition.factor, acquisition.blur_px / FWHM_PER_SIGMA)
    rows = sr_length(slices, acquisition.factor)
    slices_of: Volume = np.tensordot(weights.astype(np.float64), volume[:rows].astype(np.float64), 1)
    return slices_of


def photograph(photons: Volume, camera: str, rng: np.random.Generator) -> tuple[Volume, float, float]:
    """Return what a camera gives for expected ``photons``, its counts for a photon, and its offset in counts."""
    expected = np.maximum(photons, 0)
    if camera == "poisson":
        return rng.poisson(expected).astype(np.uint16), 1.0, 0.0
    if camera == "pmt":  # the amplitudes of single photons are exponential: an excess noise factor of 2
        counts = rng.poisson(expected)
        return np.rint(rng.gamma(np.maximum(counts, 1e-9), 100.0)).astype(np.uint16), 100.0, 0.0
    if camera == "offset":
        return (400 + 10 * rng.poisson(expected)).astype(np.uint16), 10.0, 400.0
    if camera == "scmos":  # read-out noise, and pixels that are hot in all slices
        hot = hot_pixels(expected.shape[1:])
        counts = 100 + 2 * rng.poisson(expected) + 3 * rng.standard_normal(expected.shape) + hot
        return np.clip(np.rint(counts), 0, 65535).astype(np.uint16), 2.0, 100.0
    noise = ndimage.gaussian_filter(rng.poisson(expected) - expected, (0, 0.7, 0.7))  # over 1 to 2 px
    noise *= np.sqrt(expected.mean()) / noise.std()
    return (expected + noise).astype(np.float32), 1.0, 0.0


def hot_pixels(shape: tuple[int, ...]) -> Volume:
    """Return what the hot pixels of a chip add, in counts; most of them are 0. It is the same in every image."""
    chip = np.random.default_rng(0)
    counts: Volume = (chip.random(shape) < 3e-4) * chip.gamma(2, 150, shape)
    return counts


def real_stack(name: str, data: Path) -> tuple[Image, Volume]:
    """Return a real stack and the voxels of its channel (z, y, x)."""
    file, channel = REAL[name]
    source = open_image(data / file)
    voxels = source.data[channel] if "c" in source.axes else source.data
    return source, np.asarray(voxels)
