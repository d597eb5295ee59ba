"""What of a result's layer is looked at, asked for once the view has come to rest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalDebouncer

from napari_cropeq.gui.layers.sr_layer import SRLayer
from napari_cropeq.gui.layers.viewport import box_view, view_of, view_signals
from napari_cropeq.run.live import LiveWorker
from napari_cropeq.view.view import View

__all__ = ["BOX", "ViewFollower"]

REST_MS = 50
BOX = 128


class ViewFollower(QObject):
    """Asks a worker for the tiles in view, nearest the centre first.

    Parameters
    ----------
    viewer : napari viewer
        Whose view it is.
    shown : SRLayer
        The layer that is looked at; looking waits until it is made.
    worker : LiveWorker
        Computes the tiles.

    Attributes
    ----------
    view : View, optional
        What was looked at last; None where nothing of the layer was in view.
    following : bool
        Whether the tiles are asked for whenever the view changes.
    due : bool
        Whether the view is about to be looked at.
    box_size : int
        Side of what is looked at in 3D, SR voxels.
    box_region : callable
        Returns the corners of where it lies, see :func:`box_view`; None for the camera's centre.
    """

    looked = Signal()

    def __init__(self, viewer: Any, shown: SRLayer, worker: LiveWorker) -> None:
        super().__init__()
        self._viewer, self._shown, self._worker = viewer, shown, worker
        self.view: View | None = None
        self.following = self.due = False
        self.box_size = BOX
        self.box_region: Callable[[], np.ndarray | None] = _nowhere
        self._look_soon = QSignalDebouncer(parent=self)
        self._look_soon.setTimeout(REST_MS)
        self._look_soon.triggered.connect(self.look_now)

    def follow(self, on: bool = True) -> None:
        """Ask for what is in view, now and (while on) whenever the view changes."""
        if on != self.following:
            for signal in view_signals(self._viewer):
                (signal.connect if on else signal.disconnect)(self.look)
        self.following = on
        if on:
            self.look()

    def look(self) -> None:
        """Ask for what is in view once it has come to rest."""
        self.due = True
        self._look_soon.throttle()

    def look_now(self) -> None:
        """Ask for what is in view."""
        image = self._shown.image
        if image is None:  # it will be looked at as soon as it is made
            return
        self.due = False
        if self._viewer.dims.ndisplay == 3:
            self.view = box_view(self._viewer, image, self.box_size, self.box_region())
            self._shown.show_box(self.view)
        else:
            self.view = view_of(self._viewer, image)
            self._shown.show_box(None)
        self._shown.expect()
        self._worker.look(self.view)
        self.looked.emit()

    def stop(self) -> None:
        """Follow the view no longer, and drop what is not computed yet."""
        self.close()
        self._worker.look(None)

    def close(self) -> None:
        """Let go of the viewer."""
        self.follow(False)
        self.due = False
        with contextlib.suppress(RuntimeError):  # Qt may have been torn down before Python
            self._look_soon.cancel()


def _nowhere() -> None:
    """Return that no region is chosen."""
