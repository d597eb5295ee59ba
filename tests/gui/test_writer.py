"""napari's own File > Save into OME-TIFF and OME-Zarr."""

from __future__ import annotations

import os

import dask.array as da
import npe2
import numpy as np
import pytest
import tifffile
import zarr
from napari.layers import Image, Labels, Layer
from ome_zarr_models.v05 import Image as OmeImage
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QFileDialog, QLineEdit

from conftest import DATA, textured_volume
from napari_cropeq.formats import pyramid, write
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.open import open_image
from napari_cropeq.gui.layers.source import source_of
from window import TIMEOUT, cells, dock, model_for

NAMES = ["out.ome.tif", "out.ome.zarr"]
VOLUME = textured_volume((6, 20, 30))
MICRONS = {"scale": (2.5, 0.5, 0.4), "translate": (10.0, -20.0, 30.5), "units": ["um"] * 3}
MOVED = np.array([[2, 0, 0, 5], [0, 0.5, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1]], float)


@pytest.fixture(autouse=True)
def plugins():
    """Discover plugins, as a viewer does."""
    npe2.PluginManager.instance().discover()


def names(folder) -> list[str]:
    return sorted(os.listdir(folder))


def opened(path) -> list[Layer]:
    """Read a file with our reader, through napari's choice of plugins."""
    return [Layer.create(*data) for data in npe2.read([str(path)], stack=False, plugin_name="napari-cropeq")]


def reopened(viewer, path):
    """Open a file as a user would, with our reader, instead of what the viewer shows."""
    viewer.layers.clear()
    return viewer.open(str(path), plugin="napari-cropeq")


def place(layer) -> tuple:
    """Return the position of the voxels: world coordinates of two corners, units, labels."""
    last = [n - 1 for n in layer.data.shape]
    corners = [*layer.data_to_world([0] * layer.ndim), *layer.data_to_world(last)]
    return corners, tuple(map(str, layer.units)), tuple(layer.axis_labels)


SINGLE = [
    pytest.param(VOLUME, MICRONS | {"colormap": "green"}, id="microns"),
    pytest.param(VOLUME, {}, id="nothing-known"),
    pytest.param(VOLUME.astype(np.float32), MICRONS | {"colormap": "#ff8000", "units": ["mm"] * 3}, id="mm-float"),
    pytest.param(VOLUME, MICRONS | {"affine": MOVED}, id="affine-along-the-axes"),
    pytest.param(np.stack([VOLUME] * 3), {"scale": (1, 2.5, 0.5, 0.4), "units": ["pixel"] + ["um"] * 3}, id="frames"),
    pytest.param(np.stack([VOLUME] * 3), {"scale": (9, 2.5, 0.5, 0.4), "units": ["s"] + ["nm"] * 3}, id="seconds"),
    pytest.param(np.stack([VOLUME] * 2), {"scale": (1, 2, 1, 1), "axis_labels": "czyx"}, id="channel-axis"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("data", "options"), SINGLE)
def test_a_saved_layer_is_the_same_when_opened(tmp_path, data, options, name):
    labels = tuple(options.get("axis_labels", "tzyx"[-data.ndim :]))
    layer = Image(data, name="nuclei", **options | {"axis_labels": labels})
    wanted, colors = place(layer), layer.colormap.colors
    assert layer.save(str(tmp_path / name)) == [str(tmp_path / name)]
    assert names(tmp_path) == [name]
    back = opened(tmp_path / name)
    if "c" in labels:
        assert [layer.name for layer in back] == ["out channel 0", "out channel 1"]
        assert all(np.array_equal(np.asarray(one.data), each) for one, each in zip(back, data, strict=True))
        return
    assert np.array_equal(np.asarray(back[0].data), data) and back[0].dtype == data.dtype
    corners, units, letters = place(back[0])
    assert (units, letters) == wanted[1:] and corners == pytest.approx(wanted[0])
    assert back[0].name == "out nuclei" and np.allclose(back[0].colormap.colors, colors)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file", ["mouse_brain_2ch_5x2x2um.ome.tif", "mri_t2_5p5x0p75x0p75mm.nii.gz"])
def test_real_files_are_the_same_when_saved_and_opened(viewer, tmp_path, file, name):
    path = DATA / file
    if not path.exists():
        pytest.skip(f"{path} is not here")
    wanted = []
    for layer in viewer.open(str(path), plugin="napari-cropeq"):
        layer.data = layer.data[:, :50]  # compressing all of it takes long
        wanted.append((place(layer), np.asarray(layer.data)))
    viewer.layers.save(str(tmp_path / name))
    back = reopened(viewer, tmp_path / name)
    for layer, ((corners, *expected), voxels) in zip(back, wanted, strict=True):
        found, *names_and_units = place(layer)
        assert found == pytest.approx(corners) and names_and_units == expected
        assert np.array_equal(np.asarray(layer.data), voxels)


@pytest.mark.parametrize("name", NAMES)
def test_axes_in_another_order_are_put_in_order(tmp_path, name):
    data = np.stack([VOLUME.transpose(2, 1, 0)] * 2, axis=1)  # x, t, y, z
    scale, units = (0.4, 3, 0.5, 2.5), ["um", "s", "um", "um"]
    Image(data, axis_labels=["x", "time", "y", "z"], scale=scale, units=units).save(str(tmp_path / name))
    source = open_image(tmp_path / name)
    assert (source.axes, source.voxel_size, source.time_step) == ("tzyx", (2.5, 0.5, 0.4), 3.0)
    assert np.array_equal(source.data.compute(), np.stack([VOLUME] * 2))


@pytest.mark.parametrize("name", NAMES)
def test_similar_layers_become_channels(viewer, tmp_path, name):
    times = np.stack([VOLUME, VOLUME + 1])
    options = {"scale": (1, 2.5, 0.5, 0.4), "units": ["pixel"] + ["um"] * 3}
    for number, (label, color) in enumerate([("nuclei", "magenta"), ("membrane", "#00ff80")]):
        metadata = {"source": {"name": "stack"}}
        viewer.add_image(times + 10 * number, name=f"stack {label}", colormap=color, metadata=metadata, **options)
    assert viewer.layers.save(str(tmp_path / name)) == [str(tmp_path / name)]
    source = open_image(tmp_path / name)
    assert (source.axes, source.channel_names) == ("tczyx", ("nuclei", "membrane"))
    assert source.channel_colors == ("#ff00ff", "#00ff80")
    back = reopened(viewer, tmp_path / name)
    assert [layer.name for layer in back] == ["out nuclei", "out membrane"]
    for number, layer in enumerate(back):
        assert np.array_equal(np.asarray(layer.data), times + 10 * number)


@pytest.mark.parametrize("name", NAMES)
def test_the_finest_level_of_a_multiscale_layer_is_saved(tmp_path, name, monkeypatch):
    monkeypatch.setattr(pyramid, "SMALLEST", 16)
    data = textured_volume((8, 300, 400))
    Image([data, data[:, ::4, ::4]], multiscale=True, scale=(2, 1, 1)).save(str(tmp_path / name))
    source = open_image(tmp_path / name)
    assert np.array_equal(source.data.compute(), data)
    assert len(source.levels) > 1 and source.levels[1].shape[-2:] == (150, 200)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16], ids=lambda kind: kind.__name__)
def test_labels_are_sampled_not_averaged(tmp_path, name, dtype, monkeypatch):
    monkeypatch.setattr(pyramid, "SMALLEST", 40)
    rng = np.random.default_rng(0)
    data = rng.choice(np.array([0, 3, 100], dtype), (9, 301, 90))
    layer = Labels(data, name="cells", scale=(2, 1, 1), units=["um"] * 3)
    assert layer.save(str(tmp_path / name)) == [str(tmp_path / name)]
    source = open_image(tmp_path / name)
    assert np.array_equal(source.data.compute(), data) and source.data.dtype == dtype
    assert len(source.levels) > 1
    for number, level in enumerate(source.levels[1:], 1):
        step, rows, columns = 2**number, *level.shape[-2:]
        planes = slice(None, None, step if name.endswith("zarr") else 1)
        assert np.array_equal(level.compute(), data[planes, ::step, ::step][:, :rows, :columns])
    if name.endswith("zarr"):
        group = zarr.open_group(tmp_path / name, mode="r")
        assert "image-label" in group.attrs["ome"]
        datasets = OmeImage.from_zarr(group).attributes.ome.multiscales[0].datasets
        assert [d.coordinateTransformations[0].scale for d in datasets[:2]] == [[2, 1, 1], [4, 2, 2]]
        assert all(d.coordinateTransformations[1].translation == [0, 0, 0] for d in datasets)


CHUNKS = [
    pytest.param((1, 400, 300), id="pages"),
    pytest.param((12, 100, 100), id="cubes"),
    pytest.param((9, 400, 50), id="slabs"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunks", CHUNKS)
def test_a_lazy_layer_is_streamed(tmp_path, name, chunks, monkeypatch):
    """Chunks are read once or twice each, and few are held at a time."""
    monkeypatch.setattr(write, "CACHED", 20 * 400 * 300 * 2)
    volume = textured_volume((40, 400, 300))
    read: list[tuple[int, ...]] = []

    def counted(block, block_info):
        read.append(tuple(block_info[None]["chunk-location"]))
        return block

    lazy = da.from_array(volume, chunks=chunks, name=False).map_blocks(
        counted, dtype=volume.dtype, meta=volume[:0, :0, :0]
    )
    held: list[int] = []
    plain = write.ChunkCache._read

    def watched(self, numbers):
        chunks = plain(self, numbers)
        held.append(self._nbytes)
        return chunks

    monkeypatch.setattr(write.ChunkCache, "_read", watched)
    layer = Image(lazy, contrast_limits=(0, 4000), scale=(2, 1, 1))
    read.clear()
    layer.save(str(tmp_path / name))
    assert max(read.count(place) for place in set(read)) <= 2 and len(set(read)) == lazy.npartitions
    assert max(held) <= write.CACHED
    assert np.array_equal(open_image(tmp_path / name).data.compute(), volume)


TURN = [[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]]
TWO = [VOLUME, VOLUME]
REFUSED = [
    pytest.param(lambda: [Image(VOLUME, rotate=TURN)], "is rotated or sheared", id="rotated"),
    pytest.param(lambda: [Image(VOLUME, shear=(0.1, 0, 0))], "is rotated or sheared", id="sheared"),
    pytest.param(lambda: [Image(VOLUME, affine=MOVED[[1, 0, 2, 3]])], "is rotated or sheared", id="affine"),
    pytest.param(lambda: [Image(VOLUME, scale=(-1, 1, 1))], "only positive ones", id="mirrored"),
    pytest.param(lambda: [Image(VOLUME, units=["pixel", "um", "um"])], "needs units of length", id="mixed-units"),
    pytest.param(lambda: [Image(VOLUME, units=["s"] * 3)], "needs units of length", id="no-lengths"),
    pytest.param(
        lambda: [Image(np.stack(TWO), scale=(9, 1, 1, 1))],
        "time axis of .* starts at 0 in steps of 9",
        id="time-without-unit",
    ),
    pytest.param(
        lambda: [Image(np.stack(TWO), translate=(9, 0, 0, 0))], "time axis of .* starts at 9", id="starts-later"
    ),
    pytest.param(lambda: [Image(VOLUME, axis_labels="zyz")], "are z, y, z, but a file needs z, y, x", id="axis-twice"),
    pytest.param(lambda: [Image(VOLUME[0])], "2D", id="2d"),
    pytest.param(lambda: [Image(VOLUME[None, None, None])], "is a 6D layer", id="6d"),
    pytest.param(lambda: [Image(np.zeros((9, 9, 3), np.uint8), rgb=True)], "is an RGB layer", id="rgb"),
    pytest.param(lambda: [Image(VOLUME > 0)], "mask", id="mask"),
    pytest.param(lambda: [Image(VOLUME), Image(VOLUME[1:])], "differ in shape", id="shapes"),
    pytest.param(lambda: [Image(VOLUME), Image(VOLUME / 2)], "differ in type", id="types"),
    pytest.param(lambda: [Image(VOLUME), Image(VOLUME, scale=(2, 1, 1))], "differ in voxel size", id="sizes"),
    pytest.param(lambda: [Image(VOLUME), Image(VOLUME, translate=(2, 1, 1))], "differ in position", id="places"),
    pytest.param(lambda: [Image(np.stack(TWO), axis_labels="czyx")] * 2, "already have channels", id="channels-twice"),
    pytest.param(lambda: [Image(VOLUME, metadata={"napari-cropeq": {}})], "Press Start in Volume", id="result-of-old"),
]


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("layers", "sentence"), REFUSED)
def test_layers_that_the_file_cannot_store(tmp_path, layers, sentence, name):
    with pytest.raises(OSError, match=sentence) as error:
        npe2.write(str(tmp_path / name), layers())
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
    assert names(tmp_path) == []


@pytest.mark.parametrize("make", [Image, Labels])
def test_an_ome_tiff_cannot_store_64_bit_integers(tmp_path, make):
    with pytest.raises(OSError, match=r"voxels of the type int64.* save it as \.ome\.zarr"):
        make(VOLUME.astype(np.int64)).save(str(tmp_path / "a.ome.tif"))
    make(VOLUME.astype(np.int64)).save(str(tmp_path / "a.ome.zarr"))
    assert open_image(tmp_path / "a.ome.zarr").data.dtype == np.int64


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_keeps_the_old_file(tmp_path, name):
    def broken(block, block_info):
        if block_info[None]["chunk-location"][0] == 5:
            raise OSError("disk trouble")
        return block

    Image(VOLUME).save(str(tmp_path / name))
    lazy = da.from_array(VOLUME + 1, chunks=(1, 20, 30)).map_blocks(broken, dtype=VOLUME.dtype, meta=VOLUME[:0])
    with pytest.raises(OSError, match="disk trouble"):
        Image(lazy, contrast_limits=(0, 9)).save(str(tmp_path / name))
    assert names(tmp_path) == [name]
    assert np.array_equal(open_image(tmp_path / name).data.compute(), VOLUME)
    Image(VOLUME + 2).save(str(tmp_path / name))
    assert names(tmp_path) == [name]
    assert np.array_equal(open_image(tmp_path / name).data.compute(), VOLUME + 2)


@pytest.mark.parametrize("name", NAMES)
def test_an_error_after_writing_keeps_the_old_file(tmp_path, name):
    def check() -> None:
        seen.extend(names(tmp_path))
        raise ValueError("a tile was dropped meanwhile")

    seen: list[str] = []
    Image(VOLUME).save(str(tmp_path / name))
    with pytest.raises(ValueError, match="dropped meanwhile"):
        write.write_image(da.from_array(VOLUME + 1), tmp_path / name, ImageInfo("zyx"), check)
    assert name in seen and f"{name}.partial" in seen, "all was written by then"
    assert names(tmp_path) == [name]
    assert np.array_equal(open_image(tmp_path / name).data.compute(), VOLUME)


@pytest.mark.parametrize("name", NAMES)
def test_an_sr_layer_is_saved_when_it_is_complete(viewer, qtbot, tmp_path, name):
    source = viewer.add_image(cells((12, 72, 144)), scale=(2.5, 1, 1), units=["um"] * 3, name="stack")
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(), "random")
    result = volume.open_result("source")
    qtbot.waitUntil(lambda: result.layer is not None and result.state.shown, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=TIMEOUT)
    layer = viewer.layers["stack SR (random)"]
    with pytest.raises(OSError, match="is a result that is not complete"):
        layer.save(str(tmp_path / name))
    volume.buttons["start"].native.click()
    qtbot.waitUntil(lambda: result.state.complete, timeout=TIMEOUT)
    assert layer.save(str(tmp_path / name)) == [str(tmp_path / name)]
    back = open_image(tmp_path / name)
    assert np.array_equal(back.data.compute(), np.asarray(source_of(layer).data))
    assert back.voxel_size == pytest.approx((1, 1, 1)) and back.translate == pytest.approx((-0.75, 0, 0))
    volume.session.cache.cap = 1  # tiles are dropped
    with pytest.raises(OSError, match="is a result that is not complete"):
        layer.save(str(tmp_path / name))
    assert names(tmp_path) == [name]
    assert source.visible


WRITERS = [
    pytest.param("a.ome.tif", ["image"], "napari-cropeq.write_ome_tiff", id="ome-tif"),
    pytest.param("a.OME.TIFF", ["image", "image"], "napari-cropeq.write_ome_tiff", id="two-images"),
    pytest.param("a.ome.zarr", ["labels"], "napari-cropeq.write_ome_zarr", id="labels"),
    pytest.param("a.zarr", ["image"], "napari-cropeq.write_ome_zarr", id="zarr"),
    pytest.param("a.tif", ["image"], "napari.write_image", id="tif-is-napari's"),
]


@pytest.mark.parametrize(("name", "types", "command"), WRITERS)
def test_napari_chooses_by_the_longest_suffix(name, types, command):
    writer, path = npe2.PluginManager.instance().get_writer(name, types)
    assert (writer.command, path) == (command, name)


TYPED = [
    pytest.param("out.ome.tif", "OME-TIFF", "out.ome.tif", id="tif"),
    pytest.param("out", "OME-TIFF", "out.ome.tif", id="no-suffix"),
    pytest.param("out.tif", "OME-TIFF", "out.ome.tif", id="short-suffix"),
    pytest.param("out", "OME-Zarr", "out.ome.zarr", id="zarr-no-suffix"),
]


@pytest.mark.parametrize(("typed", "kind", "name"), TYPED)
def test_file_save_with_the_type_chosen_in_the_dialog(viewer, qtbot, tmp_path, typed, kind, name):
    viewer.add_image(VOLUME, name="nuclei", scale=(2, 1, 1), units=["um"] * 3)

    def fill() -> None:
        dialogs = [w for w in QApplication.topLevelWidgets() if isinstance(w, QFileDialog) and w.isVisible()]
        if not dialogs:
            return
        (dialog,) = dialogs
        offered.extend(dialog.nameFilters())
        dialog.selectNameFilter(next(text for text in offered if f"{kind} (" in text))
        dialog.findChild(QLineEdit).setText(str(tmp_path / typed))
        dialog.findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Save).click()

    offered: list[str] = []
    timer = QTimer()
    timer.timeout.connect(fill)
    timer.start(100)
    viewer.window._qt_viewer._save_layers_dialog()
    timer.stop()
    assert names(tmp_path) == [name]
    assert open_image(tmp_path / name).voxel_size == (2, 1, 1)


def test_a_completed_name_does_not_replace_a_file(tmp_path):
    Image(VOLUME).save(str(tmp_path / "a.ome.tif"))
    run = npe2.PluginManager.instance().commands.execute
    with pytest.raises(OSError, match=r"saved as a\.ome\.tif, which exists already\. Choose another name"):
        run("napari-cropeq.write_ome_tiff", (str(tmp_path / "a"), [Image(VOLUME + 1).as_layer_data_tuple()]))
    assert np.array_equal(tifffile.imread(tmp_path / "a.ome.tif"), VOLUME)
