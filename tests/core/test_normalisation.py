"""The intensity scale of a source, and images that are refused."""

from __future__ import annotations

import math

import dask.array as da
import numpy as np
import pytest

from conftest import Recorded
from napari_cropeq.core import normalisation
from napari_cropeq.core.normalisation import SAMPLE_VOXELS, Normalisation, check_finite
from napari_cropeq.errors import ImageError


def test_the_scale_is_the_outer_percentiles(rng):
    voxels = rng.normal(1000, 100, (20, 50, 60)).astype(np.float32)
    scale = Normalisation.measure(voxels)
    assert (scale.low, scale.high) == pytest.approx(tuple(np.percentile(voxels, (0.1, 99.9))))
    assert voxels.min() < scale.low < scale.high < voxels.max(), "a hot voxel does not set the scale"


def test_minimum_and_maximum_where_percentiles_coincide():
    voxels = np.zeros((10, 50, 50), np.uint16)
    voxels[5, 20, 20:23] = 700
    assert Normalisation.measure(voxels) == Normalisation(0.0, 700.0)


DTYPES = [pytest.param(d, id=d) for d in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")]


@pytest.mark.parametrize("dtype", DTYPES)
def test_undo_is_the_inverse_of_apply(dtype, rng):
    voxels = rng.integers(0, 100, (6, 30, 30)).astype(dtype)
    scale = Normalisation.measure(voxels)
    applied = scale.apply(voxels)
    assert applied.dtype == np.float32
    assert -0.01 < applied.min() < 0.05 < 0.95 < applied.max() < 1.01
    assert np.allclose(scale.undo(applied), voxels, atol=1e-4)
    assert np.allclose(scale.undo(scale.apply(voxels, np.float64)), voxels, atol=1e-12)


def test_large_integers_lose_nothing_before_the_scaling():
    """Neighbouring 32-bit integers that have the same float32 remain different."""
    voxels = (4_000_000_000 + np.arange(1000, dtype=np.int64).reshape(10, 10, 10)).astype(np.uint32)
    applied = Normalisation.measure(voxels).apply(voxels)
    assert len(np.unique(applied)) == 1000


REFUSED = [
    pytest.param(np.full((5, 9, 9), 7, np.uint16), "The image is constant .every voxel is 7.", id="constant"),
    pytest.param(np.zeros((5, 9, 9), np.float32), "The image is constant .every voxel is 0.", id="zeros"),
    pytest.param(np.float32([[[1, 2, math.nan]]]), "^1 voxel in the volume is NaN or infinite", id="nan"),
    pytest.param(np.float64([[[1, math.inf, -math.inf]]]), "^2 voxels in the volume are NaN or infinite", id="inf"),
    pytest.param(np.ones((2, 2, 2), bool), "The voxels are of type bool, not integers or floats", id="bool"),
    pytest.param(np.ones((2, 2, 2), complex), "The voxels are of type complex128", id="complex"),
    pytest.param(np.full((2, 2, 2), None), "The voxels are of type object", id="object"),
    pytest.param(np.full((2, 2, 2), "a"), "The voxels are of type <U1", id="text"),
    pytest.param(np.zeros((2, 2, 2), "datetime64[s]"), "The voxels are of type datetime64", id="time"),
]


@pytest.mark.parametrize(("voxels", "message"), REFUSED)
def test_refused(voxels, message):
    with pytest.raises(ImageError, match=message) as caught:
        Normalisation.measure(voxels)
    error = caught.value
    assert error.problem.endswith(".") and error.remedy.endswith(".") and "\n" not in str(error)


def test_the_error_says_where_voxels_are_not_finite():
    with pytest.raises(ImageError, match=r"^Voxels in slice 3 are NaN .* \(at z from 3, y from 0, x from 10\)\."):
        check_finite(np.float32([math.nan]), "slice 3", (3, 0, 10))
    check_finite(np.array([1, 2], np.uint8), "slice 3")


@pytest.mark.parametrize("thin", [0, 1, 2], ids="zyx")
def test_a_large_source_is_sampled_by_seed(monkeypatch, rng, thin):
    monkeypatch.setattr(normalisation, "SAMPLE_VOXELS", 20_000)
    shape = [70, 80, 90]
    shape[thin] = 40
    source = Recorded(rng.normal(500, 50, shape).astype(np.float32))
    scale = Normalisation.measure(source, seed=3)
    assert sum(source.sizes) <= 20_000
    assert scale == Normalisation.measure(source, seed=3)
    assert scale != Normalisation.measure(source, seed=4)
    assert (scale.low, scale.high) == pytest.approx(tuple(np.percentile(source[:, :, :], (0.1, 99.9))), rel=0.03)


def test_wide_planes_are_sampled_on_a_grid(monkeypatch):
    """Few chunks are read; the sampled voxels do not depend on the chunks."""
    monkeypatch.setattr(normalisation, "GRID", 16)
    monkeypatch.setattr(normalisation, "SAMPLE_VOXELS", 24 * 20 * 20)
    source = Recorded(np.arange(30 * 128 * 130, dtype=np.int32).reshape(30, 128, 130))
    normalisation.sample(source)
    assert len(source.keys) == 24
    assert all(k.start % 16 == 0 and k.stop - k.start == 16 for _, *lateral in source.keys for k in lateral)


def test_a_huge_lazy_source_is_read_in_bounds():
    """Few chunks of 40 GB are computed."""
    read = []

    def block(block_info=None):
        location = block_info[None]["array-location"]
        shape = [b - a for a, b in location]
        read.append(math.prod(shape))
        return np.broadcast_to(np.float32(location[0][0]), shape)

    chunks = ((1,) * 100, (500,) * 20, (500,) * 20)
    huge = da.map_blocks(block, chunks=chunks, dtype=np.float32, meta=np.zeros((0,) * 3, np.float32))
    scale = Normalisation.measure(huge)
    assert sum(read) <= 10 * SAMPLE_VOXELS, "whole chunks, but only a few"
    assert scale.low < 5 and scale.high > 95, "spread along the whole stack"
