"""The animated picture of the README: tiles of an axial view appear, then the border of the curtain moves over it.

The window is real, and is used with the mouse. A network is trained on a stack of drawn vessels before it opens; its
axial view has more tiles than that of the sample. Screenshots do not contain the mouse, so it is drawn.

    scripts/with-display python scripts/preview_animation.py [--patches 1500] [--model MODEL]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

import napari_cropeq as cq
from driven_window import PLUGIN, Window, write_stack
from napari_cropeq.core.model import Model
from napari_cropeq.evidence.evaluate.truth import degrade
from napari_cropeq.formats.phantom import draw_background, draw_vessels
from napari_cropeq.gui.compare.border import Border

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "preview.gif"
WIDTH, HEIGHT, DOCK = 1000, 600, 380
SHAPE, FACTOR = (216, 128, 480), 3.0  # of the drawn vessels (z, y, x); slices are 3 voxels apart
ZOOM = 1.7  # so that single voxels can be seen
STEP = 1.2  # micrometres between slices
TILES_SECONDS = 2.5  # at most, for the tiles to appear
ARROW = ((0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12))  # the mouse, px


@dataclass
class Frame:
    """A picture, and how long it is shown."""

    image: Image.Image
    seconds: float


class Film:
    """Frames of a window, with the mouse."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.frames: list[Frame] = []
        self.mouse = QPoint(WIDTH // 2, HEIGHT // 2)

    def add(self, seconds: float, pressed: bool = False) -> None:
        """Add a frame of the window as it is."""
        image = self.window.picture()
        pen = ImageDraw.Draw(image)
        x, y = self.mouse.x(), self.mouse.y()
        if pressed:
            pen.ellipse((x - 13, y - 13, x + 13, y + 13), outline="white", width=3)
        pen.polygon([(x + a, y + b) for a, b in ARROW], fill="white", outline="black")
        self.frames.append(Frame(image, seconds))

    def move(self, place: QPoint, steps: int = 8) -> None:
        """Move the mouse to a place in the window."""
        start = self.mouse
        for step in range(1, steps + 1):
            share = 0.5 - 0.5 * float(np.cos(np.pi * step / steps))
            self.mouse = start + (place - start) * share
            self.add(0.05)

    def press(self, widget: Any, at: QPoint) -> None:
        """Move the mouse to a place in a widget, and click."""
        self.move(widget.mapTo(self.window.native, at))
        self.add(0.25, pressed=True)
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton, pos=at)

    def drag(self, border: Any, to: float, steps: int) -> None:
        """Drag the border of the curtain to a share of the width of the canvas."""
        canvas = border.parentWidget()
        middle = canvas.height() // 2
        self.move(canvas.mapTo(self.window.native, QPoint(border.edge, middle)), 6)
        grip = border.mapFrom(canvas, QPoint(border.edge, middle))
        QTest.mousePress(border, Qt.MouseButton.LeftButton, pos=grip)
        start = border.edge
        for step in range(1, steps + 1):
            share = 0.5 - 0.5 * float(np.cos(np.pi * step / steps))
            x = round(start + (to * canvas.width() - start) * share)
            QTest.mouseMove(border, border.mapFrom(canvas, QPoint(x, middle)))
            self.window.spin(0.05)
            self.mouse = canvas.mapTo(self.window.native, QPoint(border.edge, middle))
            self.add(0.06)
        QTest.mouseRelease(border, Qt.MouseButton.LeftButton, pos=border.mapFrom(canvas, QPoint(border.edge, middle)))


def stack() -> np.ndarray:
    """Return drawn vessels as a microscope with thick slices shows them (z, y, x)."""
    rng = np.random.default_rng(3)
    vessels = np.max([draw_vessels(rng, SHAPE) for _ in range(4)], axis=0)
    photons = degrade(240 * vessels + 7 * draw_background(rng, SHAPE), 0, FACTOR).source
    counts = 100 + 2 * rng.poisson(np.maximum(photons, 0)) + 3 * rng.standard_normal(photons.shape)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)


def film(window: Window, model: Model, path: Path) -> Film:
    """Use the window, and return what was seen."""
    viewer = window.viewer
    (layer,) = viewer.open(path, plugin=PLUGIN)
    layer.contrast_limits = (100, float(np.percentile(np.asarray(layer.data), 99.8)))
    panel = window.open("Preview")
    for dock in (window.native._qt_viewer.dockLayerControls, window.native._qt_viewer.dockLayerList):
        dock.hide()
    window.native.resizeDocks([window.steps.parentWidget().parentWidget()], [DOCK], Qt.Orientation.Horizontal)
    panel.session.use_model(model, "stack.safetensors")
    window.click(panel.buttons["show_axial_view"].native)
    window.spin(0.5)
    viewer.fit_to_view()
    viewer.scene.camera.zoom *= ZOOM
    window.spin(1)
    shown = Film(window)
    shown.add(0.7)
    button = panel.buttons["preview"].native
    shown.press(button, button.rect().center())
    first, started = len(shown.frames), time.perf_counter()
    while panel.result is None or not panel.result.state.ready or panel.result.looking:
        before = time.perf_counter()
        window.spin(0.02)
        shown.add(time.perf_counter() - before)
    window.spin(0.5)
    seconds = time.perf_counter() - started
    shown.frames[first:] = quicken(shown.frames[first:], TILES_SECONDS)
    print(f"All tiles in view: {seconds:.1f} s, shown within {min(seconds, TILES_SECONDS):.1f} s")
    shown.add(0.7)
    shown.press(panel.curtain.native, QPoint(10, panel.curtain.native.height() // 2))
    window.spin(0.3)
    shown.add(0.5)
    border = window.native.findChild(Border)
    for to, steps in ((0.12, 10), (0.88, 18), (0.5, 10)):
        shown.drag(border, to, steps)
    shown.add(1.2)
    return shown


def quicken(frames: Sequence[Frame], most: float, least: float = 0.06) -> list[Frame]:
    """Return frames that take at most ``most`` seconds together; those of less than ``least`` seconds are merged."""
    factor = min(1.0, most / max(sum(frame.seconds for frame in frames), 1e-9))
    quick: list[Frame] = []
    for frame in frames:
        shown = Frame(frame.image, frame.seconds * factor)
        if quick and quick[-1].seconds < least:
            shown.seconds += quick.pop().seconds
        quick.append(shown)
    return quick


def write_gif(frames: Sequence[Frame], path: Path) -> None:
    """Write frames as a GIF with one palette for all; equal frames in a row become one."""
    kept: list[Frame] = []
    for frame in frames:
        if kept and frame.image.tobytes() == kept[-1].image.tobytes():
            kept[-1].seconds += frame.seconds
        else:
            kept.append(Frame(frame.image, frame.seconds))
    some = kept[:: max(1, len(kept) // 12)]
    strip = Image.new("RGB", (some[0].image.width, sum(frame.image.height for frame in some)))
    for number, frame in enumerate(some):
        strip.paste(frame.image, (0, number * frame.image.height))
    palette = strip.quantize(255, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    images = [frame.image.quantize(palette=palette, dither=Image.Dither.NONE) for frame in kept]
    durations = [max(20, round(frame.seconds * 100) * 10) for frame in kept]  # milliseconds; a GIF counts hundredths
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, disposal=1, optimize=True)
    print(f"{path}: {len(images)} frames, {sum(durations) / 1000:.1f} s, {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Train, use the window, and write the animation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=1500, help="of training")
    parser.add_argument("--model", type=Path, help="kept here; if it exists, nothing is trained")
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.ome.tif"
        write_stack(path, stack(), (STEP, STEP / FACTOR, STEP / FACTOR))
        if options.model is not None and options.model.exists():
            model = Model.load(options.model)
        else:
            model = cq.train(path, patches=options.patches)
            if options.model is not None:
                model.save(options.model)
        window = Window(WIDTH, HEIGHT)
        shown = film(window, model, path)
        window.viewer.close()
    write_gif(shown.frames, options.out)


if __name__ == "__main__":
    main()
