"""A napari window that is used with the mouse and the keyboard, and pictures of it: for the scripts that make pictures.

The pictures have a palette of 256 colours, which makes them a third as large, with no visible difference.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import napari
import numpy as np
import tifffile
from PIL import Image, ImageDraw
from qtpy.QtCore import QBuffer, QPoint, QRect, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QApplication, QLabel, QMenu, QPushButton, QWidget

from napari_cropeq.gui.widgets.dock import Steps

PLUGIN = "napari-cropeq"
MARK = (255, 160, 0)  # colour of the frames around what is pressed


class Window:
    """A napari window that is used with mouse and keyboard; :attr:`clicks` counts."""

    def __init__(self, width: int, height: int) -> None:
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(width, height)
        self.clicks = 0
        self.words: set[tuple[str, str]] = set()  # of each step, those in sight
        self.spin(1)

    @property
    def native(self) -> Any:
        """The window of Qt."""
        return self.viewer.window._qt_window

    @staticmethod
    def spin(seconds: float, until: Callable[[], Any] = lambda: False) -> None:
        """Process events of the window for some time, or until a condition holds."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and not until():
            QApplication.processEvents()
            time.sleep(0.005)

    def open(self, step: str) -> Any:
        """Open a step as the menu does, which takes three clicks, and return its panel."""
        widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, step)[1]
        self.clicks += 3
        self.spin(0.5)
        self.viewer.fit_to_view()
        self.steps: Steps = widget.steps
        return self._read(widget.panels[step])

    def go(self, step: str) -> Any:
        """Click on the tab of a step, and return its panel."""
        tabs = self.steps.tabs
        bar, index = tabs.tabBar(), tabs.indexOf(self.steps.panels[step])
        QTest.mouseClick(bar, Qt.MouseButton.LeftButton, pos=bar.tabRect(index).center())
        self.clicks += 1
        self.spin(0.3)
        return self._read(self.steps.panels[step])

    def click(self, button: QPushButton) -> None:
        """Click on a button."""
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        self.clicks += 1
        self.spin(0.1)

    def type(self, field: Any, text: str) -> None:
        """Replace the text of a field, and press Return."""
        field.setFocus()
        field.selectAll()
        QTest.keyClicks(field, text)
        QTest.keyClick(field, Qt.Key.Key_Return)
        self.spin(0.2)

    def menu(self, *words: str) -> list[QRect]:
        """Open menus one in another, up to the entry that starts with the last word, but do not choose it.

        Returns
        -------
        list of QRect
            Where the entries are, in pixels of the screen.
        """
        bar, found = self.native.menuBar(), []
        for word in words:
            action = next(action for action in bar.actions() if action.text().replace("&", "").startswith(word))
            area = bar.actionGeometry(action)
            found.append(QRect(bar.mapToGlobal(area.topLeft()), area.size()))
            if word == words[-1]:
                bar.setActiveAction(action)
            else:
                QTest.mouseClick(bar, Qt.MouseButton.LeftButton, pos=area.center())
                bar = action.menu()
            self.clicks += 1
            self.spin(0.4)
        return found

    def choose(self) -> None:
        """Choose the active entry of the menu that is open."""
        menu: QMenu = QApplication.activePopupWidget()
        area = menu.actionGeometry(menu.activeAction())
        QTest.mouseClick(menu, Qt.MouseButton.LeftButton, pos=area.center())
        self.spin(0.5)

    def axial(self) -> None:
        """Roll the axes, so that y is the axis of the slider."""
        self.viewer.dims.order = (1, 0, 2)
        self.viewer.fit_to_view()

    def picture(self) -> Image.Image:
        """Return a picture of the whole window."""
        return Image.fromarray(np.asarray(self.viewer.screenshot(canvas_only=False, flash=False))[..., :3])

    def screen(self) -> Image.Image:
        """Return a picture of the screen where the window is, with open menus."""
        area = self.native.frameGeometry()
        grabbed = QApplication.primaryScreen().grabWindow(0, area.x(), area.y(), area.width(), area.height())
        buffer = QBuffer()
        grabbed.save(buffer, "PNG")
        return Image.open(BytesIO(buffer.data().data())).convert("RGB")

    def place(self, widget: QWidget) -> QRect:
        """Return where a widget is, in pixels of the window."""
        return QRect(widget.mapTo(self.native, QPoint(0, 0)), widget.size())

    def _read(self, panel: Any) -> Any:
        """Collect the words that a step shows."""
        for label in [*panel.findChildren(QLabel), *panel.findChildren(QAbstractButton)]:
            if not label.visibleRegion().isEmpty():
                self.words.add((type(panel).__name__, label.text()))
        return panel


def marked(image: Image.Image, areas: Iterable[QRect]) -> Image.Image:
    """Return a picture with a frame around each area."""
    drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    for area in areas:
        corners = (area.left() - 4, area.top() - 4, area.right() + 4, area.bottom() + 4)
        pen.rounded_rectangle(corners, radius=7, outline=MARK, width=3)
    return drawn


def save(image: Image.Image, path: Path) -> None:
    """Write a picture as a PNG with a palette of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


@contextmanager
def folder_named(name: str) -> Iterator[Path]:
    """Give an empty folder whose path can be read in a picture, and remove it at the end."""
    folder = Path(tempfile.gettempdir()) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_stack(path: Path, stack: np.ndarray, scale: Any) -> None:
    """Write a stack (z, y, x) with its voxel size in micrometres."""
    metadata: dict[str, Any] = {"axes": "ZYX"}
    for axis, step in zip("ZYX", scale, strict=True):
        metadata |= {f"PhysicalSize{axis}": float(step), f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, stack, metadata=metadata, photometric="minisblack", ome=True)
