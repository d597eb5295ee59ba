"""Noise that is shared between samples and target: as much as real samples have, independent, and without a bias."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cropeq.core.training.noise import NoiseModel
from napari_cropeq.core.training.plane_pool import downwards
from napari_cropeq.core.training.thinning import share_noise

SAMPLES, COLUMNS = 24, 6000

# factor, FWHM over step
GRIDS = [
    pytest.param(2.0, 1.0, id="factor-2"),
    pytest.param(2.433, 2.2, id="factor-2.433-wide-profile"),
    pytest.param(4.0, 1.0, id="factor-4"),
]

# what makes noisy voxels of a mean: name, noise model, maker
CAMERAS = {
    "one-photon": (NoiseModel(0.5, 0.0), lambda mean, rng: 0.5 * rng.poisson(mean / 0.5)),
    "photons": (NoiseModel(0.02, 0.0), lambda mean, rng: 0.02 * rng.poisson(mean / 0.02)),
    "multiplier": (
        NoiseModel(0.1, 0.0),  # amplitudes with an excess noise of 2
        lambda mean, rng: 0.05 * rng.gamma(np.maximum(rng.poisson(mean / 0.05), 1e-9)),
    ),
    "read-out": (NoiseModel(0.0, 0.004), lambda mean, rng: mean + 0.004**0.5 * rng.normal(size=mean.shape)),
    "both": (
        NoiseModel(0.02, 0.004),
        lambda mean, rng: 0.02 * rng.poisson(mean / 0.02) + 0.004**0.5 * rng.normal(size=mean.shape),
    ),
    "glow": (NoiseModel(0.02, -0.002), lambda mean, rng: 0.1 + 0.02 * rng.poisson((mean - 0.1) / 0.02)),
}


def shared(factor, relative, model, make, rng, level=0.4):
    """Return samples and target of a flat noisy slice, and the matrix that blurs and samples."""
    down, kept = downwards(SAMPLES, factor, relative * factor / 2.3548)
    slice_ = make(np.full((down.shape[1], COLUMNS), level), rng).astype(np.float32)
    of_samples, of_target = share_noise(model, slice_, down, kept, rng)
    assert of_samples.dtype == of_target.dtype == np.float32
    inside = slice(4 * int(np.ceil(factor)), -4 * int(np.ceil(factor)))
    return down @ slice_ + of_samples, slice_ + of_target, inside


@pytest.mark.parametrize(("factor", "relative"), GRIDS)
@pytest.mark.parametrize("camera", CAMERAS)
def test_samples_have_the_noise_of_real_ones(camera, factor, relative, rng):
    model, make = CAMERAS[camera]
    samples, target, inside = shared(factor, relative, model, make, rng)
    true = float(model.variance(np.array(0.4)))
    assert samples.mean() == pytest.approx(0.4, rel=0.01) and target.mean() == pytest.approx(0.4, rel=0.01)
    assert samples[4:-4].var(axis=1).mean() == pytest.approx(true, rel=0.05)
    if model.offset <= 0:
        covariance = ((samples[5:-5] - 0.4) * (samples[6:-4] - 0.4)).mean()
        assert abs(covariance) < 0.03 * true, "independent between samples, as the slices of a stack"
    assert true < target[inside].var() < 2.6 * true


@pytest.mark.parametrize(("factor", "relative"), GRIDS)
@pytest.mark.parametrize("camera", CAMERAS)
def test_samples_and_target_are_uncorrelated(camera, factor, relative, rng):
    """Without sharing, each sample covaries with its voxels by its weights times the noise."""
    model, make = CAMERAS[camera]
    samples, target, _ = shared(factor, relative, model, make, rng)
    covariance = (samples - 0.4) @ (target - 0.4).T / COLUMNS
    true = float(model.variance(np.array(0.4)))
    down, _ = downwards(SAMPLES, factor, relative * factor / 2.3548)
    along = (covariance[4:-4] * down[4:-4]).sum() / (down[4:-4] ** 2).sum()
    assert abs(along) < 0.03 * true
    assert np.abs(covariance[4:-4]).max() < 0.12 * true


def test_a_photon_is_never_divided(rng):
    photons = rng.poisson(0.1, (48, 500)).astype(np.float32)
    down, kept = downwards(12, 4.0, 4 / 2.3548)
    of_samples, of_target = share_noise(NoiseModel(1.0, 0.0), photons, down, kept, rng)
    weights = np.where(down > 1e-3, down, 0)
    weights *= down.sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    counts = of_samples + weights @ photons
    assert counts == pytest.approx(np.rint(counts), abs=1e-4)
    left = (photons + of_target) * (1 - weights.sum(axis=0))[:, None]
    assert left == pytest.approx(np.rint(left), abs=1e-4)
    assert counts.sum() + left.sum() == pytest.approx(photons.sum(), rel=1e-5), "none is lost"


@pytest.mark.parametrize("wrong", [0.3, 3.0])
@pytest.mark.parametrize("camera", CAMERAS)
def test_a_wrong_estimate_does_not_change_the_mean(camera, wrong, rng):
    model, make = CAMERAS[camera]
    samples, target, _ = shared(2.5, 1.0, NoiseModel(wrong * model.slope, wrong * model.offset), make, rng)
    assert samples.mean() == pytest.approx(0.4, rel=0.01) and target.mean() == pytest.approx(0.4, rel=0.01)


def test_without_noise_nothing_changes(rng):
    down, kept = downwards(12, 4.0, 4 / 2.3548)
    sharp = rng.random((48, 20)).astype(np.float32)
    of_samples, of_target = share_noise(NoiseModel(0.0, 0.0), sharp, down, kept, rng)
    assert not of_samples.any() and not of_target.any()


def test_a_step_of_hardly_more_than_a_pixel(rng):
    """Nearly all photons of a voxel belong to its sample: some stay in the target all the same."""
    samples, target, _ = shared(1.02, 0.2, NoiseModel(0.02, 0.004), CAMERAS["both"][1], rng)
    assert np.isfinite(samples).all() and np.isfinite(target).all()
    assert target.mean() == pytest.approx(0.4, rel=0.02) and target.var() < 20 * 0.012
