"""One napari window for the tests of a module, because opening one takes longer than most tests.

It is created like that of napari's ``make_napari_viewer``, and checked for leaks in the same way after the module.
"""

from __future__ import annotations

import gc
import os
from concurrent.futures import Future
from typing import Any, ClassVar

import pytest
from napari import Viewer
from napari._app_model._app import NapariApplication, _napari_names
from napari._qt._qapp_model.qactions import init_qactions
from napari._qt.qt_viewer import QtViewer
from napari.components import ViewerModel
from napari.plugins import _initialize_plugins
from napari.settings import get_settings
from qtpy import API_NAME
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QApplication, QWidget

from napari_cropeq.gui import session

SIZE = (800, 560)


class KeptFuture(Future):
    """A future that stays until it has its result.

    superqt makes one for each slice that napari computes in the background, and napari drops it in that thread. With
    PySide6 a signal is then disconnected there: PySide6 waits for the interpreter while it holds one of Qt's locks, and
    the window's thread may hold the interpreter while it waits for that lock.
    """

    _waiting: ClassVar[set[Future]] = set()

    def __init__(self) -> None:
        super().__init__()
        self._waiting.add(self)
        self.add_done_callback(self._waiting.discard)


class SharedWindow:
    """A napari window that is reset after each test; if a test closes it, it is opened again."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._viewer: Viewer | None = None
        patch.setattr("napari._qt.threads.status_checker.StatusChecker.start", lambda _: None)
        patch.setattr("napari._qt.qt_viewer.QtViewer._get_console", lambda _: QWidget())
        if API_NAME == "PySide6":
            patch.setattr("superqt.utils._ensure_thread.Future", KeptFuture)

    def viewer(self, qtbot: Any) -> Viewer:
        """Return the viewer, which is empty."""
        get_settings().reset()
        get_settings().experimental.async_ = os.environ.get("NAPARI_ASYNC", "0") != "0"
        if self._viewer is None:
            app = NapariApplication("tests")
            app.injection_store.namespace = _napari_names
            self._patch.setattr(NapariApplication, "get_app_model", lambda: app)
            self._viewer = Viewer(show=True, show_welcome_screen=False)
            qtbot.wait_exposed(self._viewer.window._qt_window, timeout=5000)
            self._callbacks = callbacks_of(self._viewer)
        self._viewer.window.resize(*SIZE)
        QApplication.processEvents()
        return self._viewer

    def clean(self, failed: bool) -> None:
        """Reset the window, or close it after a failed test."""
        if self._viewer is None:
            return
        if failed or not hasattr(self._viewer.window, "_qt_window"):  # closed by the test
            self.close()
            return
        viewer, fresh = self._viewer, ViewerModel()
        viewer.layers.clear()
        viewer.window.remove_dock_widget("all")
        session._end(id(viewer))
        viewer.canvas.grid.enabled = False
        viewer.dims.ndim, viewer.dims.ndisplay, viewer.dims.axis_labels = 2, 2, fresh.dims.axis_labels
        viewer.dims.reset()
        viewer.scene.camera.update(fresh.scene.camera.model_dump())
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QApplication.processEvents()
        assert callbacks_of(viewer) == self._callbacks, "no callback is left"

    def close(self) -> None:
        """Close the window."""
        viewer, self._viewer = self._viewer, None
        if viewer is None:
            return
        if hasattr(viewer.window, "_qt_window"):
            viewer.window._qt_window._save_current_window_settings = lambda: None
            viewer.close()
        NapariApplication.destroy("tests")
        _initialize_plugins.cache_clear()
        init_qactions.cache_clear()
        get_settings().reset()


def viewers_left() -> int:
    """Return how many viewers are left behind, and remove them."""
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    gc.collect()
    left = len(QtViewer._instances)
    QtViewer._instances.clear()
    return left


def callbacks_of(viewer: Viewer) -> dict[str, list[Any]]:
    """Return the callbacks for the mouse and the keys."""
    kinds = ("move", "drag", "wheel", "double_click")
    return {kind: list(getattr(viewer, f"mouse_{kind}_callbacks")) for kind in kinds} | {"keys": list(viewer.keymap)}
