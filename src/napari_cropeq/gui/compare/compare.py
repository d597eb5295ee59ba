"""Comparison of a result with its source or its interpolation: in turn with a key (flip), or side by side (curtain)."""

from __future__ import annotations

import contextlib
from typing import Any

from napari.layers import Image, Layer
from napari.utils.key_bindings import coerce_keybinding
from qtpy.compat import isalive
from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_cropeq.errors import ArgumentError, MismatchError
from napari_cropeq.gui.compare.canvas import Canvas
from napari_cropeq.gui.compare.caption import Caption
from napari_cropeq.gui.compare.curtain import Curtain

__all__ = ["FLIP_KEY", "Compare"]

FLIP_KEY = coerce_keybinding("K")  # not used by napari, nor by its labels and shapes layers


class Compare(QObject):
    """Comparison of the super-resolution with another layer in the same place.

    It closes itself when one of the layers is removed. Layers that the user shows or hides meanwhile stay shown or
    hidden.

    Parameters
    ----------
    viewer : napari viewer
        With a window, and both layers in it.
    other, sr : Image
        The acquired volume or its interpolation, and its super-resolution.
    captions : (str, str)
        What the two layers are, for the canvas.

    Raises
    ------
    ArgumentError
        If one of the layers is not in the viewer.
    """

    changed = Signal()  # flipped, curtain on or off, border dragged, closed

    def __init__(self, viewer: Any, other: Image, sr: Image, captions: tuple[str, str]) -> None:
        super().__init__(QCoreApplication.instance())  # until it is closed
        for layer in (other, sr):
            if layer not in viewer.layers:
                raise ArgumentError(f"The layer '{layer.name}' is not in the viewer.", "Add the layer again.")
        self.other, self.sr = other, sr
        self._viewer, self._captions = viewer, captions
        self._flipped, self._opened = Visibility(), Visibility()
        self._curtain: Curtain | None = None
        self._alone: dict[Layer, Caption] = {}  # says which layer is shown after a flip
        self._position = 0.5
        self._closed = False
        viewer.keymap.setdefault(FLIP_KEY, self._on_key)  # keep the user's own binding
        viewer.layers.events.removed.connect(self._on_removed)
        for layer in (other, sr):
            layer.events.visible.connect(self._show_alone)

    @property
    def closed(self) -> bool:
        """Whether the comparison has ended."""
        return self._closed

    def flip(self) -> None:
        """Show only the other layer if the SR is visible, else only the SR; removes the curtain."""
        if self._closed:
            return
        self._set_curtain(False)
        if not self._alone:
            with contextlib.suppress(MismatchError):
                canvas = Canvas(self._viewer).widget
                layers = zip((self.other, self.sr), self._captions, strict=True)
                self._alone = {layer: Caption(canvas, text) for layer, text in layers}
        alone = self.other if self.sr.visible else self.sr
        self._flipped.show({self.other: alone is self.other, self.sr: alone is self.sr})
        self.changed.emit()

    @property
    def curtain(self) -> bool:
        """Whether the view is split: the other layer left of the border, the SR right of it.

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
        for layer in (self.other, self.sr):
            layer.events.visible.disconnect(self._show_alone)
        for caption in filter(isalive, self._alone.values()):
            caption.hide()
            caption.deleteLater()
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
            self._curtain = Curtain(self._viewer, self.other, self.sr, self._captions, self._position)
            self._curtain.setParent(self)
            self._curtain.moved.connect(self._on_moved)
            self._opened.show({self.other: True, self.sr: True})
        elif not on and self._curtain is not None:
            self._curtain.close()
            self._curtain = None
            self._opened.restore()

    def _show_alone(self, event: Any = None) -> None:
        """Show the caption of the layer that is visible without the other."""
        for layer, caption in self._alone.items():
            if isalive(caption):
                alone = layer.visible and self.other.visible != self.sr.visible
                caption.place(0, caption.parentWidget().width(), 0, alone)

    def _on_key(self, viewer: Any) -> None:
        """Flip between the super-resolution and what it is compared with."""
        self.flip()

    def _on_moved(self, position: float) -> None:
        self._position = position
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        if event.value in (self.other, self.sr):
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
