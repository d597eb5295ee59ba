"""Images with several levels: opened from files, and shown as layers."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr

from conftest import textured_volume
from napari_cropeq.formats import image, tiff
from napari_cropeq.formats import open as open_module
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.write import write_image
from napari_cropeq.gui.layers import reader
from napari_cropeq.gui.layers.source import source_of

SIZES = {f"PhysicalSize{a}": s for a, s in zip("ZYX", (2.0, 0.5, 0.5), strict=True)}
UNITS = {f"PhysicalSize{a}Unit": "µm" for a in "ZYX"}


def pyramid(shape=(6, 64, 96), leading: tuple[int, ...] = ()) -> list[np.ndarray]:
    """Return three levels; each voxel of a coarser one is a voxel of the finer one."""
    data = np.stack([textured_volume(shape, seed) for seed in range(int(np.prod(leading)))]).reshape(*leading, *shape)
    return [data, data[..., ::2, ::2], data[..., ::4, ::4]]


def zarr_of(path: Path, levels: list[np.ndarray], axes: str = "zyx", version: str = "0.5") -> Path:
    kinds = {"t": "time", "c": "channel"}
    described = [
        {"name": a, "type": kinds.get(a, "space")} | ({"unit": "micrometer"} if a in "zyx" else {}) for a in axes
    ]
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for number, level in enumerate(levels):
        group.create_array(
            str(number), data=level, chunks=(*(1,) * (level.ndim - 3), 2, *(max(16, n // 16) for n in level.shape[-2:]))
        )
        scale = {"z": 2.0, "y": 0.5 * 2**number, "x": 0.5 * 2**number}
        scales = [{"type": "scale", "scale": [scale.get(a, 1.0) for a in axes]}]
        datasets.append({"path": str(number), "coordinateTransformations": scales})
    multiscales = [{"axes": described, "datasets": datasets}]
    group.attrs.update(
        {"multiscales": multiscales} if version == "0.4" else {"ome": {"version": version, "multiscales": multiscales}}
    )
    return path


def tiff_of(path: Path, levels: list[np.ndarray], axes: str = "zyx", **options: Any) -> Path:
    with tifffile.TiffWriter(path, ome=True) as writer:
        metadata = {"axes": axes.upper(), **SIZES, **UNITS}
        writer.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, **options)
    return path


DEFLATE = {"compression": "zlib", "tile": (32, 32)}
KINDS = [
    pytest.param(lambda f, levels, axes: zarr_of(f / "a.ome.zarr", levels, axes, "0.4"), id="zarr-0.4"),
    pytest.param(lambda f, levels, axes: zarr_of(f / "a.ome.zarr", levels, axes), id="zarr-0.5"),
    pytest.param(lambda f, levels, axes: tiff_of(f / "a.ome.tif", levels, axes), id="tiff-raw"),
    pytest.param(lambda f, levels, axes: tiff_of(f / "a.ome.tif", levels, axes, **DEFLATE), id="tiff-deflate"),
]
LEADS = [
    pytest.param("zyx", (), id="zyx"),
    pytest.param("czyx", (2,), id="czyx"),
    pytest.param("tczyx", (2, 3), id="tczyx"),
]


@pytest.mark.parametrize(("axes", "leading"), LEADS)
@pytest.mark.parametrize("write", KINDS)
def test_all_levels_are_read(tmp_path, write, axes, leading):
    levels = pyramid(leading=leading)
    source = open_image(write(tmp_path, levels, axes))
    assert (source.axes, source.voxel_size) == (axes, (2.0, 0.5, 0.5))
    assert len(source.levels) == 3 and source.levels[0] is source.data
    for found, expected in zip(source.levels, levels, strict=True):
        assert np.array_equal(found.compute(), expected)
        assert np.array_equal(pickle.loads(pickle.dumps(found)).compute(), expected), "in other processes too"


def test_axes_of_any_order_are_put_in_order_at_every_level(tmp_path):
    levels = pyramid()
    source = open_image(zarr_of(tmp_path / "a.zarr", [level.transpose(2, 1, 0) for level in levels], "xyz"))
    assert [level.shape for level in source.levels] == [level.shape for level in levels]
    assert np.array_equal(source.levels[2].compute(), levels[2])


def test_a_level_one_voxel_deep_keeps_its_axes(tmp_path):
    data = textured_volume((2, 40, 40))
    source = open_image(zarr_of(tmp_path / "a.zarr", [data[None], data[None, :1, ::2, ::2]], "czyx"))
    assert [level.shape for level in source.levels] == [(2, 40, 40), (1, 20, 20)]


def without(path: Path) -> None:
    shutil.rmtree(path / "1")


def damaged(path: Path) -> None:
    (path / "1" / "zarr.json").write_text("{")


def retyped(path: Path) -> None:
    shutil.rmtree(path / "1")
    zarr.open_group(path, mode="r+").create_array("1", data=np.zeros((6, 32, 48), np.float32))


def reshaped(path: Path) -> None:
    shutil.rmtree(path / "1")
    zarr.open_group(path, mode="r+").create_array("1", data=np.zeros((6, 32), np.uint16))


def nameless(path: Path) -> None:
    attributes = json.loads((path / "zarr.json").read_text())
    attributes["attributes"]["ome"]["multiscales"][0]["datasets"][1] = "1"
    (path / "zarr.json").write_text(json.dumps(attributes))


@pytest.mark.parametrize("harm", [without, damaged, retyped, reshaped, nameless])
def test_an_unusable_level_is_skipped(tmp_path, harm):
    levels = pyramid()
    path = zarr_of(tmp_path / "a.ome.zarr", levels)
    harm(path)
    source = open_image(path)
    assert [level.shape for level in source.levels] == [levels[0].shape, levels[2].shape]
    assert np.array_equal(source.data.compute(), levels[0])


def test_copies_of_the_finest_level_are_ignored(tmp_path):
    data = textured_volume((6, 64, 96))
    assert open_image(zarr_of(tmp_path / "a.ome.zarr", [data, data])).levels[1:] == ()


@pytest.mark.parametrize("write", KINDS)
def test_opening_reads_no_pixel(tmp_path, write, monkeypatch):
    path = write(tmp_path, pyramid(leading=(2,)), "czyx")
    read: list[str] = []
    plain = open_module.OrderedAxes.__getitem__
    monkeypatch.setattr(
        open_module.OrderedAxes, "__getitem__", lambda self, key: (read.append(self.shape), plain(self, key))[1]
    )
    layers = reader.layer_data(open_image(path))
    assert not read
    layers[1][0][0, :5, :5].compute()
    assert read == [(2, 6, 64, 96)]


SMALLER = [
    pytest.param(6 * 64 * 96, 1, None, id="the-finest-is-small"),
    pytest.param(6 * 64 * 96 - 1, 2, (6, 32, 48), id="one-is-small"),
    pytest.param(6 * 16 * 24, 3, (6, 16, 24), id="the-last-is-small"),
    pytest.param(1, 3, None, id="none-is-small"),
]


@pytest.mark.parametrize(("bound", "count", "coarse"), SMALLER)
def test_layers_have_as_many_levels_as_needed(tmp_path, bound, count, coarse, monkeypatch):
    monkeypatch.setattr(image, "COARSE_VOXELS", bound)
    monkeypatch.setattr(image, "COARSE_VOXELS", bound)
    source = open_image(zarr_of(tmp_path / "a.ome.zarr", pyramid(leading=(2,)), "czyx"))
    layers = reader.layer_data(source)
    assert len(layers) == 2
    for data, options, _ in layers:
        assert options.get("multiscale", False) == (count > 1)
        assert (len(data) if count > 1 else 1) == count
        assert options["scale"] == [2.0, 0.5, 0.5]
    if count > 1:
        assert (None if source.coarse is None else source.coarse.shape[1:]) == coarse


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.slow
def test_a_window_shows_a_coarser_level_and_reads_no_whole_plane(viewer, qtbot, tmp_path, write, monkeypatch):
    monkeypatch.setattr(image, "COARSE_VOXELS", 10_000)
    monkeypatch.setattr(tiff, "_CHUNK", 512)
    levels = pyramid((4, 2048, 2048))[:1]
    for _ in range(2):
        levels.append(levels[-1][:, ::2, ::2])
    path = write(tmp_path, [np.ascontiguousarray(level) for level in levels], "zyx")
    read: list[tuple[int, ...]] = []
    plain = open_module.OrderedAxes.__getitem__

    def counted(self: Any, key: Any) -> Any:
        box = plain(self, key)
        read.append((self.shape[-1], box.size))
        return box

    monkeypatch.setattr(open_module.OrderedAxes, "__getitem__", counted)
    (layer,) = viewer.open(str(path), plugin="napari-cropeq")
    assert layer.multiscale and [level.shape for level in layer.data] == [level.shape for level in levels]
    qtbot.waitUntil(lambda: layer.data_level >= 1, timeout=10_000)
    read.clear()
    viewer.dims.set_current_step(0, 0 if viewer.dims.current_step[0] > 1 else 3)
    qtbot.waitUntil(lambda: bool(read), timeout=10_000)
    assert not [size for width, size in read if width == 2048], "the finest level is not read"
    read.clear()
    viewer.scene.camera.zoom = 40
    qtbot.waitUntil(lambda: layer.data_level == 0, timeout=10_000)
    fine = [size for width, size in read if width == 2048]
    assert fine and sum(fine) < 2048 * 2048 / 2
    assert [level.shape for level in source_of(layer).levels] == [level.shape for level in levels]


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_a_volume_far_from_the_origin_is_visible(viewer, tmp_path, suffix):
    """napari guesses contrast limits from the plane at the world's origin, where such a volume has no data."""
    voxels = textured_volume((8, 64, 72))
    info = ImageInfo("zyx", (2.0, 1.0, 1.0), "micrometer", translate=(50.0, 10.0, 20.0), name="far")
    write_image(da.from_array(voxels, chunks=(4, 64, 64)), tmp_path / f"far{suffix}", info)
    (layer,) = viewer.open(str(tmp_path / f"far{suffix}"), plugin="napari-cropeq")
    assert np.allclose(layer.translate, (50, 10, 20))
    assert layer.contrast_limits == [voxels[4].min(), voxels[4].max()]


@pytest.mark.parametrize("middle", [np.full((64, 64), 7.0), np.full((64, 64), np.nan)], ids=["constant", "nan"])
def test_limits_of_an_empty_plane_are_left_to_napari(middle):
    assert reader._limits(np.stack([np.zeros((64, 64)), middle])) is None
