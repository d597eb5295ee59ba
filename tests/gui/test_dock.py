"""The dock widget: one set of steps for all menu entries, in sight at small sizes, and what the steps share."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from conftest import textured_volume, work_threads
from files import a_stack
from napari_cropeq.core.geometry import Box
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.write import write_image
from napari_cropeq.gui.widgets.dock import Dock
from window import PLUGIN, TIMEOUT, cells, dock, model_for, press, small

STEPS = ("Data", "Train", "Preview", "Volume", "Trust", "Batch")


def open_docks(viewer) -> list[Dock]:
    return [widget for widget in viewer.window.dock_widgets.values() if isinstance(widget, Dock)]


def test_each_menu_entry_shows_its_step_of_the_same_dock(viewer, qtbot):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    train = dock(viewer, "Train")
    small(train, minutes=10)
    press(qtbot, train, "start")
    qtbot.waitUntil(lambda: bool(train.curves.points), timeout=TIMEOUT)
    panels = open_docks(viewer)[0].panels
    for name in STEPS:
        widget = viewer.window.add_plugin_dock_widget(PLUGIN, name)[1]
        qtbot.waitUntil(lambda name=name: panels[name].isVisible(), timeout=TIMEOUT)
        assert open_docks(viewer) == [widget] and widget.panels is panels
        assert train._job is not None and not train.left, "the training goes on"
    viewer.window.remove_dock_widget("all")
    qtbot.waitUntil(lambda: not work_threads(), timeout=TIMEOUT)
    assert all(panel.left for panel in panels.values())


@pytest.mark.parametrize("name", STEPS)
def test_what_is_pressed_and_what_comes_back_is_in_sight(viewer, qtbot, name):
    """In a window of 1280 x 720, with all sections unfolded, as with an error of three lines."""
    viewer.window.resize(1280, 720)
    viewer.add_image(cells(), scale=(2.5, 1, 1), units=["um"] * 3, name="cells")
    panel = dock(viewer, name)
    for section in vars(panel).values():
        if hasattr(section, "expand"):
            section.expand(animate=False)
    panel.complain("The layer cannot be used for a reason that takes several lines to explain. " * 3)
    above = panel.above
    qtbot.waitUntil(lambda: above.viewport().height() >= above.widget().minimumSizeHint().height(), timeout=5000)
    buttons = [button.native for button in getattr(panel, "buttons", {}).values() if button.visible]
    seen = [*buttons, panel.message, *([panel.bar] if buttons else [])]
    for widget in seen:
        qtbot.waitUntil(lambda w=widget: w.visibleRegion().boundingRect() == w.rect(), timeout=5000)
    bottom = panel.window().height()
    assert all(w.mapTo(w.window(), w.rect().bottomLeft()).y() < bottom for w in seen)


UNITS = [
    pytest.param(lambda data: setattr(data.source.voxel_size[0], "value", 5.0), "micrometer", (5, 1, 1), id="size"),
    pytest.param(lambda data: data.source.confirm.native.click(), "micrometer", (1, 1, 1), id="confirmed"),
    pytest.param(lambda data: setattr(data.source.unit, "value", "nm"), "nanometer", (1, 1, 1), id="unit"),
    pytest.param(lambda data: setattr(data.source.unit, "value", "pixel"), "pixel", (1, 1, 1), id="pixel"),
]


@pytest.mark.parametrize(("act", "unit", "scale"), UNITS)
def test_a_unit_that_no_file_stored_is_asked_for(viewer, qtbot, act, unit, scale):
    layer = viewer.add_image(cells(), name="cells")
    viewer.dims.set_current_step(0, 4)
    train, data = dock(viewer, "Train"), dock(viewer, "Data")
    assert "stores no unit" in train.message.text() and "press Confirm" in data.message.text()
    assert (data.source.unit.value, {str(u) for u in layer.units}) == ("µm", {"pixel"}), "proposed, not set"
    act(data)
    assert {str(u) for u in layer.units} == {unit} and np.allclose(layer.scale, scale)
    factor = "Factor 5: 12 slices become 60." if scale[0] == 5 else ""
    assert not train.message.text() and data.message.text() == factor
    assert not data.source.confirm.native.isVisibleTo(data)
    assert viewer.dims.current_step[0] == 4, "the slice is kept"


def test_a_unit_of_the_file_is_not_asked_for(viewer):
    layer = viewer.add_image(cells(), scale=(2.5, 1, 1), units=["nm"] * 3, name="cells")
    data = dock(viewer, "Data")
    assert data.source.unit.value == "nm" and not data.source.confirm.native.isVisibleTo(data)
    assert data.message.text() == "Factor 2.5: 12 slices become 30." and not dock(viewer, "Train").message.text()
    data = dock(viewer, "Data")
    data.source.unit.value = "µm"
    assert {str(u) for u in layer.units} == {"micrometer"} and np.allclose(layer.scale, (2.5, 1, 1)), "not converted"


def test_one_measurement_is_unfolded_so_that_its_button_is_in_sight(viewer, qtbot):
    viewer.add_image(cells(), scale=(2.5, 1, 1), units=["um"] * 3, name="cells")
    viewer.window.resize(1280, 720)
    data = dock(viewer, "Data")
    for section, other in ((data.profile, data.noise), (data.noise, data.profile), (data.profile, data.noise)):
        section.expand(animate=False)
        assert section.isExpanded() and not other.isExpanded()
        qtbot.waitUntil(lambda section=section: not section.button.visibleRegion().isEmpty(), timeout=TIMEOUT)


def test_the_axial_view_and_back(viewer, qtbot):
    viewer.add_image(cells((12, 72, 80)), scale=(2.5, 1, 1), name="cells")
    preview = dock(viewer, "Preview")
    viewer.scene.camera.center = (0, 30, 50)
    press(qtbot, preview, "show_axial_view")
    assert viewer.dims.order == (1, 0, 2) and viewer.dims.current_step[1] == 30, "through the middle of the view"
    press(qtbot, preview, "show_axial_view")
    assert viewer.dims.order == (0, 1, 2)


def test_without_a_layer_the_dock_says_what_to_do(viewer):
    layer = dock(viewer, "Data").layer
    assert layer.value is None and layer.current_choice == "none: open or choose a 3D image"
    viewer.add_image(cells())
    assert layer.value is viewer.layers[0]


def test_only_images_in_grey_levels_are_offered(viewer):
    viewer.add_labels(np.zeros((4, 8, 8), int), name="labels")
    viewer.add_image(np.zeros((4, 8, 8, 3), np.uint8), rgb=True, name="colours")
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    assert [layer.name for layer in dock(viewer, "Train").layer.sources()] == ["cells"]


def test_another_layer_clears_what_was_shown(viewer, qtbot):
    for name in ("cells", "others"):
        viewer.add_image(cells(), scale=(2.5, 1, 1), units=["um"] * 3, name=name)
    train = dock(viewer, "Train")
    train.layer.value = viewer.layers["cells"]
    small(train, patches=8)
    press(qtbot, train, "start")
    qtbot.waitUntil(lambda: train._job is None and train.message.text().startswith("Trained"), timeout=TIMEOUT)
    preview = dock(viewer, "Preview")
    assert not preview.buttons["stop"].enabled
    press(qtbot, preview, "preview")
    qtbot.waitUntil(lambda: preview.message.text().startswith("All of the view"), timeout=TIMEOUT)
    assert preview.buttons["stop"].enabled and "bit-exact on cpu" in preview.message.toolTip()
    train.layer.value = viewer.layers["others"]
    assert (train.message.text(), preview.message.text(), train.curves.points) == ("", "", [])
    assert train.bar.value() <= 0 and preview.bar.value() <= 0


def test_a_destination_beside_the_file_is_proposed(viewer, qtbot, tmp_path):
    viewer.open(a_stack(tmp_path / "stack.ome.tif"), plugin=PLUGIN)
    volume = dock(viewer, "Volume")
    assert volume.destination.value == tmp_path / "stack_SR.ome.zarr"
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    volume.layer.value = viewer.layers["cells"]
    assert volume._target() is None, "a layer without a file has none"
    volume.destination.value = tmp_path / "mine.ome.zarr"
    volume.destination.propose(volume.layer.value)
    assert volume.destination.value == tmp_path / "mine.ome.zarr", "the user's own is kept"
    volume.layer.value = viewer.layers["stack"]
    assert volume.destination.value == tmp_path / "stack_SR.ome.zarr", "but not for another layer"
    field = volume.destination.line_edit.native
    field.selectAll()
    QTest.keyClicks(field, str(tmp_path / "typed.ome.zarr"))  # the first letter is a path without a name
    assert volume.destination.path == tmp_path / "typed.ome.zarr" and not volume.complaining


def test_channels_of_one_file_are_proposed_different_destinations(viewer, tmp_path):
    path, data = tmp_path / "two.ome.tif", np.stack([textured_volume((4, 16, 16), seed) for seed in range(2)])
    info = ImageInfo("czyx", (2.5, 1, 1), "micrometer", channel_names=("signal", "back/ground"))
    write_image(da.from_array(data), path, info)
    layers = viewer.open(path, plugin=PLUGIN)
    volume, names = dock(viewer, "Volume"), []
    for layer in layers:
        volume.layer.value = layer
        names.append(volume.destination.value.name)
    assert sorted(names) == ["two_back_ground_SR.ome.zarr", "two_signal_SR.ome.zarr"]


def test_a_start_that_is_refused_changes_no_layer(viewer, qtbot, tmp_path):
    viewer.open(a_stack(tmp_path / "stack.ome.tif"), plugin=PLUGIN)
    (tmp_path / "stack_SR.ome.zarr").mkdir()
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(), "a model")
    press(qtbot, volume, "start")
    assert "exists already" in volume.message.text()
    assert volume.result is None and [layer.name for layer in viewer.layers] == ["stack"]
    volume.session.use_model(model_for(filters=4), "another")
    assert not volume.complaining, "it was about another model"


def test_start_writes_an_ome_tiff(viewer, qtbot, tmp_path):
    viewer.add_image(cells(), scale=(2.5, 1, 1), units=["um"] * 3, name="cells")
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(), "a model")
    volume.destination.value = tmp_path / "out.ome.tif"
    press(qtbot, volume, "start")
    qtbot.waitUntil(lambda: volume.message.text().startswith("Saved") or volume.complaining, timeout=TIMEOUT)
    assert not volume.complaining, volume.message.text()
    result = volume.result.result
    assert np.array_equal(
        np.asarray(open_image(tmp_path / "out.ome.tif").data), result.compute((), Box.whole(result.sr_shape))
    )


def test_channels_that_would_look_alike_get_different_colours(viewer, tmp_path):
    data = np.stack([textured_volume((4, 16, 16), seed) for seed in range(3)])
    for count, expected in ((2, ["magenta", "green"]), (3, ["cyan", "yellow", "magenta"])):
        path = tmp_path / f"{count}.ome.tif"
        write_image(da.from_array(data[:count]), path, ImageInfo("czyx", (2.5, 1, 1), "micrometer"))
        layers = viewer.open(path, plugin=PLUGIN)
        assert all(isinstance(layer, Image) for layer in layers)
        assert [layer.colormap.name for layer in layers] == expected
    QApplication.processEvents()
