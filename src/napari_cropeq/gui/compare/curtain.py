"""Two layers in one canvas: one left of a border, the other right of it."""

from __future__ import annotations

from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QObject, Signal
from vispy.visuals import Visual
from vispy.visuals.filters import Clipper

from napari_cropeq.gui.compare.border import Border
from napari_cropeq.gui.compare.canvas import Canvas

__all__ = ["Curtain"]

FAR = 1e6  # pixels: beyond any canvas


class Curtain(QObject):
    """A split view, until it is closed; other layers are not changed.

    The two layers are clipped at the border on the graphics card. Nothing is sliced when the border moves, and the
    border stays where it is when the image moves. In grid mode, where the layers are not on top of each other, the
    curtain is open. In 3D display the border cuts the picture, not the volume.

    Parameters
    ----------
    viewer : napari viewer
        With a window.
    left, right : Layer
        The layers shown on either side.
    captions : (str, str)
        What the layers are.
    position : float
        Position of the border: the fraction of the canvas's width left of it, 0 to 1.

    Raises
    ------
    MismatchError
        If the canvas of this version of napari cannot be accessed.
    """

    moved = Signal(float)  # the position, after the mouse moved it

    def __init__(self, viewer: Any, left: Layer, right: Layer, captions: tuple[str, str], position: float) -> None:
        super().__init__()
        self._layers, self._sides = viewer.layers, (left, right)
        self._grid = viewer.canvas.grid
        self._canvas = Canvas(viewer)
        self._clippers: dict[Visual, Clipper] = {}
        self._border = Border(self._canvas.widget, captions, position)
        self._border.moved.connect(self._on_moved)
        self._grid.events.enabled.connect(self._on_grid)
        self._canvas.scene.events.draw.connect(self._before_draw)
        self._on_grid()

    @property
    def alive(self) -> bool:
        """Whether the window still exists."""
        return self._canvas.alive

    @property
    def position(self) -> float:
        """Fraction of the canvas's width left of the border, 0 to 1."""
        return self._border.position

    @position.setter
    def position(self, position: float) -> None:
        self._border.position = position
        self._canvas.scene.update()

    def close(self) -> None:
        """Stop clipping; call this while the window still exists."""
        self._grid.events.enabled.disconnect(self._on_grid)
        self._canvas.scene.events.draw.disconnect(self._before_draw)
        self._clip({})
        self._border.discard()
        self._canvas.blend_as_usual()
        self.deleteLater()

    def _before_draw(self, event: Any = None) -> None:
        """Clip the visuals that are about to be drawn; they and the size of the canvas may have changed."""
        wanted = {}
        if not self._grid.enabled:
            edge = round(self._border.edge * self._canvas.scene.pixel_scale)  # in the screen's own pixels
            for layer, low, high in zip(self._sides, (-FAR, edge), (edge, FAR), strict=True):
                for visual in self._canvas.visuals(layer):
                    wanted[visual] = (low, -FAR, high - low, 2 * FAR)
            self._blend()
        self._clip(wanted)

    def _clip(self, wanted: dict[Visual, tuple[float, float, float, float]]) -> None:
        """Clip only these visuals, to their bounds (x, y, width, height)."""
        for visual in self._clippers.keys() - wanted.keys():
            visual.detach(self._clippers.pop(visual))
        for visual, bounds in wanted.items():
            if visual not in self._clippers:
                self._clippers[visual] = Clipper()
                visual.attach(self._clippers[visual])
            self._clippers[visual].bounds = bounds

    def _blend(self) -> None:
        """Blend each layer as if the other were hidden: each may be the lowest visible layer on its side."""
        lowest = [layer for layer in self._layers if layer.visible][:2]
        if set(lowest) == set(self._sides):
            self._canvas.blend_as_lowest(lowest[1])

    def _on_moved(self, position: float) -> None:
        self._canvas.scene.update()
        self.moved.emit(position)

    def _on_grid(self, event: Any = None) -> None:
        self._border.show_all(not self._grid.enabled)
        self._canvas.scene.update()
