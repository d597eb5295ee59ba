"""Every control has a tooltip, every number a unit, and the keyboard alone suffices, in every step."""

from __future__ import annotations

import re

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QAction
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QMenu,
    QMenuBar,
    QTabBar,
    QWidget,
)

from napari_cropeq.core.training.config import TrainingConfig
from napari_cropeq.gui.hints import in_words
from napari_cropeq.gui.sections.measurement import MeasurementSection
from napari_cropeq.gui.widgets.dock import Dock, Steps
from window import TIMEOUT, cells, dock, model_for

STEPS = ("Data", "Train", "Preview", "Volume", "Trust", "Batch")
CONTROLS = (QAbstractButton, QAbstractItemView, QAbstractSpinBox, QComboBox, QLineEdit)
PURE = {
    in_words(f.name)
    for f in TrainingConfig.__dataclass_fields__.values()
    if not f.metadata["unit"]  # shares, weights and counts of what the label names
}
UNIT = re.compile(r"\((µm|px|min|maps|patches|steps|epochs|voxels)\)$")


def steps_of(viewer) -> Steps:
    (found,) = [w for w in viewer.window.dock_widgets.values() if isinstance(w, Dock)]
    return found.steps


def shown(viewer, name: str):
    """Open a step with a layer and a model, all its sections unfolded, and return its panel."""
    if "cells" not in viewer.layers:
        viewer.add_image(cells(), scale=(2.5, 1, 1), units=["um"] * 3, name="cells")
    panel = dock(viewer, name)
    panel.session.use_model(model_for(), "a model")
    for section in vars(panel).values():
        if hasattr(section, "expand"):
            section.expand(animate=False)
    panel.window().activateWindow()
    QApplication.processEvents()
    return panel


def controls(panel: QWidget) -> list[QWidget]:
    """Return what can be used in a widget, also if it is disabled now or not shown for this layer."""
    inner = (QAbstractSpinBox, QAbstractItemView, QComboBox)  # their parts are not controls of their own
    found = [w for kind in CONTROLS for w in panel.findChildren(kind)]
    return [w for w in found if not isinstance(w.parentWidget(), inner) and not _is_in(w, inner)]


def _is_in(widget: QWidget, kinds: tuple[type, ...]) -> bool:
    parent = widget.parentWidget()
    return parent is not None and (isinstance(parent, kinds) or _is_in(parent, kinds))


@pytest.mark.parametrize("name", STEPS)
def test_every_control_has_a_tooltip(viewer, name):
    found = controls(shown(viewer, name))
    assert len(found) > 5
    assert [w for w in found if not w.toolTip()] == []


@pytest.mark.parametrize("name", STEPS)
def test_every_number_has_a_unit(viewer, name):
    """As a suffix, in its label, or as a choice beside it."""
    panel = shown(viewer, name)
    buddies = {label.buddy(): label.text() for label in panel.findChildren(QLabel) if label.buddy() is not None}
    numbers = panel.findChildren(QAbstractSpinBox)
    assert numbers or name == "Volume"
    for box in numbers:
        row = box.parentWidget()
        label = buddies.get(box) or buddies.get(row) or ""
        choice = any(beside.toolTip().startswith("Unit of") for beside in row.findChildren(QComboBox))
        suffix = getattr(box, "suffix", str)()
        assert suffix or UNIT.search(label) or (row in buddies and choice) or label in PURE, (label, box.toolTip())


def visited(first: QWidget, panel: QWidget) -> list[QWidget]:
    """Press Tab from a widget on, and return what gets the focus in the panel."""
    for _ in range(200):  # the window of another test process on the screen may have the focus for a moment
        first.window().activateWindow()
        first.setFocus(Qt.FocusReason.TabFocusReason)
        if QApplication.focusWidget() is first:
            break
        QTest.qWait(50)
    assert QApplication.focusWidget() is first
    found = []
    for _ in range(100):
        QTest.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
        focused = QApplication.focusWidget()
        if focused is None or not panel.isAncestorOf(focused):
            break
        found.append(focused)
    return found


@pytest.mark.parametrize("name", STEPS)
def test_tab_visits_all_controls_from_top_to_bottom(viewer, qtbot, name):
    panel = shown(viewer, name)
    found = visited(steps_of(viewer).tabs.tabBar(), panel)
    usable = [w for w in controls(panel) if w.isVisible() and w.isEnabled()]
    assert set(found) == set(usable) and len(found) == len(usable)
    for column in (panel.above, panel, panel.below):
        inside = [w for w in found if (column is panel) != any(c.isAncestorOf(w) for c in (panel.above, panel.below))]
        inside = [w for w in inside if column is panel or column.isAncestorOf(w)]
        origin = column if column is panel else column.widget()
        places = [
            (w.mapTo(origin, w.rect().center()).y() // 10, w.mapTo(origin, w.rect().center()).x()) for w in inside
        ]
        assert places == sorted(places), "from left to right in each row"


def test_tab_reaches_nothing_in_a_folded_section(viewer, qtbot):
    panel = shown(viewer, "Train")
    panel.config.collapse(animate=False)
    found = visited(steps_of(viewer).tabs.tabBar(), panel)
    assert panel.config.toggleButton() in found and panel.config.fields["filters"].native not in found


def mnemonics(panel) -> list[str]:
    texts = [b.text() for b in panel.findChildren(QAbstractButton) if b.isVisibleTo(panel)]
    return [re.search("&(.)", text)[1].lower() for text in texts if "&" in text]


def taken(viewer) -> set[str]:
    """Return the letters that napari uses with Alt, in its menu bar and as shortcuts."""
    window = viewer.window._qt_window
    menus = [action.text() for action in window.findChild(QMenuBar).actions()]
    inside = [action for menu in window.findChildren(QMenu) for action in menu.actions()]
    keys = [key.toString() for action in (*inside, *window.findChildren(QAction)) for key in action.shortcuts()]
    found = [re.search(r"&(.)", text) for text in menus] + [re.fullmatch(r"Alt\+(\w)", key) for key in keys]
    return {match[1].lower() for match in found if match}


@pytest.mark.parametrize("name", STEPS)
def test_mnemonics_differ_from_each_other_and_from_those_of_napari(viewer, name):
    panel = shown(viewer, name)
    found = mnemonics(panel)
    for section in panel.findChildren(MeasurementSection):  # one is unfolded at a time
        section.expand(animate=False)
        found += [letter for letter in mnemonics(panel) if letter not in found]
    assert len(found) >= 2 and len(set(found)) == len(found)
    assert {"f", "v", "s", "c"} <= taken(viewer), "those of menus and of shortcuts are found"
    assert not (taken(viewer) | {"d", "t"}) & set(found), "d and t are those of the menu Debug, which may be hidden"


def test_a_mnemonic_presses_its_button(viewer, qtbot):
    volume = shown(viewer, "Volume")
    volume.session.model = None
    steps_of(viewer).tabs.tabBar().setFocus()
    QTest.keyClick(QApplication.focusWidget(), Qt.Key.Key_A, Qt.KeyboardModifier.AltModifier)
    qtbot.waitUntil(lambda: "There is no model yet" in volume.message.text(), timeout=TIMEOUT)


def test_the_arrow_keys_change_the_step(viewer, qtbot):
    shown(viewer, "Train")
    bar = steps_of(viewer).tabs.findChild(QTabBar)
    bar.setFocus()
    QTest.keyClick(bar, Qt.Key.Key_Right)
    qtbot.waitUntil(lambda: steps_of(viewer).panels["Preview"].isVisible(), timeout=TIMEOUT)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_focus_is_seen(viewer, qtbot, theme):
    viewer.theme = theme
    panel = shown(viewer, "Volume")
    bar = steps_of(viewer).tabs.tabBar()
    panel.buttons["start"].native.setFocus()
    without = bar.grab().toImage()
    bar.setFocus(Qt.FocusReason.TabFocusReason)
    assert bar.grab().toImage() != without
    for widget in (panel.buttons["start"].native, panel.dtype.native, panel.destination.line_edit.native):
        steps_of(viewer).tabs.tabBar().setFocus()
        before = widget.grab().toImage()
        widget.setFocus(Qt.FocusReason.TabFocusReason)
        QApplication.processEvents()
        after = widget.grab().toImage()
        assert after.size() == before.size()
        assert after.pixelColor(0, after.height() // 2).name() == panel.colours.line
        assert before.pixelColor(0, before.height() // 2).name() != panel.colours.line
