"""The file that a result is saved to."""

from __future__ import annotations

import os
from pathlib import Path

from napari.layers import Layer

from napari_cropeq.gui.files.field import FileField
from napari_cropeq.run.naming import PATTERN, stem_of

__all__ = ["Destination"]


class Destination(FileField):
    """Field for the name of a result; proposes one beside the file of the layer until the user chooses another."""

    def __init__(self) -> None:
        tooltip = "The file to save to, .ome.zarr or .ome.tif. Empty: keep the result in memory"
        super().__init__("results", "w", label="Destination", tooltip=tooltip)
        self._proposed: Path | None = None

    def propose(self, layer: Layer | None) -> None:
        """Propose the name of a result of a layer; none if it is of no file, or no file can be written there."""
        if self.path != self._proposed:
            return
        source = None if layer is None or layer.source.path is None else Path(layer.source.path)
        usable = source is not None and source.parent.is_dir() and os.access(source.parent, os.W_OK)
        self._proposed = source.with_name(PATTERN.format(name=stem_of(source.name)) + ".ome.zarr") if usable else None
        self.value = self._proposed
