"""Make the picture of docs/verify.md: the Verify widget in a real window, after both of its checks.

scripts/with-display python scripts/verify_picture.py [--minutes 0.3]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import napari

from batch_picture import PLUGIN, ROOT, spin
from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.core.training.training import Training
from napari_cropeq.formats.image import acquisition_of, training_volumes
from napari_cropeq.gui.layers.source import source_of


def main() -> None:
    """Train on the sample, check its tiles and those of a zero-padded network, and save a screenshot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.3, help="of each training")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "verify-widget.png")
    options = parser.parse_args()
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1500, 950)
    viewer.open_sample(PLUGIN, "light_sheet")
    layer = viewer.layers[0]
    viewer.layers[1].visible = False
    source = source_of(layer)
    training = Training(training_volumes(source), acquisition_of(source), TrainingConfig(minutes=options.minutes))
    for _ in training.run():
        spin(0.01)
    panel = viewer.window.add_plugin_dock_widget(PLUGIN, "Verify")[1].panels["Verify"]
    panel.layer.value = layer
    panel.session.use_model(training.model({}), "vessels.safetensors")
    panel.minutes.value = options.minutes
    viewer.dims.order = (1, 0, 2)
    viewer.reset_view()
    spin(1)
    for name in ("verify", "against_padded"):
        panel.buttons[name].native.click()
        spin(120 + 120 * options.minutes, lambda: not panel.busy)
        spin(0.5)
        print(panel.message.text())
    spin(1)
    viewer.screenshot(str(options.out), canvas_only=False, flash=False)
    viewer.close()


if __name__ == "__main__":
    main()
