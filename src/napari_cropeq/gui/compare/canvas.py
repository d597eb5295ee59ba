"""The canvas of a viewer and its visuals. Only this file uses private parts of napari.

napari has no public way from a layer to its visuals; ``tests/gui/test_compare.py`` checks that this one works.
"""

from __future__ import annotations

from typing import Any

from napari.layers import Layer
from qtpy.compat import isalive
from qtpy.QtWidgets import QWidget
from vispy.scene import SceneCanvas
from vispy.visuals import CompoundVisual, Visual

from napari_cropeq.errors import MismatchError

__all__ = ["Canvas"]


class Canvas:
    """The canvas of a viewer in a window.

    Parameters
    ----------
    viewer : napari viewer
        Or a proxy of one.

    Raises
    ------
    MismatchError
        If this version of napari keeps its canvas elsewhere.
    """

    def __init__(self, viewer: Any) -> None:
        # napari's proxy warns about each private name; the object that it wraps is the viewer.
        viewer = getattr(viewer, "__wrapped__", viewer)
        try:
            self._canvas = viewer.window._qt_viewer.canvas
            self.scene: SceneCanvas = self._canvas._scene_canvas
            self.widget: QWidget = self._canvas.native
        except AttributeError as error:
            raise MismatchError(
                f"The curtain does not work with this version of napari ({error}).",
                "Compare with Flip, or use another version of napari.",
            ) from error

    @property
    def alive(self) -> bool:
        """Whether the window still exists."""
        return isalive(self.widget)

    def visuals(self, layer: Layer) -> list[Visual]:
        """Return the current visuals of ``layer``: several for an image that is larger than a texture.

        napari replaces them when it switches between 2D and 3D and when the shape of the slice changes, so call this
        before each draw.
        """
        drawn = self._canvas.layer_to_visual.get(layer)
        if drawn is None:
            return []
        return list(drawn.node._subvisuals) if isinstance(drawn.node, CompoundVisual) else [drawn.node]

    def blend_as_lowest(self, layer: Layer) -> None:
        """Blend ``layer`` with black, not with the background, as napari does for the lowest visible layer.

        napari resets this when the visibility or the order of any layer changes.
        """
        drawn = self._canvas.layer_to_visual[layer]
        if not drawn.first_visible:
            drawn.first_visible = True
            drawn._on_blending_change()

    def blend_as_usual(self) -> None:
        """Blend each layer according to its place in the layer list."""
        self._canvas._reorder_layers()
