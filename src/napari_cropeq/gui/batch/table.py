"""The table of a batch: one row for each image, with its status."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_cropeq.gui.colours import Colours
from napari_cropeq.gui.hints import BATCH_HINTS
from napari_cropeq.gui.jobs import sentence
from napari_cropeq.run.batch import Item

__all__ = ["BatchTable"]

COLUMNS = ("Image", "Status", "Output", "Message")
WIDTHS = (130, 105, 155)
ROWS = 8  # visible at once
AT_WORK = ("training", "computing", "saving")


class BatchTable(QTableWidget):
    """Shows the items of a batch; only cells that changed are updated.

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
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.horizontalHeader().setStretchLastSection(True)
        self.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for column, width in enumerate(WIDTHS):
            self.setColumnWidth(column, width)
        height = self.verticalHeader().defaultSectionSize()
        self.setMinimumHeight(ROWS * height)

    def show_items(self, items: Sequence[Item]) -> None:
        """Show the status of each image."""
        self._items = items
        self.setRowCount(len(items))
        for row, item in enumerate(items):
            message = "" if item.error is None else sentence(item.error, BATCH_HINTS)
            output = "" if item.output is None else str(item.output)
            self._write(row, 0, item.name, item.input, item.status)
            self._write(row, 1, status_of(item), item.detail, item.status)
            self._write(row, 2, Path(output).name, output, item.status)
            self._write(row, 3, message or item.detail, message, item.status)

    def recolour(self, colours: Colours) -> None:
        """Show the statuses in other colours."""
        self._colours = colours
        self.show_items(self._items)

    def texts(self, column: str) -> list[str]:
        """Return the texts of a column."""
        number = COLUMNS.index(column)
        return [self.item(row, number).text() for row in range(self.rowCount())]

    def _write(self, row: int, column: int, text: str, more: str, status: str) -> None:
        cell = self.item(row, column)
        if cell is None:
            cell = QTableWidgetItem()
            self.setItem(row, column, cell)
        colours = {"failed": self._colours.bad, "done": self._colours.good}
        colour = colours.get(status) if column == 1 or (column == 3 and status == "failed") else None
        if cell.text() != text:
            cell.setText(text)
        if cell.toolTip() != more:
            cell.setToolTip(more)
        brush = QBrush() if colour is None else QBrush(QColor(colour))
        if cell.foreground() != brush:
            cell.setForeground(brush)


def status_of(item: Item) -> str:
    """Return the status, with the progress while the image is processed."""
    return f"{item.status} {100 * item.fraction:.0f} %" if item.status in AT_WORK else item.status
