"""File > Save: image and labels layers as OME-TIFF or OME-Zarr, with all that napari knows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from napari.utils.colormaps import ensure_colormap

from napari_cropeq.formats.image import check_volume
from napari_cropeq.formats.metadata import ImageInfo
from napari_cropeq.formats.write import write_image
from napari_cropeq.gui.layers.place import AxesOf, axes_of, place_of
from napari_cropeq.gui.layers.source import lazy_array
from napari_cropeq.gui.session import is_complete

__all__ = ["write_ome_tiff", "write_ome_zarr"]

OURS = "napari-cropeq"
LayerData = tuple[Any, Mapping[str, Any], str]


@dataclass(frozen=True)
class _Image:
    """A layer as what is written of it."""

    data: da.Array  # the finest level, in the order of `info.axes`
    info: ImageInfo
    finest: Any  # the layer's own array
    ours: bool  # whether we made the layer


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
        If there is something that the file cannot hold, or that cannot be written.
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
        If there is something that the file cannot hold, or that cannot be written.
    """
    return _save(Path(path), layer_data, ".ome.zarr")


def _save(path: Path, layer_data: Sequence[LayerData], suffix: str) -> list[str]:
    # napari takes a ValueError to mean that there is no writer, and drops what it says.
    try:
        images = [_image_of(*layer) for layer in layer_data]
        path = _named(path, suffix)
        _check_complete(images)
        data, info = _joined(images)
        if path.suffix.lower() != ".zarr":
            _check_tiff(data, info)
        write_image(data, path, info, lambda: _check_complete(images))
    except ValueError as error:
        raise OSError(str(error)) from error
    return [str(path)]


def _named(path: Path, suffix: str) -> Path:
    """Return where to write: what napari's dialog gives may lack the suffix of the type that was chosen."""
    if path.name.lower().endswith((".ome.tif", ".ome.tiff", ".zarr")):
        return path
    stem = path.stem if path.suffix.lower() in (".tif", ".tiff") else path.name
    named = path.with_name(stem + suffix)
    if named.exists():  # nobody has been asked whether it may be replaced
        raise ValueError(f"Got {path.name}, of which {named.name} is made, which exists: choose another name.")
    return named


def _image_of(data: Any, meta: Mapping[str, Any], kind: str) -> _Image:
    """Return a layer as an image.

    Raises
    ------
    ValueError
        If it is no volume, or lies in the world as no OME file can say.
    """
    name = str(meta.get("name", kind))
    if meta.get("rgb"):
        raise ValueError(f"Got the RGB layer '{name}', expected one intensity a voxel: split its channels first.")
    finest = data[0] if meta.get("multiscale") else data
    check_volume(finest, name)
    if finest.ndim > 5:
        raise ValueError(
            f"Got the {finest.ndim}D layer '{name}', expected z, y, x and at most time and channel: save parts of it."
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
    """Return the colour of a map that goes from black to it, the only ones that OME knows."""
    if colormap is None:
        return None
    found = colormap["colors"] if isinstance(colormap, Mapping) else ensure_colormap(colormap).colors
    colors = np.asarray(found, float)
    if len(colors) != 2 or colors[0, :3].any():
        return None
    return "#" + "".join(f"{round(255 * value):02x}" for value in colors[1, :3])


def _check_complete(images: Sequence[_Image]) -> None:
    """Refuse SR layers that show interpolation where a tile is missing."""
    for image in images:
        if image.ours and not is_complete(image.finest):
            raise ValueError(
                f"Got the layer '{image.info.name}', of which not every tile is known to be computed, expected a whole "
                "result: press Start in the Volume widget and wait for its end, or press Save there."
            )


def _check_tiff(data: da.Array, info: ImageInfo) -> None:
    kinds = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
    if data.dtype.name not in kinds:
        raise ValueError(
            f"Got {data.dtype} voxels in '{info.name}', expected one of {', '.join(kinds)}, which OME-TIFF can hold: "
            "convert the layer, or save it as .ome.zarr."
        )


def _joined(images: Sequence[_Image]) -> tuple[da.Array, ImageInfo]:
    """Return layers as the channels of one image.

    Raises
    ------
    ValueError
        If they are not of one shape and place.
    """
    first = images[0]
    if len(images) == 1:
        return first.data, first.info
    for image in images[1:]:
        for what, say in _COMPARED.items():
            one, other = say(first), say(image)
            if one != other:
                raise ValueError(
                    f"Got '{first.info.name}' and '{image.info.name}', which differ in {what} ({one} and {other}), "
                    "expected layers alike, which become the channels of one file: save them one by one."
                )
    if "c" in first.info.axes:
        raise ValueError(
            f"Got {len(images)} layers with channels of their own, expected one such layer: save them one by one."
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
    told = [dict(image.info.provenance) for image in images]
    return {"channels": told} if any(told) else {}


_COMPARED: dict[str, Callable[[_Image], Any]] = {
    "shape": lambda image: "×".join(map(str, image.data.shape)),
    "type": lambda image: str(image.data.dtype),
    "kind": lambda image: "labels" if image.info.labels else "image",
    "axes": lambda image: image.info.axes,
    "unit": lambda image: image.info.unit,
    "voxel size": lambda image: _rounded(image.info.voxel_size),
    "place": lambda image: _rounded(image.info.translate),
    "time step": lambda image: _rounded((image.info.time_step,)) + f" {image.info.time_unit}",
}


def _rounded(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.9g}" for value in values)
