"""Helpers for tests of the window: a small volume, a model, the docks."""

from __future__ import annotations

import numpy as np

from conftest import random_network, textured_volume
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.core.model import Model
from napari_cropeq.core.normalisation import Normalisation
from napari_cropeq.gui.widgets.dock import Steps

PLUGIN = "napari-cropeq"
TIMEOUT = 60_000


def cells(shape=(12, 72, 80), seed: int = 1) -> np.ndarray:
    """Return bright boxes (z, y, x) on a textured background, uint16."""
    rng = np.random.default_rng(seed)
    volume = textured_volume(shape) // 20
    for z, y, x in zip(*(rng.integers(4, n - 4, 40) for n in shape), strict=True):
        volume[z - 1 : z + 2, y - 3 : y + 4, x - 3 : x + 4] += 2000
    return volume


def model_for(factor: float = 2.5, filters: int = 8, blocks: int = 2) -> Model:
    """Return a model with random weights, and the step that keeps intensities; 2 blocks compute faster than 7."""
    network, acquisition = random_network("valid", filters, blocks), Acquisition((factor, 1, 1))
    return Model(network, acquisition, [Normalisation(0.0, 3000.0)], correction=2.0)


def dock(viewer, name: str):
    """Open a step of the dock widget as the menu does, and return its panel."""
    widget = viewer.window.add_plugin_dock_widget(PLUGIN, name)[1]
    widget.show_step(name)  # the dock of this name may be open, at another step
    return widget.panels[name]


def data_of(panel):
    """Show the step Data of the dock widget that has the panel of another step, and return its panel."""
    steps = panel
    while not isinstance(steps, Steps):
        steps = steps.parentWidget()
    steps.show_step("Data")
    return steps.panels["Data"]


def text_of(panel, name: str) -> str:
    """Return the text of a button, without the mark of its mnemonic."""
    return panel.buttons[name].text.replace("&", "")


def press(qtbot, panel, name: str) -> None:
    """Press a button as soon as it is enabled."""
    qtbot.waitUntil(lambda: panel.buttons[name].enabled, timeout=TIMEOUT)
    panel.buttons[name].native.click()


def started(viewer, qtbot, path, filters: int = 8, shape=(30, 128, 128)):
    """Start a run over a volume to ``path``, or into memory; return the widget once a tile is finished and shown."""
    if "cells" not in viewer.layers:
        viewer.add_image(cells(shape), scale=(2.5, 1, 1), name="cells")
    volume = dock(viewer, "Volume")
    volume.session.use_model(model_for(filters=filters), "a model")
    volume.planes.value = "x"  # takes half the time of both
    volume.destination.value = path
    press(qtbot, volume, "start")

    def shown() -> bool:
        text = volume.message.text()
        return volume.result.state.tiles[0] > 0 and (" tiles" in text or text.startswith("Saved"))

    qtbot.waitUntil(shown, timeout=TIMEOUT)
    return volume


def stopped(volume, qtbot, gate=None) -> None:
    """Stop a run, which may wait at a gate, and wait until all work has ended."""
    volume.buttons["stop"].native.click()
    if gate is not None:
        gate.set()
    qtbot.waitUntil(lambda: not volume.result.busy, timeout=TIMEOUT)


def settle(viewer, qtbot, panel) -> None:
    """Wait until all tiles in view are computed and shown, and the message is up to date."""

    def settled() -> bool:
        """Return whether nothing is due: while this waited, the canvas may have got another size, and so the view."""
        if panel.result.layer not in viewer.layers or panel.result.looking:
            return False
        panel.result.shown._refresh_soon.flush()
        panel._show_soon.flush()
        return not panel.result.looking and all(layer.loaded for layer in viewer.layers)

    qtbot.wait(80)  # tiles are requested once the view has stopped changing
    qtbot.waitUntil(settled, timeout=TIMEOUT)
    qtbot.wait(120)
    qtbot.waitUntil(settled, timeout=TIMEOUT)


def small(train, **budget: float) -> None:
    """Choose a small network and a budget."""
    train.config.fields["filters"].value, train.config.fields["blocks"].value = 8, 2
    train.config.set_budget(**budget)


def trained(qtbot, train, button: str = "start"):
    """Press a button, wait for the end of the training, and return the model."""
    train.buttons[button].native.click()
    qtbot.waitUntil(lambda: train._job is not None or train.complaining, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: train._job is None, timeout=TIMEOUT)
    assert not train.complaining, train.message.text()
    return train.session.model
