"""The noise estimate for known noise, and the noise that is added to degraded lines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from conftest import acquired
from conftest import blobs as spots
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.core.spline import degradation
from napari_cropeq.core.training.noise import NoiseModel, PhotonTransfer, measure_noise, recorded_noise
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


# photons at the brightest, intensity of a photon, excess amplitude
PHOTONS = [
    pytest.param(0.3, 0.0, id="0.3-photons"),
    pytest.param(1.0, 0.0, id="1-photon"),
    pytest.param(10.0, 0.0, id="10-photons"),
    pytest.param(1000.0, 0.0, id="1000-photons"),
    pytest.param(1.0, 1.0, id="1-photon-multiplied"),
    pytest.param(10.0, 1.0, id="10-photons-multiplied"),
]


@pytest.mark.parametrize(("photons", "excess"), PHOTONS)
@pytest.mark.parametrize("width", [6.0, 1.5])
def test_photons_are_found_however_sparse_they_are(photons, excess, width, rng):
    """Where a median absolute residual sees none. Amplitudes of an exponential distribution double the variance."""
    counts = rng.poisson(photons * blobs(rng, width))
    noisy = (rng.gamma(np.maximum(counts, 1e-9)) if excess else counts) / photons
    found = PhotonTransfer.measure(plane.astype(np.float32) for plane in noisy)
    true = (1 + excess) / photons * np.array([0.25, 0.5, 0.75])
    assert found.model.variance(np.array([0.25, 0.5, 0.75])) == pytest.approx(true, rel=0.3)
    assert abs(found.correlation) < 0.5 and len(found.intensity) == len(found.variance) > 5


@pytest.mark.parametrize(("slope", "offset"), NOISE)
def test_the_photon_transfer_finds_known_noise(slope, offset, rng):
    clean = blobs(rng, 6.0)
    noisy = clean + rng.normal(size=clean.shape) * np.sqrt(slope * clean + offset)
    found = PhotonTransfer.measure(plane.astype(np.float32) for plane in noisy).model
    intensity = np.array([0.25, 0.5, 0.75])
    assert found.variance(intensity) == pytest.approx(slope * intensity + offset, rel=0.15)


def test_a_mask_has_no_noise(rng):
    """A background of zeros, as in MRI, says nothing about the noise of what is imaged."""
    clean = np.clip(3 * blobs(rng, 12.0) - 1.5, 0, 1)
    noisy = np.where(clean > 0, clean + 0.05 * rng.normal(size=clean.shape), 0)
    found = PhotonTransfer.measure(plane.astype(np.float32) for plane in noisy).model
    assert found.variance(np.array([0.5])) == pytest.approx(0.05**2, rel=0.6)


def test_noise_that_is_correlated_between_pixels_is_noticed(rng):
    clean = blobs(rng, 6.0)
    noise = ndimage.gaussian_filter(rng.normal(size=clean.shape), (0, 0.7, 0.7))
    found = PhotonTransfer.measure((clean + 0.1 * noise / noise.std()).astype(np.float32))
    assert found.correlation > 2


@pytest.mark.parametrize("width", [6.0, 1.5])
def test_a_clean_volume_transfers_no_photons(width, rng):
    found = PhotonTransfer.measure(plane.astype(np.float32) for plane in blobs(rng, width)).model
    assert np.sqrt(found.variance(np.linspace(0, 1, 5))).max() < 0.004


@pytest.mark.parametrize(
    "slices",
    [
        pytest.param([], id="none"),
        pytest.param([np.zeros((5, 5), np.float32)], id="tiny"),
        pytest.param([np.full((50, 50), 0.3, np.float32)], id="constant"),
    ],
)
def test_slices_without_a_photon_transfer(slices):
    found = PhotonTransfer.measure(slices)
    assert found.model == NoiseModel(0.0, 0.0) and len(found.intensity) == 0


def shot(rng) -> np.ndarray:
    """Slices (z, y, x) of photons, 30 at the brightest."""
    return rng.poisson(30 * blobs(rng, 6.0)) / 30


def correlated(rng, width: float = 0.7, strength: float = 0.1) -> np.ndarray:
    clean = blobs(rng, 6.0)
    noise = ndimage.gaussian_filter(rng.normal(size=clean.shape), (0, width, width))
    return clean + strength * noise / noise.std()


def denoised(rng) -> np.ndarray:
    """Noise of one intensity, as after a filter that is stronger where it is brighter."""
    clean = blobs(rng, 12.0)
    return clean + 0.05 * rng.normal(size=clean.shape) * np.exp(-(((clean - 0.5) / 0.1) ** 2))


def compressed(rng) -> np.ndarray:
    """Noise that grows faster than the light, as after a change of contrast."""
    clean = blobs(rng, 12.0)
    return clean + 0.2 * clean**1.2 * rng.normal(size=clean.shape)


DOUBTS = [
    pytest.param(lambda rng: [], "No noise could be measured", id="none"),
    pytest.param(lambda rng: np.zeros((8, 20, 20)), "too small or do not vary", id="tiny"),
    pytest.param(lambda rng: np.full((8, 90, 90), 0.3), "too small or do not vary", id="constant"),
    pytest.param(correlated, "correlated between neighbouring pixels", id="correlated"),
    pytest.param(lambda rng: correlated(rng, 0.7, 0.01), "", id="correlated-but-little"),
    pytest.param(denoised, "does not depend on the intensity as that of a detector does", id="processed"),
    pytest.param(compressed, "the line, so the estimate of the noise is approximate. Check", id="contrast"),
    pytest.param(shot, "", id="photons"),
    pytest.param(lambda rng: shot(rng) + 0.05 * rng.normal(size=(8, 200, 220)), "", id="photons-and-read-out"),
    pytest.param(lambda rng: blobs(rng, 6.0), "", id="clean"),
]


@pytest.mark.parametrize(("make", "words"), DOUBTS)
def test_a_doubt_is_a_sentence(make, words, rng):
    found = PhotonTransfer.measure(plane.astype(np.float32) for plane in make(rng))
    assert words in found.doubt and bool(words) == bool(found.doubt)
    there = found.in_source_units(Normalisation(1000.0, 1500.0))
    assert there.doubt == found.doubt, "in any unit"
    assert not found.doubt or found.doubt.endswith(".")


@pytest.mark.parametrize(("photons", "excess"), PHOTONS)
def test_photons_raise_no_doubt(photons, excess, rng):
    counts = rng.poisson(photons * blobs(rng, 6.0))
    noisy = (rng.gamma(np.maximum(counts, 1e-9)) if excess else counts) / photons
    assert not PhotonTransfer.measure(plane.astype(np.float32) for plane in noisy).doubt


# gain, offset and read-out noise of a camera, photons at the brightest
CAMERAS = [
    pytest.param(2.0, 100.0, 3.0, 200, ["A photon counts about", "at the lowest intensity (1"], id="camera"),
    pytest.param(105.0, 0.0, 0.0, 20, ["A photon counts about"], id="multiplier"),
    pytest.param(0.001, 5.0, 0.05, 20, ["standard deviation of 0.0", "at all intensities"], id="read-out"),
    pytest.param(10.0, 0.0, 0.0, 0, ["No noise was found."], id="clean"),
]


@pytest.mark.parametrize(("gain", "dark", "read_out", "photons", "words"), CAMERAS)
def test_the_noise_of_a_volume_in_its_own_intensities(gain, dark, read_out, photons, words, rng):
    clean = blobs(rng, 12.0)
    counts = rng.poisson(photons * clean) if photons else clean
    volume = dark + gain * counts + read_out * rng.normal(size=clean.shape)
    found = measure_noise(volume.astype(np.float32), Acquisition((2.0, 1.0, 1.0)))
    middle = np.median(found.intensity)
    if photons:
        true = gain * (middle - dark) + read_out**2
        assert found.model.variance(middle) == pytest.approx(true, rel=0.15)
        assert np.interp(middle, found.intensity, found.variance) == pytest.approx(true, rel=0.3)
    assert all(text in found.text for text in words), found.text
    assert found.scale.low <= middle <= found.scale.high and not found.doubt


def test_the_window_measures_what_a_training_does(rng):
    volume, acquisition = (1000 * shot(rng)).astype(np.float32), Acquisition((2.0, 1.0, 1.0))
    config = TrainingConfig(minutes=None, patches=4, filters=4, blocks=1, validation=2)
    training = Training(volume, acquisition, config, "cpu")
    [trained] = recorded_noise(training.summary(), training.normalisations)
    alone = measure_noise(volume, acquisition)
    assert trained.model == alone.model and trained.text == alone.text and trained.doubt == alone.doubt
    assert np.allclose(trained.intensity, alone.intensity, rtol=1e-3)
    assert np.allclose(trained.variance, alone.variance, rtol=1e-3)


RECIPES = [
    pytest.param({}, 1, id="shared"),
    pytest.param({"share_noise": False}, 0, id="topped-up"),
    pytest.param({"match_noise": False}, 0, id="none"),
]


@pytest.mark.parametrize(("recipe", "measured"), RECIPES)
def test_the_record_has_the_photon_transfer_if_it_was_measured(recipe, measured, rng):
    config = TrainingConfig(minutes=None, patches=4, filters=4, blocks=1, validation=2, **recipe)
    channels = [[shot(rng).astype(np.float32)], [correlated(rng).astype(np.float32)]]
    training = Training(channels, Acquisition((2.0, 1.0, 1.0)), config, "cpu")
    notes = [step.note for step in training.run()]
    record = training.summary()
    assert [set(line) for line in record["noise"]] == 2 * [{"slope", "offset"}]
    assert ("photon_transfer" in record) == bool(measured)
    assert ("correlated between" in notes[-1]) == bool(measured) and notes[-1].count("matching the noise") == measured
    found = recorded_noise(record, training.normalisations)
    assert [bool(noise.doubt) for noise in found] == measured * [False, True]
    for row in record.get("photon_transfer", ()):
        assert set(row) == {"intensity", "variance", "correlation"}
        assert len(row["intensity"]) == len(row["variance"]) > 5
        assert all(value == float(f"{value:.4g}") for value in (*row["intensity"], *row["variance"]))


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
