"""Convert the data of a user to an image: an array of any kind, an opened image, an xarray.DataArray, or a path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from napari_cropeq.api.arguments import axial_index, length, voxel_size_of
from napari_cropeq.core.geometry import Acquisition
from napari_cropeq.errors import ImageError, VoxelSizeError, WrongTypeError
from napari_cropeq.formats.chunk_cache import lazy_array, thread_safe
from napari_cropeq.formats.image import Image, acquisition_of, check_volume
from napari_cropeq.formats.metadata import PIXEL, calibrated, full_unit, timing
from napari_cropeq.formats.open import open_image
from napari_cropeq.formats.watch.chunks import watched

__all__ = ["image_of", "sampled"]

AXES = {3: "zyx", 4: "czyx", 5: "tczyx"}
NAMES = {"time": "t", "channel": "c", "ch": "c"} | {axis: axis for axis in "tczyx"}
"""Known names of dimensions, in lower case."""

NAME_THEM = "Name the dimensions t, c, z, y and x."
UNEVEN = 1e-3  # tolerated deviation of the steps of a coordinate, in steps: some programs write 32-bit numbers


def image_of(data: Any, allow_missing: float | None = None) -> Image:
    """Return a volume of any kind as an image with named axes; no voxel is read.

    Parameters
    ----------
    data : array, Image, xarray.DataArray or path
        An array needs a shape, a dtype and slicing: (z, y, x), (c, z, y, x) or (t, c, z, y, x).
    allow_missing : float, optional
        For a path, as in :func:`~napari_cropeq.formats.open.open_image`.

    Raises
    ------
    WrongTypeError
        If it is none of these.
    ValueError, OSError
        If it is not a volume, or the file cannot be read.
    """
    if isinstance(data, Image):
        return data
    if isinstance(data, (str, os.PathLike)):
        return open_image(data, allow_missing)
    if hasattr(data, "dims") and hasattr(data, "coords"):
        return _from_xarray(data)
    if not (hasattr(data, "shape") and hasattr(data, "dtype") and hasattr(data, "__getitem__")):
        raise WrongTypeError(
            f"The argument data is of type {type(data).__name__}.",
            "Give an array, an Image, an xarray.DataArray, or the path of a file.",
            setting="data",
        )
    check_volume(data, "data")
    ndim = len(data.shape)
    if ndim not in AXES:
        raise ImageError(
            f"The data have {ndim} axes.", "Give (z, y, x), (c, z, y, x) or (t, c, z, y, x).", setting="data"
        )
    return Image(_lazy(data), AXES[ndim], None, PIXEL, (0.0, 0.0, 0.0), "array")


def sampled(
    data: Any,
    voxel_size: Any,
    axial: str | int | None,
    fwhm: Any = None,
    lateral_fwhm: Any = 0.0,
    allow_missing: float | None = None,
) -> tuple[Image, Acquisition]:
    """Return data as an image, and its acquisition; the arguments are those of :func:`~.train.train`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or this method cannot improve the acquisition.
    OSError
        If the file cannot be read.
    """
    size, axis, lateral = voxel_size_of(voxel_size), axial_index(axial), length("lateral_fwhm", lateral_fwhm)
    width = None if fwhm is None else length("fwhm", fwhm)
    image = image_of(data, allow_missing)
    if size is None and image.voxel_size is None:
        raise VoxelSizeError(
            "The data do not contain the voxel size.",
            "Give the steps between voxels along (z, y, x).",
            setting="voxel_size",
        )
    return image, acquisition_of(image, size, axis, width, lateral)


def _lazy(data: Any) -> da.Array:
    """Return an array as a Dask array, in its own chunks, or in planes if it has none."""
    if isinstance(data, da.Array):
        return thread_safe(data)
    shape = tuple(int(length) for length in data.shape)
    chunks = getattr(data, "chunks", None) or (*(1,) * (len(shape) - 2), *shape[-2:])
    return lazy_array(watched(data), tuple(chunks))


def _from_xarray(array: Any) -> Image:
    """Return an image of an xarray.DataArray, or an object like it; the voxel size is that of its coordinates."""
    dims = {}  # our name of each axis: its name in the array
    for dim, count in zip(array.dims, array.shape, strict=True):
        axis = NAMES.get(str(dim).lower())
        if axis is not None and axis not in dims:
            dims[axis] = dim
        elif count != 1:
            raise ImageError(f"The dimension {dim!r} of the data is not known.", NAME_THEM, setting="data")
    missing = [axis for axis in "zyx" if axis not in dims]
    if missing:
        raise ImageError(f"The data have no dimension {missing[0]}.", NAME_THEM, setting="data")
    axes = "".join(axis for axis in "tczyx" if axis in dims)
    kept = [array.dims.index(dims[axis]) for axis in axes]
    lazy = _lazy(array.data)
    others = tuple(number for number in range(lazy.ndim) if number not in kept)
    lazy = da.transpose(lazy, (*others, *kept))[(0,) * len(others)]
    check_volume(lazy, "data")

    along = {axis: _Coordinate.of(array.coords, dims[axis]) for axis in axes}
    spatial = [along[axis] for axis in "zyx"]
    units = [full_unit(coordinate.unit) for coordinate in spatial]
    size, unit = calibrated([coordinate.step(axis) for axis, coordinate in zip("zyx", spatial, strict=True)], units)
    first: tuple[float, ...] = (0.0, 0.0, 0.0)
    if size is not None:
        first = tuple(s * c.first / c.step(a) for s, a, c in zip(size, "zyx", spatial, strict=True))  # type: ignore[operator]
    time_step, time_unit = timing(along["t"].step("t"), along["t"].unit) if "t" in along else (1.0, PIXEL)
    names = along["c"].values if "c" in along else None
    source = Image(
        lazy,
        axes,
        None,
        unit,
        (first[0], first[1], first[2]),
        str(array.name or "array") if hasattr(array, "name") else "array",
        channel_names=() if names is None else tuple(map(str, names)),
        time_step=time_step,
        time_unit=time_unit,
    )
    return source if size is None else source.with_voxel_size(size)


class _Coordinate:
    """Positions of the samples along one dimension, and their unit."""

    def __init__(self, values: npt.NDArray[Any] | None, unit: object) -> None:
        self.values, self.unit = values, unit

    @classmethod
    def of(cls, coords: Mapping[Any, Any], dim: object) -> _Coordinate:
        """Return the coordinate of a dimension; if there is none, one without values."""
        if dim not in coords:
            return cls(None, "")
        coordinate = coords[dim]
        attributes = getattr(coordinate, "attrs", {})
        values = np.asarray(getattr(coordinate, "values", coordinate))
        return cls(values, attributes.get("units", attributes.get("unit", "")))

    @property
    def first(self) -> float:
        """Position of the first sample; only if there is a step."""
        assert self.values is not None
        return float(self.values[0])

    def step(self, axis: str) -> float | None:
        """Return the distance between samples; None if the coordinate is not numeric.

        Raises
        ------
        ImageError
            If they are not evenly spaced, or decrease.
        """
        values = self.values
        if values is None or values.ndim != 1 or len(values) < 2 or values.dtype.kind not in "iuf":
            return None
        steps = np.diff(values.astype(np.float64))
        step = float(steps.mean())
        if not step > 0:
            raise ImageError(
                f"The coordinates of the data along {axis} do not increase.",
                f"Sort the array along {axis}.",
                setting="data",
            )
        if np.abs(steps - step).max() > UNEVEN * step:
            raise ImageError(
                f"The coordinates of the data along {axis} are not evenly spaced.",
                f"Resample the array along {axis}.",
                setting="data",
            )
        return step
