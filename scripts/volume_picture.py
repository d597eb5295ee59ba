"""Make the picture of docs/volume.md: the Volume widget in a real window, during a run.

scripts/with-display python scripts/volume_picture.py [--minutes 0.5]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import napari

from batch_picture import PLUGIN, ROOT, spin
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.training import Training
from napari_cropeq.formats.image import acquisition_of, training_volumes
from napari_cropeq.gui.layers.source import source_of
from napari_cropeq.store import disk as store


def main() -> None:
    """Train on the sample, export all of it, and save a screenshot during the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.5, help="of training")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "volume-widget.png")
    options = parser.parse_args()
    store.BULK = (64, 64, 64)  # so that the small sample has several tiles
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 950)
    viewer.open_sample(PLUGIN, "light_sheet")
    layer = viewer.layers[0]
    viewer.layers[1].visible = False
    source = source_of(layer)
    training = Training(training_volumes(source), acquisition_of(source), TrainingConfig(minutes=options.minutes))
    for _ in training.run():
        spin(0.01)
    volume = viewer.window.add_plugin_dock_widget(PLUGIN, "Volume")[1].panels["Volume"]
    volume.layer.value = layer
    volume.session.use_model(training.model({}), "vessels.safetensors")
    viewer.dims.order = (1, 0, 2)
    viewer.reset_view()
    with tempfile.TemporaryDirectory() as folder:
        volume.destination.value = Path(folder) / "vessels_SR.ome.zarr"
        spin(30, lambda: "Result" in volume.estimate.text())
        volume.buttons["start"].native.click()
        spin(60, lambda: volume.result is not None and volume.result.state.fraction > 0.4)
        viewer.window._status_bar._toggle_activity_dock(True)
        spin(0.5)
        viewer.screenshot(options.out, canvas_only=False, flash=False)
        volume.buttons["stop"].native.click()
        spin(20, lambda: not volume.result.busy)
        viewer.close()


if __name__ == "__main__":
    main()
