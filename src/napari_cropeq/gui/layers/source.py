"""napari layers as sources, and the transform of a result. Only this file converts between the two."""

from __future__ import annotations

import weakref
from typing import Any

import dask.array as da
import numpy as np
from napari.layers import Image, Layer
from napari.utils.transforms import Affine

from napari_cropeq.core.geometry import Acquisition, check_voxel_size
from napari_cropeq.errors import ArgumentError, ImageError, VoxelSizeError
from napari_cropeq.formats.chunk_cache import thread_safe
from napari_cropeq.formats.image import Image as Source
from napari_cropeq.formats.image import check_volume
from napari_cropeq.formats.watch.chunks import watched
from napari_cropeq.gui.layers.axes import check_axes

__all__ = [
    "WATCH",
    "appearance",
    "check_layer",
    "finest",
    "result_transform",
    "set_unit",
    "set_voxel_size",
    "source_key",
    "source_of",
    "unit_of",
    "voxel_size_of",
]

SPLIT = "Split its channels first: right-click the layer and choose Split RGB."

WATCH = "napari-cropeq-watch"
"""Key in a layer's metadata for the watch over its files."""

_tokens: weakref.WeakKeyDictionary[Image, tuple[Any, object]] = weakref.WeakKeyDictionary()


def check_layer(layer: Layer | None) -> Image:
    """Return ``layer`` if it is a volume that can be super-resolved.

    Raises
    ------
    ValueError
        If it is not an image, is RGB, has fewer than three or more than five axes, or axes that are labelled in another
        order than t, c, z, y, x, no real voxels, or units that differ among z, y and x.
    """
    if layer is None:
        raise ArgumentError("No layer is chosen.", "Open a 3D image and choose it.")
    if not isinstance(layer, Image):
        kind = type(layer).__name__.lower()
        raise ArgumentError(f"'{layer.name}' is a {kind} layer, not an image layer.", "Choose a 3D image layer.")
    if layer.rgb:
        raise ImageError(f"'{layer.name}' is an RGB layer, which has several intensities per voxel.", SPLIT)
    if not 3 <= layer.ndim <= 5:
        raise ImageError(
            f"'{layer.name}' is a {layer.ndim}D layer, but an image needs the axes z, y, x and at most two more before "
            "them.",
            "Choose another layer.",
        )
    check_axes(layer)
    check_volume(finest(layer), layer.name)
    units = [str(u) for u in layer.units[-3:]]
    if len(set(units)) > 1:
        raise VoxelSizeError(
            f"'{layer.name}' has different units along z, y, x ({', '.join(units)}).",
            "Give the layer one unit for all.",
        )
    return layer


def finest(layer: Image) -> Any:
    """Return the layer's array, or its finest level."""
    return layer.data[0] if layer.multiscale else layer.data


def source_key(layer: Image) -> tuple[Any, ...]:
    """Return a key of a layer's voxels and transform, which changes with new data or when the layer is moved."""
    maps = (layer.scale, layer.translate, layer.rotate, layer.shear, layer.affine.affine_matrix)
    place = np.concatenate([np.ravel(m) for m in maps]).tobytes()
    data = finest(layer)
    known, token = _tokens.get(layer, (lambda: None, None))
    if known() is not data:  # the id of deleted data may be reused
        token = object()
        _tokens[layer] = weakref.ref(data), token
    return layer.unique_id, token, place, str(layer.units), layer.axis_labels


def linear_map(layer: Layer) -> np.ndarray:
    """Return the matrix (3, 3) from steps along z, y, x in data to world coordinates, affine included."""
    data = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear, ndim=layer.ndim).linear_matrix
    return (layer.affine.linear_matrix @ data)[-3:, -3:]


def voxel_size_of(layer: Layer) -> tuple[float, float, float]:
    """Return the distances between voxel centres along z, y, x, in the layer's unit."""
    z, y, x = (float(v) for v in np.linalg.norm(linear_map(layer), axis=0))
    return z, y, x


def set_voxel_size(layer: Layer, voxel_size: tuple[float, float, float]) -> None:
    """Correct the layer's scale so that voxels lie ``voxel_size`` (z, y, x) apart.

    Raises
    ------
    ValueError
        If the sizes are not positive, finite numbers; the layer is not changed.
    """
    check_voxel_size(voxel_size)
    scale = np.array(layer.scale, float)
    scale[-3:] *= np.array(voxel_size) / np.array(voxel_size_of(layer))
    if not np.allclose(scale, layer.scale, rtol=1e-9):
        layer.scale = scale


def unit_of(layer: Layer) -> str:
    """Return the short name of the unit of z, y, x; ``pixel`` if the file of the layer stored none."""
    return f"{layer.units[-1]:~P}"


def set_unit(layer: Layer, unit: str) -> None:
    """Correct the unit of z, y, x; the numbers are not converted."""
    if unit != unit_of(layer):
        layer.units = (*(str(u) for u in layer.units[:-3]), *[unit] * 3)


def source_of(layer: Layer | None) -> Source:
    """Return the layer's data as a lazy source, with all of its levels.

    Raises
    ------
    ValueError
        As :func:`check_layer`, or if the voxel size is not finite.
    """
    image = check_layer(layer)
    data = lazy_array(finest(image))
    size = voxel_size_of(image)
    check_voxel_size(size)
    z, y, x = (float(t) for t in image.translate[-3:])
    known = {} if isinstance(finest(image), np.ndarray) else image.metadata  # of the file that is read
    ours = known.get("source", {}) if WATCH in known else {}  # other readers have their own metadata
    path = ours.get("path") or image.source.path  # the first is that of a field, not of its plate
    return Source(
        data=data,
        axes=check_axes(image) + "zyx",
        voxel_size=size,
        unit=str(image.units[-1]),
        translate=(z, y, x),
        name=image.name,
        path=None if path is None else str(path),
        coarser=tuple(lazy_array(level) for level in image.data[1:]) if image.multiscale else (),
        watch=known.get(WATCH),
        missing=ours.get("missing"),
        scene=ours.get("scene", ""),
    )


def lazy_array(data: Any) -> da.Array:
    """Return an array, or the array of an xarray.DataArray, as a Dask array with suitable chunks."""
    data = data.data if hasattr(data, "dims") and hasattr(data, "coords") else data
    if isinstance(data, da.Array):
        return thread_safe(data)
    chunks = getattr(data, "chunks", None) or (*(1,) * (data.ndim - 2), *data.shape[-2:])
    return da.from_array(watched(data), chunks=chunks, name=False)


def appearance(layer: Image) -> dict[str, Any]:
    """Return the display settings of a layer, for another layer with the same intensities."""
    return {
        "contrast_limits": tuple(layer.contrast_limits),
        "colormap": layer.colormap,
        "gamma": layer.gamma,
        "blending": layer.blending,
    }


def result_transform(layer: Image, acquisition: Acquisition) -> dict[str, Any]:
    """Return scale, translate, rotate, shear, affine, units and axis labels of an SR layer over ``layer``.

    The axial scale is divided by the factor. Both grids cover the same extent, so the translation moves by their
    half-voxel difference, rotated and sheared as the layer.
    """
    axial = layer.ndim - 3 + acquisition.axial
    scale = np.array(layer.scale, float)
    offset = np.zeros(layer.ndim)
    offset[-3:] = acquisition.sr_offset
    linear = Affine(scale=scale, rotate=layer.rotate, shear=layer.shear, ndim=layer.ndim).linear_matrix
    scale[axial] /= acquisition.factor
    return {
        "scale": scale,
        "translate": np.array(layer.translate, float) + linear @ offset,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine.affine_matrix,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }
