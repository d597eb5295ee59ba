"""What the Tab key reaches, in which order, and how it is seen; mnemonics of buttons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QComboBox,
    QLayout,
    QLineEdit,
    QScrollArea,
    QWidget,
)

from napari_cropeq.gui.colours import Colours

__all__ = ["focus_style", "order_stops", "stops", "with_mnemonic"]

STOPS = (QAbstractButton, QAbstractItemView, QAbstractSpinBox, QComboBox, QLineEdit)
FOCUSED = ("QPushButton", "QComboBox", "QAbstractSpinBox", "QLineEdit", "QCheckBox", "QTableWidget", "QTabBar::tab")

# Alt with this letter presses the button. Not in use: what napari uses with Alt, which is D F H L P V W for its menus,
# S and C for screenshots, and T.
LETTERS = {
    "start": "a",
    "continue": "i",
    "resume": "r",
    "pause": "u",
    "stop": "o",
    "save": "e",
    "save model": "e",
    "load model": "m",
    "preview": "e",
    "show axial view": "a",
    "flip": "i",
    "verify": "e",
    "against padded": "a",
    "confirm": "m",
    "suggest fwhm from image": "u",
    "measure noise": "o",
    "apply": "a",
}
"""By the text of the button; different within each step."""


def with_mnemonic(text: str, name: str | None = None) -> str:
    """Return the text of a button with ``&`` before the letter of its mnemonic; ``name`` is its text if that varies."""
    letter = LETTERS.get((name or text).lower())
    return text if letter is None else re.sub(letter, lambda found: f"&{found[0]}", text, count=1, flags=re.IGNORECASE)


def stops(widget: QWidget) -> Iterator[QWidget]:
    """Yield what Tab stops at in a widget, in the order of its layouts: from top to bottom.

    The others get no focus from the keyboard: nothing could be done there, and nobody would see where the focus is.
    """
    if isinstance(widget, STOPS):
        yield widget
        return
    widget.setFocusPolicy(Qt.FocusPolicy(widget.focusPolicy().value & Qt.FocusPolicy.ClickFocus.value))
    if isinstance(widget, QScrollArea):
        yield from stops(widget.widget())
    elif widget.layout() is not None:
        yield from _in_layout(widget.layout())


def _in_layout(layout: QLayout) -> Iterator[QWidget]:
    for number in range(layout.count()):
        item = layout.itemAt(number)
        if item.widget() is not None:
            yield from stops(item.widget())
        elif item.layout() is not None:
            yield from _in_layout(item.layout())


def order_stops(widgets: Iterable[QWidget]) -> None:
    """Let Tab visit widgets in this order."""
    for one, following in pairwise(widgets):
        QWidget.setTabOrder(one, following)


def focus_style(colours: Colours) -> str:
    """Return the style that shows which widget has the focus; napari's own does not."""
    return f"{', '.join(f'{kind}:focus' for kind in FOCUSED)} {{ border: 1px solid {colours.line}; }}"
