"""The choice of the layer that a dock widget works on."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import ComboBox
from napari.layers import Image, Labels, Layer

__all__ = ["LayerChoice", "layer_events"]


class LayerChoice(ComboBox):
    """Offers the layers that can be a source; follows the viewer until :meth:`let_go`.

    Parameters
    ----------
    viewer : napari viewer
        Whose layers are offered.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        super().__init__(label="Layer", choices=lambda _: self.sources(), nullable=True, tooltip="The acquired volume")
        self._choose()
        for event in layer_events(viewer):
            event.connect(self._on_layers)

    def sources(self) -> list[Layer]:
        """Return what can be chosen; results are no sources."""
        kinds = (Image, Labels)
        return [la for la in self._viewer.layers if isinstance(la, kinds) and "napari-cropeq" not in la.metadata]

    def let_go(self) -> None:
        """Follow the viewer no longer."""
        for event in layer_events(self._viewer):
            event.disconnect(self._on_layers)

    def _on_layers(self) -> None:
        """Offer what there is now; a layer that is chosen stays so."""
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
    """Return the events after which other layers, or other names, are to be offered."""
    events = viewer.layers.events
    return events.inserted, events.removed, events.reordered, events.renamed
