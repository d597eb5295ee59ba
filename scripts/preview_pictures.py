"""Make the pictures of docs/preview.md from the built-in sample: every kind of view, in a real window.

scripts/with-display python scripts/preview_pictures.py [--minutes 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = "napari-cropeq"


def spin(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Process events of the window for some time, or until a condition holds."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not until():
        QApplication.processEvents()
        time.sleep(0.005)


def dock(viewer: napari.Viewer, name: str) -> Any:
    """Open a dock widget as the menu does."""
    return viewer.window.add_plugin_dock_widget(PLUGIN, name)[1].panels[name]


def main() -> None:
    """Train on the sample, show every kind of view, and save screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1200, 760)
    viewer.open_sample(PLUGIN, "light_sheet")
    neurons, source = viewer.layers[1], viewer.layers[0]
    neurons.visible = False
    train = dock(viewer, "Train")
    train.layer.value = source
    train.config.set_budget(minutes=options.minutes)
    train.buttons["start"].native.click()
    spin(60 * options.minutes + 60, lambda: train._job is None)
    viewer.window.remove_dock_widget("all")
    panel = dock(viewer, "Preview")
    panel.session.use_model(train.session.model, "sample.safetensors")
    panel.layer.value = source

    def look(order: tuple[int, int, int], zoom: float, tiles: int | None = None) -> None:
        viewer.dims.order = order
        viewer.reset_view()
        viewer.scene.camera.zoom *= zoom
        panel.buttons["preview"].native.click()
        spin(0.3)
        if tiles is None:
            spin(60, lambda: not panel.result.looking)
        else:
            spin(60, lambda: panel.result.state.in_view[0] >= tiles)
        spin(1.0)

    def picture(name: str) -> None:
        viewer.screenshot(str(options.out / f"preview-{name}.png"), canvas_only=False, flash=False)

    look((1, 0, 2), 2.5)
    panel.curtain.value = True
    spin(1.0)
    picture("axial")
    panel.curtain.value = False
    look((0, 1, 2), 1.5, tiles=8)
    picture("lateral")
    spin(60, lambda: not panel.result.looking)
    look((2, 1, 0), 0.9)
    picture("turned")
    viewer.dims.order = (0, 1, 2)
    source.visible = False
    viewer.dims.ndisplay = 3
    spin(0.5)
    spin(120, lambda: not panel.result.looking)
    viewer.reset_view()
    viewer.scene.camera.angles = (10, 30, 60)
    spin(1.0)
    spin(120, lambda: not panel.result.looking)
    spin(1.0)
    picture("3d")
    print(np.round(viewer.scene.camera.center, 1), panel.message.text())
    viewer.close()


if __name__ == "__main__":
    main()
