"""What the window asks when a file is opened: which of its images, which field of a plate; and what it cannot open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from napari.layers import Image as Layer
from napari.utils.notifications import ErrorNotification, notification_manager
from npe2 import DynamicPlugin, PluginManager
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QLabel

from conftest import textured_volume
from files import a_collection, a_plate
from napari_cropeq.errors import ImageError
from napari_cropeq.formats.bioio import PLUGINS
from napari_cropeq.formats.open import open_image
from napari_cropeq.gui.layers.questions import open_or_ask
from napari_cropeq.gui.layers.reader import get_reader
from napari_cropeq.gui.layers.source import source_of
from vendor_files import a_lif
from web_server import serving

VOLUMES = {
    name: textured_volume((4, 20, 30), seed)[None, None] for seed, name in enumerate(("first", "second", "third"))
}
Act = Callable[[QObject], None]


@pytest.fixture
def answering(qtbot):
    """Return a function that does something with the next dialog, and lists the texts of all dialogs."""
    asked, waiting, timer = [], [], QTimer()

    def look() -> None:
        dialog = QApplication.activeModalWidget()
        if dialog is not None and waiting:
            asked.append(dialog.windowTitle())
            waiting.pop(0)(dialog)

    timer.timeout.connect(look)
    timer.start(20)
    yield lambda *acts: waiting.extend(acts) or asked
    timer.stop()
    assert not waiting, "a dialog was not shown"


def keys(*pressed: int) -> Act:
    """Return what presses keys, each where the focus is."""
    return lambda dialog: [QTest.keyClick(dialog.focusWidget() or dialog, key) for key in pressed]


def double_click(row: int) -> Act:
    def act(dialog: QObject) -> None:
        place = dialog.list.visualItemRect(dialog.list.item(row)).center()
        QTest.mouseClick(dialog.list.viewport(), Qt.LeftButton, pos=place)
        QTest.mouseDClick(dialog.list.viewport(), Qt.LeftButton, pos=place)

    return act


def click(button: QDialogButtonBox.StandardButton) -> Act:
    return lambda dialog: QTest.mouseClick(dialog.buttons.button(button), Qt.LeftButton)


def opened(viewer, path: Path) -> list[Layer]:
    return viewer.open(str(path), plugin="napari-cropeq")


SCENES = [
    pytest.param([keys(Qt.Key_Return)], "first", id="Return takes the first"),
    pytest.param([keys(Qt.Key_Down, Qt.Key_Down, Qt.Key_Return)], "third", id="arrow keys"),
    pytest.param([keys(Qt.Key_S, Qt.Key_Return)], "second", id="typed letter"),
    pytest.param([double_click(1)], "second", id="double click"),
    pytest.param(
        [lambda dialog: [dialog.list.setCurrentRow(2), click(QDialogButtonBox.Open)(dialog)]], "third", id="Open"
    ),
]


@pytest.mark.parametrize("acts, name", SCENES)
def test_an_image_of_a_file_is_chosen_by_name(viewer, answering, tmp_path: Path, acts: list[Act], name: str) -> None:
    path = a_lif(tmp_path / "a.lif", VOLUMES)
    asked = answering(*acts)
    (layer,) = opened(viewer, path)
    assert asked == ["Choose image"] and layer.name == f"a_{name} Green"
    assert np.array_equal(np.asarray(layer.data), VOLUMES[name][0, 0])
    source = source_of(layer)
    assert (source.path, source.scene) == (str(path), name)
    assert np.array_equal(open_image(source.path, scene=source.scene).data.compute(), VOLUMES[name][0, 0])


@pytest.mark.parametrize("act", [keys(Qt.Key_Escape), click(QDialogButtonBox.Cancel)], ids=["Escape", "Cancel"])
@pytest.mark.parametrize("write", [lambda path: a_lif(path / "a.lif", VOLUMES), lambda path: a_plate(path / "p.zarr")])
def test_a_cancelled_question_opens_nothing(viewer, answering, tmp_path: Path, capsys, write, act: Act) -> None:
    answering(act)
    assert opened(viewer, write(tmp_path)) == [] and not viewer.layers
    assert capsys.readouterr() == ("", "")


def test_a_file_whose_first_image_is_2d(viewer, answering, tmp_path: Path) -> None:
    path = a_lif(tmp_path / "a.lif", {"overview": VOLUMES["first"][:, :, :1]} | VOLUMES)
    shown = []
    answering(lambda dialog: [shown.append(dialog.findChild(QLabel).text()), keys(Qt.Key_Down, Qt.Key_Return)(dialog)])
    (layer,) = opened(viewer, path)
    assert shown == [
        "a.lif is a 2D image (20×30), not a 3D stack. It is the first of 4 images (overview, first, second, third)."
    ]
    assert np.array_equal(np.asarray(layer.data), VOLUMES["first"][0, 0])


def test_an_image_of_a_collection(viewer, answering, tmp_path: Path) -> None:
    path = a_collection(tmp_path / "c.ome.zarr")
    answering(keys(Qt.Key_Down, Qt.Key_Return))
    (layer,) = opened(viewer, path)
    assert layer.name == "c_1" and source_of(layer).path == str(path / "1")
    assert np.array_equal(np.asarray(layer.data), zarr.open_array(path / "1" / "0"))


FIELDS = [
    pytest.param([], [], "A/1/0", id="first"),
    pytest.param([], [Qt.Key_Down], "A/1/1", id="second field"),
    pytest.param([Qt.Key_Down], [], "B/3/0", id="second well"),
    pytest.param([Qt.Key_Down, Qt.Key_Down, Qt.Key_Up], [], "B/3/0", id="past a well without fields"),
]


@pytest.mark.parametrize("well, field, path", FIELDS)
def test_a_field_of_a_plate(viewer, answering, tmp_path: Path, well: list[int], field: list[int], path: str) -> None:
    plate = a_plate(tmp_path / "p.ome.zarr")
    asked = answering(keys(*well, Qt.Key_Tab, *field, Qt.Key_Return))
    (layer,) = opened(viewer, plate)
    assert asked == ["Choose field"] and source_of(layer).path == str(plate / path)
    assert np.array_equal(np.asarray(layer.data), zarr.open_array(plate / path / "0"))


def test_a_field_of_a_plate_at_an_address(viewer, answering, tmp_path: Path) -> None:
    a_plate(tmp_path / "p.ome.zarr")
    with serving(tmp_path) as served:
        asked = answering(keys(Qt.Key_Down, Qt.Key_Return))
        image = open_or_ask(f"{served.url}/p.ome.zarr")
        assert image is not None and image.path == f"{served.url}/p.ome.zarr/B/3/0"
    assert asked == ["Choose field"]


def test_a_field_is_opened_by_its_path(viewer, tmp_path: Path) -> None:
    """And the error of what is not an image says more than napari's."""
    path = a_plate(tmp_path / "p.zarr")
    (layer,) = viewer.open(path / "B/3/0", plugin="napari-cropeq")
    assert layer.name == "p_B_3_0" and get_reader(str(tmp_path)) is None
    notices: list[Any] = []
    notification_manager.notification_ready.connect(notices.append)
    try:
        notification_manager.dispatch(ErrorNotification(ImageError("It is a plate.", "Choose a field.")))
    finally:
        notification_manager.notification_ready.disconnect(notices.append)
    assert [notice.message for notice in notices] == ["It is a plate. Choose a field."]


def test_a_well_without_fields_cannot_be_opened(viewer, answering, tmp_path: Path) -> None:
    seen = []

    def act(dialog: QObject) -> None:
        keys(Qt.Key_Down, Qt.Key_Down)(dialog)
        seen.extend((dialog.well.currentText(), dialog.field.currentText(), dialog.field.isEnabled()))
        click(QDialogButtonBox.Open)(dialog)
        seen.append(dialog.isVisible())
        keys(Qt.Key_Escape)(dialog)

    answering(act)
    assert opened(viewer, a_plate(tmp_path / "p.ome.zarr")) == []
    assert seen == ["B/4", "not imaged", False, True]


def test_a_missing_package_is_said_in_the_window(viewer, tmp_path: Path, capsys) -> None:
    path = tmp_path / "a.dm3"
    path.write_bytes(b"content")
    assert opened(viewer, path) == []
    assert (
        capsys.readouterr()
        .out.strip()
        .endswith("pip install bioio-bioformats (runs Bio-Formats, licence: GPL, in Java)")
    )


def test_files_are_left_to_another_plugin_if_ours_cannot_read_them() -> None:
    assert get_reader("a.dm3") is not None and get_reader("a.lif") is not None
    assert get_reader("a.xyz") is None
    with DynamicPlugin("other-reader") as other:

        @other.contribute.reader(filename_patterns=["*.dm3", "*.lif"])
        def get_other_reader(path: str):
            raise AssertionError

        assert get_reader("a.dm3") is None
        assert get_reader("a.lif") is not None


def test_the_manifest_lists_what_bioio_reads_but_napari_does_not() -> None:
    manager = PluginManager.instance()
    ours, builtins = (
        {pattern for reader in manager.get_manifest(name).contributions.readers for pattern in reader.filename_patterns}
        for name in ("napari-cropeq", "napari")
    )
    listed = {f"*{suffix}" for suffix in PLUGINS}
    assert listed - ours == listed & builtins == {"*.lsm", "*.stk"}
