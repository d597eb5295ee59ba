"""The public functions give the bits of an export, in memory, lazily and in files."""

from __future__ import annotations

import dataclasses
import pickle

import dask
import dask.array as da
import numpy as np
import pytest
import tifffile
import torch
import zarr

import napari_cropeq as cq
from conftest import random_network, textured_volume
from napari_cropeq.api import voxels
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Acquisition, Box
from napari_cropeq.core.model import Model
from napari_cropeq.core.network import ErrorTail
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.errors import ArgumentError
from napari_cropeq.formats.image import acquisition_of
from napari_cropeq.formats.open import open_image
from napari_cropeq.run import export as run_export

SIZE = (2.5, 1.0, 1.0)
SHAPE = (10, 40, 52)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(random_network("subpixel", 4, factor=2.5), Acquisition(SIZE), [Normalisation(0.0, 4000.0)])


@pytest.fixture
def stack(tmp_path):
    """Return the path of a stack with two channels and a voxel size."""
    metadata = {"axes": "CZYX"}
    for letter, size in zip("ZYX", SIZE, strict=True):
        metadata |= {f"PhysicalSize{letter}": size, f"PhysicalSize{letter}Unit": "µm"}
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, np.stack([textured_volume(SHAPE, n) for n in range(2)]), metadata=metadata, ome=True)
    return path


def exported(path, source, model, **options) -> np.ndarray:
    """Return the voxels that the command line's export writes."""
    result = SuperResolution(source, model, acquisition_of(source), **options)
    for _ in run_export.export(result, path):
        pass
    return zarr.open_group(path, mode="r")["0"][:]


OPTIONS = {
    "source": {},
    "float32": {"dtype": "float32"},
    "planes": {"planes": "y"},
    "both": {"planes": "both", "dtype": "float32"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_same_bits_as_an_export(stack, model, tmp_path, options):
    expected = exported(tmp_path / "expected.ome.zarr", open_image(stack), model, **options)
    assert expected.shape == (2, 25, 40, 52)
    whole = cq.super_resolve(stack, model, **options)
    lazy = cq.super_resolve_lazy(stack, model, **options)
    path = cq.export(stack, model, tmp_path / "got.ome.zarr", **options)
    assert whole.dtype == expected.dtype == lazy.dtype and lazy.shape == expected.shape
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), expected)
    assert path == tmp_path / "got.ome.zarr"
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["0"][:], expected)


def test_expected_errors(stack, model):
    with pytest.raises(ArgumentError, match="The model has no expected error: it was made by an earlier version"):
        cq.super_resolve(stack, model, return_error=True)
    tail = model.network.tail
    weights = torch.randn(tail.weight.shape, generator=torch.manual_seed(0)) / 20
    other = dataclasses.replace(model, error_tail=ErrorTail.of(weights, tail.bias.detach() - 3, {0.5: 0.6}))
    voxels, error = cq.super_resolve(stack, other, return_error=True)
    assert np.array_equal(voxels, cq.super_resolve(stack, model)) and voxels.dtype == np.uint16
    result = SuperResolution(open_image(stack), other)
    expected = result.predictor((1,))(Box.whole(result.sr_shape), with_error=True)[1]
    assert error.dtype == np.float32 and np.array_equal(error[1], expected)
    assert 0 < error.min() < error.max() < 4000


def test_an_export_has_the_bytes_of_the_command_line(stack, model, tmp_path):
    exported(tmp_path / "one.ome.zarr", open_image(stack), model)
    cq.export(stack, model, tmp_path / "other.ome.zarr")
    files = sorted(p.relative_to(tmp_path / "one.ome.zarr") for p in (tmp_path / "one.ome.zarr").rglob("*"))
    assert files == sorted(p.relative_to(tmp_path / "other.ome.zarr") for p in (tmp_path / "other.ome.zarr").rglob("*"))
    for name in files:
        if (tmp_path / "one.ome.zarr" / name).is_file() and name.name != "zarr.json":  # has the image's name
            one, other = ((tmp_path / store / name).read_bytes() for store in ("one.ome.zarr", "other.ome.zarr"))
            assert one == other, name


class Sliceable:
    """An array with a shape, a dtype and slicing only."""

    def __init__(self, voxels: np.ndarray) -> None:
        self._voxels = voxels
        self.shape, self.dtype = voxels.shape, voxels.dtype

    def __getitem__(self, key):
        return self._voxels[key]


def zarr_array(voxels: np.ndarray) -> zarr.Array:
    array = zarr.create_array({}, shape=voxels.shape, dtype=voxels.dtype, chunks=(1, 3, 20, 30)[-voxels.ndim :])
    array[...] = voxels
    return array


ARRAYS = {
    "numpy": np.asarray,
    "dask": lambda voxels: da.from_array(voxels, chunks=(4, 23, 31)),
    "zarr": zarr_array,
    "sliceable": Sliceable,
}


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS)
def test_arrays_of_any_kind(stack, model, make):
    expected = cq.super_resolve(stack, model)[1]
    data = make(textured_volume(SHAPE, 1))
    np.testing.assert_array_equal(cq.super_resolve(data, model, SIZE), expected)
    np.testing.assert_array_equal(cq.super_resolve_lazy(data, model, SIZE)[7:9].compute(), expected[7:9])


def test_the_voxel_size_is_the_models_if_the_data_have_none(model, tmp_path):
    data = textured_volume(SHAPE)
    np.testing.assert_array_equal(cq.super_resolve(data, model), cq.super_resolve(data, model, SIZE))
    with pytest.raises(ValueError, match="factor"):
        cq.super_resolve(data, model, (4.0, 1.0, 1.0))
    image = cq.open_image(cq.export(data, model, tmp_path / "out.ome.zarr"))
    assert image.voxel_size == pytest.approx((1, 1, 1)) and image.unit == "micrometer"


def test_leading_axes_are_kept(model):
    data = np.stack([[textured_volume(SHAPE, 2 * t + c) for c in range(2)] for t in range(2)])
    assert cq.super_resolve(data, model).shape == (2, 2, 25, 40, 52)


SLICES = [
    np.s_[3:22:4, 5:39, 7],
    np.s_[::-3, 11, 2:9],
    np.s_[-1, ..., ::2],
    np.s_[4:4],
    np.s_[0, 0, 0],
    np.s_[[9, 3, 20], 4],
]


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_slices_of_a_lazy_array(model, scheduler, monkeypatch):
    monkeypatch.setattr(voxels, "CHUNK", (8, 16, 16))
    data = textured_volume((10, 70, 90))
    expected = cq.super_resolve(data, model, planes="x")
    lazy = cq.super_resolve_lazy(data, model, planes="x")
    assert lazy.numblocks > (1, 1, 1)
    with dask.config.set(scheduler=scheduler):
        np.testing.assert_array_equal(lazy.compute(), expected)
        for part in SLICES:
            np.testing.assert_array_equal(lazy[part].compute(), expected[part])
        np.testing.assert_array_equal(lazy.rechunk((7, 19, 83)).compute(), expected)
        doubled = lazy.map_blocks(lambda block: block.astype(np.uint32) * 2, dtype=np.uint32)
        np.testing.assert_array_equal(doubled[2:20, 30:33].compute(), expected[2:20, 30:33].astype(np.uint32) * 2)


def test_a_slice_computes_only_its_box(model, monkeypatch):
    boxes = []
    prefetch = SuperResolution.prefetch
    monkeypatch.setattr(SuperResolution, "prefetch", lambda *args: boxes.append(args[1:]) or prefetch(*args))
    lazy = cq.super_resolve_lazy(np.stack([textured_volume(SHAPE)] * 2), model)
    lazy[1, 3, 5:9, ::2].compute()
    assert boxes == [((1,), Box((3, 5, 0), (4, 9, 51)))]


def test_a_lazy_array_is_written_and_pickled(model, tmp_path):
    data = textured_volume(SHAPE)
    expected = cq.super_resolve(data, model)
    lazy = cq.super_resolve_lazy(data, model)
    lazy.to_zarr(str(tmp_path / "lazy.zarr"))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "lazy.zarr", mode="r")[:], expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy)).compute(), expected)


@pytest.mark.parametrize("kind", ["ome-tiff", "ome-zarr"])
def test_a_lazy_array_of_a_file_is_pickled(stack, model, tmp_path, kind):
    path = stack if kind == "ome-tiff" else cq.export(stack, model, tmp_path / "stack.ome.zarr")
    lazy = cq.super_resolve_lazy(path, model, SIZE)
    part = pickle.loads(pickle.dumps(lazy))[1, 3:5]
    np.testing.assert_array_equal(part.compute(), lazy[1, 3:5].compute())


def test_another_process_refuses_to_compute_other_bits(model):
    lazy = voxels._LazyVoxels(voxels.result_of(textured_volume(SHAPE), model, SIZE, None, "source", "cpu"))
    lazy._fingerprint = lazy._fingerprint.replace('"torch": "', '"torch": "0.')
    assert lazy[0].shape == (40, 52), "this process computes with its own result"
    with pytest.raises(ValueError, match="torch"):
        pickle.loads(pickle.dumps(lazy))[0]


@pytest.mark.slow
def test_on_a_cluster(model):
    distributed = pytest.importorskip("distributed")
    data = textured_volume((10, 70, 90))
    expected = cq.super_resolve(data, model)
    lazy = cq.super_resolve_lazy(data, model)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        np.testing.assert_array_equal(lazy.compute(), expected)


def test_callbacks_get_the_progress_and_stop_the_work(model, tmp_path):
    data = textured_volume((6, 150, 52))  # several parts
    seen = []
    cq.super_resolve(data, model, callback=seen.append)
    assert [p.done for p in seen] == list(range(len(seen))) and seen[-1].done == seen[-1].total > 1
    with pytest.raises(cq.StoppedError, match=f"1 of {seen[-1].total}"):
        cq.super_resolve(data, model, callback=lambda progress: progress.done < 1)

    data, path = np.stack([data] * 2), tmp_path / "out.ome.zarr"
    with pytest.raises(cq.StoppedError, match=r"of 2 tiles.*resume"):
        cq.export(data, model, path, callback=lambda progress: progress.done < 1)
    assert not path.exists() and (tmp_path / "out.partial.ome.zarr").is_dir()
    with pytest.raises(FileExistsError):
        cq.export(data, model, path)
    cq.export(data, model, path, existing="resume")
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["0"][:], cq.super_resolve(data, model))


def test_processes_share_an_export(model, tmp_path):
    data, path = textured_volume((10, 300, 300)), tmp_path / "out.ome.zarr"
    assert not cq.export(data, model, path, partition=(0, 2)).exists()
    assert cq.export(data, model, path, partition=(1, 2)).exists()
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["0"][:], cq.super_resolve(data, model))


def test_a_model_may_be_a_path(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    data = textured_volume(SHAPE)
    expected = cq.super_resolve(data, model)
    np.testing.assert_array_equal(cq.super_resolve(data, tmp_path / "model.safetensors"), expected)


def test_a_failure_ends_the_work(model, monkeypatch):
    lazy = cq.super_resolve_lazy(textured_volume(SHAPE), model)

    def broken(*_, **__):
        raise ValueError("a broken disk")

    monkeypatch.setattr(SuperResolution, "compute", broken)
    with pytest.raises(ValueError, match="a broken disk"):
        lazy.compute()
    with pytest.raises(ValueError, match="a broken disk"):
        cq.super_resolve(textured_volume(SHAPE), model)
