"""The column of a dock widget: scrolled where the window is too low, and careful with what is being typed."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QFrame, QScrollArea, QVBoxLayout, QWidget

__all__ = ["Column"]

FIELDS = (QAbstractSpinBox, QComboBox)


class Column(QScrollArea):
    """Widgets below one another; add them to :attr:`rows`."""

    def __init__(self) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        column = QWidget()
        self.rows = QVBoxLayout(column)
        self.rows.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setWidget(column)

    def minimumSizeHint(self) -> QSize:
        """Ask for the width of the widgets and the scroll bar."""
        return QSize(self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width(), 120)

    def guard_fields(self) -> None:
        """Protect the numbers and choices added so far from a wheel that passes over them, and from half a number."""
        for kind in FIELDS:
            for field in self.findChildren(kind):
                field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                field.installEventFilter(self)
                if isinstance(field, QAbstractSpinBox):
                    # A number counts once it is complete: what follows it may rewrite the field, and digits are lost.
                    field.setKeyboardTracking(False)

    def take_typed(self) -> None:
        """Take the number that is being typed: not every system's buttons take the focus from a field."""
        for field in self.findChildren(QAbstractSpinBox):
            if field.hasFocus():
                field.interpretText()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Let a wheel turned over a field scroll the column: only the field being edited takes it."""
        if isinstance(watched, FIELDS):
            if event.type() == QEvent.Type.Wheel and not watched.hasFocus():
                event.ignore()
                return True
            return False
        return bool(super().eventFilter(watched, event))
