"""The result, imaged again, against the acquired slices in units of their noise; tiles have the bits of the whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from test_back_projection import filtered

from conftest import a_result, blobs, textured_volume
from napari_cropeq.compute.consistency import consistency_of, noise_of, trained_on_it
from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition, Box
from napari_cropeq.core.imaging.agreement import Agreement
from napari_cropeq.core.imaging.consistency import Consistency, NoiseLevel
from napari_cropeq.core.imaging.forward_model import ForwardModel

NOISE = NoiseLevel(0.5, 4.0, 0.29, 0.0, 4000.0)

# source shape, voxel size, FWHM
GRIDS = [
    pytest.param((12, 21, 26), (2.5, 1, 1), 2.5, id="factor-2.5"),
    pytest.param((7, 12, 14), (4, 1, 1), 8.8, id="wide-profile"),
    pytest.param((10, 9, 16), (1, 2.433, 1), 2.0, id="along-y"),
    pytest.param((12, 10, 6), (1, 1, 7.3), 7.3, id="along-x"),
    pytest.param((8, 13, 11), (3, 1, 1), 0.5, id="narrow-profile"),
]


def a_case(shape, size, fwhm):
    """Return a comparison, a result with the values of texture, and a source."""
    acquisition = Acquisition(size, axial=int(np.argmax(size)), fwhm=fwhm)
    consistency = Consistency(ForwardModel(acquisition, shape), NOISE)
    return consistency, textured_volume(acquisition.sr_shape(shape)), textured_volume(shape, 1)


@pytest.mark.parametrize(("shape", "size", "fwhm"), GRIDS)
def test_tiles_of_the_map_have_the_bits_of_the_whole(shape, size, fwhm, rng):
    consistency, result, source = a_case(shape, size, fwhm)
    everything = Box.whole(result.shape)
    assert consistency.sr_box(everything) == everything
    whole = consistency.map(result, everything, source, everything)
    assert whole.shape == result.shape
    assert whole.dtype == np.float32
    for _ in range(40):
        start = [int(rng.integers(0, n)) for n in result.shape]
        stop = [int(min(n, a + rng.integers(1, 9))) for a, n in zip(start, result.shape, strict=True)]
        box = Box(tuple(start), tuple(stop))
        needed, samples = consistency.sr_box(box), consistency.samples(box)
        part = consistency.map(result[needed.slices], needed, source[samples.slices], box)
        assert np.array_equal(part, whole[box.slices]), box


@pytest.mark.parametrize(("shape", "size", "fwhm"), GRIDS)
def test_the_map_is_what_the_formula_says(shape, size, fwhm):
    """With dense matrices; each SR row shows the slice whose extent holds its centre."""
    consistency, result, source = a_case(shape, size, fwhm)
    acquisition, box = consistency.forward.acquisition, Box.whole(result.shape)
    axial, factor = acquisition.axial, acquisition.factor
    sigma = max(acquisition.blur_px / FWHM_PER_SIGMA, 0.5)
    centres = (np.arange(shape[axial]) + 0.5) * factor - 0.5
    image = filtered(result.shape[axial], centres, lambda taps: taps, sigma, 3 * sigma)
    imaged = np.tensordot(image, np.moveaxis(result, axial, 0).astype(float), 1)
    expected = (np.moveaxis(source, axial, 0) - imaged) / np.sqrt(0.5 * imaged + 4)
    rows = np.floor((np.arange(result.shape[axial]) + 0.5) / factor).astype(int)
    found = np.moveaxis(consistency.map(result, box, source, box), axial, 0)
    assert found == pytest.approx(expected[rows], abs=1e-4)


def imaged_with_noise(photons: float, slices: int = 24, factor: int = 4):
    """Return a truth, what a detector that counts photons acquires of it, and what compares them."""
    truth = (20 + 980 * blobs((slices * factor, 64, 72))).astype(np.float64)
    acquisition = Acquisition((factor, 1.0, 1.0))
    forward = ForwardModel(acquisition, (slices, 64, 72))
    clean = forward.image(torch.from_numpy(truth), Box.whole(truth.shape), Box.whole(forward.shape)).numpy()
    gain = 1000 / photons
    noisy = gain * np.random.default_rng(0).poisson(clean / gain)
    return truth, noisy, Consistency(forward, NoiseLevel(gain, 0.0, 1.0, 20.0, 1000.0))


def agreement(result, acquired, consistency, slabs: int = 1) -> Agreement:
    """Return the agreement of all slices, some of them at a time."""
    found = Agreement(consistency.noise)
    edges = np.linspace(0, len(acquired), slabs + 1).astype(int)
    for a, b in itertools.pairwise(edges):
        samples = Box((int(a), 0, 0), (int(b), *acquired.shape[1:]))
        needed = consistency.forward.sr_box(samples)
        found = found.adding(consistency.differences(result[needed.slices], needed, acquired[samples.slices], samples))
    return found


@pytest.mark.parametrize("photons", [pytest.param(30, id="noisy"), pytest.param(3000, id="bright")])
def test_the_truth_differs_by_the_noise(photons):
    """Parts add up to the same numbers, and a single outlier does not change them."""
    truth, acquired, consistency = imaged_with_noise(photons)
    found = agreement(truth, acquired, consistency)
    assert found.rms == pytest.approx(1, abs=0.05)
    assert found.beyond < 0.02, "of few photons, more than a Gaussian has"
    assert f"{found.rms:.1f} × their noise" in found.text
    in_parts = agreement(truth, acquired, consistency, slabs=5)
    assert np.array_equal(found.counts, in_parts.counts)
    acquired[3, 4, 5] = 1e9
    assert agreement(truth, acquired, consistency).rms == pytest.approx(found.rms, abs=0.02)


def test_a_blob_that_was_not_acquired_is_flagged():
    truth, acquired, consistency = imaged_with_noise(1000)
    invented = truth.copy()
    invented[40:48, 20:28, 30:38] += 600
    box = Box.whole(truth.shape)
    there, elsewhere = np.zeros(truth.shape, bool), np.ones(truth.shape, bool)
    there[42:46, 20:28, 30:38], elsewhere[30:60, 20:28, 30:38] = True, False
    found = consistency.map(invented, box, acquired, box)
    assert (found[there] < -3).mean() > 0.9, "less was acquired"
    assert (np.abs(found[elsewhere]) > 3).mean() < 0.01
    honest, claimed = (agreement(v, acquired, consistency) for v in (truth, invented))
    assert claimed.beyond > 1.5 * honest.beyond
    assert claimed.rms > honest.rms + 0.05


TEXTS = [
    pytest.param(NOISE, [0.9] * 998 + [4.0] * 2, "slices by 0.9 × their noise; 0.2 % of", id="noise"),
    pytest.param(NOISE, [12.0] * 1000, "by 12 × their noise; 100 % of voxels by more than 3 ×.", id="contradiction"),
    pytest.param(
        NoiseLevel(0.0, 0.0, 4.0, 0.0, 4000.0),
        [2.0] * 990 + [4.0] * 10,
        "hardly any noise, by 0.2 % of the range of intensities; 1.0 % of voxels by more than 0.3 %.",
        id="no-noise",
    ),
]


@pytest.mark.parametrize(("noise", "differences", "text"), TEXTS)
def test_the_agreement_is_a_sentence(noise, differences, text):
    assert text in Agreement(noise).adding(np.array(differences, np.float32)).text


def test_the_noise_of_the_training_counts_if_the_model_was_trained_on_the_image():
    """Another image is measured."""
    data = np.random.default_rng(0).poisson(40 + 200 * blobs((10, 64, 80))).astype(np.uint16)
    result = a_result(data)
    assert not trained_on_it(result)
    measured = noise_of(result, ())
    assert measured.model.slope == pytest.approx(1, abs=0.2)
    model, [scale] = result.model, result.normalisations
    model.normalisations, model.provenance = [scale], {"source": result.source.describe()}
    span = scale.high - scale.low
    model.training = {
        "photon_transfer": [{"intensity": [0.5], "variance": [0.1], "correlation": 0.0}],
        "noise": [{"slope": 7 / span, "offset": 7 * scale.low / span**2}],
    }
    assert trained_on_it(result)
    assert noise_of(result, ()).model.slope == pytest.approx(7)
    level = consistency_of(result, ()).noise
    assert level.deviation(np.array(100.0)) == pytest.approx(700**0.5)
    assert level.measurable


@pytest.mark.parametrize(
    ("dtype", "high", "floor"),
    [
        pytest.param("uint8", 200, 12**-0.5, id="rounding"),
        pytest.param("uint16", 50000, 50.0, id="a-thousandth-of-the-range"),
        pytest.param("float32", 200, 0.2, id="no-rounding"),
    ],
)
def test_the_noise_has_a_floor(dtype, high, floor):
    data = np.zeros((6, 40, 40), dtype)
    data[:, ::2] = high
    level = consistency_of(a_result(data), ()).noise
    assert level.deviation(np.array(0.0)) >= floor * 0.999
    assert level.floor == pytest.approx(floor)


@pytest.mark.parametrize(
    ("slices", "fwhm", "expected"),
    [
        pytest.param(20, 4.0, (1, 19), id="fwhm-of-the-step"),
        pytest.param(20, 1.0, (0, 20), id="narrow"),
        pytest.param(20, 9.0, (2, 18), id="wide"),
        pytest.param(4, 30.0, (0, 4), id="all-reach-beyond"),
    ],
)
def test_slices_that_show_what_lies_beyond_the_volume_are_known(slices, fwhm, expected):
    forward = ForwardModel(Acquisition((4.0, 1.0, 1.0), fwhm=fwhm), (slices, 9, 9))
    assert forward.covered == expected
