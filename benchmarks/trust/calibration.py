"""Coverage: the expected error of the models of the noise benchmark, against the truth along the axial axis."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from measures import judged, rank_correlation
from methods import model_path, trained
from scipy import ndimage
from volumes import CLEAN, CORE, Acquired, image, real_truth

from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import ErrorTail
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.learn_error import learn_error
from napari_cropeq.core.training.patches import PatchSampler
from napari_cropeq.core.training.plane_pool import Volume

Voxels = npt.NDArray[Any]

CELLS = (
    *CLEAN,
    "em-10-poisson-x2.5-w1",
    "mri-10-poisson-x2.5-w1",
    "phantom-10-poisson-x2.5-w1",
    "phantom-10-pmt-x2.5-w1",
    "phantom-10-poisson-x4-w1",
    "phantom-100-poisson-x2.5-w1",
    "phantom-10-poisson-x2.5-w2.2",
)
"""Cells of the noise benchmark, whose models are used if they are there."""

SIDE = 112  # of the box in the middle that is compared with the truth, SR voxels
NOISY_PATCHES, CLEAN_PATCHES = 5_000, 12_000  # of trainings, as in the noise benchmark


def acquired(name: str, seed: int, data: Path) -> tuple[Voxels, Voxels, Acquisition]:
    """Return what was acquired of a cell (slices, y, x), its truth on the SR grid (z, y, x), and the grid."""
    for cell in CORE:
        if cell.name == name:
            given = Acquired.make(cell, seed, data)
            return given.raw, given.truth + given.offset, cell.acquisition
    which, factor = CLEAN[name]
    acquisition, truth = Acquisition((factor, 1.0, 1.0)), real_truth(which, data)
    raw = image(truth, acquisition).astype(np.float32)
    return raw, truth[: acquisition.sr_shape(raw.shape)[0]], acquisition


def with_error(model: Model, raw: Voxels, acquisition: Acquisition) -> ErrorTail:
    """Return the error tail of a model, learnt now if it was made before there was one."""
    if model.error_tail is not None:
        return model.error_tail
    config, patches = TrainingConfig.read(model.training["recipe"]), int(model.training["patches"])
    volumes = [Volume(raw, model.normalisations[0])]
    sampler = PatchSampler(volumes, acquisition, model.network, config, patches)
    try:
        return returned(learn_error(model.network, sampler, patches // 4))  # as at the end of a training
    finally:
        sampler.close()


def returned(steps: Generator[float, None, ErrorTail]) -> ErrorTail:
    """Run a generator to its end, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: ErrorTail = end.value
            return found


def predicted(
    model: Model, tail: ErrorTail, raw: Voxels, acquisition: Acquisition, planes: str, box: Box | None = None
) -> Voxels:
    """Return result and expected error, (2, z, y, x)."""
    predictor = Predictor(
        model.network,
        acquisition,
        raw,
        model.normalisations[0],
        planes,
        "cpu",
        correction=model.correction,
        error_tail=tail,
    )
    return predictor(Box.whole(predictor.sr_shape) if box is None else box, with_error=True)


def middle(shape: tuple[int, ...]) -> Box:
    """Return the box in the middle of a volume, at most ``SIDE`` voxels wide."""
    sides = [min(n, SIDE) for n in shape]
    start = [(n - side) // 2 for n, side in zip(shape, sides, strict=True)]
    return Box(tuple(start), tuple(a + b for a, b in zip(start, sides, strict=True)))  # type: ignore[arg-type]


def measure(name: str, seed: int, data: Path, models: Path, out: Path) -> dict[str, Any]:
    """Return the scores of a cell, and keep a sample of its voxels in ``out`` to try other calibrations on."""
    raw, truth, acquisition = acquired(name, seed, data)
    cached = model_path(models, name, "default", seed)
    path = cached if cached.exists() else model_path(out, name, "default", seed)
    model = trained(raw, acquisition, seed, CLEAN_PATCHES if name in CLEAN else NOISY_PATCHES, {}, path)
    tail = with_error(model, raw, acquisition)
    box = middle(truth.shape)
    (both, expected), (one, of_one) = (predicted(model, tail, raw, acquisition, p, box) for p in ("both", "x"))
    truth = truth[box.slices]
    apart = 2 * (one - both)  # of the results of the two planes
    predictor = Predictor(model.network, acquisition, raw, model.normalisations[0], "x", "cpu")
    slope = ndimage.gaussian_gradient_magnitude(predictor.interpolated(box), 1.0)
    error, of_plane = both - truth, one - truth
    out.mkdir(parents=True, exist_ok=True)
    chosen = np.random.default_rng(0).choice(error.size, min(error.size, 200_000), replace=False)
    kept = {"both": error, "s_both": expected, "one": of_plane, "s_one": of_one, "apart": apart, "slope": slope}
    np.savez_compressed(
        out / f"{model_path(Path(), name, 'sample', seed).stem}.npz",
        **{key: value.ravel()[chosen].astype(np.float32) for key, value in kept.items()},
        intervals=np.array(list(tail.intervals.values())),
    )
    return {
        "both planes": judged(error, expected, tail.intervals),
        "one plane": judged(of_plane, of_one, tail.intervals),
        "intervals": {f"{100 * level:g} %": width for level, width in tail.intervals.items()},
        "rank correlation of the slope": rank_correlation(error, slope),
        "rank correlation of the planes' difference": rank_correlation(error, np.abs(apart)),
        "planes' difference / expected": float(np.sqrt((apart**2).mean() / (expected**2).mean())),
    }
