"""A vertical line over another widget, with a handle to drag it."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPolygonF
from qtpy.QtWidgets import QWidget

from napari_cropeq.gui.compare.caption import Caption

__all__ = ["Border"]

GRIP = 15  # width of the handle, which receives the mouse
LIGHT, DARK = QColor(255, 255, 255, 230), QColor(0, 0, 0, 150)


class Border(QWidget):
    """The border between the two sides of ``over``; it stays at the same fraction of its width.

    Only its handle receives the left mouse button; all other mouse events go to ``over``.

    Parameters
    ----------
    over : QWidget
        The widget that is split; it becomes the parent.
    captions : (str, str)
        What is left and right of it.
    position : float
        Fraction of the width, 0 to 1.
    """

    moved = Signal(float)  # the position, after the mouse moved it

    def __init__(self, over: QWidget, captions: tuple[str, str], position: float) -> None:
        super().__init__(over)
        self._over, self._position = over, position
        self._grabbed: float | None = None  # where the handle was grabbed, relative to the border
        self.captions = tuple(Caption(over, text) for text in captions)
        self.setCursor(Qt.CursorShape.SplitHCursor)
        over.installEventFilter(self)
        self.place()

    @property
    def position(self) -> float:
        """Fraction of the width that lies left of the border, 0 to 1."""
        return self._position

    @position.setter
    def position(self, position: float) -> None:
        self._position = position
        self.place()

    @property
    def edge(self) -> int:
        """Whole screen pixels left of the border."""
        return round(self._position * self._over.width())

    def place(self) -> None:
        """Move over the border; the whole handle stays inside ``over``, so that it can be grabbed at either end."""
        width, height = self._over.width(), self._over.height()
        start = min(max(self.edge - GRIP // 2, 0), max(width - GRIP, 0))
        self.setGeometry(start, 0, GRIP, height)
        left, right = self.captions
        left.place(0, start, 1, not self.isHidden())
        right.place(start + GRIP, width, 0, not self.isHidden())
        self.update()

    def show_all(self, on: bool) -> None:
        """Show or hide border and captions."""
        self.setVisible(on)
        self.place()

    def discard(self) -> None:
        """Remove border and captions from the widget that is split."""
        self._over.removeEventFilter(self)
        for widget in (self, *self.captions):
            widget.hide()
            widget.deleteLater()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Move with the widget that is split when it is resized."""
        if event.type() == QEvent.Type.Resize:
            self.place()
        return False

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Grab the border."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._grabbed = self._x(event) - self.edge
        else:
            event.ignore()

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Drag the border."""
        if self._grabbed is None:
            event.ignore()
            return
        position = (self._x(event) - self._grabbed) / max(self._over.width(), 1)
        self.position = min(max(position, 0.0), 1.0)
        self.moved.emit(self.position)

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        """Release the border."""
        if self._grabbed is None or event.button() != Qt.MouseButton.LeftButton:
            event.ignore()
        else:
            self._grabbed = None

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the line and the handle, light with a dark outline, so that they are visible on any image."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        x, middle = float(self.edge - self.x()), self.height() / 2
        for colour, half in ((DARK, 2), (LIGHT, 1)):
            painter.fillRect(QRectF(x - half, 0, 2 * half, self.height()), colour)
        handle = QRectF(0.5, middle - 17.5, GRIP - 1, 35)
        painter.setPen(DARK)
        painter.setBrush(LIGHT)
        painter.drawRoundedRect(handle, 5, 5)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(60, 60, 60))
        centre = handle.center()
        for side in (-1, 1):
            tip, base = centre.x() + side * 5.5, centre.x() + side * 1.5
            corners = [QPointF(tip, middle), QPointF(base, middle - 4), QPointF(base, middle + 4)]
            painter.drawPolygon(QPolygonF(corners))

    def _x(self, event: QMouseEvent) -> float:
        """Return the position of the mouse, in pixels from the left of the widget that is split."""
        return self.mapTo(self._over, event.position().toPoint()).x()
