"""Unfinished stores that were opened as layers, and what they are gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Image

from napari_cropeq.core.model import Model
from napari_cropeq.formats.image import Source, open_source
from napari_cropeq.gui.layers.source import source_of
from napari_cropeq.store.unfinished import Unfinished

__all__ = ["UNFINISHED", "remove_stale", "resume_from", "source_in_place", "unfinished_in", "unfinished_layers"]

UNFINISHED = "unfinished"
"""Where a layer's metadata say which folder it shows."""


def unfinished_in(viewer: Any) -> Unfinished | None:
    """Return the unfinished store that is open as a layer, the one that is selected if there are several."""
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
    """Return the source layer and the model that a store was begun with, opening the source where it is not.

    Raises
    ------
    ValueError, OSError
        If the source cannot be found, or the model not be read.
    """
    model = Model.load(store.model_path)
    return _find(viewer, store) or _open(viewer, store), model


def unfinished_layers(viewer: Any) -> list[Image]:
    """Return the layers that show unfinished stores."""
    return [layer for layer in viewer.layers if _folder(layer) is not None]


def remove_stale(viewer: Any) -> None:
    """Remove layers of stores that are unfinished no more: they have other names now."""
    for layer in unfinished_layers(viewer):
        if not Path(str(_folder(layer))).exists():
            viewer.layers.remove(layer)


def _folder(layer: Any) -> str | None:
    folder = layer.metadata.get(UNFINISHED)
    return None if folder is None else str(folder)


def _find(viewer: Any, store: Unfinished) -> Image | None:
    """Return the layer of the source's name and shape."""
    for layer in viewer.layers:
        if not isinstance(layer, Image) or "napari-cropeq" in layer.metadata:
            continue
        data = layer.data[0] if layer.multiscale else layer.data
        if layer.name == store.source.get("name") and list(data.shape) == list(store.source.get("shape", ())):
            return layer
    return None


def source_in_place(store: Unfinished) -> Source:
    """Return the source that a store was begun from, all channels, from where it was.

    Raises
    ------
    ValueError, OSError
        If it is not there any more, or cannot be read.
    """
    path = store.source.get("path")
    if not path or not Path(path).exists():
        raise _missing(store, "in its place: put it there")
    return open_source(path)


def _open(viewer: Any, store: Unfinished) -> Image:
    path, before = store.source.get("path"), set(viewer.layers)
    missing = _missing(store, "to be open or in its place: open it")
    if not path or not Path(path).exists():
        raise missing
    viewer.open(path, plugin="napari-cropeq")
    layer = _find(viewer, store)
    if layer is None:
        for added in set(viewer.layers) - before:
            viewer.layers.remove(added)
        raise missing
    source_of(layer)
    return layer


def _missing(store: Unfinished, wanted: str) -> ValueError:
    """Return what is told where the source that a store was begun from is not as ``wanted``."""
    path, name = store.source.get("path"), store.source.get("name")
    where = f" of {path}" if path else ""
    return ValueError(
        f"Got {store.folder.name}, which was begun from '{name}'{where}, expected that image {wanted} and press Resume "
        "again."
    )
