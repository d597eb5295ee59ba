"""The first page of the documentation names menus, steps, fields and buttons that the window has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from qtpy.QtWidgets import QAbstractButton, QLabel

from window import dock

PAGE = (Path(__file__).parents[2] / "docs" / "start.md").read_text(encoding="utf-8")
STEPS = "Your own stack"  # from here on, the page names dialogs of napari too


@pytest.fixture
def words(viewer):
    """All words of the dock widget, without the marks of mnemonics and units in brackets."""
    panel = dock(viewer, "Data")
    steps = panel.window()
    found = [label.text() for kind in (QLabel, QAbstractButton) for label in steps.findChildren(kind)]
    return {re.sub(r" \(.*\)$", "", text.replace("&", "")) for text in found}


def test_buttons_and_fields(words):
    bold = r"\*\*([^*]+)\*\*"
    buttons, italics = re.findall(bold, PAGE.split(STEPS)[0]), re.findall(r"\*([^*]+)\*", re.sub(bold, "", PAGE))
    assert {"Start", "Preview", "Show axial view", "Save model"} <= set(buttons) <= words
    fields = {"Voxel size", "FWHM", "Curtain", "Destination", "Axial axis"}
    assert fields <= set(italics) and fields <= words


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\*([^*\n]+ > [^*\n]+)\*", PAGE))))
def test_menus(viewer, path):
    menu = viewer.window._qt_window.menuBar()
    for word in path.split(" > "):
        entries = {action.text().replace("&", ""): action for action in menu.actions()}
        (name, *_) = [name for name in entries if name.startswith(word)] or [None]
        assert name is not None, f"{word!r} is none of {sorted(entries)}"
        menu = entries[name].menu()
