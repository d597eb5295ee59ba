"""The table of a batch: one row for each image, with its status."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QEvent, QLocale, QSize, Qt
from qtpy.QtGui import QAction, QBrush, QColor, QGuiApplication, QKeyEvent, QKeySequence
from qtpy.QtWidgets import QAbstractItemView, QStyledItemDelegate, QTableWidget, QTableWidgetItem
from superqt.utils import QSignalDebouncer

from napari_cropeq.gui.colours import Colours
from napari_cropeq.gui.hints import BATCH_HINTS
from napari_cropeq.gui.jobs import sentence
from napari_cropeq.run.batch import Item
from napari_cropeq.short_repr import quality_of

__all__ = ["BatchTable"]

COLUMNS = ("Image", "Status", "Result")
WIDTHS = (140, 82)  # of the first ones, px, in the narrowest window
ROWS = 2  # visible at least
BREAK = "\u200b"  # where a name may wrap
HELD_OUT = " on held-out patches"  # said in the tooltip only
AT_WORK = ("training", "computing", "saving")


class BatchTable(QTableWidget):
    """Shows the items of a batch; only cells that changed are updated.

    The last column has the name of the output, or what is wrong. Long texts wrap, and are whole in a tooltip and in
    what Copy puts on the clipboard.

    Parameters
    ----------
    colours : Colours
        For the theme of the window.
    """

    def __init__(self, colours: Colours) -> None:
        super().__init__(0, len(COLUMNS))
        self._items: Sequence[Item] = ()
        self._colours = colours
        self.setHorizontalHeaderLabels(COLUMNS)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setItemDelegate(_WrappedNames(self))
        self.setTabKeyNavigation(False)  # Tab leaves the table, the arrow keys move in it
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)  # rows may be high
        self.verticalHeader().hide()
        header = self.horizontalHeader()
        header.setStretchLastSection(True)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for column, width in enumerate(WIDTHS):
            self.setColumnWidth(column, width)
        header.sectionResized.connect(lambda *_: self._fit_soon.throttle())
        self._fit_soon = QSignalDebouncer(parent=self)
        self._fit_soon.triggered.connect(self.resizeRowsToContents)
        self.setMinimumHeight((ROWS + 1) * self.verticalHeader().defaultSectionSize())
        self.setToolTip("Double-click the border of a column to fit it; Ctrl+C copies the selected rows")
        copy = QAction("Copy", self)
        copy.triggered.connect(self.copy)
        self.addAction(copy)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)

    def sizeHint(self) -> QSize:
        """Ask for no more than the least height: the table gets all the room that is left."""
        return QSize(super().sizeHint().width(), self.minimumHeight())

    def event(self, event: QEvent | None) -> bool:
        """Keep Ctrl+C from napari, whose shortcut it may be, while the table has the focus."""
        if event is not None and event.type() == QEvent.Type.ShortcutOverride:
            if event.matches(QKeySequence.StandardKey.Copy):
                event.accept()
                return True
        return bool(super().event(event))

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Copy the selected rows with Ctrl+C."""
        if event is not None and event.matches(QKeySequence.StandardKey.Copy):
            self.copy()
        else:
            super().keyPressEvent(event)

    def copy(self) -> None:
        """Copy the selected rows, with their whole texts, as lines of columns separated by tabs."""
        rows = sorted({index.row() for index in self.selectedIndexes()})
        lines = ["\t".join(filter(None, self._whole_texts(self._items[row]))) for row in rows]
        QGuiApplication.clipboard().setText("\n".join(lines))

    def show_items(self, items: Sequence[Item]) -> None:
        """Show the status of each image."""
        self._items = items
        self.setRowCount(len(items))
        for row, item in enumerate(items):
            name, status, result = self._whole_texts(item)
            output = "" if item.output is None else item.output.name
            shown = (
                result
                if item.error is not None
                else ", ".join(filter(None, (output, _quality(item).removesuffix(HELD_OUT))))
            )
            wrong = None if item.error is None else self._colours.bad
            colours = {"done": self._colours.good, "failed": self._colours.bad}
            changed = self._write(row, 0, item.name, name)
            self._write(row, 1, status, item.detail, colours.get(item.status))
            changed |= self._write(row, 2, shown, result, wrong)
            if changed:
                self.resizeRowToContents(row)

    def _whole_texts(self, item: Item) -> tuple[str, str, str]:
        """Return input, status, and the path of the output or what is wrong."""
        if item.error is not None:
            return item.input, status_of(item), sentence(item.error, BATCH_HINTS)
        return item.input, status_of(item), ", ".join(filter(None, (str(item.output or ""), _quality(item))))

    def recolour(self, colours: Colours) -> None:
        """Show the statuses in other colours."""
        self._colours = colours
        self.show_items(self._items)

    def texts(self, column: str) -> list[str]:
        """Return the texts of a column."""
        number = COLUMNS.index(column)
        return [self.item(row, number).text() for row in range(self.rowCount())]

    def _write(self, row: int, column: int, text: str, more: str, colour: str | None = None) -> bool:
        """Update text, tooltip and colour of a cell, and return whether its text has changed."""
        cell = self.item(row, column)
        if cell is None:
            cell = QTableWidgetItem()
            self.setItem(row, column, cell)
        brush = QBrush() if colour is None else QBrush(QColor(colour))
        changed = cell.text() != text
        if changed:
            cell.setText(text)
        if cell.toolTip() != more:
            cell.setToolTip(more)
        if cell.foreground() != brush:
            cell.setForeground(brush)
        return changed


class _WrappedNames(QStyledItemDelegate):
    """Lets names of files wrap, which have no spaces."""

    def displayText(self, value: Any, locale: QLocale) -> str:
        return re.sub(r"([_./\\-])(?=\w)", rf"\1{BREAK}", super().displayText(value, locale))


def status_of(item: Item) -> str:
    """Return the status, with the progress while the image is processed."""
    return f"{item.status} {100 * item.fraction:.0f} %" if item.status in AT_WORK else item.status


def _quality(item: Item) -> str:
    """Return how good the network is that was trained on the image; empty if none was."""
    return quality_of(item.facts).get("quality", "")
