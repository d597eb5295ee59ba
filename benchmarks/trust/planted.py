"""Planted structures that lateral planes never show: what is invented, what is lost, and whether it is flagged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from calibration import predicted, with_error
from measures import coverage, flagged
from methods import applied, model_path, quintic, trained
from scipy import ndimage
from volumes import BRIGHTEST, GLOW, image

from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition
from napari_cropeq.formats.phantom import draw_neurons

Voxels = npt.NDArray[Any]

SHAPE = (96, 128, 144)
FACTOR = 4.0  # the FWHM of the slice profile is the step
PHOTONS = 30.0  # at the brightest voxel of the neurons
PATCHES = 2_000
FROM = 88  # x from which there are no neurons, but the structure
FREE = np.s_[8:-8, 8:-8, FROM + 6 : -8]
PERIOD = 6  # of the pattern along z, voxels; the shortest that slices 4 voxels apart can carry has 8
ALIAS = 12  # what the pattern looks like in the slices: 1/12 = 1/4 - 1/6
PEAK = 0.8  # share of a structure's maximum from which a voxel is its core
REACH = (5, 3, 3)  # voxels around a structure that count as near


def sheets() -> Voxels:
    """Return planes across z, one voxel thick, at all positions relative to the slices."""
    drawn = np.zeros(SHAPE, np.float32)
    drawn[[14, 31, 48, 65, 82], 14:-14, FROM + 8 : -10] = 0.8
    return drawn


def flat_spheres() -> Voxels:
    """Return spheres that are four times thinner along z."""
    drawn, (z, y, x) = np.zeros(SHAPE, np.float32), np.indices(SHAPE, sparse=True)
    for number, centre in enumerate(
        (z0, y0, x0) for z0 in (17, 38, 59, 80) for y0 in (28, 64, 100) for x0 in (103, 125)
    ):
        away = ((z - centre[0] - number % 4 / 2) / 2) ** 2 + ((y - centre[1]) / 8) ** 2 + ((x - centre[2]) / 8) ** 2
        drawn[away <= 1] = 0.6
    return drawn


def pattern() -> Voxels:
    """Return a periodic pattern along z, which the slices cannot carry."""
    drawn = np.zeros(SHAPE, np.float32)
    wave = 0.2 * (1 + np.cos(2 * np.pi * np.arange(SHAPE[0]) / PERIOD))
    drawn[:, 8:-8, FROM + 4 : -6] = wave[:, None, None]
    return drawn


def nothing() -> Voxels:
    """Return an empty region: there is noise alone."""
    return np.zeros(SHAPE, np.float32)


def points() -> Voxels:
    """Return single voxels, brighter than anything in the training patches after the blur of the objective."""
    drawn = np.zeros(SHAPE, np.float32)
    for number, (y, x) in enumerate(itertools.product((28, 64, 100), (102, 118, 130))):
        drawn[14 + 9 * number % 68, y, x] = 12.0
    return drawn


STRUCTURES: dict[str, Callable[[], Voxels]] = {
    "thin sheets across z": sheets,
    "spheres flattened along z": flat_spheres,
    f"pattern with a period of {PERIOD} voxels": pattern,
    "empty region": nothing,
    "bright points": points,
}


def truth_with(structure: Voxels, seed: int) -> tuple[Voxels, Voxels, float]:
    """Return a truth in photons (z, y, x), the part of it that is the structure, and the photons of the glow."""
    neurons = draw_neurons(np.random.default_rng(seed), SHAPE)
    neurons *= np.clip((FROM - 4 - np.arange(SHAPE[2])) / 8, 0, 1).astype(np.float32)
    soft, planted = (ndimage.gaussian_filter(v, 1.4 / FWHM_PER_SIGMA, mode="nearest") for v in (neurons, structure))
    scale = PHOTONS / float(np.percentile(soft[:, :, :FROM], BRIGHTEST))
    return scale * (soft + planted + GLOW), scale * planted, scale * GLOW


def scored(results: Sequence[Voxels], truth: Voxels, planted: Voxels, glow: float, name: str) -> dict[str, float]:
    """Return what is recovered and what is invented, in %, from the results of two images with different noise.

    The mean product of two errors is that of what both have: noise cancels out.
    """
    result = sum(results) / len(results)
    if not planted.any():  # noise that is left, relative to that of a photon count
        left = float(np.sqrt(np.square(results[0] - truth)[FREE].mean() / glow))
        return {"recovered (%)": float("nan"), "invented (%)": 100 * left}
    if name.startswith("pattern"):
        profile, true = (v[FREE].mean(axis=(1, 2)) for v in (result, truth))
        return {
            "recovered (%)": 100 * amplitude(profile, PERIOD) / amplitude(true, PERIOD),
            "invented (%)": 100 * amplitude(profile, ALIAS) / amplitude(true, PERIOD),
        }
    core, empty = planted > PEAK * planted.max(), np.zeros(planted.shape, bool)
    empty[FREE] = planted[FREE] < 0.01 * planted.max()
    one, two = (r - truth for r in results)
    energy = max(float((one * two)[empty].sum()), 0.0) / float(np.square(planted[FREE]).sum())
    return {
        "recovered (%)": 100 * float((result - glow)[core].mean() / planted[core].mean()),
        "invented (%)": 100 * energy**0.5,
    }


def amplitude(profile: Voxels, period: float) -> float:
    """Return the amplitude of a wave in a profile whose length is a multiple of the period."""
    profile = profile[: int(len(profile) // ALIAS * ALIAS)]
    wave = np.exp(-2j * np.pi * np.arange(len(profile)) / period)
    return float(2 * np.abs((profile - profile.mean()) @ wave) / len(profile))


def measure(name: str, seed: int, out: Path) -> dict[str, Any]:
    """Return the scores of a structure, and keep one section of the volumes in ``out`` for the picture."""
    acquisition = Acquisition((FACTOR, 1.0, 1.0))
    truth, planted, glow = truth_with(STRUCTURES[name](), seed)
    clean = image(truth, acquisition)
    raw, again = (np.random.default_rng(n + seed).poisson(clean).astype(np.uint16) for n in (1000, 2000))
    path = model_path(out, name, "planted", seed)
    model = trained(raw, acquisition, seed, PATCHES, {}, path)
    tail = with_error(model, raw, acquisition)
    result, expected = predicted(model, tail, raw, acquisition, "both")
    results, bases = (
        [result, applied(model, again, acquisition, "both")],
        [quintic(v, acquisition) for v in (raw, again)],
    )
    error = result - truth
    near = np.zeros(SHAPE, bool)
    near[FREE] = True
    if planted.any() and not name.startswith("pattern"):
        wide = np.ones([2 * n + 1 for n in REACH], bool)
        near &= ndimage.binary_dilation(planted > 0.05 * planted.max(), wide)
    section = np.s_[:, 64 if planted.any() else 40, FROM - 36 :]
    np.savez_compressed(
        path.with_suffix(".npz"),
        **{
            "interpolated": bases[0][section],
            "super-resolved": result[section],
            "truth": truth[section],
            "expected error": expected[section],
            "true error": np.abs(error)[section],
        },
    )
    return {
        "interpolated": scored(bases, truth, planted, glow, name),
        "super-resolved": scored(results, truth, planted, glow, name),
        "expected error": {
            **coverage(error[near], expected[near], tail.intervals),
            "error / expected": float(np.abs(error[near]).mean() / expected[near].mean()),
            "flagged (%)": flagged(error, expected, near),
            "expected near / elsewhere": float(expected[near].mean() / expected[~near].mean()),
        },
    }
