"""Transforms of layers and results, and layers as sources."""

from __future__ import annotations

import itertools

import dask.array as da
import napari
import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.errors import ArgumentError, ImageError, VoxelSizeError
from napari_cropeq.gui.layers.source import check_layer, result_transform, set_voxel_size, source_of, voxel_size_of

TURN = [[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]]
AFFINE = np.array([[1, 0.1, 0, 5], [0, 1, 0.2, -3], [0, 0, 1, 2], [0, 0, 0, 1]], float)

TRANSFORMS = [
    pytest.param({"scale": (2.5, 1, 1)}, id="scale"),
    pytest.param({"scale": (2.433, 1, 1), "translate": (10, -20, 30)}, id="translate"),
    pytest.param({"scale": (2.5, 1, 1), "rotate": TURN}, id="rotate"),
    pytest.param({"scale": (4, 1, 1), "shear": (0.3, 0.2, 0.1), "translate": (1, 2, 3)}, id="shear"),
    pytest.param({"scale": (2, 1, 1), "rotate": TURN, "shear": (0.3, 0.0, 0.1), "affine": AFFINE}, id="affine"),
    pytest.param({"scale": (3, 1, 1), "units": ["um"] * 3, "axis_labels": ["z", "y", "x"]}, id="units"),
]


def world_matrix(layer: Image) -> np.ndarray:
    """Compute data -> world from scratch (4, 4): affine @ (translate . rotate . shear . scale)."""
    shear = np.eye(3)
    shear[np.triu_indices(3, 1)] = (
        np.asarray(layer.shear)[np.triu_indices(3, 1)] if np.ndim(layer.shear) == 2 else layer.shear
    )
    inner = np.eye(4)
    inner[:3, :3] = np.asarray(layer.rotate) @ shear @ np.diag(layer.scale)
    inner[:3, 3] = layer.translate
    return np.asarray(layer.affine.affine_matrix) @ inner


@pytest.mark.parametrize("axial", [0, 1, 2], ids="zyx")
@pytest.mark.parametrize("options", TRANSFORMS)
def test_every_result_voxel_is_at_its_sampling_position(options, axial):
    shape = [6, 7, 8]
    scale = np.ones(3)
    scale[axial] = options["scale"][0]
    layer = Image(np.zeros(shape), **(options | {"scale": scale}))
    factor = scale[axial]
    acquisition = Acquisition(tuple(scale), axial)
    result = Image(np.zeros(acquisition.sr_shape(shape)), **result_transform(layer, acquisition))
    for index in itertools.product(*(range(n) for n in result.data.shape)):
        position = np.array(index, float)
        position[axial] = (index[axial] + 0.5) / factor - 0.5  # in source voxels
        expected = (world_matrix(layer) @ [*position, 1])[:3]
        assert np.allclose(result.data_to_world(index), expected, atol=1e-9)
    assert result.units == layer.units
    assert result.axis_labels == layer.axis_labels


def test_leading_axes_keep_their_position():
    layer = Image(np.zeros((3, 2, 6, 7, 8)), scale=(9, 4, 2.5, 1, 1), translate=(1, 2, 3, 4, 5))
    acquisition = Acquisition((2.5, 1, 1))
    moved = result_transform(layer, acquisition)
    assert np.allclose(moved["scale"], (9, 4, 1, 1, 1))
    assert np.allclose(moved["translate"], (1, 2, 3 - 0.75, 4, 5))


@pytest.mark.parametrize("options", TRANSFORMS)
def test_correcting_the_voxel_size_sets_the_scale(options):
    layer = Image(np.zeros((6, 7, 8)), **options)
    set_voxel_size(layer, (5.0, 2.0, 2.0))
    assert np.allclose(voxel_size_of(layer), (5, 2, 2))


@pytest.mark.parametrize("size", [(0, 1, 1), (1, -1, 1), (np.nan, 1, 1), (1, 1, np.inf)], ids=str)
def test_an_invalid_voxel_size_does_not_change_the_layer(size):
    layer = Image(np.zeros((6, 7, 8)), scale=(3, 1, 1))
    with pytest.raises(VoxelSizeError, match=r"The voxel size .* is not three positive numbers"):
        set_voxel_size(layer, size)
    assert np.allclose(layer.scale, (3, 1, 1))


VOLUME = np.zeros((6, 70, 70), np.uint16)
BAD_LAYERS = [
    pytest.param(lambda: None, ArgumentError, "No layer is chosen", id="none"),
    pytest.param(lambda: Labels(VOLUME), ArgumentError, "is a labels layer, not an image layer", id="labels"),
    pytest.param(lambda: Image(np.zeros((70, 70, 3), np.uint8), rgb=True), ImageError, "is an RGB layer", id="rgb"),
    pytest.param(lambda: Image(np.zeros((70, 70))), ImageError, "is a 2D layer", id="2d"),
    pytest.param(lambda: Image(np.zeros((2, 2, 2, 4, 5, 6))), ImageError, "is a 6D layer", id="6d"),
    pytest.param(lambda: Image(VOLUME > 0), ValueError, "mask", id="bool"),
    pytest.param(
        lambda: Image(VOLUME, units=["mm", "um", "um"]),
        VoxelSizeError,
        "different units along z, y, x",
        id="mixed-units",
    ),
]


@pytest.mark.parametrize(("make", "kind", "words"), BAD_LAYERS)
def test_an_unsuitable_layer_raises_an_error(make, kind, words):
    with pytest.raises(kind, match=words) as error:
        check_layer(make())
    assert "\n" not in str(error.value)


def test_a_source_is_lazy_and_has_the_finest_level():
    data = da.zeros((10, 100, 100), chunks=(1, 100, 100))
    layer = Image([data, data[:, ::2, ::2]], multiscale=True, scale=(3, 1, 1), units=["nm"] * 3)
    source = source_of(layer)
    assert source.data is layer.data[0]
    assert (source.axes, source.voxel_size, source.unit) == ("zyx", (3, 1, 1), "nanometer")


def test_napari_has_the_version_that_this_plugin_relies_on():
    assert tuple(map(int, napari.__version__.split(".")[:2])) >= (0, 9)
