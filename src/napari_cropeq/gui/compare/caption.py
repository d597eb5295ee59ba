"""A word on the canvas that says what is shown there."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

__all__ = ["Caption"]

GAP = 6  # from the edges of the room, px
LEAST = 4  # letters, the ellipsis among them: with fewer the word cannot be guessed
# Its own background, because the image below may be dark or light, whatever the theme.
STYLE = "color: white; background: rgba(0, 0, 0, 190); border-radius: 3px; padding: 2px 5px;"


class Caption(QLabel):
    """A text at the top of another widget, which is shortened where there is little room for it, then hidden.

    Parameters
    ----------
    over : QWidget
        The widget; it becomes the parent.
    text : str
        The whole text.
    """

    def __init__(self, over: QWidget, text: str) -> None:
        super().__init__(over)
        self._whole = text
        self.setStyleSheet(STYLE)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)

    def place(self, start: int, stop: int, side: float, shown: bool = True) -> None:
        """Move between two places along the width of the widget.

        Parameters
        ----------
        start, stop : int
            The room for the text, px from the left of the widget.
        side : float
            Where in that room: 0 is left, 1 is right.
        shown : bool
            Whether to show it, if there is room.
        """
        self.ensurePolished()  # so that the font is that of the window's style
        self.setText(self._whole)
        metrics, room = self.fontMetrics(), stop - start - 2 * GAP
        around = self.sizeHint().width() - metrics.horizontalAdvance(self._whole)
        text = metrics.elidedText(self._whole, Qt.TextElideMode.ElideRight, room - around)
        self.setText(text)
        self.adjustSize()
        self.move(start + GAP + round(side * (room - self.width())), GAP)
        self.setVisible(shown and (text == self._whole or len(text) >= LEAST))
