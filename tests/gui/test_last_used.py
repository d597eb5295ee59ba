"""What the window remembers between sessions, and what it shows while a model is read."""

from __future__ import annotations

import json
import time

import pytest
from qtpy.QtCore import Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog, QLineEdit

from napari_cropeq.gui.last_used import last_used, remember
from window import TIMEOUT, cells, dock, model_for, press, small, started, stopped

NAME = "napari-cropeq-last-used.json"


def again(viewer, name: str):
    """Close the dock and open a step again, as in another session."""
    viewer.window.remove_dock_widget("all")
    return dock(viewer, name)


def in_dialog(button, act) -> str:
    """Press a button that shows a file dialog, act on the dialog, and return the folder that it opened in."""
    found, end = [], time.monotonic() + 60

    def answer() -> None:
        dialog = QApplication.activeModalWidget()
        if not isinstance(dialog, QFileDialog):
            if time.monotonic() < end:
                QTimer.singleShot(20, answer)
            return
        found.append(dialog.directory().absolutePath())
        act(dialog)

    QTimer.singleShot(0, answer)
    button.native.click()
    (folder,) = found
    return folder


def choose(path):
    """Return an action that types a name into a dialog."""

    def act(dialog) -> None:
        name = dialog.findChild(QLineEdit, "fileNameEdit")
        name.setText(str(path))
        QTest.keyClick(name, Qt.Key.Key_Return)

    return act


def cancel(dialog) -> None:
    """Press Escape in a dialog."""
    QTest.keyClick(dialog, Qt.Key.Key_Escape)


@pytest.fixture
def folders(tmp_path):
    """Folders for models, results and images."""
    names = {name: tmp_path / name for name in ("models", "results", "images")}
    for folder in names.values():
        folder.mkdir()
    (names["images"] / "a.tif").touch()
    return names


FIELDS = [
    pytest.param("Train", lambda p: p.file, "models", "new.safetensors", id="model"),
    pytest.param("Volume", lambda p: p.destination, "results", "a_SR.ome.zarr", id="destination"),
    pytest.param("Batch", lambda p: p.fields.destination, "results", "", id="folder-of-results"),
    pytest.param("Batch", lambda p: p.fields.folder, "images", "", id="folder-of-images"),
]


@pytest.mark.parametrize(("step", "field", "purpose", "name"), FIELDS)
def test_a_dialog_opens_in_the_folder_that_was_used_last(viewer, preferences_file, folders, step, field, purpose, name):
    folder = folders[purpose]
    chosen = folder / name if name else folder
    box = field(dock(viewer, step))
    assert in_dialog(box.choose_btn, choose(chosen)) != str(folder)
    assert box.path == chosen and last_used() == {purpose: str(folder)}
    assert (preferences_file.parent / NAME).exists(), "beside the preferences"
    box = field(again(viewer, step))
    assert in_dialog(box.choose_btn, cancel) == str(folder)
    assert box.path == (folder / "model.safetensors" if step == "Train" else None), "only a model's name is proposed"


def test_files_are_chosen_in_the_folder_of_images(viewer, folders):
    remember(images=str(folders["images"]))
    batch = dock(viewer, "Batch")
    batch.fields.images.value = "files"
    image = folders["images"] / "a.tif"
    assert in_dialog(batch.fields.files.choose_btn, choose(image)) == str(folders["images"])
    assert batch.fields.files.value == (image,)


USED = [
    pytest.param("paper", {"patches": 8}, id="patches"),
    pytest.param("fast", {"minutes": 7.5}, id="minutes"),
]


@pytest.mark.parametrize(("preset", "budget"), USED)
def test_preset_and_budget_of_the_last_training_are_shown(viewer, qtbot, preset, budget):
    viewer.add_image(cells(), scale=(2.5, 1, 1), units=["um"] * 3, name="cells")
    train = dock(viewer, "Train")
    train.config.preset.value = preset
    small(train, **budget)
    assert last_used() == {}, "only what is used"
    press(qtbot, train, "start")
    train.config.set_budget(minutes=99)
    qtbot.waitUntil(lambda: bool(train.curves.points) or train._job is None, timeout=TIMEOUT)
    train = again(viewer, "Train")
    (unit,) = budget
    assert train.config.preset.value == preset
    assert (train.config.unit.value, train.config.budget.value) == (unit, budget[unit])
    assert not train.config.overrides(), "other settings are those of the preset"


FILES = [
    pytest.param("", id="empty"),
    pytest.param("[1]", id="a-list"),
    pytest.param("{", id="damaged"),
    pytest.param(json.dumps({"preset": 3, "budget": [-1, "minutes"], "models": 4}), id="types"),
    pytest.param(json.dumps({"preset": "x", "budget": ["x", "patches"], "models": "/no/such"}), id="values"),
    pytest.param(json.dumps({"preset": [], "budget": {"minutes": 2}, "models": None}), id="others"),
]


@pytest.mark.parametrize("content", FILES)
def test_a_file_edited_by_hand(viewer, preferences_file, content):
    (preferences_file.parent / NAME).write_text(content)
    train = dock(viewer, "Train")
    assert (train.config.preset.value, train.config.unit.value, train.config.budget.value) == ("fast", "minutes", 2)
    assert train.file.line_edit.value == "model.safetensors"
    remember(preset="paper")
    assert last_used()["preset"] == "paper", "replaced"


def test_a_model_is_shown_while_it_is_read(viewer, qtbot, tmp_path):
    viewer.add_image(cells(), scale=(2.5, 1, 1), units=["um"] * 3, name="cells")
    model_for(filters=64).save(tmp_path / "big.safetensors")
    train = dock(viewer, "Train")
    shown = train.parentWidget().parentWidget().parentWidget().model
    for before in ("none yet", "small.safetensors"):
        train.file.value = tmp_path / "big.safetensors"
        train.buttons["load_model"].native.click()
        assert shown.value == f"loading big.safetensors …; until then: {before}"
        assert train.message.text().startswith("Loading big.safetensors …") and not train.complaining
        assert (f"Until then, {before} is used" in train.message.text()) == (before != "none yet")
        assert not train.buttons["load_model"].enabled
        qtbot.waitUntil(lambda: train.buttons["load_model"].enabled, timeout=TIMEOUT)
        assert shown.value == "big.safetensors" and train.message.text().startswith("Using big.safetensors")
        train.session.use_model(model_for(), "small.safetensors")
    (tmp_path / "big.safetensors").write_bytes(b"no model")
    press(qtbot, train, "load_model")
    qtbot.waitUntil(lambda: train.complaining and train.buttons["load_model"].enabled, timeout=TIMEOUT)
    assert shown.value == "small.safetensors"


def test_a_run_names_the_model_that_it_uses(viewer, qtbot):
    """Not the one that is loaded meanwhile."""
    volume = started(viewer, qtbot, None)
    volume.session.use_model(model_for(filters=4), "another")
    seen = volume.message
    qtbot.waitUntil(lambda: " tiles, " in seen.text() and ", with a model; " in seen.text(), timeout=TIMEOUT)
    assert volume.session.name_of(volume.result) == "a model"
    stopped(volume, qtbot)
