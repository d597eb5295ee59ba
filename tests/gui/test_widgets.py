"""The widgets in a real window, driven by their buttons."""

from __future__ import annotations

import functools
import threading

import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QMenu

from conftest import work_threads
from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.core.geometry import Box
from napari_cropeq.core.model import Model
from napari_cropeq.formats.open import open_image
from napari_cropeq.gui.layers import sample_data
from napari_cropeq.store import disk as storing
from window import PLUGIN, TIMEOUT, cells, dock, model_for, press, small, started, stopped


def test_train_preview_volume_save(viewer, qtbot, tmp_path):
    """The main job; what the layer shows is what the file holds, and what a direct computation gives."""
    layer = viewer.add_image(cells(), scale=(2.5, 1, 1), translate=(5, 6, 7), units=["um"] * 3, name="cells")
    train = dock(viewer, "Train")
    assert [box.value for box in train.source.voxel_size] == [2.5, 1, 1]
    assert (train.source.axial.value, train.source.fwhm.value) == ("z", 2.5)
    small(train, patches=80)
    train.buttons["start"].native.click()
    assert not train.buttons["start"].enabled
    qtbot.waitUntil(lambda: train._job is None, timeout=TIMEOUT)
    assert train.message.text().startswith("Trained on")
    train.file.value = tmp_path / "model.safetensors"
    train.buttons["save_model"].native.click()
    qtbot.waitUntil(lambda: train.message.text().startswith("Saved"), timeout=TIMEOUT)
    assert Model.load(tmp_path / "model.safetensors").fingerprint == train.session.model.fingerprint

    preview = dock(viewer, "Preview")
    viewer.scene.camera.zoom *= 3
    preview.buttons["preview"].native.click()
    qtbot.waitUntil(lambda: preview.result.layer in viewer.layers, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: not preview.result.busy, timeout=TIMEOUT)
    shown = preview.result.layer
    assert np.allclose(shown.scale, (1, 1, 1))
    assert np.allclose(shown.translate, (5 - 0.75, 6, 7))
    assert shown.units == layer.units
    assert shown.data.shape == (30, 72, 80)
    done, total = preview.result.state.in_view
    assert done == total > 0 and preview.result.state.tiles == (0, 0), "only what is in view"

    volume = dock(viewer, "Volume")
    volume.buttons["start"].native.click()
    qtbot.waitUntil(lambda: volume.result is not None and volume.result.state.complete, timeout=TIMEOUT)
    assert volume.result is preview.result, "one layer, one scheduler, one store"
    volume.destination.value = tmp_path / "result.ome.zarr"
    volume.buttons["save"].native.click()
    qtbot.waitUntil(lambda: not volume.saving, timeout=TIMEOUT)
    assert volume.message.text() == f"Saved {tmp_path / 'result.ome.zarr'}."
    stored = open_image(tmp_path / "result.ome.zarr")
    assert stored.voxel_size == (1, 1, 1)
    assert stored.translate == (4.25, 6, 7)
    assert stored.unit == "micrometer"
    whole = SuperResolution(volume.result.result.source, train.session.model)
    expected = whole.compute((), Box.whole(whole.sr_shape))
    assert np.array_equal(stored.volume().compute(), expected)
    assert np.array_equal(np.asarray(shown.data), expected)


def test_the_layer_shows_tiles_as_they_are_finished(viewer, qtbot):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    preview = dock(viewer, "Preview")
    preview.session.use_model(model_for(), "a model")
    viewer.dims.order = (1, 0, 2)
    preview.buttons["preview"].native.click()
    qtbot.waitUntil(lambda: preview.result.layer in viewer.layers, timeout=TIMEOUT)
    viewer.fit_to_view()
    result = preview.result.result
    qtbot.waitUntil(lambda: not preview.result.busy, timeout=TIMEOUT)
    y = viewer.dims.current_step[1]
    expected = result.compute((), Box((0, y, 0), (30, y + 1, 80)))[:, 0]
    qtbot.waitUntil(lambda: np.array_equal(preview.result.layer._slice.image.raw, expected), timeout=TIMEOUT)
    viewer.dims.set_current_step(1, 3)
    expected = result.compute((), Box((0, 3, 0), (30, 4, 80)))[:, 0]
    qtbot.waitUntil(lambda: np.array_equal(preview.result.layer._slice.image.raw, expected), timeout=TIMEOUT)


def test_the_whole_volume_straight_to_disk(viewer, qtbot, tmp_path):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(), "a model")
    volume.destination.value = tmp_path / "out.ome.zarr"
    volume.buttons["start"].native.click()
    qtbot.waitUntil(lambda: (tmp_path / "out.ome.zarr").exists(), timeout=TIMEOUT)
    qtbot.waitUntil(lambda: volume.message.text().startswith("Saved"), timeout=TIMEOUT)
    result = volume.result.result
    expected = result.compute((), Box.whole(result.sr_shape))
    assert np.array_equal(open_image(tmp_path / "out.ome.zarr").volume().compute(), expected)
    assert np.array_equal(np.asarray(volume.result.layer.data), expected), "the layer reads the finished store"
    assert [p.name for p in tmp_path.iterdir()] == ["out.ome.zarr"]


def test_stop_keeps_finished_tiles_and_start_continues(viewer, qtbot, gate):
    volume = started(viewer, qtbot, None, shape=(20, 200, 80))
    stopped(volume, qtbot, gate)
    done, total = volume.result.state.tiles
    assert 0 < done < total
    press(qtbot, volume, "start")
    qtbot.waitUntil(lambda: volume.result.state.complete, timeout=TIMEOUT)


@pytest.mark.parametrize("stage", ["train", "volume"])
def test_closing_the_window_stops_the_work(viewer, qtbot, tmp_path, stage):
    viewer.add_image(cells((40, 128, 128)), scale=(2.5, 1, 1), name="cells")
    widget = dock(viewer, stage.capitalize())
    widget.session.use_model(model_for(filters=32), "a model")
    if stage == "volume":
        widget.destination.value = tmp_path / "out.ome.zarr"
    widget.buttons["start"].native.click()
    if stage == "train":
        qtbot.waitUntil(lambda: bool(widget.curves.points), timeout=TIMEOUT)
    else:
        qtbot.waitUntil(lambda: widget.result.layer in viewer.layers, timeout=TIMEOUT)
    assert work_threads()
    viewer.close()
    qtbot.waitUntil(lambda: not work_threads(), timeout=20_000)
    assert not (tmp_path / "out.ome.zarr").exists(), "an incomplete output has no final name"


@pytest.mark.parametrize("which", ["source", "result"])
def test_removing_a_layer_stops_the_work(viewer, qtbot, which):
    layer = viewer.add_image(cells((30, 128, 128)), scale=(2.5, 1, 1), name="cells")
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(filters=16), "a model")
    volume.planes.value = "x"
    volume.buttons["start"].native.click()
    qtbot.waitUntil(lambda: volume.result.layer in viewer.layers, timeout=TIMEOUT)
    viewer.layers.remove(layer if which == "source" else volume.result.layer)
    qtbot.waitUntil(lambda: not work_threads(), timeout=TIMEOUT)
    assert not volume.result.alive


BAD_USE = [
    pytest.param("Preview", "preview", None, "There is no model yet", id="preview-no-model"),
    pytest.param("Volume", "start", None, "There is no model yet", id="volume-no-model"),
    pytest.param("Preview", "preview", 4.0, "The model was trained for factor 4", id="preview-other-factor"),
    pytest.param("Volume", "start", 4.0, "The model was trained for factor 4", id="volume-other-factor"),
    pytest.param("Volume", "save", 2.5, "There is no destination", id="save-nowhere"),
]


@pytest.mark.parametrize(("name", "button", "factor", "words"), BAD_USE)
def test_preview_and_volume_show_an_error(viewer, name, button, factor, words):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    widget = dock(viewer, name)
    if factor:
        widget.session.use_model(model_for(factor), "a model")
    widget.buttons[button].native.click()
    assert words in widget.message.text()
    assert len(viewer.layers) == 1


def test_an_existing_destination_is_refused(viewer, tmp_path):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(), "a model")
    (tmp_path / "out.ome.zarr").mkdir()
    (tmp_path / "out.ome.zarr" / "precious").write_text("data")
    volume.destination.value = tmp_path / "out.ome.zarr"
    volume.buttons["start"].native.click()
    assert "exists already" in volume.message.text()
    assert (tmp_path / "out.ome.zarr" / "precious").read_text() == "data"


@pytest.mark.parametrize("menu", ["Plugins", "Layers"])
@pytest.mark.parametrize("name", ["Train", "Preview", "Volume", "Batch", "Trust"])
def test_widgets_open_from_the_menus(viewer, menu, name):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    titles = {
        "Train": "Train super-res",
        "Preview": "Preview super-res",
        "Volume": "Super-resolve volume",
        "Batch": "Super-resolve many images",
        "Trust": "Show what to trust in super-resolution",
    }
    top = {a.text().replace("&", ""): a.menu() for a in viewer.window._qt_window.menuBar().actions()}[menu]
    found = [a for a in actions_below(top) if titles[name] in a.text() or a.text().startswith(f"{name} (")]
    assert found, [a.text() for a in actions_below(top)]
    found[0].trigger()
    assert any(name in key for key in viewer.window.dock_widgets), list(viewer.window.dock_widgets)


def actions_below(menu: QMenu):
    menu.aboutToShow.emit()  # some menus are filled only now
    for action in menu.actions():
        if action.menu() is not None:
            yield from actions_below(action.menu())
        else:
            yield action


def test_the_sample_opens_with_its_truth(viewer, monkeypatch):
    monkeypatch.setattr(sample_data, "light_sheet_sample", functools.cache(sample_data.light_sheet_sample))
    viewer.open_sample(PLUGIN, "light_sheet")
    viewer.open_sample(PLUGIN, "light_sheet_truth")
    vessels, neurons, truth, _ = viewer.layers
    assert vessels.data.shape == neurons.data.shape == (48, 256, 256)
    assert truth.data.shape == (116, 256, 256)
    assert np.allclose(vessels.scale, (1, 1 / 2.433, 1 / 2.433))
    assert np.allclose(truth.translate, ((1 / 2.433 - 1) / 2, 0, 0))
    train = dock(viewer, "Train")
    train.layer.value = vessels
    assert train.source.fwhm.value == pytest.approx(2.2)


def test_the_real_sample_opens_from_the_menu_as_its_file_does(viewer):
    top = {a.text().replace("&", ""): a.menu() for a in viewer.window._qt_window.menuBar().actions()}
    (action,) = (a for a in actions_below(top["File"]) if a.text().startswith("Mitochondria of yeast"))
    action.trigger()
    (layer,) = viewer.layers
    assert (layer.name, layer.data.shape, layer.data.dtype) == ("yeast_mitochondria", (17, 192, 279), np.uint16)
    assert np.allclose(layer.scale, (0.25, 0.0655, 0.0655)) and [str(u) for u in layer.units] == ["micrometer"] * 3
    assert layer.axis_labels == ("z", "y", "x") and layer.contrast_limits == [100, 170]
    assert dock(viewer, "Data").source.acquisition().factor == pytest.approx(3.817, abs=5e-4), "as the menu says"
    volume = dock(viewer, "Volume")
    assert volume.layer.value is layer and volume.destination.value is None, "no result beside the installed package"


def test_ome_tiff_opens_lazily_with_scale_units_and_channels(viewer, tmp_path):
    data = np.random.default_rng(0).integers(0, 999, (5, 2, 70, 80)).astype(np.uint16)
    metadata = {"axes": "ZCYX", "Channel": {"Name": ["dapi", "gfp"]}}
    for letter, size in zip("ZYX", (5.0, 2.0, 2.0), strict=True):
        metadata |= {f"PhysicalSize{letter}": size, f"PhysicalSize{letter}Unit": "µm"}
    tifffile.imwrite(tmp_path / "cells.ome.tif", data, metadata=metadata, ome=True)
    viewer.open(tmp_path / "cells.ome.tif", plugin=PLUGIN)
    assert [layer.name for layer in viewer.layers] == ["cells dapi", "cells gfp"]
    for number, layer in enumerate(viewer.layers):
        assert np.allclose(layer.scale, (5, 2, 2))
        assert [str(u) for u in layer.units] == ["micrometer"] * 3
        assert hasattr(layer.data, "dask")
        assert np.array_equal(np.asarray(layer.data), data[:, number])


def test_an_incomplete_store_never_gets_its_final_name(viewer, qtbot, tmp_path, monkeypatch):
    """A run in memory is complete; a stopped run to disk beside it is not."""
    monkeypatch.setattr(storing, "BULK", (64, 64, 64))
    line = 4  # neighbouring tiles, of 16, that are computed together: no run can be complete before it is stopped
    permits, put = threading.Semaphore(line), storing.DiskStore.put
    monkeypatch.setattr(storing.DiskStore, "put", lambda *tile: permits.acquire(timeout=TIMEOUT / 1000) and put(*tile))
    volume = started(viewer, qtbot, tmp_path / "out.ome.zarr", shape=(20, 224, 224))
    volume.buttons["stop"].native.click()
    permits.release(line)
    qtbot.waitUntil(lambda: not volume.result.busy, timeout=TIMEOUT)
    assert "Stopped" in volume.message.text()
    volume.destination.value = None
    press(qtbot, volume, "start")
    qtbot.waitUntil(lambda: volume.result.state.complete, timeout=TIMEOUT)
    while permits.acquire(blocking=False):
        pass
    volume.destination.value = tmp_path / "out.ome.zarr"
    press(qtbot, volume, "start")
    qtbot.waitUntil(lambda: 0 < volume.result.state.tiles[0] < volume.result.state.tiles[1], timeout=TIMEOUT)
    volume.buttons["stop"].native.click()
    permits.release(line)
    qtbot.waitUntil(lambda: not volume.result.busy, timeout=TIMEOUT)
    qtbot.wait(300)
    done, total = volume.result.state.tiles
    assert 0 < done < total
    assert not (tmp_path / "out.ome.zarr").exists()
    permits.release(100)
    volume.destination.value = tmp_path / "other.ome.zarr"
    press(qtbot, volume, "start")
    qtbot.waitUntil(lambda: volume.message.text().startswith("Saved"), timeout=TIMEOUT)
    visible = sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("."))
    assert [name for name in visible if "partial" not in name] == ["other.ome.zarr"]
    assert volume.bar.value() == 1000


def test_a_preview_does_not_stop_a_run_over_the_volume(viewer, qtbot, tmp_path):
    viewer.add_image(cells((30, 128, 160)), scale=(2.5, 1, 1), name="cells")
    volume, preview = dock(viewer, "Volume"), dock(viewer, "Preview")
    volume.session.use_model(model_for(filters=32), "a model")
    volume.dtype.value = "float32"
    volume.destination.value = tmp_path / "out.ome.zarr"
    press(qtbot, volume, "start")
    preview.buttons["preview"].native.click()
    assert preview.result is volume.result, "the type of the existing result is used"
    preview.planes.value = "y"
    preview.buttons["preview"].native.click()
    assert "is being computed" in preview.message.text()
    volume.session.use_model(model_for(filters=8), "another model")
    preview.buttons["preview"].native.click()
    assert "is being computed" in preview.message.text()
    assert volume.result.alive
    volume.buttons["stop"].native.click()
    preview.buttons["preview"].native.click()
    assert not preview.complaining
    assert preview.result is not volume.result
    assert not volume.result.alive


@pytest.mark.parametrize("name", ["Train", "Volume"])
def test_closing_the_dock_stops_its_work(viewer, qtbot, name):
    viewer.add_image(cells((30, 128, 160)), scale=(2.5, 1, 1), name="cells")
    widget = dock(viewer, name)
    widget.session.use_model(model_for(filters=32), "a model")
    widget.buttons["start"].native.click()
    qtbot.waitUntil(lambda: bool(work_threads()), timeout=TIMEOUT)
    viewer.window.remove_dock_widget("all")
    qtbot.waitUntil(lambda: not work_threads(), timeout=TIMEOUT)


@pytest.mark.parametrize(
    "change", [{"shear": [0, 0, 0.05]}, {"translate": (1, 2, 3)}, {"scale": (2.51, 1, 1)}], ids=str
)
def test_a_layer_that_was_moved_has_another_result(viewer, qtbot, change):
    layer = viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    preview = dock(viewer, "Preview")
    preview.session.use_model(model_for(), "a model")
    preview.buttons["preview"].native.click()
    first = preview.result
    preview.buttons["preview"].native.click()
    assert preview.result is first
    for name, value in change.items():
        setattr(layer, name, value)
    preview.buttons["preview"].native.click()
    assert preview.result is not first or preview.complaining
