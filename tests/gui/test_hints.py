"""Every hint names controls that exist in the window."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QAbstractButton, QLabel

from napari_cropeq.gui.colours import Colours
from napari_cropeq.gui.hints import BATCH_HINTS, HINTS, TRAIN_HINTS, VERIFY_HINTS
from napari_cropeq.gui.parts.config_form import TrainingConfigForm
from window import cells, dock

CONTROLS = {
    "voxel_size": ("Data", "Voxel size"),
    "axial": ("Data", "Axial axis"),
    "fwhm": ("Data", "FWHM"),
    "lateral_fwhm": ("Data", "Lateral FWHM"),
    "channels": ("Data", "Channels"),
    "time": ("Data", "Time points"),
    "preset": ("Train", "Preset"),
    "minutes": ("Train", "Budget"),
    "patches": ("Train", "Budget"),
    "filters": ("Train", "Filters"),
    "device": ("Train", "Device"),
    "planes": ("Volume", "Planes"),
    "dtype": ("Volume", "Type"),
    "tile": ("Trust", "Tile size"),
    "existing": ("Volume", "Destination"),
    "unfinished": ("Volume", "Overwrite"),
    "restart": ("Volume", "Overwrite"),
}
OTHERS = [
    *((HINTS, setting, *control) for setting, control in CONTROLS.items()),
    (TRAIN_HINTS, "existing", "Train", "Model file"),
    (TRAIN_HINTS, "restart", "Train", "Start"),
    (TRAIN_HINTS, "unfinished", "Train", "Resume"),
    (BATCH_HINTS, "voxel_size", "Batch", "Images"),
    (BATCH_HINTS, "minutes", "Batch", "Minutes"),
    (BATCH_HINTS, "existing", "Batch", "Existing"),
    (BATCH_HINTS, "unfinished", "Batch", "Existing"),
    (BATCH_HINTS, "restart", "Batch", "Existing"),
    (BATCH_HINTS, "existing_model", "Batch", "Existing"),
    (BATCH_HINTS, "names", "Batch", "Names"),
    (HINTS, "memory_limit", "Volume", "Destination"),
    (HINTS, "rate", "Train", "Rate"),
    (HINTS, "start", "Train", "Start"),
    (TRAIN_HINTS, "memory", "Train", "Patch"),
    (TRAIN_HINTS, "model", "Train", "Model file"),
    (VERIFY_HINTS, "baseline", "Trust", "Padded model"),
    (VERIFY_HINTS, "model", "Trust", "Padded model"),
    (VERIFY_HINTS, "minutes", "Trust", "Training (min)"),
]


def names_in(panel) -> set[str]:
    """Return the names of all controls of a widget."""
    kinds = (QLabel, QAbstractButton)
    return {child.text().replace("&", "") for kind in kinds for child in panel.findChildren(kind)}


@pytest.mark.parametrize("name", ["Data", "Train", "Volume", "Batch", "Trust"])
def test_hints_name_controls_of_the_window(viewer, name):
    viewer.add_image(cells(), scale=(2.5, 1, 1), name="cells")
    names = names_in(dock(viewer, name))
    for hints, setting, widget, control in OTHERS:
        if widget == name:
            assert control in hints[setting], setting
            assert any(text.split(" (")[0] == control or text == control for text in names), (control, names)


def test_every_setting_of_a_training_has_a_hint(qtbot):
    form = TrainingConfigForm(Colours.of("dark"))
    qtbot.addWidget(form)
    for name, label in form._labels.items():
        assert label.text().split(" (")[0] in HINTS[name]
        assert "Advanced options" in HINTS[name] and form.text().endswith("Advanced options")


def test_hints_are_sentences():
    for hints in (HINTS, TRAIN_HINTS, BATCH_HINTS, VERIFY_HINTS):
        for setting, hint in hints.items():
            assert hint[0].isupper() and hint.endswith(".") and "--" not in hint and "\n" not in hint, setting
