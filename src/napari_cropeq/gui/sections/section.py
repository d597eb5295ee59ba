"""A part of a panel that can be folded under its title."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon, QPixmap
from superqt import QCollapsible

__all__ = ["Section"]


class Section(QCollapsible):
    """Widgets under a title that folds and unfolds them.

    The arrow is text, because superqt draws its icon before the window's style is known: black on dark grey.

    Parameters
    ----------
    title : str
        Describes the content.
    tooltip : str
        Of the title.
    """

    def __init__(self, title: str, tooltip: str) -> None:
        # A transparent icon, not a null one: that is false under PySide6, and superqt then uses its own.
        empty = QPixmap(1, 1)
        empty.fill(Qt.GlobalColor.transparent)
        super().__init__(title, expandedIcon=QIcon(empty), collapsedIcon=QIcon(empty))
        self.setDuration(0)  # an unfolding that is still going on would end with the height of the content before it
        self.toggleButton().setIconSize(empty.size())
        self.toggleButton().setToolTip(tooltip)
        self.content().setVisible(False)
        self.layout().setContentsMargins(0, 0, 0, 0)
        self.toggled.connect(lambda _: self.setText(self._title))
        self.setText(title)

    def expand(self, animate: bool = True) -> None:
        """Show the content."""
        self.content().setVisible(True)
        super().expand(animate)

    def collapse(self, animate: bool = True) -> None:
        """Hide the content, also from the Tab key."""
        super().collapse(animate)
        self.content().setVisible(False)

    def setText(self, text: str) -> None:
        """Show another title."""
        self._title = text
        super().setText(f"{'▾' if self.isExpanded() else '▸'} {text}")
