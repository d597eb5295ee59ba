"""What is measured afterwards: spots, vessels, nuclei and neurites, in what was acquired, results and truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from calibration import acquired
from methods import applied, model_path, quintic, trained
from scipy import ndimage, optimize
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label, regionprops
from skimage.metrics import adapted_rand_error
from skimage.morphology import remove_small_objects, skeletonize
from skimage.segmentation import watershed
from volumes import image

from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition
from napari_cropeq.core.model import Model

Voxels = npt.NDArray[Any]
Scores = dict[str, float]

SHAPE = (96, 128, 128)
FACTOR = 4.0  # the FWHM of the slice profile is the step
PHOTONS = 30.0  # at the brightest voxel
PATCHES = 1_500
GLOW = 0.04
BLOCKS = 10  # of the EM volume


@dataclass(frozen=True)
class Phantom:
    """A truth from 0 to 1 (z, y, x), and what is known about it: centres of spots, or labels of nuclei."""

    truth: Voxels
    known: Voxels


def draw_spots(rng: np.random.Generator) -> Phantom:
    """Return spots with a FWHM of 2.5 voxels, at least 4 voxels apart."""
    centres: list[Voxels] = []
    while len(centres) < 400:
        centre = rng.uniform(8, np.array(SHAPE) - 8)
        if all(np.linalg.norm(centre - other) >= 4 for other in centres):
            centres.append(centre)
    drawn, half, sigma = np.zeros(SHAPE, np.float32), 6, 2.5 / FWHM_PER_SIGMA
    for centre in centres:
        first = np.rint(centre).astype(int) - half
        near = np.indices([2 * half + 1] * 3) + first[:, None, None, None]
        square = ((near - centre[:, None, None, None]) ** 2).sum(axis=0)
        drawn[tuple(near)] += rng.uniform(0.5, 1.0) * np.exp(-square / (2 * sigma**2))
    return Phantom(drawn, np.array(centres))


def draw_tubes(rng: np.random.Generator) -> Phantom:
    """Return curved tubes with radii of 1.5 to 3.5 voxels."""
    drawn = np.zeros(SHAPE, np.float32)
    for _ in range(14):
        place, heading = rng.uniform(0.15, 0.85, 3) * SHAPE, rng.normal(size=3)
        line = np.ones(SHAPE, bool)
        for sign in (-1, 1):
            ahead, turns = sign * heading / np.linalg.norm(heading), rng.normal(0, 0.06, (240, 3))
            headings = ahead + np.cumsum(turns, axis=0)
            path = place + np.cumsum(0.5 * headings / np.linalg.norm(headings, axis=1, keepdims=True), axis=0)
            inside = np.all((path >= 0) & (path <= np.array(SHAPE) - 1), axis=1)
            line[tuple(np.rint(path[inside]).astype(int).T)] = False
        away = ndimage.distance_transform_edt(line)
        drawn = np.maximum(drawn, rng.uniform(0.6, 1.0) * np.clip(rng.uniform(1.5, 3.5) + 0.5 - away, 0, 1))
    return Phantom(drawn.astype(np.float32), np.zeros(0))


def draw_nuclei(rng: np.random.Generator) -> Phantom:
    """Return pairs of touching nuclei with radii of 3 to 4.5 voxels, in all directions; labels 2n-1 and 2n touch."""
    labels, (z, y, x), pairs = np.zeros(SHAPE, int), np.indices(SHAPE, sparse=True), list[Voxels]()
    for _ in range(2000):
        radii, heading = rng.uniform(3.0, 4.5, (2, 3)), rng.normal(size=3)
        heading /= np.linalg.norm(heading)
        reach = [1 / np.linalg.norm(heading / r) for r in radii]  # of each nucleus towards the other
        centre = rng.uniform(8, np.array(SHAPE) - 10)
        if len(pairs) == 60 or any(np.linalg.norm(centre - other) < 18 for other in pairs):
            continue
        pairs.append(centre)
        for number, sign in enumerate((-1, 1)):
            at = centre + sign * heading * 0.93 * sum(reach) / 2
            away = sum(((v - a) / r) ** 2 for v, a, r in zip((z, y, x), at, radii[number], strict=True))
            labels[(away <= 1) & (labels == 0)] = 2 * len(pairs) - 1 + number
    texture = gaussian(rng.normal(size=SHAPE), 1.5)
    drawn = (labels > 0) * np.clip(0.7 + 0.12 * texture / texture.std(), 0.2, 1)
    return Phantom(drawn.astype(np.float32), labels)


def count_spots(volume: Voxels, known: Voxels) -> Scores:
    """Return count, F1 score of the places (within 3 voxels), and height over width at half maximum."""
    smooth = gaussian(volume, 1.0)
    dark = float(np.median(smooth))
    least = max(5 * 1.4826 * float(np.median(np.abs(smooth - dark))), 0.25 * float(np.percentile(smooth, 99.95) - dark))
    found = peak_local_max(smooth, min_distance=2, threshold_abs=dark + least)
    away = np.linalg.norm(found[:, None] - known[None], axis=2)
    rows, columns = optimize.linear_sum_assignment(np.minimum(away, 1e3))
    hits = int((away[rows, columns] <= 3).sum())
    ratios = [half_width(volume - dark, peak, 0) / half_width(volume - dark, peak, 2) for peak in found]
    return {
        "spots: count": float(len(found)),
        "spots: F1 of the places": 2 * hits / max(len(found) + len(known), 1),
        "spots: height / width": float(np.median(ratios)),
    }


def half_width(volume: Voxels, peak: Voxels, axis: int) -> float:
    """Return the full width at half maximum of a line through a peak, voxels; at most 16."""
    index: list[Any] = list(peak)
    index[axis] = slice(max(peak[axis] - 8, 0), peak[axis] + 9)
    line = volume[tuple(index)]
    at, half, width = int(peak[axis] - index[axis].start), 0.5 * float(volume[tuple(peak)]), 0.0
    for side in (line[at:], line[at::-1]):
        below = np.flatnonzero(side <= half)
        if not len(below):
            width += 8
        elif below[0]:
            n = int(below[0])
            width += n - 1 + (side[n - 1] - half) / (side[n - 1] - side[n])
    return max(width, 0.5)


def trace_tubes(volume: Voxels, known: Voxels) -> Scores:
    """Return length of the skeleton, voxels, and shape of the cross-sections with planes (z, x)."""
    smooth = gaussian(volume, 0.7)
    mask = remove_small_objects(smooth > threshold_otsu(smooth), max_size=60)
    regions = [r for y in range(4, SHAPE[1] - 4, 4) for r in regionprops(label(mask[:, y])) if 9 <= r.area <= 250]
    spread = [r.coords.std(axis=0) for r in regions]
    return {
        "vessels: length (voxels)": float(skeletonize(mask).sum()),
        "vessels: volume (voxels)": float(mask.sum()),
        "vessels: roundness": float(np.median([r.axis_minor_length / r.axis_major_length for r in regions])),
        "vessels: height / width": float(np.median([s[0] / max(s[1], 0.1) for s in spread])),
    }


def split_nuclei(volume: Voxels, known: Voxels) -> Scores:
    """Return count, F1 score (overlap of at least a half), and the share of touching pairs that are separated."""
    smooth = gaussian(volume, 1.0)
    mask = remove_small_objects(smooth > threshold_otsu(smooth), max_size=100)
    inside = gaussian(ndimage.distance_transform_edt(mask), 1.0)
    seeds = np.zeros(SHAPE, int)
    peaks = peak_local_max(inside, min_distance=3, labels=label(mask))
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-inside, seeds, mask=mask)
    shared = np.zeros((int(known.max()) + 1, len(peaks) + 1))
    np.add.at(shared, (known, labels), 1)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    overlap = (shared / np.maximum(union, 1))[1:, 1:]
    hit = overlap.max(axis=1, initial=0) >= 0.5  # each by a label of its own
    return {
        "nuclei: count": float(len(peaks)),
        "nuclei: F1": 2 * float(hit.sum()) / (len(peaks) + len(overlap)),
        "nuclei: pairs told apart (%)": 100 * float((hit[::2] & hit[1::2]).mean()),
    }


def neurites(volume: Voxels) -> Voxels:
    """Return the labels of what membranes enclose, each section (z, x) by itself."""
    found, last = np.zeros(volume.shape, int), 0
    for y in range(volume.shape[1]):
        bright = gaussian(volume[:, y], 1.5)
        seeds = label(bright > gaussian(bright, 8.0) + 0.25 * bright.std())
        labels = watershed(-bright, remove_small_objects(seeds, max_size=20))
        found[:, y] = np.where(labels > 0, labels + last, 0)
        last = int(found.max())
    return found


FAMILIES: dict[str, tuple[Callable[..., Phantom], Callable[..., Scores]]] = {
    "spots": (draw_spots, count_spots),
    "vessels": (draw_tubes, trace_tubes),
    "nuclei": (draw_nuclei, split_nuclei),
}


def measure(name: str, seed: int, out: Path) -> dict[str, Scores]:
    """Return what is measured in a phantom: another phantom, noise and training for each seed."""
    rng, acquisition = np.random.default_rng(100 + seed), Acquisition((FACTOR, 1.0, 1.0))
    draw, task = FAMILIES[name]
    phantom = draw(rng)
    truth = PHOTONS * (ndimage.gaussian_filter(phantom.truth, 1.0 / FWHM_PER_SIGMA) + GLOW)
    raw = rng.poisson(image(truth, acquisition)).astype(np.uint16)
    model = trained(raw, acquisition, seed, PATCHES, {}, model_path(out, name, "task", seed))
    volumes = side_by_side(model, raw, acquisition) | {"truth": truth}
    return {method: task(volume, phantom.known) for method, volume in volumes.items()}


def measure_em(data: Path, models: Path, out: Path) -> list[dict[str, Scores]]:
    """Return what is measured in blocks of a degraded EM volume, with one model for all of them."""
    raw, truth, acquisition = acquired("EM x4", 0, data)
    cached = model_path(models, "EM x4", "default", 0)
    path = cached if cached.exists() else model_path(out, "EM x4", "default", 0)
    model = trained(raw, acquisition, 0, 12_000, {}, path)
    volumes = side_by_side(model, raw, acquisition) | {"truth": truth}
    edges = np.linspace(0, truth.shape[1], BLOCKS + 1).astype(int)
    records = []
    for first, last in itertools.pairwise(edges):
        sections = slice(first, last, 4)
        of_truth = neurites(truth[:, sections])
        scores = {}
        for method, volume in volumes.items():
            labels = neurites(volume[:, sections])
            scores[method] = {
                "neurites: sections": float(len(np.unique(labels)) - 1),
                "neurites: Rand error": float(adapted_rand_error(of_truth, labels)[0]),
            }
        records.append(scores)
    return records


def side_by_side(model: Model, raw: Voxels, acquisition: Acquisition) -> dict[str, Voxels]:
    """Return what was acquired, with each slice repeated, the interpolation, and the result of the model."""
    nearest = np.repeat(raw.astype(np.float64), round(acquisition.factor), axis=0)
    result = applied(model, raw, acquisition, "both")
    return {"acquired": nearest, "interpolated": quintic(raw, acquisition), "super-resolved": result}
