"""What the noise benchmark measures: against a clean truth, and against what was acquired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize
from skimage.feature import peak_local_max
from skimage.metrics import structural_similarity
from volumes import Acquired, image

from napari_cropeq.core.geometry import Acquisition

Volume = npt.NDArray[Any]

BINS = 8
LOCAL = (3, 15, 15)  # size of the local mean, slices and px
INNER = (3, 9, 9)  # what the last linear step smooths over, slices and px
BLOCK = 24  # side of the blocks whose spread gives a standard error, px
BORDER = 8  # voxels left out on every side
FLAT = 0.3  # share of the voxels that counts as flat
SPOT, VESSEL = 0.3, 0.25  # thresholds, share of the brightest voxel
STEP_WIDTH = 2.563  # of a Gaussian-blurred step from 10 to 90 %, standard deviations


def bias(imaged: Volume, expected: Volume, means: Volume, where: Volume | None = None) -> dict[str, list[float]]:
    """Return the mean difference in bins of ``means``, in % of the bin's mean, and its standard error.

    The standard error is that of blocks of the volume, left out one after the other. Only voxels in ``where`` count.
    """
    counted = np.ones(means.shape, bool) if where is None else where
    edges = np.quantile(means[counted], np.linspace(0, 1, BINS + 1))
    bins = np.where(counted, np.clip(np.searchsorted(edges, means, side="right") - 1, 0, BINS - 1), -1)
    _, y, x = np.indices(means.shape, sparse=True)
    wide = -(-means.shape[2] // BLOCK)
    blocks = np.broadcast_to(y // BLOCK * wide + x // BLOCK, means.shape)
    count = int(blocks.max()) + 1
    found: dict[str, list[float]] = {"bias": [], "error": []}
    for number in range(BINS):
        inside = bins == number
        total = np.bincount(blocks[inside], (imaged - expected)[inside], count)
        whole = np.bincount(blocks[inside], expected[inside], count)
        used = np.bincount(blocks[inside], minlength=count) > 0
        if not whole.sum() > 0:
            found["bias"].append(float("nan"))
            found["error"].append(float("nan"))
            continue
        without = (total.sum() - total[used]) / np.maximum(whole.sum() - whole[used], 1e-12)
        n = int(used.sum())
        found["bias"].append(round(100 * total.sum() / whole.sum(), 3))
        found["error"].append(round(100 * float(np.sqrt((n - 1) * np.var(without))), 3))
    return found


def against_truth(results: Sequence[Volume], bases: Sequence[Volume], given: Acquired) -> dict[str, Any]:
    """Return all scores of the results (z, y, x) of both images of a truth, less the offset of the camera.

    All but the noise gain are of the first; ``bases`` are quintic interpolations. Noise is what differs between the two
    images: structure that is too wide, or too narrow, does not count as noise. Bias is measured where there is light.
    Scores *apart* leave out what is near hot pixels, each of which is brighter than anything in the truth.
    """
    result, truth, inner = results[0], given.truth, (slice(BORDER, -BORDER),) * 3
    span = float(truth.max() - truth.min())
    clean = ndimage.uniform_filter(given.clean, LOCAL, mode="mirror")
    error = (result - truth)[inner]
    slope = ndimage.gaussian_gradient_magnitude(truth, 1.0)
    local = ndimage.gaussian_filter(truth, 2.0)
    bright = local > np.quantile(local, 0.9)
    relative = slope / np.maximum(truth, 1e-3 * span)
    lit = truth > 0  # where there is no light, there is no noise either
    flat = {
        "dim": lit & (slope < np.quantile(slope[lit], FLAT)),
        "bright": bright & (relative < np.quantile(relative[bright], FLAT)),
    }
    noise = results[0] - results[1], bases[0] - bases[1]
    imaged = image(result, given.cell.acquisition)
    scores: dict[str, Any] = {
        "psnr": 10 * np.log10(span**2 / max(float(np.mean(np.square(error))), 1e-30)),
        "ssim": structural_similarity(result[inner], truth[inner], data_range=span),
        **bias(imaged, given.clean, clean, clean > 0),
        **{f"gain {name}": noise_gain(*noise, where) for name, where in flat.items()},
        "edge": edge_width(result[inner], truth[inner]),
        "spots": relative_error(spots(result, span), spots(truth, span)),
        "vessels": relative_error(float((result > VESSEL * span).sum()), float((truth > VESSEL * span).sum())),
    }
    if given.hot.any():
        apart = ~ndimage.binary_dilation(given.hot, iterations=BORDER)
        squares = np.square(error)[:, apart[inner[1:]]]
        scores["psnr apart"] = 10 * np.log10(span**2 / max(float(squares.mean()), 1e-30))
        where = (clean > 0) & apart
        scores |= {f"{name} apart": found for name, found in bias(imaged, given.clean, clean, where).items()}
    if not error.any():  # infinite
        scores = {name: value for name, value in scores.items() if "psnr" not in name}
    return {name: value if isinstance(value, list) else round(float(value), 4) for name, value in scores.items()}


def noise_gain(result: Volume, base: Volume, where: Volume) -> float:
    """Return the standard deviation of a result where it should be flat, over that of the interpolation."""
    return float(result[where].std()) / max(float(base[where].std()), 1e-12)


def edge_width(result: Volume, truth: Volume) -> float:
    """Return from 10 to 90 %, in voxels, how wide a sharp edge of the truth along z is in the result.

    That is the Gaussian blur along z with which the truth is most like the result where it is steep along z.
    """
    steep = np.abs(np.gradient(truth, axis=0))
    where = steep > np.quantile(steep, 0.95)

    def difference(sigma: float) -> float:
        return float(np.square(ndimage.gaussian_filter1d(truth, sigma, axis=0) - result)[where].mean())

    best = optimize.minimize_scalar(difference, bounds=(0.05, 6.0), method="bounded", options={"xatol": 0.01})
    return STEP_WIDTH * float(best.x)


def spots(volume: Volume, span: float) -> float:
    """Return the number of bright spots."""
    smooth = ndimage.gaussian_filter(volume, 1.0)
    return float(len(peak_local_max(smooth, min_distance=3, threshold_abs=SPOT * span, exclude_border=BORDER)))


def relative_error(found: float, true: float) -> float:
    """Return an error in %."""
    return 100 * (found - true) / max(true, 1.0)


def frame(volume: Volume) -> Volume:
    """Return the mean (slices, y, x) of the voxels in the local box but outside of its inner part."""
    whole, inner = (ndimage.uniform_filter(volume, size, mode="mirror") * np.prod(size) for size in (LOCAL, INNER))
    mean: Volume = (whole - inner) / (np.prod(LOCAL) - np.prod(INNER))
    return mean


def against_acquired(result: Volume, base: Volume, raw: Volume, acquisition: Acquisition) -> dict[str, Any]:
    """Return scores of a real stack without a truth.

    The bin of a voxel is the mean of a frame around it. The voxels inside the frame are those that a result smooths
    over: if they chose the bin, bins of few photons would get the voxels whose smoothed neighbours are too low.
    """
    raw = np.moveaxis(raw.astype(np.float64), acquisition.axial, 0)
    result, base = (np.moveaxis(volume.astype(np.float64), acquisition.axial, 0) for volume in (result, base))
    dark = float(np.percentile(raw, 0.1))
    imaged = image(result, acquisition)
    found = bias(imaged - dark, raw - dark, frame(raw))
    smooth = ndimage.gaussian_filter(base, 3.0)
    slope = ndimage.gaussian_gradient_magnitude(base, 3.0)
    halves = {"dim": smooth <= np.median(smooth), "bright": smooth >= np.quantile(smooth, 0.9)}
    flat = {name: half & (slope <= np.quantile(slope[half], FLAT)) for name, half in halves.items()}
    fine = [volume - ndimage.gaussian_filter(volume, 3.0) for volume in (result, base)]
    gains = {f"gain {name}": round(noise_gain(*fine, where), 4) for name, where in flat.items()}
    return found | gains | {"mean": round(100 * float((imaged - raw).mean() / (raw - dark).mean()), 3)}
