"""The layer that shows a result, the box that replaces it in a 3D display, and the interpolation to compare it with."""

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

__all__ = ["SRLayer", "levels_of"]

FIRST_MS, REFRESH_MS = 15, 250  # refresh at once for the first tile of a view, then a few times a second
COVERING = ("opaque", "translucent", "translucent_no_depth")
APPEARANCE = ("contrast_limits", "colormap", "gamma", "blending", "interpolation2d", "interpolation3d", "rendering")


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
    interpolated : Image, optional
        The interpolation in the same place; None until something is compared with it.
    superseded : list of Image
        Layers that are hidden when this one is shown.
    adopted : Image, optional
        A layer of an unfinished result of the same model, which is used instead of a new one.
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
        self.interpolated: Image | None = None
        self.superseded: list[Image] = []
        self.adopted: Image | None = None
        self.hid_source = False
        self._name = f"{source.name} SR"
        self._complete = self._inherited = False
        self._changes = self._read = 0  # number of the last change, and of the last one shown
        self._refresh_soon = QSignalThrottler(QSignalThrottler.EmissionPolicy.Trailing, parent=self)
        self._refresh_soon.setTimeout(FIRST_MS)
        self._refresh_soon.triggered.connect(self._refresh)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.dims.events.current_step.connect(self._on_step)

    def make(self, lazy: LazyView, description: dict[str, Any]) -> Image:
        """Create and return the layer; it is added to the viewer with its first data.

        Parameters
        ----------
        lazy : LazyView
            Its data.
        description : dict
            How it is computed, for its metadata.
        """
        self._lazy = lazy
        if self.adopted is not None and self.adopted in self._viewer.layers:
            self.image = self.adopted
            self.image.metadata = {"napari-cropeq": description}
        else:
            self.image, self.adopted = self._layer(lazy, self._name, description), None
        return self.image

    def name_after(self, model: str) -> None:
        """Add what the model is called to the name of the layer, unless the user has given it another name."""
        old, self._name = self._name, f"{self._source.name} SR ({model})"
        if self.image is not None and self.image.name.startswith(old):  # napari numbers equal names
            self.image.name = self._name

    def compare(self, lazy: LazyView) -> Image | None:
        """Return a layer of the interpolation ``lazy`` below the SR layer, with its look; None before it is created."""
        if self.image is None:
            return None
        layer, layers = self.interpolated, self._viewer.layers
        if layer is None:
            name = f"{self._source.name} interpolated"
            layer = self.interpolated = self._layer(lazy, name, {"interpolation_of": self._source.name})
            layer.visible = False
            selected = set(layers.selection)
            layers.insert(layers.index(self.image), layer)
            layers.selection = selected
        elif self._inherited:
            layer.data = levels_of(lazy)
            layers.move(layers.index(layer), layers.index(self.image))
        else:
            return layer
        self._inherited = False
        for name in APPEARANCE:
            setattr(layer, name, getattr(self.image, name))
        layers.link_layers([self.image, layer], APPEARANCE)
        return layer

    def inherit(self, other: SRLayer) -> None:
        """Take over the layer of the interpolation, which is the same for every model, and hide it.

        It is not removed and added again: on some systems napari crashes after a layer below others was removed.
        """
        layer = other._release()
        if layer is not None:
            layer.visible = False
            self.interpolated, self._inherited = layer, True

    def _release(self) -> Image | None:
        """Return the layer of the interpolation, which is not this one's any more."""
        layer, self.interpolated = self.interpolated, None
        if layer is not None and self.image is not None:
            self._viewer.layers.unlink_layers([self.image, layer], APPEARANCE)
        return layer

    def show(self, state: RunState) -> None:
        """Show the current data; changes in quick succession cause one refresh."""
        self._changes = state.changes
        if self.image is None:
            return
        if state.shown and (self.image is self.adopted or self.image not in self._viewer.layers):
            self._add(self.image)
        elif self._changes != self._read:
            self._refresh_soon.throttle()
        self._complete = state.complete
        if state.complete and self.box is not None and not self.box.in_region:
            self.box.hide()

    def refresh_promptly(self) -> None:
        """Show the next tile at once, because the view has changed."""
        self._refresh_soon.setTimeout(FIRST_MS)

    def show_box(self, view: View | None, in_region: bool = False) -> None:
        """Show the box of a 3D view instead of the layer, which is shown itself if there is none, or if it is complete.

        Parameters
        ----------
        view : View, optional
            The box.
        in_region : bool
            Whether the box was chosen; it is shown even where the layer is complete.
        """
        if view is not None and (in_region or not self._complete):
            assert self.image is not None and self._lazy is not None
            self.box = self.box or BoxLayer(self._viewer, self.image, self._lazy)
            self.box.show(view, in_region)
        elif self.box is not None:
            self.box.hide()

    def close(self) -> None:
        """Stop refreshing; the layer, if it stays, keeps what it shows."""
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.dims.events.current_step.disconnect(self._on_step)
        with contextlib.suppress(RuntimeError):  # Qt may be shut down before Python
            self._refresh_soon.cancel()
        if self.box is not None:
            self.box.hide()
        layer = self._release()
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _layer(self, lazy: LazyView, name: str, description: dict[str, Any]) -> Image:
        """Return a layer of all levels in the place of the result, looking like the source."""
        levels = levels_of(lazy)
        return Image(
            levels,
            multiscale=isinstance(levels, list),
            name=name,
            cache=False,
            metadata={"napari-cropeq": description},
            **appearance(self._source),
            **self._transform,
        )

    def _add(self, image: Image) -> None:
        """Add the layer; hide a source that would shine through it, since the intensities would add up."""
        if image is self.adopted and self._lazy is not None:
            image.data, image.visible, self.adopted = levels_of(self._lazy), True, None
        else:
            self._viewer.add_layer(image)
        for other in self.superseded:
            other.visible = False
        if self._source.blending not in COVERING and self._source.visible:
            self._source.visible = False
            self.hid_source = True

    def _refresh(self) -> None:
        """Refresh the layers; the slower this is, the longer until the next refresh."""
        if self._changes == self._read:
            return
        started, self._read = time.perf_counter(), self._changes
        for layer in (self.image, None if self.box is None else self.box.layer, self.interpolated):
            if layer is not None and layer.visible:
                layer.refresh(extent=False, thumbnail=False, highlight=False)
        self._refresh_soon.setTimeout(max(REFRESH_MS, round(4000 * (time.perf_counter() - started))))

    def _on_step(self) -> None:
        """Need no refresh while a slider moves: napari slices the layers at each step."""
        self._read = self._changes

    def _on_removed(self, event: Any) -> None:
        if self.box is not None and event.value is self.box.layer:
            self.box.hide()
            self.box_removed.emit()
        elif event.value is self.interpolated:
            self._release()
        elif event.value is self.image or event.value is self._source:
            if event.value is self.image and self.hid_source:
                with contextlib.suppress(RuntimeError):  # a viewer that closes slices nothing any more
                    self._source.visible = True
            self.removed.emit()


def levels_of(lazy: LazyView) -> Any:
    """Return the data of a layer: the levels, or the array if there is only one."""
    levels = lazy.levels
    return levels if len(levels) > 1 else levels[0]
