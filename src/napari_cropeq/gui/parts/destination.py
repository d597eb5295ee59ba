"""The file that a result is saved to."""

from __future__ import annotations

import os
from pathlib import Path

from magicgui.widgets import FileEdit
from napari.layers import Layer

from napari_cropeq.run.naming import PATTERN, stem_of

__all__ = ["Destination"]


class Destination(FileEdit):
    """Field for the name of a result; proposes one beside the file of the layer until the user chooses another."""

    def __init__(self) -> None:
        super().__init__(
            label="Destination",
            mode="w",
            nullable=True,
            value=None,
            tooltip="The file to save to, .ome.zarr or .ome.tif. Empty: keep the result in memory",
        )
        self._proposed: Path | None = None

    @property
    def path(self) -> Path | None:
        """The chosen file; None for memory."""
        value = self.value
        return None if value is None or not str(value).strip() or str(value) == "." else Path(value)

    def propose(self, layer: Layer | None) -> None:
        """Propose the name of a result of a layer; none if it is of no file, or no file can be written there."""
        if self.path != self._proposed:
            return
        source = None if layer is None or layer.source.path is None else Path(layer.source.path)
        usable = source is not None and source.parent.is_dir() and os.access(source.parent, os.W_OK)
        self._proposed = source.with_name(PATTERN.format(name=stem_of(source.name)) + ".ome.zarr") if usable else None
        self.value = self._proposed
