"""The images that a batch would take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_cropeq.formats.find import find_images
from napari_cropeq.formats.image import Source, acquisition_of, open_source
from napari_cropeq.gui.layers.source import source_of
from napari_cropeq.run.batch import Item
from napari_cropeq.run.naming import stem_of

__all__ = ["ImageList"]


@dataclass(frozen=True, slots=True)
class ImageList:
    """Images, and what is known of the first for the example of a name."""

    items: tuple[Item, ...] = ()
    known: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_layers(cls, layers: Sequence[Any]) -> ImageList:
        """List layers."""
        known = {"name": layers[0].name} | _factor(lambda: source_of(layers[0])) if layers else {}
        return cls(tuple(Item(layer.name, layer.name) for layer in layers), known)

    @classmethod
    def of_files(cls, words: Sequence[Path]) -> ImageList:
        """List what a folder, a pattern or files stand for; slow where a folder is.

        Raises
        ------
        ValueError
            If there is nothing.
        """
        paths = find_images(words)
        known = {"name": stem_of(paths[0].name), "folder": paths[0].parent.name}
        known |= _factor(lambda: open_source(paths[0]))
        return cls(tuple(Item(str(path), path.name) for path in paths), known)

    @property
    def text(self) -> str:
        """How many there are, in words."""
        return "1 image." if len(self.items) == 1 else f"{len(self.items)} images." if self.items else ""


def _factor(opened: Callable[[], Source]) -> dict[str, Any]:
    """Return the factor and type of an image; nothing of what cannot be read."""
    try:
        source = opened()
        return {"factor": acquisition_of(source).factor, "dtype": str(source.data.dtype)}
    except Exception:  # noqa: BLE001 (what is wrong with it is told once the batch is run)
        return {}
