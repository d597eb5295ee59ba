"""The step Trust in a real window: maps that follow the view, a number under the mouse, and what they say."""

from __future__ import annotations

import re

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from conftest import a_source
from files import with_tail
from napari_cropeq.compute.consistency import consistency_of
from napari_cropeq.compute.super_resolution import SuperResolution, with_error
from napari_cropeq.core.geometry import Box
from napari_cropeq.gui.what_to_trust import with_error_text
from napari_cropeq.gui.widgets import trust
from napari_cropeq.run.export import export
from napari_cropeq.view.maps import CONSISTENCY, ERROR
from window import TIMEOUT, cells, dock, model_for

SHAPE = (12, 40, 48)
SR_SHAPE = (30, 40, 48)


def begin(viewer, qtbot, model=None):
    panel = dock(viewer, "Trust")
    panel.session.use_model(model or with_tail(model_for()), "a model")
    panel.buttons["show_maps"].native.click()
    settle(qtbot, panel)
    return panel


def settle(qtbot, panel) -> None:
    """Wait until the maps of the view are computed and shown, and the message is up to date."""

    def settled() -> bool:
        """Return whether nothing is due: while this waited, the canvas may have got another size, and so the view."""
        if panel.result.layer not in panel.viewer.layers or panel.result.looking:
            return False
        panel._show_soon.flush()
        panel.show_state()
        return not panel.result.looking and all(layer.loaded for layer in panel.viewer.layers)

    qtbot.wait(80)  # tiles are requested once the view has stopped changing
    qtbot.waitUntil(settled, timeout=TIMEOUT)
    qtbot.wait(120)
    qtbot.waitUntil(settled, timeout=TIMEOUT)
    assert not panel.complaining, panel.message.text()


def shown(layer) -> np.ndarray:
    return np.asarray(layer._slice.image.raw)


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """Return both maps of the whole volume, computed at once."""
    result = SuperResolution(a_source(cells(SHAPE)), with_tail(model_for()), device="cpu")
    whole = Box.whole(result.sr_shape)
    both = result.compute((), whole, dtype=with_error(result))
    judge = consistency_of(result, ())
    acquired = np.asarray(result.volume(())[judge.samples(whole).slices])
    return {
        "voxels": both["voxels"],
        ERROR: both["error"],
        CONSISTENCY: judge.map(both["voxels"], whole, acquired, whole),
    }


VIEWS = [
    pytest.param((0, 1, 2), 7, id="lateral"),
    pytest.param((1, 0, 2), 20, id="axial"),
    pytest.param((2, 1, 0), 33, id="axial-turned"),
]


@pytest.mark.parametrize(("order", "step"), VIEWS)
def test_the_maps_in_view_have_the_bits_of_the_whole(viewer, qtbot, expected, order, step):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    viewer.dims.order = order
    panel = begin(viewer, qtbot)
    viewer.dims.set_current_step(order[0], step)
    settle(qtbot, panel)
    for kind in (ERROR, CONSISTENCY):
        panel.map.value = kind
        settle(qtbot, panel)
        image = panel.maps.images[kind]
        assert image.visible and [other.visible for own, other in panel.maps.images.items() if own != kind] == [False]
        place = [slice(None)] * 3
        place[order[0]] = viewer.dims.current_step[order[0]]
        plane = np.moveaxis(expected[kind], order, (0, 1, 2))[place[order[0]]]
        assert np.array_equal(shown(image), plane)
    assert np.array_equal(panel.maps.images[ERROR].scale, panel.result.layer.scale)
    assert np.array_equal(panel.maps.images[ERROR].translate, panel.result.layer.translate)


def test_the_sentences_and_the_colours(viewer, qtbot, expected):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    viewer.dims.order = (1, 0, 2)
    panel = begin(viewer, qtbot)
    of_view = expected[ERROR][panel.result.follower.view.box.slices]
    text = panel.message.text()
    number = float(re.search(r"The expected error in view is ([\d.,]+) on average", text)[1].replace(",", ""))
    assert number == pytest.approx(of_view.mean(), rel=0.01)
    assert "Re-imaged, the result differs from the acquired slices" in text
    assert "inferred" not in text, "only at large factors"
    limits = panel.maps.images[ERROR].contrast_limits
    assert limits == pytest.approx([0, np.quantile(of_view, 0.995)])
    assert panel.maps.images[ERROR].colorbar.visible


def test_a_view_is_judged_once(viewer, qtbot, monkeypatch):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel, judged = begin(viewer, qtbot), []
    monkeypatch.setattr(trust, "what_to_trust", lambda *_: judged.append(1) or ["judged"])
    for _ in range(3):  # as during a run over the volume
        panel.show_state()
    assert judged == []
    viewer.dims.set_current_step(0, 3)
    settle(qtbot, panel)
    panel.show_state()
    assert judged == [1] and panel.message.text() == "judged"


def test_most_is_inferred_at_a_large_factor(viewer, qtbot):
    viewer.add_image(cells(SHAPE), scale=(6, 1, 1), name="cells")
    panel = begin(viewer, qtbot, with_tail(model_for(factor=6)))
    assert "The model does not say that this is its image" in panel.message.text()
    assert "Of 6 slices of the result, 1 was acquired and 5 are inferred" in panel.message.text()


def test_a_number_under_the_mouse(viewer, qtbot, expected):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = begin(viewer, qtbot)
    canvas = viewer.window._qt_viewer.canvas.native
    middle, corner = QPoint(canvas.width() // 2, canvas.height() // 2), QPoint(1, 1)

    def moved_around(place: QPoint) -> str:
        """Return what is shown after the mouse has moved; the pointer of the screen, which others share, does not."""
        for move in (QPoint(0, 0), QPoint(2, 3)):
            local, none = QPointF(place + move), Qt.MouseButton.NoButton
            everywhere = QPointF(canvas.mapToGlobal(place + move))
            kind, keys = QEvent.Type.MouseMove, Qt.KeyboardModifier.NoModifier
            QApplication.sendEvent(canvas, QMouseEvent(kind, local, everywhere, none, none, keys))
        qtbot.wait(20)
        return panel.under.value

    qtbot.waitUntil(lambda: moved_around(middle) != "", timeout=TIMEOUT)
    index = np.rint(panel.result.layer.world_to_data(viewer.cursor.position)).astype(int)
    found = tuple(float(expected[name][tuple(index)]) for name in ("voxels", ERROR))
    assert panel.under.value == with_error_text(*found)
    index[0] = 4
    viewer.dims.set_current_step(0, 4)
    settle(qtbot, panel)
    found = tuple(float(expected[name][tuple(index)]) for name in ("voxels", ERROR))
    assert panel.under.value == with_error_text(*found), "also after the slider has moved"
    viewer.scene.camera.zoom /= 4
    settle(qtbot, panel)
    qtbot.waitUntil(lambda: moved_around(corner) == "", timeout=TIMEOUT)


TEXTS = [
    pytest.param(712.3, 41.4, "712 ± 41", id="integers"),
    pytest.param(0.81234, 0.0123, "0.812 ± 0.012", id="fractions"),
    pytest.param(61234.0, 1234.5, "61,234 ± 1,234", id="large"),
    pytest.param(5.0, 0.0, "5 ± 0", id="none"),
]


@pytest.mark.parametrize(("value", "error", "text"), TEXTS)
def test_a_voxel_in_words(value, error, text):
    assert with_error_text(value, error) == text


def test_a_model_without_expected_error(viewer, qtbot):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = begin(viewer, qtbot, model_for())
    assert panel.message.text().startswith("The model has no expected error")
    assert "Re-imaged" in panel.message.text() and list(panel.maps.images) == [CONSISTENCY]
    assert panel.map.value == CONSISTENCY and panel.maps.images[CONSISTENCY].visible


def test_another_model_gets_other_layers(viewer, qtbot):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = begin(viewer, qtbot)
    first = dict(panel.maps.images)
    panel.session.use_model(with_tail(model_for(filters=6)), "another")
    panel.buttons["show_maps"].native.click()
    settle(qtbot, panel)
    assert not any(image in viewer.layers for image in first.values())
    assert panel.maps.images[ERROR].visible and panel.maps.images[ERROR] not in first.values()


def test_stop_and_the_3d_display(viewer, qtbot):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = begin(viewer, qtbot)
    assert panel.buttons["stop"].enabled
    viewer.dims.ndisplay = 3
    qtbot.waitUntil(lambda: panel.message.text().startswith("The maps are shown in slices"), timeout=TIMEOUT)
    viewer.dims.ndisplay = 2
    settle(qtbot, panel)
    panel.buttons["stop"].native.click()
    assert not panel.buttons["stop"].enabled and not panel.result.follower.following
    assert panel.message.text().startswith("Stopped.")
    assert not panel.result.worker.in_view.maps.wanted, "a preview that follows the view computes no maps"
    viewer.layers.remove(panel.maps.images[ERROR])
    panel.buttons["show_maps"].native.click()
    settle(qtbot, panel)
    assert panel.maps.images[ERROR] in viewer.layers


def test_the_resolution_of_the_whole_volume(viewer, qtbot):
    viewer.add_image(cells((16, 72, 80)), scale=(2.5, 1, 1), name="cells")
    panel = begin(viewer, qtbot)
    panel.buttons["measure_resolution"].native.click()
    assert panel.message.text().startswith("The resolution is measured on the whole volume, which is not computed yet")
    volume = dock(viewer, "Volume")
    volume.buttons["start"].native.click()
    qtbot.waitUntil(lambda: panel.result.state.complete, timeout=TIMEOUT)
    panel = dock(viewer, "Trust")
    panel.buttons["measure_resolution"].native.click()
    qtbot.waitUntil(lambda: not panel.busy and panel.bar.value() == 1000, timeout=TIMEOUT)
    qtbot.wait(50)
    assert "finest structure of the result along z" in panel.message.text(), panel.message.text()
    assert "no proof of resolution" in panel.message.text()
    viewer.dims.set_current_step(0, 3)
    settle(qtbot, panel)
    assert "Re-imaged" in panel.message.text() and "no proof of resolution" in panel.message.text(), "it stays"


def test_no_map_stays_without_its_dock(viewer, qtbot):
    viewer.add_image(cells(SHAPE), scale=(2.5, 1, 1), name="cells")
    panel = begin(viewer, qtbot)
    assert len(viewer.layers) == 4
    in_view = panel.result.worker.in_view
    viewer.window.remove_dock_widget("all")
    assert not in_view.maps.wanted
    assert [layer.name for layer in viewer.layers] == ["cells", "cells SR (a model)"]
    del panel


def test_expected_errors_in_a_file_are_no_source(viewer, tmp_path):
    result = SuperResolution(a_source(cells(SHAPE)), with_tail(model_for()), planes="x", device="cpu")
    for _ in export(result, tmp_path / "out.ome.zarr", error=True):
        pass
    [layer] = viewer.open(tmp_path / "out.error.ome.zarr", plugin="napari-cropeq")
    assert layer.name == "out.error" and layer.colormap.name == "inferno"
    assert layer not in dock(viewer, "Trust").layer.sources()
