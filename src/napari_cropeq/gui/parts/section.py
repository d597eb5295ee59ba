"""A part of a panel that is folded away under its title."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon, QPixmap
from superqt import QCollapsible

__all__ = ["Section"]


class Section(QCollapsible):
    """Widgets under a title that folds and unfolds them.

    The arrow is text: superqt's icon is drawn before the window's style is known, black on dark grey.

    Parameters
    ----------
    title : str
        What is in it.
    """

    def __init__(self, title: str) -> None:
        # An icon of nothing that is not null: a null one is false under PySide6, and superqt then has none at all.
        nothing = QPixmap(1, 1)
        nothing.fill(Qt.GlobalColor.transparent)
        super().__init__(title, expandedIcon=QIcon(nothing), collapsedIcon=QIcon(nothing))
        self.toggleButton().setIconSize(nothing.size())
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.toggled.connect(lambda _: self.setText(self._title))
        self.setText(title)

    def setText(self, text: str) -> None:
        """Show another title."""
        self._title = text
        super().setText(f"{'▾' if self.isExpanded() else '▸'} {text}")
