"""Requests the tiles of a result that are in view, after the view has stopped changing."""

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
    """Requests the tiles in view from a worker, nearest the centre first.

    Parameters
    ----------
    viewer : napari viewer
        The viewer that is followed.
    shown : SRLayer
        The SR layer; requests wait until it is created.
    worker : LiveWorker
        Computes the tiles.

    Attributes
    ----------
    view : View, optional
        The last view; None if nothing of the layer was in view.
    following : bool
        Whether tiles are requested whenever the view changes.
    due : bool
        Whether a request is about to be made.
    box_size : int
        Side of the box in 3D, SR voxels.
    box_region : callable
        Returns the corners of the box's region, see :func:`box_view`; None for the camera's centre.
    """

    looked = Signal()

    def __init__(self, viewer: Any, shown: SRLayer, worker: LiveWorker) -> None:
        super().__init__()
        self._viewer, self._shown, self._worker = viewer, shown, worker
        self.view: View | None = None
        self.following = self.due = False
        self.box_size = BOX
        self.box_region: Callable[[], np.ndarray | None] = _no_region
        self._look_soon = QSignalDebouncer(parent=self)
        self._look_soon.setTimeout(REST_MS)
        self._look_soon.triggered.connect(self.look_now)

    def follow(self, on: bool = True) -> None:
        """Request the tiles in view, now and (while on) whenever the view changes."""
        if on != self.following:
            for signal in view_signals(self._viewer):
                (signal.connect if on else signal.disconnect)(self.look)
        self.following = on
        if on:
            self.look()

    def look(self) -> None:
        """Request the tiles in view once the view has stopped changing."""
        self.due = True
        self._look_soon.throttle()

    def look_now(self) -> None:
        """Request the tiles in view now."""
        image = self._shown.image
        if image is None:  # this is called again when it is created
            return
        self.due = False
        if self._viewer.dims.ndisplay == 3:
            region = self.box_region()
            self.view = box_view(self._viewer, image, self.box_size, region)
            self._shown.show_box(self.view, region is not None)
        else:
            self.view = view_of(self._viewer, image)
            self._shown.show_box(None)
        self._shown.refresh_promptly()
        self._worker.look(self.view)
        self.looked.emit()

    def stop(self) -> None:
        """Stop following the view, and cancel tiles that are not computed yet."""
        self.close()
        self._worker.look(None)

    def close(self) -> None:
        """Disconnect from the viewer."""
        self.follow(False)
        self.due = False
        with contextlib.suppress(RuntimeError):  # Qt may be shut down before Python
            self._look_soon.cancel()


def _no_region() -> None:
    """Return None: no region is chosen."""
