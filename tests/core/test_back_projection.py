"""The step that keeps local mean intensities: its tiles have the bits of the whole, and the mean is as acquired."""

from __future__ import annotations

import json
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import torch
from scipy import ndimage

from conftest import random_network, textured_volume
from files import a_model
from napari_cropeq.compute.super_resolution import Region, SuperResolution
from napari_cropeq.core.geometry import FWHM_PER_SIGMA, Acquisition, Box, mirror
from napari_cropeq.core.imaging.back_projection import BackProjection
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.core.predict import Predictor
from napari_cropeq.errors import ModelFileError
from napari_cropeq.formats.image import Image

# source shape, voxel size, FWHM, planes, kind of network
GRIDS = [
    pytest.param((12, 40, 50), (2.5, 1, 1), 2.5, None, "subpixel", id="factor-2.5"),
    pytest.param((3, 30, 24), (4, 1, 1), 8.8, "both", "subpixel", id="three-slices-wide-profile-both-planes"),
    pytest.param((30, 9, 26), (1, 2.433, 1), 2.0, None, "subpixel", id="along-y"),
    pytest.param((40, 30, 6), (1, 1, 7.3), 7.3, "both", "subpixel", id="along-x-both-planes"),
    pytest.param((8, 26, 22), (3, 1, 1), 0.5, "y", "valid", id="narrow-profile-sr-grid"),
    pytest.param((6, 5, 4), (2, 1, 1), 2.0, None, "subpixel", id="smaller-than-the-filter"),
]


def predictor_of(shape, size, fwhm, planes, kind, correction=2.0, dtype=torch.float32) -> Predictor:
    acquisition = Acquisition(size, axial=int(np.argmax(size)), fwhm=fwhm)
    source = textured_volume(shape).astype(np.float32)
    network = random_network(kind, 4, factor=acquisition.factor)
    scale = Normalisation.measure(source)
    return Predictor(network, acquisition, source, scale, planes, "cpu", dtype, correction=correction)


@pytest.mark.parametrize(("shape", "size", "fwhm", "planes", "kind"), GRIDS)
def test_tiles_have_the_bits_of_the_whole(shape, size, fwhm, planes, kind, rng):
    predictor = predictor_of(shape, size, fwhm, planes, kind)
    whole = predictor(Box.whole(predictor.sr_shape))
    for _ in range(25):
        start = [int(rng.integers(0, n)) for n in predictor.sr_shape]
        stop = [int(min(n, a + rng.integers(1, 22))) for a, n in zip(start, predictor.sr_shape, strict=True)]
        box = Box(tuple(start), tuple(stop))
        assert np.array_equal(predictor(box), whole[box.slices]), box
        source, read = predictor.source, predictor.source_box(box).intersect(Box.whole(shape))
        region = Region(source.shape, read, source[read.slices])
        assert np.array_equal(predictor.over(region, predictor.normalisation)(box), whole[box.slices]), "read at once"


def filtered(length: int, positions: np.ndarray, centres: np.ndarray, sigma: float, radius: float) -> np.ndarray:
    """Return the matrix (positions, length) of a Gaussian that is truncated, and mirrored at the ends of a line."""
    taps = np.arange(-4 * length, 5 * length)
    distance = positions[:, None] - centres(taps)
    weights = np.where(np.abs(distance) <= radius, np.exp(-0.5 * (distance / sigma) ** 2), 0)
    matrix = np.zeros((len(positions), length))
    np.add.at(matrix.T, mirror(taps, length), (weights / weights.sum(axis=1, keepdims=True)).T)
    return matrix


@pytest.mark.parametrize(("shape", "size", "fwhm", "planes", "kind"), GRIDS)
def test_it_is_what_the_formula_says(shape, size, fwhm, planes, kind):
    """In float64, with dense matrices."""
    one, plain = (predictor_of(shape, size, fwhm, planes, kind, c, torch.float64) for c in (2.0, 0.0))
    acquisition, box = one.acquisition, Box.whole(one.sr_shape)
    axial, factor = acquisition.axial, acquisition.factor
    slices, rows = shape[axial], one.sr_shape[axial]
    sigma = max(acquisition.blur_px / FWHM_PER_SIGMA, 0.5)
    image = filtered(rows, (np.arange(slices) + 0.5) * factor - 0.5, lambda taps: taps, sigma, 3 * sigma)
    up = filtered(slices, (np.arange(rows) + 0.5) / factor - 0.5, lambda taps: taps, 1.0, 2.0)
    refined = np.moveaxis(plain(box), axial, 0)
    lacking = np.moveaxis(one.source.astype(np.float64), axial, 0) - np.tensordot(image, refined, 1)
    for axis in (1, 2):
        weights = np.exp(-0.5 * (np.arange(-4, 5) / 2.0) ** 2)
        lacking = ndimage.convolve1d(lacking, weights / weights.sum(), axis, mode="mirror")
    expected = np.moveaxis(refined + np.tensordot(up, lacking, 1), 0, axial)
    assert one(box) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("bias", [pytest.param(0.3, id="brighter"), pytest.param(-0.2, id="darker")])
def test_the_mean_is_as_acquired(bias):
    """A network that adds a constant everywhere changes nothing."""
    predictors = [predictor_of((10, 32, 36), (3, 1, 1), 3.0, None, "subpixel", c) for c in (0.0, 2.0)]
    for predictor in predictors:
        torch.nn.init.zeros_(predictor.network.tail.weight)
        torch.nn.init.constant_(predictor.network.tail.bias, bias)
    source, box = predictors[0].source, Box.whole(predictors[0].sr_shape)
    plain, corrected = (predictor(box) for predictor in predictors)
    assert abs(plain.mean() / source.mean() - 1) > 0.15
    assert corrected.mean() == pytest.approx(source.mean(), rel=2e-3)
    blocks = corrected.reshape(10, 3, 4, 8, 4, 9).mean(axis=(1, 3, 5))
    assert blocks[1:-1] == pytest.approx(source.reshape(10, 4, 8, 4, 9).mean(axis=(2, 4))[1:-1], rel=0.05)


@pytest.mark.parametrize("size", [pytest.param((4.0, 1.0, 1.0), id="equal"), pytest.param((2.0, 0.5, 0.5), id="half")])
def test_the_slice_profile_is_that_of_the_training(size):
    """An image does not say its FWHM: by default that would be the step."""
    model = a_model(correction=2.0)
    model = replace(model, acquisition=replace(model.acquisition, fwhm=9.0, lateral_fwhm=1.5))
    source = Image(da.from_array(textured_volume((6, 20, 24))), "zyx", size, "micrometer", (0, 0, 0), "a")
    result = SuperResolution(source, model, device="cpu")
    assert result.acquisition.blur_px == pytest.approx(model.acquisition.blur_px)
    assert (result.acquisition.voxel_size, result.acquisition.unit) == (size, "micrometer")
    wide, step = (
        SuperResolution(source, replace(model, acquisition=replace(model.acquisition, fwhm=f)), device="cpu")
        for f in (9.0, 4.0)
    )
    box = Box.whole(result.sr_shape)
    assert np.array_equal(result.compute((), box), wide.compute((), box))
    assert not np.array_equal(result.compute((), box), step.compute((), box))


def test_a_model_keeps_its_correction(tmp_path):
    model = a_model(correction=1.5)
    model.save(tmp_path / "m.safetensors")
    assert Model.load(tmp_path / "m.safetensors").correction == 1.5
    a_model().save(tmp_path / "none.safetensors")
    assert Model.load(tmp_path / "none.safetensors").correction == 0
    assert b"correction" not in (tmp_path / "none.safetensors").read_bytes(), "the file is as it was before"


@pytest.mark.parametrize("value", ["wide", -1, 1e9, float("nan"), None, True], ids=str)
def test_an_impossible_correction_is_refused(tmp_path, value):
    path = tmp_path / "m.safetensors"
    a_model(correction=1.5).save(path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    own = json.loads(header["__metadata__"]["cropeq"])
    own["correction"] = value
    del own["checksum"]
    header["__metadata__"]["cropeq"] = json.dumps(own)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(ModelFileError, match="its correction is not a width"):
        Model.load(path)


def test_the_halo_is_stated():
    """Two slices, the slice profile and four px on each side, at factor 2.5 with FWHM = step."""
    step = BackProjection(Acquisition((2.5, 1.0, 1.0)), (40, 60, 60), 2.0)
    box = Box((40, 20, 20), (60, 40, 40))
    wide = step.sr_box(box)
    assert [a - b for a, b in zip(box.start, wide.start, strict=True)] == [7, 4, 4]
    assert [a - b for a, b in zip(wide.stop, box.stop, strict=True)] == [7, 4, 4]
