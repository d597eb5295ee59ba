"""The noise estimate for known noise, and the noise that is added to degraded lines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from conftest import acquired
from conftest import blobs as spots
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.spline import degradation
from napari_cropeq.core.training.noise import NoiseModel
from napari_cropeq.core.training.training import Training, TrainingConfig


def blobs(rng: np.random.Generator, width: float) -> np.ndarray:
    """Return slices (z, y, x) from 0 to 1 with structures of about ``width`` px."""
    planes = np.stack([ndimage.gaussian_filter(rng.normal(size=(200, 220)), width) for _ in range(8)])
    return (planes - planes.min()) / np.ptp(planes)


NOISE = [
    pytest.param(0.01, 0.0, id="shot"),
    pytest.param(0.0, 0.001, id="read-out"),
    pytest.param(0.004, 0.0005, id="both"),
    pytest.param(0.05, 0.002, id="strong"),
]


@pytest.mark.parametrize(
    ("width", "tolerance"), [pytest.param(6.0, 0.15, id="smooth"), pytest.param(1.5, 0.4, id="textured")]
)
@pytest.mark.parametrize(("slope", "offset"), NOISE)
def test_known_noise_is_found(slope, offset, width, tolerance, rng):
    clean = blobs(rng, width)
    noisy = clean + rng.normal(size=clean.shape) * np.sqrt(slope * clean + offset)
    found = NoiseModel.estimate(plane.astype(np.float32) for plane in noisy)
    intensity = np.array([0.25, 0.5, 0.75])
    assert found.variance(intensity) == pytest.approx(slope * intensity + offset, rel=tolerance)
    if width > 2 and offset == 0:
        assert found.slope == pytest.approx(slope, rel=tolerance)


@pytest.mark.parametrize("width", [6.0, 1.5])
def test_a_clean_volume_has_no_noise(width, rng):
    found = NoiseModel.estimate(plane.astype(np.float32) for plane in blobs(rng, width))
    assert np.sqrt(found.variance(np.linspace(0, 1, 5))).max() < 0.004


def test_clipped_voxels_have_no_noise(rng):
    clean = np.clip(2 * blobs(rng, 6.0) - 0.5, 0, 1)
    noisy = np.clip(clean + 0.03 * rng.normal(size=clean.shape), 0, 1)
    found = NoiseModel.estimate(plane.astype(np.float32) for plane in noisy)
    assert found.variance(np.array([0.5])) == pytest.approx(0.03**2, rel=0.3)


@pytest.mark.parametrize(
    "slices",
    [
        pytest.param([], id="none"),
        pytest.param([np.zeros((5, 5), np.float32)], id="tiny"),
        pytest.param([np.full((50, 50), 0.3, np.float32)], id="constant"),
    ],
)
def test_slices_that_show_no_noise(slices):
    assert NoiseModel.estimate(slices) == NoiseModel(0.0, 0.0)


def test_the_variance_is_never_negative():
    assert NoiseModel(0.5, -0.1).variance(np.array([0.0, 0.1, 1.0])).tolist() == pytest.approx([0.0, 0.0, 0.4])


@pytest.mark.parametrize("factor", [2, 2.433, 4])
def test_degraded_lines_regain_the_noise_that_blurring_removed(factor, rng):
    """A noisy flat slice, blurred and sampled, has the variance of a real axial sample."""
    model = NoiseModel(0.01, 0.001)
    level = 0.4
    true = 0.01 * level + 0.001
    _, down, _ = degradation(0, 200, factor, factor / 2.3548)
    lines = (level + np.sqrt(true) * rng.normal(size=(down.shape[1], 4000))).astype(np.float32)
    coarse = (down @ lines).astype(np.float32)
    kept = (down**2).sum(axis=1)
    assert np.var(coarse) < 0.6 * true, "blurring removes noise"
    topped = model.top_up(coarse, kept, rng)
    assert topped.dtype == np.float32
    assert np.var(topped) == pytest.approx(true, rel=0.03)
    assert topped.mean() == pytest.approx(level, abs=1e-3)


def test_no_noise_adds_nothing(rng):
    lines = rng.random((5, 40)).astype(np.float32)
    assert np.array_equal(NoiseModel(0.0, 0.0).top_up(lines, np.full(5, 0.2), rng), lines)


NOISES = [
    pytest.param("subpixel", 0.004, 0.0002, id="subpixel-shot"),
    pytest.param("subpixel", 0.0, 0.001, id="subpixel-read-out"),
    pytest.param("valid", 0.004, 0.0002, id="valid-shot"),
]


@pytest.mark.parametrize(("kind", "slope", "offset"), NOISES)
@pytest.mark.slow
def test_matching_noise_brings_the_result_closer_to_the_clean_truth(kind, slope, offset, rng):
    """Spots and a flat region, degraded, then noisy: each slice has its own noise, as in a microscope."""
    truth = 0.2 + 0.8 * spots((64, 128, 128))
    truth[:, 80:] = 0.4
    clean = acquired(truth, 4)
    source = (clean + rng.normal(size=clean.shape) * np.sqrt(slope * clean + offset)).astype(np.float32)
    acquisition = Acquisition((4.0, 1.0, 1.0))
    config = {"minutes": None, "patches": 600, "filters": 8, "blocks": 3, "validation": 8, "network": kind}
    error, fine = {}, {}
    for match in (True, False):
        training = Training(source, acquisition, TrainingConfig(match_noise=match, **config), "cpu")
        for _ in training.run():
            pass
        predictor = Predictor(training.network, acquisition, source, training.normalisations[0], device="cpu")
        box = Box.whole(predictor.sr_shape)
        for name, voxels in ((match, predictor(box)), ("interpolation", predictor.interpolated(box))):
            flat = voxels[8:-8, 92:-8, 8:-8]
            error[name] = np.square(voxels - truth)[:, 8:72].mean()
            fine[name] = np.var(flat - ndimage.gaussian_filter(flat, 1.5))
    assert error[True] < 0.8 * error[False] and error[True] < 0.8 * error["interpolation"]
    assert fine[True] < 0.5 * fine["interpolation"], "nothing is added to the flat region"
    assert fine[False] > fine["interpolation"], "without it, noise is sharpened"
