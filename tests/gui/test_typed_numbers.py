"""Numbers that a user types key by key are the values of their fields."""

from __future__ import annotations

import time

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QWidget

from napari_cropeq.gui.sections.section import Section
from window import TIMEOUT, cells, data_of, dock

WIDGETS = {"Train": 17, "Preview": 1, "Volume": 0, "Batch": 1, "Trust": 2}
"""The least number of fields for numbers."""


@pytest.fixture
def opened(viewer, qtbot):
    """Open a widget on a layer as the menu does, with all sections unfolded."""
    viewer.add_image(cells(), scale=(2.5, 1, 1), units=["um"] * 3, name="cells")

    def open_widget(name: str):
        panel = dock(viewer, name)
        if name == "Batch":
            panel.fields.which.value = "each"
        for section in panel.findChildren(Section):
            section.expand(animate=False)
        qtbot.waitUntil(lambda: is_active(panel) and panel.isVisible(), timeout=TIMEOUT)
        return panel

    return open_widget


def typed_into(field: QAbstractSpinBox, last: Qt.Key | None = Qt.Key.Key_Tab, text: str = "") -> float:
    """Type a number into a field, and return it."""
    decimals = field.decimals() if hasattr(field, "decimals") else 0
    text = text or ("2.31" if decimals >= 2 else "37")
    assert field.minimum() <= float(text) <= field.maximum()
    for _ in range(10):
        focus(field)
        QTest.keyClick(field, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
        QTest.keyClicks(field, text)
        if last is not None:
            QTest.keyClick(field, last)
        QApplication.processEvents()
        if QApplication.activeWindow() is not None:  # else a window of other tests took the focus
            break
    return float(text)


def is_active(widget: QWidget) -> bool:
    """Activate the window, because windows of other tests take the keyboard, and return whether it is active."""
    widget.window().activateWindow()
    return QApplication.activeWindow() is not None


def focus(field: QAbstractSpinBox) -> None:
    """Give the focus to a field, as a click does."""
    end = time.monotonic() + TIMEOUT / 1000
    while not (is_active(field) and field.hasFocus()):
        field.setFocus()
        QApplication.processEvents()
        assert time.monotonic() < end, "the window does not get the focus"


@pytest.mark.parametrize("last", [Qt.Key.Key_Tab, Qt.Key.Key_Return], ids=["tab", "return"])
@pytest.mark.parametrize("name", WIDGETS)
def test_a_typed_number_is_the_value(opened, name, last):
    fields = [field for field in opened(name).findChildren(QAbstractSpinBox) if field.isEnabled()]
    assert len(fields) >= WIDGETS[name] and all(field.isVisible() for field in fields)
    found = {}
    for number, field in enumerate(fields):
        typed = typed_into(field, last)
        if field.value() != typed:
            found[f"{number}: {field.toolTip()}"] = f"typed {typed}, value {field.value()}"
    assert not found


def test_a_typed_voxel_size_is_the_scale(viewer, opened):
    train, layer = opened("Data"), viewer.layers["cells"]
    for axis, box in enumerate(train.source.voxel_size):
        typed_into(box.native)
        assert layer.scale[axis] == 2.31 and box.value == 2.31
    QTest.keyClick(train.source.voxel_size[0].native, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
    QTest.keyClicks(train.source.voxel_size[0].native, "5.5")
    assert np.allclose(layer.scale, 2.31), "not before the number is complete"
    QTest.keyClick(train.source.voxel_size[0].native, Qt.Key.Key_Return)
    assert np.allclose(layer.scale, (5.5, 2.31, 2.31))


@pytest.mark.parametrize("takes_focus", [True, False], ids=["button-takes-focus", "as-on-a-mac"])
@pytest.mark.parametrize("pressed", ["start", "suggest"])
def test_a_button_uses_the_typed_number(viewer, opened, monkeypatch, pressed, takes_focus):
    """Clicked with no key after the number; on some systems buttons do not take the focus."""
    train, layer = opened("Train"), viewer.layers["cells"]
    used = []
    monkeypatch.setattr(train.source, "data", lambda *_, **__: used.append(train.source.acquisition()) or [[]])
    data = data_of(train)
    data.profile.expand(animate=False)
    button = data.profile.button if pressed == "suggest" else train.buttons["start"].native
    if not takes_focus:
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    typed_into(train.source.lateral_fwhm.native, None, "0.31")
    typed_into(train.source.voxel_size[0].native, None)
    if pressed == "start":
        tabs = data.parentWidget().parentWidget().tabBar()
        tabs.setFocusPolicy(button.focusPolicy())
        number = [tabs.tabText(n) for n in range(tabs.count())].index("Train")
        QTest.mouseClick(tabs, Qt.MouseButton.LeftButton, pos=tabs.tabRect(number).center())
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    assert layer.scale[0] == 2.31 and used, train.message.text()
    assert (used[0].voxel_size[0], used[0].lateral_fwhm) == (2.31, 0.31)
