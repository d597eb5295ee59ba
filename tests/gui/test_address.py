"""Images at an address in a real window: it does not wait for the server, and nothing differs from a file."""

from __future__ import annotations

import threading

import dask.array as da
import numpy as np
import pytest
from napari.settings import get_settings
from qtpy.QtCore import Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QInputDialog, QLineEdit

from napari_cropeq.compute.super_resolution import SuperResolution
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.ome_zarr import remote
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.write import write_image
from web_server import serving
from window import TIMEOUT, cells, dock, model_for, settle

SHAPE = (12, 72, 80)


@pytest.fixture
def asynchronous(monkeypatch):
    """Put the setting of napari back that an image at an address changes."""
    yield
    get_settings().experimental.async_ = False


@pytest.fixture
def served(tmp_path, asynchronous, monkeypatch):
    """Serve a folder with ``a.ome.zarr``."""
    monkeypatch.setattr(remote, "PAUSES", (0.01,))
    monkeypatch.setattr(remote, "KEPT", 0)  # or a test would not know what is asked for
    volume = da.from_array(cells(SHAPE), chunks=(4, 40, 40))
    write_image(volume, tmp_path / "a.ome.zarr", ImageInfo("zyx", (2.5, 1.0, 1.0), "micrometer"))
    with serving(tmp_path) as served:
        yield served


def loaded(viewer, qtbot) -> None:
    qtbot.waitUntil(lambda: all(layer.loaded for layer in viewer.layers), timeout=TIMEOUT)


def test_preview_of_an_image_at_an_address(viewer, qtbot, served):
    url = f"{served.url}/a.ome.zarr"
    (layer,) = viewer.open(url, plugin="napari-cropeq")
    assert layer.source.path == url and layer.name == "a" and str(layer.units[-1]) == "micrometer"
    assert get_settings().experimental.async_, "the window does not wait for the server"
    loaded(viewer, qtbot)
    panel = dock(viewer, "Preview")
    panel.session.use_model(model_for(), "a model")
    panel.buttons["preview"].native.click()
    settle(viewer, qtbot, panel)
    view = panel.result.follower.view
    here = SuperResolution(open_image(served.folder / "a.ome.zarr"), panel.session.model, device="cpu")
    assert np.array_equal(np.asarray(panel.result.layer.data[view.box.slices]), here.compute((), view.box))
    assert panel.result.result.source.remote and panel.result.result.source.path == url
    assert dock(viewer, "Volume").destination.path is None, "no file is proposed beside an address"


def test_the_window_does_not_wait_for_the_server(viewer, qtbot, served):
    (layer,) = viewer.open(f"{served.url}/a.ome.zarr", plugin="napari-cropeq")
    loaded(viewer, qtbot)
    served.wait = threading.Event()
    asked = len(served.answers)
    try:
        viewer.dims.set_point(0, 2.5 * 11)  # these slices were not read yet
        qtbot.waitUntil(lambda: not layer.loaded, timeout=TIMEOUT)
        viewer.dims.set_point(0, 2.5 * 9)  # the window goes on
        assert len(served.answers) == asked, "nothing has been answered"
    finally:
        served.wait.set()
    loaded(viewer, qtbot)
    assert np.array_equal(np.asarray(layer._slice.image.raw), cells(SHAPE)[9])


def test_a_failing_server_is_a_sentence_and_the_preview_goes_on_when_it_answers_again(viewer, qtbot, served):
    viewer.open(f"{served.url}/a.ome.zarr", plugin="napari-cropeq")
    loaded(viewer, qtbot)
    panel = dock(viewer, "Preview")
    panel.session.use_model(model_for(), "a model")
    served.fail = lambda path, number: 503 if "/c/" in path else None
    panel.buttons["preview"].native.click()
    qtbot.waitUntil(lambda: panel.complaining, timeout=TIMEOUT)
    text = panel.message.text()
    assert "did not give" in text and "503 Service Unavailable" in text and "Check the connection" in text
    served.fail = lambda path, number: None
    panel.buttons["preview"].native.click()
    settle(viewer, qtbot, panel)
    assert not panel.complaining


def test_an_address_is_asked_for_again_until_it_is_one(viewer, qtbot, served):
    seen = []

    def answer(*lines: str) -> None:
        dialog = QApplication.activeModalWidget()
        assert isinstance(dialog, QInputDialog)
        seen.append(dialog.labelText())
        field = dialog.findChild(QLineEdit)
        field.selectAll()
        QTest.keyClicks(field, lines[0])
        if lines[1:]:
            QTimer.singleShot(0, lambda: answer(*lines[1:]))
        QTest.keyClick(field, Qt.Key_Return)

    file = next(a.menu() for a in viewer.window._qt_window.menuBar().actions() if a.text().replace("&", "") == "File")
    utilities = next(action.menu() for action in file.actions() if action.text() == "IO Utilities")
    entry = next(action for action in utilities.actions() if action.text().startswith("Open OME-Zarr at an address"))
    QTimer.singleShot(0, lambda: answer("a.zarr", f" {served.url}/a.ome.zarr "))
    entry.trigger()
    assert [layer.name for layer in viewer.layers] == ["a"]
    assert not seen[0].startswith("This is not an address") and seen[1].startswith("This is not an address")
