"""What the noise benchmark compares: interpolation, filters, deconvolution, and trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.restoration import richardson_lucy

from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition, Box, source_range, sr_length
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.spline import interpolate, read_mirrored
from napari_cropeq.core.training.training import Training, TrainingConfig

Volume = npt.NDArray[Any]

SMOOTHED = (0.5, 1.0, 1.5, 2.0, 3.0)  # standard deviations that are tried, voxels
ITERATIONS = (3, 8, 20)  # of Richardson-Lucy that are tried
TRAININGS = {
    "0.1.0": {"loss": "l1", "share_noise": False, "correction": 0.0},
    "default": {},
}
"""Settings that differ from the default ones; version 0.1.0 had the first."""


def quintic(raw: Volume, acquisition: Acquisition) -> Volume:
    """Return the quintic interpolation of a stack (z, y, x)."""
    axial = acquisition.axial
    moved = np.moveaxis(raw.astype(np.float64), axial, 0)
    rows = sr_length(len(moved), acquisition.factor)
    first, last = source_range(0, rows, acquisition.factor)
    wide = read_mirrored(moved, Box((first, 0, 0), (last, *moved.shape[1:])))
    interpolated = interpolate(torch.from_numpy(np.ascontiguousarray(wide)), first, 0, rows, acquisition.factor)
    return np.moveaxis(interpolated.numpy(), 0, axial)


def smoothed(base: Volume, sigma: float) -> Volume:
    """Return the interpolation after a Gaussian with this standard deviation, voxels."""
    result: Volume = ndimage.gaussian_filter(base, sigma)
    return result


def deconvolved(base: Volume, acquisition: Acquisition, iterations: int) -> Volume:
    """Return Richardson-Lucy's result with the slice profile, from the interpolation."""
    sigma = acquisition.blur_px / FWHM_PER_SIGMA
    distance = np.arange(-int(np.ceil(3 * sigma)), int(np.ceil(3 * sigma)) + 1)
    profile = np.exp(-0.5 * (distance / sigma) ** 2)[:, None, None]
    positive = np.maximum(base, 1e-6 * float(base.max()))
    peak = float(positive.max())
    result: Volume = peak * richardson_lucy(positive / peak, profile / profile.sum(), iterations, clip=False)
    return result


def best(
    method: Callable[[Volume, Any], Volume], base: Volume, tried: Sequence[Any], error: Callable[[Volume], float]
) -> Any:
    """Return the value with which the result of a method has the least error."""
    return min(tried, key=lambda value: error(method(base, value)))


def trained(
    raw: Volume, acquisition: Acquisition, seed: int, patches: int, settings: dict[str, Any], path: Path
) -> Model:
    """Return a model that was trained on a stack, from ``path`` if it was kept there."""
    if path.exists():
        return Model.load(path)
    config = TrainingConfig(minutes=None, patches=patches, seed=seed, **settings)
    training = Training(raw, acquisition, config, "cpu")
    for _ in training.run():
        pass
    model = training.model({"name": path.stem})
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def model_path(folder: Path, name: str, training: str, seed: int) -> Path:
    """Return where a benchmark keeps the model of a cell."""
    return folder / f"{name.replace(', ', '-').replace(' ', '-')}-{training}-{seed}.safetensors"


def patches_to_90(model: Model) -> int:
    """Return after how many patches the validation loss had fallen by 90 % of its whole fall."""
    losses = [(patches, validation) for patches, _, _, validation in model.training["losses"]]
    first, least = losses[0][1], min(validation for _, validation in losses)
    return next(patches for patches, validation in losses if first - validation >= 0.9 * (first - least))


def applied(model: Model, raw: Volume, acquisition: Acquisition, planes: str | None) -> Volume:
    """Return the result of a model, before conversion to the dtype of the stack."""
    predictor = Predictor(
        model.network, acquisition, raw, Normalisation.measure(raw), planes, "cpu", correction=model.correction
    )
    return predictor(Box.whole(predictor.sr_shape))
