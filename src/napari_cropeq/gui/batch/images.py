"""The list of images of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_cropeq.formats.find import find_images
from napari_cropeq.formats.image import Image, acquisition_of, open_image
from napari_cropeq.gui.layers.source import source_of
from napari_cropeq.run.batch import Item
from napari_cropeq.run.naming import stem_of

__all__ = ["ImageList"]


@dataclass(frozen=True, slots=True)
class ImageList:
    """Images, and fields of the first one for the example of a name."""

    items: tuple[Item, ...] = ()
    known: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_layers(cls, layers: Sequence[Any]) -> ImageList:
        """List layers."""
        known = {"name": layers[0].name} | _factor(lambda: source_of(layers[0])) if layers else {}
        return cls(tuple(Item(layer.name, layer.name) for layer in layers), known)

    @classmethod
    def of_files(cls, chosen: Sequence[Path]) -> ImageList:
        """List the files of a folder, a pattern or a list; may be slow on a network drive.

        Raises
        ------
        ValueError
            If there is no image.
        """
        paths = find_images(chosen)
        known = {"name": stem_of(paths[0].name), "folder": paths[0].parent.name}
        known |= _factor(lambda: open_image(paths[0]))
        return cls(tuple(Item(str(path), path.name) for path in paths), known)

    @property
    def text(self) -> str:
        """The number of images, as text."""
        return "1 image." if len(self.items) == 1 else f"{len(self.items)} images." if self.items else ""


def _factor(opened: Callable[[], Image]) -> dict[str, Any]:
    """Return the factor and the type of an image; nothing if it cannot be read."""
    try:
        source = opened()
        return {"factor": acquisition_of(source).factor, "dtype": str(source.data.dtype)}
    except Exception:  # noqa: BLE001 (the error is shown when the batch runs)
        return {}
