"""Layers as other readers add them, such as ndevio, which reads with bioio: what the steps take from them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from bioio import BioImage
from napari.layers import Image as Layer
from resource_backed_dask_array import ResourceBackedDaskArray

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.formats.chunk_cache import ChunkCache
from napari_cropeq.formats.open import open_image
from napari_cropeq.gui.layers.source import source_key, source_of
from napari_cropeq.gui.layers.writer import write_ome_zarr
from vendor_files import a_dv
from window import cells, model_for

SIZE = (2.5, 1.0, 1.0)
DATA = np.stack([cells((12, 40, 44), seed) for seed in (1, 2)])  # c, z, y, x


def with_bioio(path: Path) -> xr.DataArray:
    """Return an image as bioio gives it, with an axis T of length 1."""
    return BioImage(a_dv(path / "a.dv", DATA, SIZE)).reader.xarray_dask_data


LAYERS = [
    pytest.param(lambda path: xr.DataArray(DATA[1], dims=("Z", "Y", "X")), id="xarray"),
    pytest.param(
        lambda path: xr.DataArray(da.from_array(DATA, chunks=(1, 1, 40, 44)), dims=("C", "Z", "Y", "X"))[1],
        id="xarray over Dask",
    ),
    pytest.param(lambda path: with_bioio(path).isel(T=0, C=1), id="xarray of bioio"),
    pytest.param(lambda path: with_bioio(path).isel(T=0, C=1).data, id="Dask array of bioio, which opens its file"),
    pytest.param(lambda path: with_bioio(path).isel(C=1).data, id="with a time axis of length 1"),
]


def a_layer(data, **options) -> Layer:
    """Return a layer of a volume with a scale and units, as readers of microscopy formats give them."""
    ahead = data.ndim - 3
    return Layer(data, scale=(1.0,) * ahead + SIZE, units=("pixel",) * ahead + ("µm",) * 3, **options)


def test_a_layer_of_ndevio(tmp_path: Path) -> None:
    image = with_bioio(tmp_path).isel(C=1)
    labels = tuple(image.dims)  # upper case
    layer = Layer([image.data], scale=(1.0, *SIZE), axis_labels=labels, metadata={"bioimage": object()})  # a list
    source = source_of(layer)
    assert (labels, source.axes, source.unit) == (("T", "Z", "Y", "X"), "tzyx", "pixel")
    assert np.array_equal(ChunkCache(source.volume())[:, :, :], DATA[1])


@pytest.mark.parametrize("make", LAYERS)
def test_a_layer_of_another_reader_is_computed_as_an_array_is(tmp_path: Path, make) -> None:
    metadata = {"bioimage": object(), "source": "a.dv", "raw_image_metadata": {"b": b"\x00"}}
    layer = a_layer(make(tmp_path), name="GFP :: 0 :: a", metadata=metadata)
    assert source_key(layer) == source_key(layer)
    source = source_of(layer)
    assert source.axes[-3:] == "zyx" and source.voxel_size == pytest.approx(SIZE) and source.unit == "micrometer"
    assert (source.path, source.scene, source.watch) == (None, "", None)
    box, leading = Box((3, 5, 7), (19, 30, 40)), (0,) * (len(source.axes) - 3)
    expected = SuperResolution(source_of(a_layer(DATA[1])), model_for(), planes="x").compute((), box)
    assert np.array_equal(SuperResolution(source, model_for(), planes="x").compute(leading, box), expected)


def test_several_threads_read_a_layer_that_opens_its_file_for_each_read(tmp_path: Path) -> None:
    data = with_bioio(tmp_path).isel(T=0).data
    assert isinstance(data, ResourceBackedDaskArray)  # a class of its own, which Dask's functions do not know
    source = source_of(a_layer(data))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: ChunkCache(source.data[n % 2])[n % 12 : n % 12 + 1, :, :], range(60)))
    assert all(np.array_equal(box[0], DATA[n % 2, n % 12]) for n, box in enumerate(found))


def test_a_layer_over_xarray_is_saved(tmp_path: Path) -> None:
    layer = a_layer(xr.DataArray(da.from_array(DATA[0], chunks=(1, 40, 44)), dims=("Z", "Y", "X")), name="a")
    (path,) = write_ome_zarr(str(tmp_path / "a.ome.zarr"), [layer.as_layer_data_tuple()])
    saved = open_image(path)
    assert np.array_equal(saved.data.compute(), DATA[0]) and saved.voxel_size == SIZE
