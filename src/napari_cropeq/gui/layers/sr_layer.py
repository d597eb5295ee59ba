"""The layer that shows a result, and the box that replaces it in a 3D display."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalThrottler

from napari_cropeq.gui.layers.box_layer import BoxLayer
from napari_cropeq.gui.layers.source import appearance
from napari_cropeq.run.live import RunState
from napari_cropeq.view.lazy import LazyView
from napari_cropeq.view.view import View

__all__ = ["SRLayer"]

FIRST_MS, REFRESH_MS = 15, 250  # refresh at once for the first tile of a view, then a few times a second
COVERING = ("opaque", "translucent", "translucent_no_depth")


class SRLayer(QObject):
    """Creates the layer when the result is ready, adds it with its first data, and refreshes it as tiles arrive.

    Parameters
    ----------
    viewer : napari viewer
        Where the layer appears.
    source : Image
        The layer that it is shown on top of.
    transform : dict
        Its transform: keywords of :class:`napari.layers.Image`.

    Attributes
    ----------
    image : Image, optional
        The layer; None until it is created.
    box : BoxLayer, optional
        Shown instead in 3D; None until it is needed.
    superseded : list of Image
        Layers that are hidden when this one is shown.
    hid_source : bool
        Whether the source was hidden because it would shine through.
    """

    removed = Signal()  # the layer or its source was removed from the viewer
    box_removed = Signal()

    def __init__(self, viewer: Any, source: Image, transform: dict[str, Any]) -> None:
        super().__init__()
        self._viewer, self._source, self._transform = viewer, source, transform
        self._lazy: LazyView | None = None
        self.image: Image | None = None
        self.box: BoxLayer | None = None
        self.superseded: list[Image] = []
        self.hid_source = False
        self._changes = self._read = 0  # number of the last change, and of the last one shown
        self._refresh_soon = QSignalThrottler(QSignalThrottler.EmissionPolicy.Trailing, parent=self)
        self._refresh_soon.setTimeout(FIRST_MS)
        self._refresh_soon.triggered.connect(self._refresh)
        viewer.layers.events.removed.connect(self._on_removed)

    def make(self, lazy: LazyView, description: dict[str, Any]) -> Image:
        """Create and return the layer; it is added to the viewer with its first data.

        Parameters
        ----------
        lazy : LazyView
            Its data.
        description : dict
            How it is computed, for its metadata.
        """
        self._lazy, levels = lazy, lazy.levels
        self.image = Image(
            levels if len(levels) > 1 else levels[0],
            multiscale=len(levels) > 1,
            name=f"{self._source.name} SR",
            cache=False,
            metadata={"napari-cropeq": description},
            **appearance(self._source),
            **self._transform,
        )
        return self.image

    def show(self, state: RunState) -> None:
        """Show the current data; changes in quick succession cause one refresh."""
        self._changes = state.changes
        if self.image is None:
            return
        if self.image not in self._viewer.layers and state.shown:
            self._add(self.image)
        elif self._changes != self._read:
            self._refresh_soon.throttle()

    def refresh_promptly(self) -> None:
        """Show the next tile at once, because the view has changed."""
        self._refresh_soon.setTimeout(FIRST_MS)

    def show_box(self, view: View | None) -> None:
        """Show the box of a 3D view instead of the layer; None shows the layer itself."""
        if view is not None:
            assert self.image is not None and self._lazy is not None
            self.box = self.box or BoxLayer(self._viewer, self.image, self._lazy)
            self.box.show(view)
        elif self.box is not None:
            self.box.hide()

    def close(self) -> None:
        """Stop refreshing; the layer, if it stays, keeps what it shows."""
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        with contextlib.suppress(RuntimeError):  # Qt may be shut down before Python
            self._refresh_soon.cancel()
        if self.box is not None:
            self.box.hide()

    def _add(self, image: Image) -> None:
        """Add the layer; hide a source that would shine through it, since the intensities would add up."""
        self._viewer.add_layer(image)
        for other in self.superseded:
            other.visible = False
        if self._source.blending not in COVERING and self._source.visible:
            self._source.visible = False
            self.hid_source = True

    def _refresh(self) -> None:
        """Refresh the layers; the slower this is, the longer until the next refresh."""
        started, self._read = time.perf_counter(), self._changes
        for layer in (self.image, None if self.box is None else self.box.layer):
            if layer is not None and layer.visible:
                layer.refresh(extent=False, thumbnail=False, highlight=False)
        self._refresh_soon.setTimeout(max(REFRESH_MS, round(4000 * (time.perf_counter() - started))))

    def _on_removed(self, event: Any) -> None:
        if self.box is not None and event.value is self.box.layer:
            self.box.hide()
            self.box_removed.emit()
        elif event.value is self.image or event.value is self._source:
            if event.value is self.image and self.hid_source:
                self._source.visible = True
            self.removed.emit()
