"""The noise benchmark measures what it says: cameras without a bias, a truth that scores 0, a page from its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from conftest import blobs

ROOT = Path(__file__).parents[1]
BENCHMARK = ROOT / "benchmarks" / "noise"


@pytest.fixture(scope="module")
def noise():
    """Its modules, by name."""
    sys.path.insert(0, str(BENCHMARK))
    try:
        import methods
        import report
        import scores
        import volumes

        yield {"volumes": volumes, "scores": scores, "methods": methods, "report": report}
    finally:
        sys.path.remove(str(BENCHMARK))


@pytest.mark.parametrize("camera", ["poisson", "pmt", "scmos", "offset", "correlated"])
@pytest.mark.parametrize("photons", [1, 10])
def test_a_camera_keeps_the_mean(noise, camera, photons, rng):
    expected = np.full((8, 200, 200), 0.5 * photons)
    raw, gain, offset = noise["volumes"].photograph(expected, camera, rng)
    hot = 0.1 if camera == "scmos" else 0.0  # counts that hot pixels add
    assert (raw - offset).mean() - hot == pytest.approx(gain * 0.5 * photons, rel=0.02, abs=0.05)


def a_cell(noise, factor=2.5):
    volumes = noise["volumes"]
    cell = volumes.Cell("phantom", 10, "poisson", factor)
    truth = 10 * ndimage.gaussian_filter(blobs((60, 96, 96)), 1.0)
    clean = volumes.image(truth, cell.acquisition)
    rows = int(len(clean) * factor + 1e-6)
    raw, _, _ = volumes.photograph(clean, "poisson", np.random.default_rng(0))
    again, _, _ = volumes.photograph(clean, "poisson", np.random.default_rng(1))
    return volumes.Acquired(cell, truth[:rows], clean, raw, again, 0.0, np.zeros(clean.shape[1:], bool))


def interpolations(noise, given):
    return [noise["methods"].quintic(raw, given.cell.acquisition) for raw in (given.raw, given.again)]


def test_the_truth_scores_nothing(noise):
    given = a_cell(noise)
    bases = interpolations(noise, given)
    scores = noise["scores"].against_truth([given.truth] * 2, bases, given)
    assert "psnr" not in scores and scores["ssim"] == 1
    assert np.abs(scores["bias"]).max() < 1e-6
    assert (scores["gain dim"], scores["gain bright"], scores["spots"], scores["vessels"]) == (0, 0, 0, 0)
    blurred = noise["scores"].against_truth([ndimage.gaussian_filter(given.truth, 2.0)] * 2, bases, given)
    assert blurred["gain bright"] == 0 and blurred["edge"] > 2, "structure that is too wide is not noise"
    assert scores["edge"] < 0.5, "a narrow Gaussian changes no voxel"


def test_hot_pixels_are_left_out_of_scores_apart(noise, rng):
    given = a_cell(noise)
    hot = np.zeros(given.clean.shape[1:], bool)
    hot[40, 50] = True
    given = replace(given, hot=hot)
    result = given.truth + rng.normal(0, 0.1, given.truth.shape)
    spoilt = result.copy()
    spoilt[:, 40, 50] += 1000
    bases = interpolations(noise, given)
    clean, hit = (noise["scores"].against_truth([one] * 2, bases, given) for one in (result, spoilt))
    assert hit["psnr apart"] == clean["psnr apart"] > clean["psnr"] - 1 > hit["psnr"] + 20
    assert hit["bias apart"] == clean["bias apart"] and max(hit["bias"]) > max(clean["bias"]) + 10


def test_a_bias_is_found_with_its_error(noise):
    given = a_cell(noise)
    bases = interpolations(noise, given)
    scores = noise["scores"].against_truth([1.1 * given.truth] * 2, bases, given)
    assert scores["bias"] == pytest.approx([10] * 8, abs=0.01)
    quintic = noise["scores"].against_truth(bases, bases, given)
    assert quintic["gain dim"] == quintic["gain bright"] == 1
    within = [abs(b) < 4 * e + 2 for b, e in zip(quintic["bias"], quintic["error"], strict=True)]
    assert sum(within) >= 7, "the interpolation is unbiased but for its blur"


def test_the_width_of_an_edge(noise):
    truth = np.zeros((60, 20, 20))
    truth[30:] = 1
    for sigma in (1.0, 2.0):
        blurred = ndimage.gaussian_filter1d(truth, sigma, axis=0)
        assert noise["scores"].edge_width(blurred, truth) == pytest.approx(2.563 * sigma, rel=0.03)


@pytest.mark.parametrize("smoothed", [False, True], ids=["constant", "smoothed"])
def test_real_stacks_are_binned_by_voxels_that_are_not_scored(noise, rng, smoothed):
    """With bins of the noise of scored voxels, or of what was smoothed, an unbiased result would look biased."""
    acquisition = noise["volumes"].Cell("phantom", 1, "poisson").acquisition
    raw = rng.poisson(0.3, (24, 160, 161)).astype(np.uint16)
    result = np.full(acquisition.sr_shape(raw.shape), 0.3)
    if smoothed:
        smooth = ndimage.gaussian_filter(raw.astype(float), (0, 2, 2), truncate=2, mode="mirror")
        result = noise["methods"].quintic(smooth, acquisition)
    scores = noise["scores"].against_acquired(result, result, raw, acquisition)
    assert np.abs(scores["bias"]).max() < 3 * max(scores["error"])


def test_the_committed_page_has_the_committed_figures(noise):
    summary = json.loads((ROOT / "benchmarks" / "results" / "noise.json").read_text())
    assert noise["report"].short_table(summary) in (ROOT / "docs" / "intensities.md").read_text()


def test_a_report_of_nothing(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- end -->\nafter\n")
    words = ["--report", "--results", str(tmp_path), "--page", str(page)]
    subprocess.run([sys.executable, str(BENCHMARK), *words], check=True, timeout=120)
    assert page.read_text() == "before\n<!-- table -->\nNo cell has been measured yet.\n<!-- end -->\nafter\n"
    assert json.loads((tmp_path / "noise.json").read_text()) == {}
