"""Make the picture of docs/batch.md: the Batch widget in a real window, processing a folder of stacks.

scripts/with-display python scripts/batch_picture.py [--minutes 0.3]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
import tifffile
from qtpy.QtWidgets import QApplication

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = "napari-cropeq"
STACKS = ("embryo_01", "embryo_02", "embryo_03", "embryo_04")


def spin(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Process events of the window for some time, or until a condition holds."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not until():
        QApplication.processEvents()
        time.sleep(0.005)


def write(path: Path, stack: np.ndarray, scale: Any) -> None:
    """Write a stack (z, y, x) with its voxel size in micrometres."""
    metadata: dict[str, Any] = {"axes": "ZYX"}
    for axis, step in zip("ZYX", scale, strict=True):
        metadata |= {f"PhysicalSize{axis}": float(step), f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, stack, metadata=metadata, photometric="minisblack", ome=True)


def main() -> None:
    """Cut the sample into stacks, run the widget on their folder, and save a screenshot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.3, help="of training on each")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "batch-widget.png")
    options = parser.parse_args()
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 950)
    viewer.open_sample(PLUGIN, "light_sheet")
    source = viewer.layers[0]
    viewer.layers[1].visible = False
    viewer.dims.order = (1, 0, 2)
    with tempfile.TemporaryDirectory() as parent:
        data, results = Path(parent) / "data", Path(parent) / "results"
        data.mkdir(), results.mkdir()
        voxels = np.asarray(source.data)
        for number, name in enumerate(STACKS):
            y, x = 128 * (number // 2), 128 * (number % 2)
            write(data / f"{name}.ome.tif", voxels[:, y : y + 128, x : x + 128], source.scale)
        write(data / "embryo_02_max.ome.tif", voxels[:2].max(axis=0, keepdims=True).repeat(5, 0), (1, 1, 1))
        panel = viewer.window.add_plugin_dock_widget(PLUGIN, "Batch")[1].panels["Batch"]
        spin(1)
        viewer.fit_to_view()
        panel.fields.folder.value, panel.fields.destination.value = data, results
        panel.fields.which.value, panel.fields.minutes.value = "each", options.minutes
        panel.fields.pattern.value = "{name}_x{factor}"
        spin(10, lambda: bool(panel.table.rowCount()))
        spin(1)
        panel.buttons["start"].native.click()
        spin(120 * len(STACKS), lambda: panel.table.texts("Status")[3].startswith("training"))
        spin(30 * options.minutes)
        viewer.screenshot(str(options.out), canvas_only=False, flash=False)
        spin(600 * len(STACKS), lambda: " failed, in " in panel.message.text())
        spin(1)
        print(panel.message.text(), panel.table.texts("Status"), sorted(p.name for p in results.iterdir()))
    viewer.close()


if __name__ == "__main__":
    main()
