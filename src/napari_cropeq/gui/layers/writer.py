"""File > Save: image and labels layers as OME-TIFF or OME-Zarr, with all metadata that napari has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from napari.utils.colormaps import ensure_colormap

from napari_cropeq.errors import AccessError, ImageError, OutputExistsError
from napari_cropeq.formats.image import check_volume
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.write import write_image
from napari_cropeq.gui.jobs import sentence
from napari_cropeq.gui.layers.place import AxesOf, axes_of, place_of
from napari_cropeq.gui.layers.source import SPLIT, lazy_array
from napari_cropeq.gui.session import is_complete

__all__ = ["write_ome_tiff", "write_ome_zarr"]

OURS = "napari-cropeq"
LayerData = tuple[Any, Mapping[str, Any], str]


@dataclass(frozen=True)
class _Image:
    """A layer, prepared for writing."""

    data: da.Array  # the finest level, in the order of `info.axes`
    info: ImageInfo
    finest: Any  # the layer's own array
    ours: bool  # whether the layer was made by this plugin


def write_ome_tiff(path: str, layer_data: Sequence[LayerData]) -> list[str]:
    """Write layers as the channels of one OME-TIFF; return its path in a list.

    Parameters
    ----------
    path : str
        A name without a suffix gets ``.ome.tif``.
    layer_data : sequence of (data, attributes, type)
        Image layers or labels layers, of one shape and place if there are several.

    Raises
    ------
    OSError
        If the file cannot store the layers, or cannot be written.
    """
    return _save(Path(path), layer_data, ".ome.tif")


def write_ome_zarr(path: str, layer_data: Sequence[LayerData]) -> list[str]:
    """Write layers as the channels of one OME-Zarr with its pyramid; return its path in a list.

    Parameters
    ----------
    path : str
        A name without a suffix gets ``.ome.zarr``.
    layer_data : sequence of (data, attributes, type)
        Image layers or labels layers, of one shape and place if there are several.

    Raises
    ------
    OSError
        If the file cannot store the layers, or cannot be written.
    """
    return _save(Path(path), layer_data, ".ome.zarr")


def _save(path: Path, layer_data: Sequence[LayerData], suffix: str) -> list[str]:
    # napari takes a ValueError to mean that there is no writer, and discards its message.
    try:
        images = [_image_of(*layer) for layer in layer_data]
        path = _named(path, suffix)
        _check_complete(images)
        data, info = _joined(images)
        if path.suffix.lower() != ".zarr":
            _check_tiff(data, info)
        write_image(data, path, info, lambda: _check_complete(images))
    except ValueError as error:
        raise AccessError(sentence(error)) from error
    return [str(path)]


def _named(path: Path, suffix: str) -> Path:
    """Return the path to write to; a path from napari's dialog may lack the suffix of the chosen type."""
    if path.name.lower().endswith((".ome.tif", ".ome.tiff", ".zarr")):
        return path
    stem = path.stem if path.suffix.lower() in (".tif", ".tiff") else path.name
    named = path.with_name(stem + suffix)
    if named.exists():  # the dialog did not ask whether to replace it
        raise OutputExistsError(
            f"{path.name} would be saved as {named.name}, which exists already.", "Choose another name."
        )
    return named


def _image_of(data: Any, meta: Mapping[str, Any], kind: str) -> _Image:
    """Return a layer as an image.

    Raises
    ------
    ImageError
        If it is not a volume, or OME files cannot store its transform.
    """
    name = str(meta.get("name", kind))
    if meta.get("rgb"):
        raise ImageError(f"'{name}' is an RGB layer, which has several intensities per voxel.", SPLIT)
    finest = data[0] if meta.get("multiscale") else data
    check_volume(finest, name)
    if finest.ndim > 5:
        raise ImageError(
            f"'{name}' is a {finest.ndim}D layer, but a file has only z, y, x and at most time and channel.",
            "Save parts of it.",
        )
    axes = axes_of(meta, finest.ndim, name)
    place = place_of(meta, axes, name)
    metadata = meta.get("metadata") or {}
    source = metadata.get("source")
    prefix = f"{source.get('name')} " if isinstance(source, Mapping) else ""
    ours = metadata.get(OURS)
    info = ImageInfo(
        axes=axes.ordered,
        voxel_size=place.voxel_size,
        unit=place.unit,
        translate=place.translate,
        name=name,
        channel_names=() if "c" in axes.ordered else (name.removeprefix(prefix),),
        channel_colors=() if kind == "labels" or "c" in axes.ordered else (_color(meta.get("colormap")),),
        time_step=place.time_step,
        time_unit=place.time_unit,
        labels=kind == "labels",
        provenance=ours if isinstance(ours, Mapping) else {},
    )
    return _Image(_transposed(lazy_array(finest), axes), info, finest, OURS in metadata)


def _transposed(data: da.Array, axes: AxesOf) -> da.Array:
    return data if axes.order == tuple(range(data.ndim)) else data.transpose(axes.order)


def _color(colormap: Any) -> str | None:
    """Return the end colour of a colormap that starts at black; OME stores no other colormaps."""
    if colormap is None:
        return None
    found = colormap["colors"] if isinstance(colormap, Mapping) else ensure_colormap(colormap).colors
    colors = np.asarray(found, float)
    if len(colors) != 2 or colors[0, :3].any():
        return None
    return "#" + "".join(f"{round(255 * value):02x}" for value in colors[1, :3])


def _check_complete(images: Sequence[_Image]) -> None:
    """Raise an error for SR layers with missing tiles, which show interpolation instead."""
    for image in images:
        if image.ours and not is_complete(image.finest):
            raise ImageError(
                f"'{image.info.name}' is a result that is not complete, or its tiles were dropped from memory.",
                "Press Start in Volume and wait until it is complete, or press Save there.",
            )


def _check_tiff(data: da.Array, info: ImageInfo) -> None:
    kinds = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
    if data.dtype.name not in kinds:
        raise ImageError(
            f"'{info.name}' has voxels of the type {data.dtype}, but OME-TIFF stores only {', '.join(kinds)}.",
            "Convert the layer, or save it as .ome.zarr.",
        )


def _joined(images: Sequence[_Image]) -> tuple[da.Array, ImageInfo]:
    """Return layers as the channels of one image.

    Raises
    ------
    ImageError
        If they differ in shape or position.
    """
    first = images[0]
    if len(images) == 1:
        return first.data, first.info
    for image in images[1:]:
        for what, property_of in _COMPARED.items():
            one, other = property_of(first), property_of(image)
            if one != other:
                raise ImageError(
                    f"Several layers become the channels of one file, but '{first.info.name}' and '{image.info.name}' "
                    f"differ in {what} ({one} and {other}).",
                    "Save them one by one.",
                )
    if "c" in first.info.axes:
        raise ImageError(
            f"Several layers become the channels of one file, but these {len(images)} layers already have channels.",
            "Save them one by one.",
        )
    leading = first.info.axes[:-3]
    info = replace(
        first.info,
        axes=f"{leading}czyx",
        channel_names=tuple(name for image in images for name in image.info.channel_names),
        channel_colors=tuple(color for image in images for color in image.info.channel_colors),
        provenance=_provenance(images),
    )
    return da.stack([image.data for image in images], axis=len(leading)), info


def _provenance(images: Sequence[_Image]) -> dict[str, Any]:
    provenances = [dict(image.info.provenance) for image in images]
    return {"channels": provenances} if any(provenances) else {}


_COMPARED: dict[str, Callable[[_Image], Any]] = {
    "shape": lambda image: "×".join(map(str, image.data.shape)),
    "type": lambda image: str(image.data.dtype),
    "kind": lambda image: "labels" if image.info.labels else "image",
    "axes": lambda image: image.info.axes,
    "unit": lambda image: image.info.unit,
    "voxel size": lambda image: _rounded(image.info.voxel_size),
    "position": lambda image: _rounded(image.info.translate),
    "time step": lambda image: _rounded((image.info.time_step,)) + f" {image.info.time_unit}",
}


def _rounded(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.9g}" for value in values)
