"""The list of images of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_cropeq.formats.find import find_images
from napari_cropeq.formats.image import Image, acquisition_of
from napari_cropeq.formats.open import label_of, name_of
from napari_cropeq.gui.layers.source import source_of
from napari_cropeq.run.batch import Item, open_input

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
    def of_files(
        cls, chosen: Sequence[Path], assumed: tuple[tuple[float, float, float], str] | None
    ) -> Iterator[ImageList]:
        """Yield the files of a folder, a pattern or a list, then again after each that cannot be processed as it is.

        Slow on a network drive, since every file is opened.

        Parameters
        ----------
        chosen : sequence of path
            The files.
        assumed : ((z, y, x), str), optional
            Voxel size and unit of files that store none.

        Raises
        ------
        ValueError
            If there is no image.
        """
        paths = find_images(chosen)
        known = {"name": name_of(paths[0]), "folder": Path(paths[0]).parent.name}
        known |= _factor(lambda: open_input(paths[0], assumed))
        items = [Item(str(path), label_of(path)) for path in paths]
        yield cls(tuple(items), known)
        for number, path in enumerate(paths):
            try:
                acquisition_of(open_input(path, assumed))
            except Exception as error:  # noqa: BLE001 (it is shown in the row of the file)
                items[number] = replace(items[number], error=error.with_traceback(None))
                yield cls(tuple(items), known)

    @property
    def text(self) -> str:
        """The number of images, and of those that cannot be processed as they are, as text."""
        wrong = sum(item.error is not None for item in self.items)
        count = "1 image." if len(self.items) == 1 else f"{len(self.items)} images." if self.items else ""
        return f"{count} {wrong} cannot be processed as {'it is' if wrong == 1 else 'they are'}." if wrong else count


def _factor(opened: Callable[[], Image]) -> dict[str, Any]:
    """Return the factor and the type of an image; nothing if it cannot be read."""
    try:
        source = opened()
        return {"factor": acquisition_of(source).factor, "dtype": str(source.data.dtype)}
    except Exception:  # noqa: BLE001 (the error is shown when the batch runs)
        return {}
