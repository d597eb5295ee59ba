"""The FWHM that a volume suggests: volumes with a known blur, and volumes that suggest none."""

from __future__ import annotations

import dataclasses
import functools
import math

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from conftest import Recorded
from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition, blur_fwhm
from napari_cropeq.core.slice_profile.suggestion import Suggestion, suggest_fwhm
from napari_cropeq.errors import ArgumentError, ImageError


@functools.lru_cache(maxsize=8)
def isotropic(kind: str, seed: int = 0) -> np.ndarray:
    """Return an isotropic volume (128, 128, 128)."""
    rng = np.random.default_rng(seed)

    def smooth(width):
        field = ndimage.gaussian_filter(rng.standard_normal((128, 128, 128), np.float32), width, mode="wrap")
        return field / field.std()

    if kind == "texture":
        return smooth(1.0) + 2 * smooth(2.0) + 4 * smooth(4.0)
    return ndimage.gaussian_filter((smooth(3.0) > 0.5) + 0.5 * (smooth(2.0) > 1), 0.6)


@functools.lru_cache(maxsize=16)
def acquired(kind: str, step: float, fwhm: float, photons: float = 0.0) -> np.ndarray:
    """Return a volume blurred along z by a Gaussian and sampled at a step (voxels); noisy if photons are given."""
    truth = isotropic(kind)
    centres = (np.arange(int(len(truth) / step + 1e-6)) + 0.5) * step - 0.5
    distance = np.arange(len(truth)) - centres[:, None]
    distance -= len(truth) * np.rint(distance / len(truth))  # the volume is periodic
    weights = np.exp(-0.5 * (distance * FWHM_PER_SIGMA / fwhm) ** 2)
    volume = np.tensordot((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32), truth, axes=1)
    if photons:
        share = np.clip((volume - volume.min()) / np.ptp(volume), 0, 1)
        volume = np.random.default_rng(1).poisson(photons * share + 2).astype(np.uint16)
    return volume


@functools.lru_cache(maxsize=16)
def suggested(kind: str, step: float, fwhm: float, photons: float = 0.0) -> Suggestion:
    return suggest_fwhm(acquired(kind, step, fwhm, photons), Acquisition((step, 1.0, 1.0)))


KNOWN = [  # volume, step, FWHM, photons of the brightest voxel (0: free of noise), relative tolerance
    pytest.param("texture", 2, 2, 0, 0.08, id="texture, 2 px"),
    pytest.param("texture", 4, 4, 0, 0.05, id="texture, 4 px"),
    pytest.param("texture", 6, 6, 0, 0.05, id="texture, 6 px"),
    pytest.param("texture", 2.433, 5.35, 0, 0.03, id="texture, FWHM over the step"),
    pytest.param("texture", 4, 3, 0, 0.06, id="texture, FWHM below the step"),
    pytest.param("texture", 6, 6, 200, 0.12, id="texture, 6 px, noisy"),
    pytest.param("cells", 2, 2, 0, 0.12, id="cells, 2 px"),
    pytest.param("cells", 3, 3, 50, 0.12, id="cells, 3 px, noisy"),
    pytest.param("cells", 2.433, 5.35, 50, 0.05, id="cells, FWHM over the step, noisy"),
]


@pytest.mark.parametrize(("kind", "step", "fwhm", "photons", "tolerance"), KNOWN)
def test_a_known_fwhm_is_found(kind, step, fwhm, photons, tolerance):
    found = suggested(kind, step, fwhm, photons)
    assert found.reliable, found.reason
    assert found.fwhm == pytest.approx(fwhm, rel=tolerance)
    assert found.low < found.fwhm < found.high
    assert found.low <= fwhm <= found.high


def test_the_plots_show_the_number():
    found = suggested("cells", 3, 3)
    assert found.candidates[np.argmin(found.mismatch)] == pytest.approx(found.fwhm, rel=0.1)
    assert len(found.frequency) == len(found.axial) == found.degraded.shape[1] > 10
    assert found.frequency[0] == 0
    assert found.frequency[-1] == pytest.approx(1 / (2 * 3), rel=0.05)
    assert np.abs(found.degraded[1] - found.axial).max() < 0.08
    low, middle, high = found.degraded
    assert (low[1:] >= middle[1:]).all()
    assert (middle[1:] >= high[1:]).all()


def test_more_noise_is_less_certain():
    quiet, noisy = (suggested("cells", 3, 3, photons) for photons in (0, 50))
    assert noisy.high / noisy.low > quiet.high / quiet.low


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda rng: rng.poisson(20, (40, 96, 96)).astype(np.uint16), "noise", id="noise alone"),
        pytest.param(lambda rng: rng.normal(size=(30, 64, 64)), "noise", id="floating-point noise alone"),
        pytest.param(lambda _: acquired("texture", 2, 2, 4.0), "noise", id="structure drowned in noise"),
        pytest.param(lambda _: acquired("cells", 4, 4)[:15], "15 slices", id="few slices"),
        pytest.param(lambda _: np.broadcast_to(np.linspace(0, 1, 90), (30, 70, 90)), "width", id="a ramp"),
    ],
)
def test_a_volume_that_suggests_no_fwhm_has_a_plot_and_no_number(make, words, rng):
    found = suggest_fwhm(make(rng), Acquisition((3.0, 1.0, 1.0)))
    assert not found.reliable
    assert words in found.reason
    assert found.reason.endswith(".")
    assert np.isnan([found.fwhm, found.low, found.high]).all()
    assert np.isfinite(found.mismatch).all()
    assert len(found.mismatch) == len(found.candidates) > 10
    assert np.isfinite(found.axial).all()
    assert np.isfinite(found.degraded).all()


def test_a_constant_image_has_nothing_to_plot():
    found = suggest_fwhm(np.full((30, 80, 80), 7, np.uint8), Acquisition((3.0, 1.0, 1.0)))
    assert not found.reliable
    assert "constant" in found.reason
    assert math.isnan(found.fwhm)
    assert len(found.candidates) == len(found.axial) == 0


@pytest.mark.parametrize(
    "shape", [(1, 1), (128, 1), (1, 128)], ids=["brightness", "stripes along x", "stripes along y"]
)
def test_slices_of_different_brightness_or_stripes_change_little(shape):
    volume = acquired("cells", 3, 3)
    uneven = volume + np.random.default_rng(2).normal(0, 0.2, (len(volume), *shape))
    found = suggest_fwhm(uneven, Acquisition((3.0, 1.0, 1.0)))
    assert found.fwhm == pytest.approx(suggested("cells", 3, 3).fwhm, rel=0.02)


@pytest.mark.parametrize("axial", [1, 2])
def test_any_axial_axis(axial):
    volume, voxel = acquired("cells", 3, 3), [1.0, 1.0, 1.0]
    voxel[axial] = 3.0
    found = suggest_fwhm(np.moveaxis(volume, 0, axial), Acquisition((voxel[0], voxel[1], voxel[2]), axial))
    assert found.fwhm == suggested("cells", 3, 3).fwhm


def test_the_answer_is_in_the_unit_of_the_voxel_size():
    volume = acquired("cells", 3, 3)
    px = suggest_fwhm(volume, Acquisition((3.0, 1.0, 1.0), unit="pixel"))
    um = suggest_fwhm(volume, Acquisition((1.2, 0.4, 0.4)))
    assert um.unit == "micrometer"
    assert um.fwhm == pytest.approx(0.4 * px.fwhm)
    assert um.high == pytest.approx(0.4 * px.high)
    assert um.candidates == pytest.approx(0.4 * px.candidates)
    assert um.frequency == pytest.approx(px.frequency / 0.4)


def test_brightness_and_offset_do_not_matter():
    volume = acquired("cells", 3, 3, 50)
    brighter = volume.astype(np.int32) * 30 + 2_000_000_000  # more digits than float32 has
    found = suggest_fwhm(brighter, Acquisition((3.0, 1.0, 1.0)))
    assert found.fwhm == pytest.approx(suggested("cells", 3, 3, 50).fwhm, rel=1e-3)


def test_the_given_fwhm_is_not_used_and_the_lateral_one_is_added_in_squares():
    volume = acquired("cells", 3, 3)
    plain = suggested("cells", 3, 3)
    assert suggest_fwhm(volume, Acquisition((3.0, 1.0, 1.0), fwhm=9.0)).fwhm == plain.fwhm
    wider = suggest_fwhm(volume, Acquisition((3.0, 1.0, 1.0)), lateral_fwhm=2.0)
    assert wider.fwhm == pytest.approx(math.hypot(plain.fwhm, 2.0))
    assert blur_fwhm(wider.fwhm, 2.0) == pytest.approx(plain.fwhm)


def test_a_lazy_array_is_read_in_boxes_that_depend_on_the_seed():
    volume = acquired("cells", 3, 3)
    lazy = da.from_array(volume, chunks=(4, 50, 60), name=False)
    assert suggest_fwhm(lazy, Acquisition((3.0, 1.0, 1.0))).fwhm == suggested("cells", 3, 3).fwhm
    again = suggest_fwhm(volume, Acquisition((3.0, 1.0, 1.0)), seed=1)
    assert again.low != suggested("cells", 3, 3).low


@pytest.mark.parametrize(
    ("shape", "axial"),
    [
        pytest.param((2000, 4000, 4000), 0, id="32 GB"),
        pytest.param((100, 3000, 90), 2, id="thin along x"),
    ],
)
def test_reads_are_few_and_bounded(shape, axial):
    line = np.random.default_rng(0).integers(0, 255, max(shape)).astype(np.uint8)
    source = Recorded(np.broadcast_to(line[: shape[2]], shape))  # large without taking memory
    voxel = [1.0, 1.0, 1.0]
    voxel[axial] = 2.5
    suggest_fwhm(source, Acquisition((voxel[0], voxel[1], voxel[2]), axial))
    assert 1 <= len(source.sizes) <= 3
    assert max(source.sizes) <= 48 * 768 * 768
    places = [key[axial].start for key in source.keys]
    assert len(set(places)) == len(places), "each box lies elsewhere"
    for key in source.keys:
        assert all(0 <= (part.start or 0) < part.stop <= n for part, n in zip(key, shape, strict=True))


BROKEN = np.random.default_rng(0).normal(size=(30, 64, 64))
BROKEN[3, 4, 5] = np.nan


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        pytest.param(np.zeros((3, 80, 80)), "3 slices", id="too thin"),
        pytest.param(np.zeros((30, 63, 80)), "lateral side of the volume has 63", id="too small laterally"),
        pytest.param(np.zeros((30, 80, 80), np.complex64), "complex64", id="complex"),
        pytest.param(BROKEN, "NaN", id="NaN"),
    ],
)
def test_refused_volumes(volume, message):
    with pytest.raises(ImageError, match=message):
        suggest_fwhm(volume, Acquisition((3.0, 1.0, 1.0)))


@pytest.mark.parametrize(
    ("fwhm", "lateral", "blur"),
    [
        pytest.param(5.35, 0.0, 5.35, id="directly"),
        pytest.param(5.0, 3.0, 4.0, id="difference of variances"),
        pytest.param(5.35, 1.4, 5.1636, id="the sample's"),
    ],
)
def test_how_far_lateral_slices_are_blurred(fwhm, lateral, blur):
    assert blur_fwhm(fwhm, lateral) == pytest.approx(blur, abs=1e-4)


def test_blurs_add_up_to_the_slice_profile():
    impulse = np.zeros(201)
    impulse[100] = 1.0
    two = [ndimage.gaussian_filter1d(impulse, w / FWHM_PER_SIGMA, truncate=8) for w in (4.0, 9.0)]
    missing = ndimage.gaussian_filter1d(two[0], blur_fwhm(9.0, 4.0) / FWHM_PER_SIGMA, truncate=8)
    assert missing == pytest.approx(two[1], abs=1e-4)


@pytest.mark.parametrize(
    ("fwhm", "lateral", "message"),
    [
        pytest.param(2.0, 2.0, r"The lateral FWHM \(2\) is not smaller than .* \(2\)", id="equal"),
        pytest.param(2.0, 3.0, "set the lateral FWHM to 0", id="wider"),
        pytest.param(0.0, 0.0, "positive length", id="no width"),
        pytest.param(2.0, -1.0, r"The lateral FWHM \(-1\) is not a length of 0 or more", id="negative"),
        pytest.param(math.nan, 0.0, "positive length", id="not a number"),
    ],
)
def test_impossible_widths_are_refused(fwhm, lateral, message):
    with pytest.raises(ArgumentError, match=message):
        blur_fwhm(fwhm, lateral)


def test_a_suggestion_is_frozen():
    found = suggested("cells", 3, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.fwhm = 1.0
