"""What a viewer's canvas draws: the one place that reaches into napari's private parts.

napari has no public way from a layer to what is drawn of it; ``tests/gui/test_compare.py`` checks that this one works.
"""

from __future__ import annotations

from typing import Any

from napari.layers import Layer
from qtpy.compat import isalive
from qtpy.QtWidgets import QWidget
from vispy.scene import SceneCanvas
from vispy.visuals import CompoundVisual, Visual

__all__ = ["Canvas"]


class Canvas:
    """The canvas of a viewer in a window.

    Parameters
    ----------
    viewer : napari viewer
        Or a proxy of one.

    Raises
    ------
    ValueError
        If this napari keeps its canvas elsewhere.
    """

    def __init__(self, viewer: Any) -> None:
        # A proxy of napari's warns at each private name; what it wraps is the viewer.
        viewer = getattr(viewer, "__wrapped__", viewer)
        try:
            self._canvas = viewer.window._qt_viewer.canvas
            self.scene: SceneCanvas = self._canvas._scene_canvas
            self.widget: QWidget = self._canvas.native
        except AttributeError as error:
            raise ValueError(
                f"Got a napari that does not show where its canvas is ({error}), expected one that a curtain can be "
                "drawn over: compare by Flip, or use another version of napari."
            ) from error

    @property
    def alive(self) -> bool:
        """Whether the window is still there."""
        return isalive(self.widget)

    def visuals(self, layer: Layer) -> list[Visual]:
        """Return what is drawn of ``layer`` now, several for an image larger than a texture.

        napari exchanges them when it goes from 2D to 3D and when the shape of the slice changes, so ask anew before
        each draw.
        """
        drawn = self._canvas.layer_to_visual.get(layer)
        if drawn is None:
            return []
        return list(drawn.node._subvisuals) if isinstance(drawn.node, CompoundVisual) else [drawn.node]

    def blend_as_lowest(self, layer: Layer) -> None:
        """Blend ``layer`` with black, not with the background, as napari does with the lowest visible layer.

        It lasts until the visibility or the order of any layer changes.
        """
        drawn = self._canvas.layer_to_visual[layer]
        if not drawn.first_visible:
            drawn.first_visible = True
            drawn._on_blending_change()

    def blend_as_usual(self) -> None:
        """Blend each layer as its place in the list tells."""
        self._canvas._reorder_layers()
