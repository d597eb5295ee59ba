"""The five pictures of ``docs/start.md``: the window, used with the mouse from the sample to a saved result.

What is to be pressed next has an orange frame. The seconds that the page quotes are printed: run this on a machine that
does nothing else.

    scripts/with-display python scripts/start_pictures.py [--minutes 2]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from driven_window import Window, folder_named, marked, save

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "images" / "start"
WIDTH, HEIGHT = 1280, 780
LOW, MENUS = 600, (0, 0, 1030, 480)  # height of most pictures, and what is shown of the open menus, px
EYE = 44  # pixels from the left of a row of the layer list to its eye


class Start:
    """The steps of the page; each writes its picture, and :attr:`seconds` has how long the window took."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.window, self.folder, self.minutes = Window(WIDTH, HEIGHT), folder, minutes
        self.seconds: dict[str, float] = {}

    def write(self, name: str, *widgets: Any, height: int = LOW, whole: bool = False) -> None:
        """Write the picture of a step, with frames around widgets; without the layer list, it is easier to read."""
        window = self.window
        window.spin(0.5)
        left = 0 if whole else window.place(window.native.centralWidget()).left()
        picture = marked(window.picture(), map(window.place, widgets))
        save(picture.crop((left, 0, picture.width, height)), PICTURES / f"{name}.png")

    def timed(self, what: str, until: Any, most: float) -> None:
        """Wait for a condition, and keep how long that took."""
        started = time.perf_counter()
        self.window.spin(most, until)
        self.seconds[what] = round(time.perf_counter() - started, 1)
        if not until():
            raise TimeoutError(f"Not within {most:.0f} s: {what}")

    def open(self) -> None:
        """Open the sample, and leave one of its two channels."""
        window = self.window
        entries = window.menu("File", "Open Sample", "cropeq", "Light-sheet (")
        save(marked(window.screen(), entries[-1:]).crop(MENUS), PICTURES / "1-open.png")
        started = time.perf_counter()
        window.choose()
        self.seconds["sample opened"] = round(time.perf_counter() - started, 1)
        layers = window.viewer.window._qt_viewer.layers
        for row, at in ((0, EYE), (1, 2 * EYE)):  # hide the upper one, choose the lower one
            area = layers.visualRect(layers.model().index(row, 0))
            place = QPoint(area.left() + at, area.center().y())
            QTest.mouseClick(layers.viewport(), Qt.MouseButton.LeftButton, pos=place)
            window.spin(0.3)
        assert [layer.visible for layer in window.viewer.layers] == [True, False]

    def data(self) -> None:
        """Open the dock widget."""
        window = self.window
        window.menu("Plugins", "cropeq", "Data")
        window.choose()
        (dock,) = window.viewer.window.dock_widgets.values()
        window.steps = dock.steps
        source = window.steps.panels["Data"].source
        assert window.steps.layer.value is window.viewer.layers[0]
        self.write("2-data", *(field.native for field in (*source.voxel_size, source.fwhm)), whole=True)

    def train(self) -> None:
        """Train for some minutes."""
        window, train = self.window, self.window.go("Train")
        train.config.set_budget(minutes=self.minutes)  # what was used last is proposed
        window.click(train.buttons["start"].native)
        self.timed("first point of the curves", lambda: len(train.curves.points) > 0, 300)
        self.timed("training", lambda: train._job is None, 900)
        self.write("3-train", train.buttons["start"].native, height=HEIGHT)

    def preview(self) -> None:
        """Compute an axial view, and compare it with the acquired one."""
        window, panel = self.window, self.window.go("Preview")
        window.click(panel.buttons["show_axial_view"].native)
        window.click(panel.buttons["preview"].native)
        self.timed("first tile", lambda: panel.result is not None and panel.result.state.in_view[0] > 0, 120)
        self.timed("view", lambda: not panel.result.looking, 300)
        box = panel.curtain.native
        QTest.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(10, box.height() // 2))
        window.viewer.scene.camera.zoom *= 1.7
        window.spin(1)
        window.spin(120, lambda: not panel.result.looking)
        self.write("4-preview", panel.buttons["show_axial_view"].native, panel.buttons["preview"].native, box)

    def volume(self) -> None:
        """Compute the whole volume into a file."""
        window, panel = self.window, self.window.go("Volume")
        window.type(panel.destination.line_edit.native, str(self.folder / "vessels_SR.ome.zarr"))
        window.spin(30, lambda: "Result" in panel.estimate.text())
        window.click(panel.buttons["start"].native)
        self.timed("volume", lambda: panel.message.text().startswith("Saved"), 900)
        window.viewer.fit_to_view()
        self.write("5-volume", panel.destination.native, panel.buttons["start"].native)


def main() -> None:
    """Make the pictures, and print how long each step took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training")
    options = parser.parse_args()
    started = time.perf_counter()
    with folder_named("cropeq-start") as folder:
        start = Start(folder, options.minutes)
        start.seconds["window"] = round(time.perf_counter() - started, 1)
        for step in (start.open, start.data, start.train, start.preview, start.volume):
            step()
            print(step.__name__, flush=True)
        start.window.viewer.close()
    start.seconds["everything"] = round(time.perf_counter() - started, 1)
    for what, seconds in start.seconds.items():
        print(f"{what:26} {seconds:6.1f} s")


if __name__ == "__main__":
    main()
