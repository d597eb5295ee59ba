"""Comparison of a result and its source: in turn with a key (flip), or side by side (curtain)."""

from __future__ import annotations

import contextlib
from typing import Any

from napari.layers import Image, Layer
from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_cropeq.errors import ArgumentError
from napari_cropeq.gui.compare.curtain import Curtain

__all__ = ["FLIP_KEY", "Compare"]

FLIP_KEY = coerce_keybinding("K")  # not used by napari, nor by its labels and shapes layers


class Compare(QObject):
    """Comparison of two layers in the same place.

    It closes itself when one of the layers is removed. Layers that the user shows or hides meanwhile stay shown or
    hidden.

    Parameters
    ----------
    viewer : napari viewer
        With a window, and both layers in it.
    source, sr : Image
        The acquired volume and its super-resolution.

    Raises
    ------
    ArgumentError
        If one of the layers is not in the viewer.
    """

    changed = Signal()  # flipped, curtain on or off, border dragged, closed

    def __init__(self, viewer: Any, source: Image, sr: Image) -> None:
        super().__init__(QCoreApplication.instance())  # until it is closed
        for layer in (source, sr):
            if layer not in viewer.layers:
                raise ArgumentError(f"The layer '{layer.name}' is not in the viewer.", "Add the layer again.")
        self.source, self.sr = source, sr
        self._viewer = viewer
        self._flipped, self._opened = Visibility(), Visibility()
        self._curtain: Curtain | None = None
        self._position = 0.5
        self._closed = False
        viewer.keymap.setdefault(FLIP_KEY, self._on_key)  # keep the user's own binding
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def closed(self) -> bool:
        """Whether the comparison has ended."""
        return self._closed

    def flip(self) -> None:
        """Show only the source if the SR is visible, else only the SR; removes the curtain."""
        if self._closed:
            return
        self._set_curtain(False)
        alone = self.source if self.sr.visible else self.sr
        self._flipped.show({self.source: alone is self.source, self.sr: alone is self.sr})
        self.changed.emit()

    @property
    def curtain(self) -> bool:
        """Whether the view is split: the source left of the border, the SR right of it.

        Setting it raises MismatchError if the canvas of this version of napari cannot be accessed. Nothing else needs
        the canvas.
        """
        return self._curtain is not None

    @curtain.setter
    def curtain(self, on: bool) -> None:
        if not self._closed and on != self.curtain:
            self._set_curtain(on)
            self.changed.emit()

    @property
    def position(self) -> float:
        """Position of the border: the fraction of the canvas's width left of it, 0 to 1."""
        return self._position

    @position.setter
    def position(self, position: float) -> None:
        self._position = min(max(float(position), 0.0), 1.0)
        if self._curtain is not None:
            self._curtain.position = self._position

    def close(self) -> None:
        """Undo everything. Does nothing when called again, or after the window was closed."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(ReferenceError):  # the viewer was deleted, and all changes with it
            self._viewer.layers.events.removed.disconnect(self._on_removed)
            if self._viewer.keymap.get(FLIP_KEY) == self._on_key:
                del self._viewer.keymap[FLIP_KEY]
            if self._curtain is None or self._curtain.alive:
                self._set_curtain(False)
                self._flipped.restore()
        self._curtain = None  # deleted with the window, if not already removed
        self.changed.emit()
        self.deleteLater()

    def _set_curtain(self, on: bool) -> None:
        if on and self._curtain is None:
            self._curtain = Curtain(self._viewer, self.source, self.sr, self._position)
            self._curtain.setParent(self)
            self._curtain.moved.connect(self._on_moved)
            self._opened.show({self.source: True, self.sr: True})
        elif not on and self._curtain is not None:
            self._curtain.close()
            self._curtain = None
            self._opened.restore()

    def _on_key(self, viewer: Any) -> None:
        """Flip between super-resolution and source."""
        self.flip()

    def _on_moved(self, position: float) -> None:
        self._position = position
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        if event.value in (self.source, self.sr):
            self.close()


class Visibility:
    """The visibility of layers before they were shown or hidden here."""

    def __init__(self) -> None:
        self._changed: dict[Layer, tuple[bool, bool]] = {}  # before, and as set here

    def show(self, wanted: dict[Layer, bool]) -> None:
        """Show or hide layers."""
        for layer, visible in wanted.items():
            before, ours = self._changed.get(layer, (layer.visible, layer.visible))
            self._changed[layer] = (before if layer.visible == ours else layer.visible, visible)
            if layer.visible != visible:  # setting it slices the layer again
                layer.visible = visible

    def restore(self) -> None:
        """Restore the visibility, except for layers that the user has shown or hidden since."""
        for layer, (before, ours) in self._changed.items():
            if layer.visible == ours != before:
                with contextlib.suppress(RuntimeError):  # a viewer that is closing cannot slice in the background
                    layer.visible = before
        self._changed.clear()
