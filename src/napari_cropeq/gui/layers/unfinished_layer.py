"""Unfinished stores that were opened as layers, and the source and model to resume them with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_cropeq.errors import MissingFileError
from napari_cropeq.formats.image import Image as Source
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.paths import is_url
from napari_cropeq.gui.layers.source import source_of
from napari_cropeq.store.unfinished import Unfinished

if TYPE_CHECKING:
    from napari_cropeq.core.model import Model

__all__ = ["UNFINISHED", "remove_stale", "resume_from", "source_in_place", "unfinished_in", "unfinished_layers"]

UNFINISHED = "unfinished"
"""Key in a layer's metadata for the folder that it shows."""


def unfinished_in(viewer: Any) -> Unfinished | None:
    """Return the unfinished store that is open as a layer, a selected one if there are several."""
    layers = unfinished_layers(viewer)
    layers.sort(key=lambda layer: layer not in viewer.layers.selection)
    for layer in layers:
        try:
            store = Unfinished.open(str(_folder(layer)))
        except ValueError:
            continue
        if store is not None:
            return store
    return None


def resume_from(viewer: Any, store: Unfinished) -> tuple[Image, Model]:
    """Return the source layer and the model of an unfinished store; open the source if needed.

    Raises
    ------
    ValueError, OSError
        If the source cannot be found, or the model cannot be read.
    """
    from napari_cropeq.core.model import Model  # files open without torch

    model = Model.load(store.model_path)
    return _find(viewer, store) or _open(viewer, store), model


def unfinished_layers(viewer: Any) -> list[Image]:
    """Return the layers that show unfinished stores."""
    return [layer for layer in viewer.layers if _folder(layer) is not None]


def remove_stale(viewer: Any) -> None:
    """Remove layers of stores that are now complete, and therefore have other names."""
    for layer in unfinished_layers(viewer):
        if not Path(str(_folder(layer))).exists():
            viewer.layers.remove(layer)


def _folder(layer: Any) -> str | None:
    folder = layer.metadata.get(UNFINISHED)
    return None if folder is None else str(folder)


def _find(viewer: Any, store: Unfinished) -> Image | None:
    """Return the layer that has the name and shape of the source."""
    for layer in viewer.layers:
        if not isinstance(layer, Image) or "napari-cropeq" in layer.metadata:
            continue
        data = layer.data[0] if layer.multiscale else layer.data
        if layer.name == store.source.get("name") and list(data.shape) == list(store.source.get("shape", ())):
            return layer
    return None


def source_in_place(store: Unfinished) -> Source:
    """Return the source of an unfinished store, with all channels, from its original location.

    Raises
    ------
    ValueError, OSError
        If it no longer exists or cannot be read.
    """
    path = store.source.get("path")
    if not path or not (is_url(path) or Path(path).exists()):
        raise _missing(store, "Put the image back there")
    return open_image(path, store.source.get("missing"), store.source.get("scene"))


def _open(viewer: Any, store: Unfinished) -> Image:
    path, before = store.source.get("path"), set(viewer.layers)
    missing = _missing(store, "Open the image, or put it back there,")
    if not path or not (is_url(path) or Path(path).exists()):
        raise missing
    viewer.open(path, plugin="napari-cropeq")
    layer = _find(viewer, store)
    if layer is None:
        for added in set(viewer.layers) - before:
            viewer.layers.remove(added)
        raise missing
    source_of(layer)
    return layer


def _missing(store: Unfinished, remedy: str) -> MissingFileError:
    """Return the error for a source that cannot be found."""
    path, name = store.source.get("path"), store.source.get("name")
    where = f", expected at {path}, is not there" if path else " is not open"
    return MissingFileError(
        f"The source of {store.folder.name}, the image '{name}'{where}.", f"{remedy} and press Resume again."
    )
