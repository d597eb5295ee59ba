"""Labels and fields in two columns, which are aligned in all panels."""

from __future__ import annotations

from collections.abc import Iterable

from magicgui.widgets import CheckBox
from magicgui.widgets.bases import Widget
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QLabel, QWidget

__all__ = ["Form"]

LABELS = 104  # width of the column of labels, px: that of the longest one


class Form(QWidget):
    """Fields below one another, each with its label.

    Parameters
    ----------
    fields : iterable of magicgui widgets
        Label and tooltip are theirs.
    """

    def __init__(self, fields: Iterable[Widget] = ()) -> None:
        super().__init__()
        self._rows = QFormLayout(self)
        self._rows.setContentsMargins(0, 0, 0, 0)
        self._rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._rows.setLabelAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.extend(fields)

    def extend(self, fields: Iterable[Widget]) -> None:
        """Add fields."""
        for field in fields:
            label = QLabel("" if isinstance(field, CheckBox) else field.label)  # a check box has its own text
            label.setMinimumWidth(LABELS)
            label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            label.setBuddy(field.native)
            label.setToolTip(field.tooltip or "")
            self._rows.addRow(label, field.native)

    def show_field(self, field: Widget, visible: bool) -> None:
        """Show or hide a field and its label."""
        self._rows.setRowVisible(field.native, visible)

    def rename(self, field: Widget, text: str) -> None:
        """Give a field another label."""
        label = self._rows.labelForField(field.native)
        assert isinstance(label, QLabel)
        label.setText(text)
