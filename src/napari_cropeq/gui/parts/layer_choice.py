"""The choice of the layer for a dock widget."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import ComboBox
from napari.layers import Image, Layer

__all__ = ["LayerChoice", "layer_events"]


class LayerChoice(ComboBox):
    """Offers the layers that can be a source; follows the viewer until :meth:`stop_following`.

    Parameters
    ----------
    viewer : napari viewer
        Whose layers are offered.
    """

    null_string = "none: open or choose a 3D image"  # magicgui's is a line

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        super().__init__(
            label="Layer", choices=lambda _: self.sources(), nullable=True, tooltip="The acquired 3D image"
        )
        self._choose()
        for event in layer_events(viewer):
            event.connect(self._on_layers)

    def sources(self) -> list[Layer]:
        """Return the layers that can be chosen: images in grey levels, no results of super-resolution."""
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image) and not layer.rgb]
        return [layer for layer in images if "napari-cropeq" not in layer.metadata]

    def stop_following(self) -> None:
        """Disconnect from the viewer."""
        for event in layer_events(self._viewer):
            event.disconnect(self._on_layers)

    def _on_layers(self) -> None:
        """Update the choices; the chosen layer stays chosen."""
        had = self.value
        self.reset_choices()
        if had is None:
            self._choose()

    def _choose(self) -> None:
        """Choose a selected layer, or else the first."""
        sources = self.sources()
        selected = [layer for layer in self._viewer.layers.selection if layer in sources]
        if sources:
            self.value = (selected or sources)[0]


def layer_events(viewer: Any) -> tuple[Any, ...]:
    """Return the events after which the choice of layers has to be updated."""
    events = viewer.layers.events
    return events.inserted, events.removed, events.reordered, events.renamed
