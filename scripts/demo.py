"""The main job in a real window: open, train, preview, volume, save, driven by the widgets' own buttons.

Writes a screenshot for each stage, the model, the result as OME-Zarr and ``summary.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.utils.io import imsave
from qtpy.QtWidgets import QApplication

from napari_cropeq.core.geometry import Box
from napari_cropeq.core.predict import Predictor
from napari_cropeq.evidence.evaluate.metrics import psnr
from napari_cropeq.evidence.verify.slices import Slices, middle
from napari_cropeq.evidence.verify.tile_check import TileCheck
from napari_cropeq.formats.open import open_image

PLUGIN = "napari-cropeq"
BORDER = 8


class Demo:
    """One run of the main job; each stage adds to :attr:`summary`."""

    def __init__(self, output: Path, minutes: float) -> None:
        self.output, self.minutes = output, minutes
        self.summary: dict[str, Any] = {"seconds": {}}
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1500, 950)
        self.spin(0.5)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and take a screenshot at its end."""
        print(f"{name} ...", flush=True)
        start = time.perf_counter()
        yield
        self.summary["seconds"][name] = round(time.perf_counter() - start, 1)
        self.picture(name)

    def picture(self, name: str) -> None:
        """Save a screenshot of the whole window."""
        self.spin(0.5)
        number = len(list(self.output.glob("[0-9]*.png"))) + 1
        self.viewer.screenshot(str(self.output / f"{number}-{name}.png"), canvas_only=False, flash=False)

    @staticmethod
    def spin(seconds: float) -> None:
        """Process events of the window for some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.005)

    def wait(self, done: Callable[[], bool], panel: Any, timeout: float) -> None:
        """Process events until ``done``; an error in the panel's message ends the demo."""
        end = time.monotonic() + timeout
        while not done():
            self.spin(0.05)
            if panel.complaining:
                raise RuntimeError(f"{type(panel).__name__} says: {panel.message.text()}")
            if time.monotonic() > end:
                raise TimeoutError(f"{type(panel).__name__} was not done after {timeout:.0f} s.")

    def panel(self, name: str) -> Any:
        """Open a dock widget as the Plugins menu does."""
        dock, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
        dock.raise_()
        self.spin(0.3)
        self.viewer.fit_to_view()
        self.spin(0.3)
        widget.show_step(name)
        return widget.panels[name]

    def open(self, path: Path | None) -> None:
        """Open the file, or the sample, and show an axial view."""
        if path is None:
            self.viewer.open_sample(PLUGIN, "light_sheet")
        else:
            self.viewer.open(path, plugin=PLUGIN)
        self.is_sample = path is None
        self.summary["input"] = str(path.name if path else "light-sheet sample")
        for layer in self.viewer.layers[1:]:
            layer.visible = False
        self.layer = self.viewer.layers[0]
        self.viewer.layers.selection = {self.layer}
        self.viewer.dims.order = (*range(self.layer.ndim - 3), *(self.layer.ndim - 3 + a for a in (1, 0, 2)))
        self.viewer.fit_to_view()
        middle = np.asarray(self.layer.data[..., self.layer.data.shape[-2] // 2, :])
        low, high = np.percentile(middle, (1, 99.8))
        self.layer.contrast_limits_range = (float(middle.min()), float(middle.max()))
        self.layer.contrast_limits = (low, high)
        self.spin(0.5)

    def zoom(self, factor: float) -> None:
        """Zoom about the centre of the volume."""
        camera = getattr(self.viewer, "scene", self.viewer).camera
        camera.zoom *= factor
        self.spin(0.3)

    def train(self) -> None:
        """Press Start in the Train widget and wait for the model."""
        panel = self.panel("Train")
        panel.config.set_budget(minutes=self.minutes)
        panel.buttons["start"].native.click()
        timeout = self.minutes * 60 + 120
        self.wait(lambda: panel._job is None or panel.bar.value() > 600, panel, timeout)
        panel.grab().save(str(self.output / "train-widget.png"))
        self.wait(lambda: panel._job is None, panel, timeout)
        panel.file.value = self.output / "model.safetensors"
        panel.buttons["save_model"].native.click()
        self.session = panel.session
        losses = self.session.model.training["losses"]
        self.summary["training"] = {"patches": losses[-1][0], "validation": [losses[0][2], losses[-1][2]]}

    def preview(self) -> None:
        """Press Preview and wait until the view is done."""
        panel = self.panel("Preview")
        start = time.perf_counter()
        panel.buttons["preview"].native.click()
        self.wait(lambda: panel.result is not None and panel.result.state.in_view[0] > 0, panel, 120)
        self.summary["seconds"]["first tile"] = round(time.perf_counter() - start, 2)
        self.wait(lambda: not panel.result.busy, panel, 600)
        self.layer.visible = False

    def volume(self) -> None:
        """Press Start in the Volume widget and wait for all tiles."""
        panel = self.volume_panel = self.panel("Volume")
        panel.buttons["start"].native.click()
        self.wait(lambda: panel.result is not None and panel.result.state.complete, panel, 3600)

    def save(self) -> None:
        """Press Save and read the file back."""
        panel = self.volume_panel
        panel.destination.value = self.output / "result.ome.zarr"
        panel.buttons["save"].native.click()
        self.wait(lambda: not panel.saving, panel, 3600)
        self.saved = open_image(self.output / "result.ome.zarr")

    def compare(self) -> None:
        """Show the same axial view of source, result and truth, and save them side by side."""
        shown = {"source": self.layer, "result": self.volume_panel.result.layer}
        if self.is_sample:
            self.viewer.open_sample(PLUGIN, "light_sheet_truth")
            shown["truth"] = self.viewer.layers[-2]
            shown["truth"].contrast_limits = self.layer.contrast_limits
            shown["truth"].colormap = self.layer.colormap
        self.zoom(2)
        canvases = []
        for name, only in shown.items():
            for layer in self.viewer.layers:
                layer.visible = layer is only
            self.picture(f"axial-{name}")
            canvases.append(self.viewer.screenshot(canvas_only=True, flash=False))
        imsave(str(self.output / "side-by-side.png"), side_by_side(canvases))

    def check(self) -> None:
        """Compare tiles with the whole, the saved file with the shown layer, and both with the truth."""
        result = self.volume_panel.result
        whole = result.result.predictor(result.result.leading_indices[0])
        slices = Slices(result.model, result.result.source)
        box = middle(whole.sr_shape, slices.in_plane, rows=4)
        found = [list(TileCheck(slices, box, tile).run())[-1] for tile in (33, 64, 200)]
        mismatch = max(one.agreement.largest for one in found)
        stored = np.asarray(self.saved.volume())
        shown = np.asarray(result.layer.data[0] if result.layer.multiscale else result.layer.data)
        self.summary |= {
            "exactness": str(whole.exactness),
            "max |tile - whole|": mismatch,
            "max |saved - shown|": float(np.abs(stored.astype(float) - shown.astype(float)).max()),
            "shape": [list(self.layer.data.shape), list(stored.shape)],
        }
        if self.is_sample:
            self.score(stored, whole)
        if mismatch > 0 and whole.exactness.bit_exact:
            raise AssertionError(f"Tiles differ from the whole by {mismatch}.")
        if self.summary["max |saved - shown|"] > 0:
            raise AssertionError("The saved file differs from the layer shown.")

    def score(self, stored: np.ndarray, predictor: Predictor) -> None:
        """Add PSNR against the sample's truth."""
        truth = np.asarray(self.viewer.layers[-2].data)
        quintic = predictor.interpolated(Box.whole(predictor.sr_shape))
        scores = {"SR": psnr(stored, truth, BORDER), "quintic": psnr(quintic, truth, BORDER)}
        self.summary["PSNR, dB"] = {k: round(v, 2) for k, v in scores.items()}
        self.summary["PSNR, dB"]["gain"] = round(scores["SR"] - scores["quintic"], 2)


def side_by_side(canvases: list[np.ndarray]) -> np.ndarray:
    """Return canvases (rows, columns, RGBA) in a row, cropped to rows that are not empty, with white lines between."""
    rows = np.flatnonzero(np.any([c[..., :3].max(axis=(1, 2)) > 8 for c in canvases], axis=0))
    line = np.full((rows[-1] + 1 - rows[0], 6, 4), 255, np.uint8)
    parts = [part for c in canvases for part in (c[rows[0] : rows[-1] + 1], line)]
    return np.concatenate(parts[:-1], axis=1)


def main() -> int:
    """Run the demo and print its summary as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, help="a volume instead of the sample")
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--minutes", type=float, default=2.0, help="of training")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.output, ignore_errors=True)
    arguments.output.mkdir(parents=True)

    start = time.perf_counter()
    demo = Demo(arguments.output, arguments.minutes)
    demo.summary["seconds"]["napari"] = round(time.perf_counter() - start, 1)
    try:
        with demo.stage("open"):
            demo.open(arguments.input)
        with demo.stage("train"):
            demo.train()
        with demo.stage("preview"):
            demo.preview()
        with demo.stage("volume"):
            demo.volume()
        with demo.stage("save"):
            demo.save()
        demo.compare()
        print("check ...", flush=True)
        demo.check()
    finally:
        demo.summary["seconds"]["total"] = round(time.perf_counter() - start, 1)
        (arguments.output / "summary.json").write_text(json.dumps(demo.summary, indent=1) + "\n")
        demo.viewer.close()
    show(demo.summary)
    print(f"Pictures, model, result and summary.json are in {arguments.output}/.")
    return 0


def show(summary: dict[str, Any]) -> None:
    """Print nested values as two columns."""
    for key, value in summary.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        for name, entry in rows:
            print(f"{f'{key} {name}'.strip():32} {entry}")


if __name__ == "__main__":
    sys.exit(main())
