"""The finite interpolation against scipy's spline, and the degradation against its analytic answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from conftest import Recorded, textured_volume
from napari_cropeq.core.geometry import TAPS, Box, source_range
from napari_cropeq.core.spline import degradation, interpolate, interpolation_weights, read_mirrored

FACTORS = [2, 2.433, 2.5, 4, 7.333]
BEYOND = 16  # SR samples beyond either border that the network's halo needs


def interpolated(volume: np.ndarray, start: int, stop: int, factor: float) -> np.ndarray:
    """Interpolate along z from the samples that a tile reads."""
    low, high = source_range(start, stop, factor)
    samples = read_mirrored(volume, Box((low, 0, 0), (high, *volume.shape[1:])))
    return interpolate(torch.from_numpy(samples), low, start, stop, factor).numpy()


def scipy_spline(volume: np.ndarray, start: int, stop: int, factor: float) -> np.ndarray:
    positions = [(j + 0.5) / factor - 0.5 for j in range(start, stop)]
    lines = ndimage.spline_filter1d(volume.astype(np.float64), order=5, axis=0, mode="mirror")
    out = np.empty((stop - start, *volume.shape[1:]))
    for column in np.ndindex(*volume.shape[1:]):
        line = (slice(None), *column)
        out[line] = ndimage.map_coordinates(lines[line], [positions], order=5, mode="mirror", prefilter=False)
    return out


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [pytest.param(np.float64, 1e-6, id="float64"), pytest.param(np.float32, 1e-5, id="float32")]
)
@pytest.mark.parametrize("slices", [4, 5, 30])
@pytest.mark.parametrize("factor", FACTORS)
def test_interpolation_is_scipys_quintic_spline(factor, slices, dtype, tolerance):
    volume = textured_volume((slices, 3, 4)).astype(dtype)
    start, stop = -BEYOND, math.floor(slices * factor) + BEYOND
    ours, theirs = interpolated(volume, start, stop, factor), scipy_spline(volume, start, stop, factor)
    assert ours.dtype == dtype
    assert np.abs(ours - theirs).max() <= tolerance * np.ptp(volume)
    assert np.abs(np.diff(theirs, axis=0)).max() > 0.1 * np.ptp(volume), "the volume varies enough to show a difference"


@pytest.mark.parametrize("factor", FACTORS)
def test_the_spline_goes_through_source_samples(factor):
    """An SR sample at the position of a source sample has its value."""
    volume = textured_volume((12, 2, 3)).astype(np.float64)
    first, weights = interpolation_weights(0, 40, factor)
    positions = (np.arange(40) + 0.5) / factor - 0.5
    on = np.flatnonzero(np.abs(positions - np.rint(positions)) < 1e-12)
    fine = interpolated(volume, 0, 12, factor)
    for j in on[on < 12]:
        assert np.allclose(fine[j], volume[round(positions[j])], atol=1e-3)
        assert weights[j].max() == pytest.approx(1, abs=1e-6)
    assert (np.floor(positions) - first == TAPS - 1).all()


@pytest.mark.parametrize("factor", FACTORS)
def test_weights_sum_to_one(factor):
    _, weights = interpolation_weights(-40, 200, factor)
    assert weights.shape == (240, 2 * TAPS)
    assert np.abs(weights.sum(axis=1) - 1).max() < 1e-14
    constant = interpolated(np.full((6, 2, 2), 1234.5), -BEYOND, 40, factor)
    assert np.allclose(constant, 1234.5, rtol=1e-13)


@pytest.mark.parametrize("factor", FACTORS)
def test_bits_do_not_depend_on_the_box(factor):
    volume = textured_volume((20, 6, 9)).astype(np.float32)
    whole = interpolated(volume, -BEYOND, 60, factor)
    for start, stop, y, x in ((-16, -15, 0, 0), (3, 30, 2, 4), (17, 60, 5, 8), (59, 60, 0, 3)):
        part = interpolated(np.ascontiguousarray(volume[:, y:, x:]), start, stop, factor)
        assert np.array_equal(part, whole[start + BEYOND : stop + BEYOND, y:, x:])


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_tiles_do_not_change_bits(threads, factor):
    """Each part of the columns is large enough for torch's threads, and the whole is summed in several parts."""
    volume = textured_volume((30, 50, 61)).astype(np.float32)
    expected, before = interpolated(volume[:, 7:8, 3:9], -3, 70, factor), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = interpolated(volume, -BEYOND, 71, factor)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(whole[BEYOND - 3 : BEYOND + 70, 7:8, 3:9], expected)


READS = [
    pytest.param(Box((2, 1, 3), (5, 6, 9)), Box((2, 1, 3), (5, 6, 9)), id="inside"),
    pytest.param(Box((-3, 0, 0), (2, 7, 9)), Box((0, 0, 0), (4, 7, 9)), id="below"),
    pytest.param(Box((8, -2, 5), (14, 3, 11)), Box((5, 0, 5), (10, 3, 9)), id="above"),
    pytest.param(Box((-40, -30, -20), (50, 40, 30)), Box((0, 0, 0), (10, 7, 9)), id="many-times-around"),
    pytest.param(Box((12, 0, 0), (14, 1, 1)), Box((5, 0, 0), (7, 1, 1)), id="wholly-outside"),
]


@pytest.mark.parametrize(("box", "inside"), READS)
def test_reading_beyond_the_border_is_mirrored_and_reads_the_inside_once(box, inside):
    volume = textured_volume((10, 7, 9))
    source = Recorded(volume)
    read = read_mirrored(source, box)
    margin = 60
    padded = np.pad(volume, margin, mode="reflect")
    assert np.array_equal(read, padded[box.relative_to((-margin,) * 3).slices])
    assert source.keys == [inside.slices], "one read, only of the part inside"


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("sigma", [1e-9, 0.5, 2.3, 8.0])
def test_degrading_a_constant_changes_nothing(factor, sigma):
    up, down, _ = degradation(7, 71, factor, sigma)
    assert np.allclose(down.sum(axis=1), 1, atol=1e-12)
    assert np.allclose(up @ (down @ np.full(down.shape[1], 321.0)), 321.0, rtol=1e-12)


@pytest.mark.parametrize("phase", [0, 1, 37])
@pytest.mark.parametrize("factor", FACTORS)
def test_degrading_a_sinusoid_is_the_analytic_attenuation_at_exact_positions(factor, phase):
    sigma, period = 0.9 * factor, 14.0 * factor
    up, down, first = degradation(phase, phase + 64, factor, sigma)
    wave = 2 * math.pi / period
    fine = np.arange(first, first + down.shape[1])
    gain = math.exp(-0.5 * (wave * sigma) ** 2)
    coarse = down @ np.sin(wave * fine + 0.3)
    low, high = source_range(phase, phase + 64, factor)
    positions = np.array([(i + 0.5) * factor - 0.5 for i in range(low, high)])
    assert np.abs(coarse - gain * np.sin(wave * positions + 0.3)).max() < 3e-4
    wanted = gain * np.sin(wave * np.arange(phase, phase + 64) + 0.3)
    assert np.abs(up @ coarse - wanted).max() < 3e-4, "and back to the SR grid, without a shift"
    assert np.abs(wanted - np.sin(wave * np.arange(phase, phase + 64) + 0.3)).max() > 0.04, "the blur has an effect"


@pytest.mark.parametrize("factor", FACTORS)
def test_sampling_positions_are_exact(factor):
    """The centre of gravity of each sample's weights is its position: on a ramp every spline is exact."""
    start, stop = 5, 133
    _, down, first = degradation(start, stop, factor, 0.5)
    low, high = source_range(start, stop, factor)
    positions = down @ np.arange(first, first + down.shape[1], dtype=np.float64)
    expected = [(i + 0.5) * factor - 0.5 for i in range(low, high)]
    assert np.abs(positions - expected).max() < 1e-5
    assert np.allclose(np.diff(positions), factor, atol=1e-5), "the step is the factor, not the nearest rational"


@pytest.mark.parametrize("factor", FACTORS)
def test_degradation_uses_the_interpolation_of_inference(factor):
    up, down, _ = degradation(11, 75, factor, 1.0)
    first, weights = interpolation_weights(11, 75, factor)
    low, high = source_range(11, 75, factor)
    assert up.shape == (64, high - low) and down.shape[0] == high - low
    for row, column, line in zip(up, first - low, weights, strict=True):
        assert np.array_equal(row[column : column + 2 * TAPS], line)
        assert np.count_nonzero(row) <= 2 * TAPS
