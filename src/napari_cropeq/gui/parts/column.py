"""The column of a dock widget: it scrolls if the window is too low, and protects numbers while they are typed."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QFrame, QScrollArea, QVBoxLayout, QWidget

__all__ = ["LEAST", "Column"]

FIELDS = (QAbstractSpinBox, QComboBox)
BORDER = 2  # that napari's style draws, px
LEAST = 90  # height, px, below which nothing can be read


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

    def sizeHint(self) -> QSize:
        """Ask for the height of the widgets, so that nothing scrolls where there is room."""
        return self.widget().sizeHint() + QSize(0, BORDER)

    def minimumSizeHint(self) -> QSize:
        """Ask for the width of the widgets and the scroll bar."""
        height = min(self.widget().minimumSizeHint().height(), LEAST)
        return QSize(self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width(), height)

    def guard_fields(self) -> None:
        """Protect the fields added so far from the mouse wheel, and from numbers that are not completely typed."""
        for kind in FIELDS:
            for field in self.findChildren(kind):
                field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                field.installEventFilter(self)
                if isinstance(field, QAbstractSpinBox):
                    # Use a number only when it is complete: reacting to each digit may rewrite the field.
                    field.setKeyboardTracking(False)

    def commit_typed(self) -> None:
        """Accept the number that is being typed: on some systems a button does not take the focus."""
        for field in self.findChildren(QAbstractSpinBox):
            if field.hasFocus():
                field.interpretText()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Let the wheel over a field scroll the column, unless it is being edited; follow the widgets' height."""
        if isinstance(watched, FIELDS):
            if event.type() == QEvent.Type.Wheel and not watched.hasFocus():
                event.ignore()
                return True
            return False
        if event is not None and event.type() == QEvent.Type.LayoutRequest and watched is self.widget():
            self.updateGeometry()  # the height that is asked for has changed with the widgets
        return bool(super().eventFilter(watched, event))
