"""The synthetic light-sheet volume: its properties, and that source and truth belong together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from napari_cropeq.formats import sample
from napari_cropeq.formats.image import Image, check_volume

pytestmark = pytest.mark.slow  # the sample is made three times

FACTOR = 2.433
CHANNELS = [pytest.param(0, id="vessels"), pytest.param(1, id="neurons")]
INSIDE = slice(6, 42)  # source slices whose blur does not reach beyond the truth


@pytest.fixture(scope="module")
def pair() -> tuple[Image, Image]:
    return sample.light_sheet_sample()


def read(source: Image, channel: int) -> np.ndarray:
    """Return a channel (z, y, x) in float64."""
    return source.volume(channel).compute().astype(float)


def resampled(volume: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Read (z, y, x) at positions along z, with a quintic spline."""
    grid = np.meshgrid(positions, np.arange(volume.shape[2]), indexing="ij")
    rows = [ndimage.map_coordinates(row, grid, order=5, mode="mirror") for row in volume.swapaxes(0, 1)]
    return np.stack(rows, axis=1)


def degraded(truth: np.ndarray) -> np.ndarray:
    """Blur along z to the slice profile, then read at the slice centres; the sample does both in one step."""
    sigma = math.sqrt((2.2 * FACTOR) ** 2 - sample.LATERAL_FWHM**2) / 2.354820045
    blurred = ndimage.gaussian_filter1d(truth, sigma, axis=0, mode="mirror", truncate=6)
    return resampled(blurred, (np.arange(48) + 0.5) * FACTOR - 0.5)


def psnr(truth: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.ptp(truth) ** 2 / np.mean((truth - other) ** 2)))


def interpolated(source: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """Interpolate a source (z, y, x) to the truth's grid, moved by some SR planes."""
    return resampled(source, (np.arange(116) + shift + 0.5) / FACTOR - 0.5)


def test_properties(pair: tuple[Image, Image]) -> None:
    source, truth = pair
    assert (source.name, truth.name) == ("light-sheet sample", "light-sheet truth")
    assert (source.data.shape, truth.data.shape) == ((2, 48, 256, 256), (2, 116, 256, 256))
    assert (source.data.dtype, truth.data.dtype) == (np.uint16, np.float32)
    for each in pair:
        check_volume(each.data, each.name)
        assert (each.axes, each.unit, each.path) == ("czyx", "micrometer", None)
        assert each.channel_names == ("vessels", "neurons")
        assert each.channel_colors == ("#ff00ff", "#00ffff")
        assert each.data.chunksize == (1, 1, 256, 256)


def test_both_cover_the_same_extent(pair: tuple[Image, Image]) -> None:
    source, truth = pair
    assert source.voxel_size == (1.0, 1 / FACTOR, 1 / FACTOR)
    assert truth.voxel_size == (1 / FACTOR,) * 3
    starts = [each.translate[0] - each.voxel_size[0] / 2 for each in pair]
    assert starts[0] == pytest.approx(starts[1], abs=1e-12)
    ends = [start + each.data.shape[1] * each.voxel_size[0] for start, each in zip(starts, pair, strict=True)]
    assert 0 <= ends[0] - ends[1] < truth.voxel_size[0]  # an incomplete last plane is left out
    assert source.translate == (0.0, 0.0, 0.0)
    assert truth.translate[1:] == (0.0, 0.0)


def test_equal_seeds_give_equal_volumes(pair: tuple[Image, Image]) -> None:
    for first, again in zip(pair, sample.light_sheet_sample(0), strict=True):
        np.testing.assert_array_equal(first.data.compute(), again.data.compute())
    for first, other in zip(pair, sample.light_sheet_sample(1), strict=True):
        assert np.mean(first.data.compute() != other.data.compute()) > 0.5


@pytest.mark.parametrize("channel", CHANNELS)
def test_source_is_the_truth_degraded(pair: tuple[Image, Image], channel: int) -> None:
    rows = slice(100, 140)
    source, truth = (read(each, channel)[:, rows] for each in pair)
    expected = degraded(truth)
    rest = (source - expected)[INSIDE]
    variance = (
        sample.GAIN * (expected[INSIDE] - sample.OFFSET) + sample.READ_NOISE**2 + 1 / 12
    )  # shot, read-out, rounding
    assert abs(rest.mean()) < 0.1
    assert np.mean(rest**2 / variance) == pytest.approx(1, abs=0.02)
    bright = expected[INSIDE] > sample.OFFSET + 100
    assert bright.sum() > 500
    assert np.mean(rest[bright] ** 2 / variance[bright]) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("channel", CHANNELS)
def test_truth_is_equally_sharp_along_all_axes(pair: tuple[Image, Image], channel: int) -> None:
    source, truth = (read(each, channel) for each in pair)
    sharp = [np.mean(np.diff(truth, axis=axis) ** 2) for axis in range(3)]
    assert max(sharp) < 1.5 * min(sharp)
    blurred = np.mean(np.diff(interpolated(source), axis=0) ** 2)
    assert blurred < 0.5 * sharp[0]


@pytest.mark.parametrize("channel", CHANNELS)
def test_interpolation_is_in_place_and_can_be_improved(pair: tuple[Image, Image], channel: int) -> None:
    rows = slice(96, 128)
    source, truth = (read(each, channel)[:, rows] for each in pair)
    inside = slice(12, -12)
    quality = {shift: psnr(truth[inside], interpolated(source, shift)[inside]) for shift in (-1.0, 0.0, 1.0)}
    assert quality[0.0] > max(quality[-1.0], quality[1.0])
    assert 20 < quality[0.0] < 38


@pytest.mark.parametrize("channel", CHANNELS)
def test_it_looks_like_microscopy(pair: tuple[Image, Image], channel: int) -> None:
    """Sparse, with bright and dim structures in every slice, on a background above the camera's offset."""
    source, truth = (read(each, channel) for each in pair)
    signal = (truth - sample.OFFSET) / sample.GAIN  # photons
    assert np.median(signal) < 20
    assert 0.01 < np.mean(signal > 30) < 0.35
    assert np.percentile(signal, 99.9) > 100
    assert np.all(signal.max(axis=(1, 2)) > 50)
    assert source.min() < sample.OFFSET + 10
    assert source.max() < 2000


def test_structure_outside_the_volume_blurs_into_border_slices(pair: tuple[Image, Image]) -> None:
    """The first and last slices are blurred with structure outside, so the truth alone does not explain them."""
    source, truth = (read(each, 0)[:, 100:140] for each in pair)
    expected = degraded(truth)
    variance = sample.GAIN * np.maximum(expected - sample.OFFSET, 1) + sample.READ_NOISE**2
    excess = np.mean((source - expected) ** 2 / variance, axis=(1, 2))
    assert excess[[0, -1]].max() > 1.3 > excess[INSIDE].max()


def test_a_slice_is_a_weighted_mean_of_planes() -> None:
    planes = 116 + 2 * 12
    flat = np.full((planes, 2, 3), 7.0, np.float32)
    np.testing.assert_allclose(sample._blurred_slices(flat), 7.0, rtol=1e-12)
    ramp = np.broadcast_to((np.arange(planes, dtype=np.float32) - 12)[:, None, None], (planes, 2, 3))
    centres = (np.arange(48) + 0.5) * FACTOR - 0.5
    np.testing.assert_allclose(sample._blurred_slices(ramp)[:, 0, 0], centres, atol=1e-3)
