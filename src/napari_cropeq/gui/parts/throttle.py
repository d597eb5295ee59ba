"""Calls that are worth making only so often."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer

__all__ = ["Throttle"]


class Throttle(QTimer):
    """Makes a call at once, and then, however often it is triggered, only every so often; never loses the last.

    A change of any text in napari's window has the whole window composed anew, which in software takes two cores
    about 20 ms: texts that change twenty times a second cost half the machine.

    Parameters
    ----------
    parent : QObject
        Ends the calls with itself.
    milliseconds : int
        The least time between two calls.
    call : callable
        What is done.
    """

    def __init__(self, parent: QObject, milliseconds: int, call: Callable[[], None]) -> None:
        super().__init__(parent)
        self.setSingleShot(True)
        self.setInterval(milliseconds)
        self._call, self._again = call, False
        self.timeout.connect(self._on_timeout)

    def trigger(self) -> None:
        """Ask for a call."""
        if self.isActive():
            self._again = True
        else:
            self.start()
            self._call()

    def _on_timeout(self) -> None:
        if self._again:
            self._again = False
            self.start()
            self._call()
