"""The file that a result is saved to."""

from __future__ import annotations

import os
import re
import weakref
from pathlib import Path

from napari.layers import Layer

from napari_cropeq.formats.paths import is_url
from napari_cropeq.gui.files.field import FileField
from napari_cropeq.run.naming import PATTERN, stem_of

__all__ = ["Destination"]


class Destination(FileField):
    """Field for the name of a result; proposes one beside the file of each layer that is chosen."""

    def __init__(self) -> None:
        tooltip = "The file to save to, .ome.zarr or .ome.tif. Empty: keep the result in memory"
        super().__init__("results", "w", label="Destination", tooltip=tooltip)
        self._proposed: Path | None = None
        self._layer: weakref.ref[Layer] | None = None

    def propose(self, layer: Layer | None) -> None:
        """Propose the name of a result of a layer; none if it is of no file, or no file can be written there.

        What the user chose for the same layer stays; for another one it would replace the result of the first.
        """
        is_new = layer is not (None if self._layer is None else self._layer())
        if not is_new and self.path != self._proposed:
            return
        self._layer = None if layer is None else weakref.ref(layer)
        path = None if layer is None else layer.source.path
        source = None if path is None or is_url(str(path)) else Path(path)
        usable = source is not None and source.parent.is_dir() and os.access(source.parent, os.W_OK)
        self._proposed = source.with_name(_name(source, layer)) if usable else None
        self.value = self._proposed


def _name(source: Path, layer: Layer) -> str:
    """Return the name of a result, with that of the layer if it is one channel of the file."""
    stem = stem_of(source.name)
    whole = layer.name if stem in layer.name else stem if layer.name in stem else f"{stem}_{layer.name}"
    return PATTERN.format(name=re.sub(r"[^\w.-]+", "_", whole).strip("_") if whole != stem else stem) + ".ome.zarr"
