"""The choice of the region for a 3D preview."""

from __future__ import annotations

from typing import Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Shapes

from napari_cropeq.gui.layers.viewport import corners_of
from napari_cropeq.gui.parts.layer_choice import layer_events

__all__ = ["RegionChoice"]

CAMERA = "around the camera's centre"


class RegionChoice(ComboBox):
    """Offers the camera's centre and the shapes layers; follows the viewer until :meth:`stop_following`.

    Parameters
    ----------
    viewer : napari viewer
        Whose layers are offered.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        super().__init__(
            label="3D region",
            choices=lambda _: self._regions(),
            tooltip="Region of the preview in 3D: around the camera's centre, or the last shape of a shapes layer",
        )
        for event in layer_events(viewer):
            event.connect(self._on_layers)

    def corners(self) -> np.ndarray | None:
        """Return the world coordinates (n, ndim) of the corners of the last shape drawn in the chosen layer."""
        layer = self.value
        return corners_of(self._viewer, layer.data[-1], layer) if layer is not None and len(layer.data) else None

    def stop_following(self) -> None:
        """Disconnect from the viewer."""
        for event in layer_events(self._viewer):
            event.disconnect(self._on_layers)

    def _regions(self) -> list[tuple[str, Shapes | None]]:
        return [(CAMERA, None), *((la.name, la) for la in self._viewer.layers if isinstance(la, Shapes))]

    def _on_layers(self) -> None:
        self.reset_choices()
