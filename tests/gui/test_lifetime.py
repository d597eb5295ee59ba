"""Qt objects are deleted in the window's thread: Python may collect garbage in any thread, and then deletes them there.

PyQt6 defers such a deletion, PySide6 does not: it crashes, or deletes twice what a parent has deleted.
"""

from __future__ import annotations

import gc
import sys
import threading

import pytest
from qtpy.compat import isalive
from qtpy.QtCore import QCoreApplication, QEvent, QObject, Qt
from qtpy.QtWidgets import QApplication, QLabel

from napari_cropeq.gui.jobs import Job
from napari_cropeq.gui.session import Session
from window import TIMEOUT, cells, dock, model_for, press

HARMLESS = {"EventFilter", "WidgetGroup"}  # of magicgui and pyqtgraph: without children, timers and signals


def deleted() -> None:
    """Let Qt delete what is to be deleted later."""
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QApplication.processEvents()


def collected() -> list[QObject]:
    """Return the living Qt objects that a collection of garbage, in whatever thread, would delete."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return [found for found in gc.garbage if isinstance(found, QObject) and isalive(found)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.fixture
def no_collection():
    """Leave all garbage to the test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def previewed(viewer, qtbot):
    """Compute a preview, with the curtain open."""
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    panel = dock(viewer, "Preview")
    panel.session.use_model(model_for(), "a model")
    press(qtbot, panel, "preview")
    qtbot.waitUntil(lambda: panel.result.layer in viewer.layers and not panel.result.looking, timeout=TIMEOUT)
    panel.curtain.native.click()
    assert panel.compare.curtain
    return panel


@pytest.mark.parametrize("name", ["Train", "Preview", "Volume", "Batch", "Trust"])
def test_a_closed_dock_is_deleted(viewer, no_collection, name):
    panel = dock(viewer, name)
    viewer.window.remove_dock_widget("all")
    deleted()
    assert not isalive(panel)
    del panel
    left = {type(found).__name__ for found in collected()}
    assert left <= HARMLESS


def test_everything_of_a_closed_dock_is_deleted(viewer, qtbot):
    panel = previewed(viewer, qtbot)
    result, compare = panel.result, panel.compare
    parts = [panel, compare, compare._curtain, result, result.follower, result.shown]
    viewer.window.remove_dock_widget("all")
    deleted()
    assert not any(isalive(part) for part in parts)


def test_a_comparison_can_be_closed_after_its_widget(viewer, qtbot):
    panel = previewed(viewer, qtbot)
    compare = panel.compare
    [widget] = viewer.window.dock_widgets.values()
    widget.deleteLater()
    deleted()
    compare.close()
    deleted()
    assert compare.closed and not isalive(compare)


def test_a_superseded_result_is_deleted(viewer, qtbot):
    panel = previewed(viewer, qtbot)
    first, compare = panel.result, panel.compare
    panel.session.use_model(model_for(filters=4), "another")
    press(qtbot, panel, "preview")
    qtbot.waitUntil(lambda: panel.result is not first and panel.result.layer in viewer.layers, timeout=TIMEOUT)
    deleted()
    assert not any(isalive(part) for part in (first, first.follower, first.shown, compare))


def test_calls_keep_the_number_of_references_to_none(qtbot):
    """PySide6 6.12.0 loses one at each call of a virtual method; before Python 3.12, the process ends at 0."""
    label, before = QLabel(), sys.getrefcount(None)
    for _ in range(1000):
        label.setToolTip("text")
    assert sys.getrefcount(None) > before - 500


def test_a_session_is_deleted_with_its_viewer(viewer, qtbot, shared_window):
    session = Session.of(viewer)
    shared_window.clean(failed=False)
    deleted()
    assert not isalive(session)


def test_a_job_that_nobody_keeps_ends_in_the_thread_of_the_window(qtbot):
    ended, threads, go = [], [], threading.Event()

    def steps():
        go.wait(10)
        yield 1

    def start() -> None:
        job = Job(steps)
        job.ended.connect(lambda: ended.append(threading.current_thread()))
        job.destroyed.connect(lambda: threads.append(threading.current_thread()), Qt.ConnectionType.DirectConnection)
        job.start()

    start()
    go.set()
    qtbot.waitUntil(lambda: bool(threads), timeout=TIMEOUT)
    assert ended == threads == [threading.main_thread()]
